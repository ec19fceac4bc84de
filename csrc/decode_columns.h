/*
 * Arrow columns that grow by row, and their hand-over by the Arrow C data interface without a copy.
 *
 * A text column's length is its last offset, so taking rows back costs nothing. Growth throws std::bad_alloc or
 * TooLarge; nothing that was appended is lost by it.
 */
#ifndef EVENTMILL_DECODE_COLUMNS_H
#define EVENTMILL_DECODE_COLUMNS_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <memory>

#include "decode.h"
#include "decode_walk.h"
#include "decode_words.h"

#pragma GCC visibility push(hidden) /* calls within the kernel need no indirection */
namespace em {

constexpr size_t COLUMN_BYTES_MAX = size_t(1) << 30; /* offsets are 32 bits wide */
constexpr size_t COPY_BYTES = 64; /* short texts are copied whole, unseen: sources have PADDING behind */

struct TooLarge {};

/* A word is a text of a dictionary column. */
enum class Layout : uint8_t { text, optional_text, word, optional_word, id, int64, optional_int64, int32 };

struct Column {
    Layout layout;
    int32_t *offsets = nullptr; /* text: rows + 1 */
    uint8_t *data = nullptr;
    size_t capacity = 0;      /* bytes of data */
    uint8_t *valid = nullptr; /* bitmap of an optional column */
    std::unique_ptr<Words> words;
    size_t words_marked = 0;
    size_t first_capacity = 0; /* for text: what the last hand-over needed */
};

/* What does not depend on the number of columns. */
class TableBase {
  public:
    size_t rows = 0;

    /* Where truncate() goes back to. */
    void mark();
    void truncate();

    template <class T> T *values(size_t column) {
        return reinterpret_cast<T *>(columns_[column].data);
    }
    Bytes text(size_t column, size_t row) const {
        const Column &c = columns_[column];
        return {c.data + c.offsets[row], (size_t)(c.offsets[row + 1] - c.offsets[row])};
    }

    /* Room for one more row in every column's fixed parts. */
    void reserve_row() {
        room_ = 0;
        if (rows == row_capacity_)
            grow_rows();
    }

    /* Room for one more row, and for texts of up to `bytes` in every column: what place() and place_optional() need. */
    void reserve(size_t bytes) {
        if (rows == row_capacity_)
            grow_rows();
        if (room_ < bytes + COPY_BYTES)
            find_room(bytes + COPY_BYTES);
        room_ -= bytes + COPY_BYTES;
    }

    /* Where the new row's text of at most `length` bytes goes; finish with set_text. */
    uint8_t *text_space(size_t column, size_t length) {
        Column &c = columns_[column];
        size_t used = (size_t)c.offsets[rows];
        if (c.capacity - used < length + COPY_BYTES)
            grow_text(c, used, length + COPY_BYTES);
        return c.data + used;
    }
    void set_text(size_t column, size_t length) {
        Column &c = columns_[column];
        c.offsets[rows + 1] = c.offsets[rows] + (int32_t)length;
    }

    /* `source` is readable for COPY_BYTES. */
    void put(size_t column, Bytes source) {
        uint8_t *to = text_space(column, source.length);
        std::memcpy(to, source.data, COPY_BYTES);
        if (source.length > COPY_BYTES)
            std::memcpy(to + COPY_BYTES, source.data + COPY_BYTES, source.length - COPY_BYTES);
        set_text(column, source.length);
    }

    void set_valid(size_t column, size_t row, bool valid) {
        uint8_t &bits = columns_[column].valid[row >> 3];
        uint8_t bit = (uint8_t)(1u << (row & 7));
        bits = valid ? bits | bit : bits & (uint8_t)~bit;
    }
    bool is_valid(size_t column, size_t row) const {
        return columns_[column].valid[row >> 3] >> (row & 7) & 1;
    }

    /* Into what was reserved. `source` is readable for COPY_BYTES beyond its end. */
    void place(size_t column, Bytes source) {
        Column &c = columns_[column];
        uint8_t *to = c.data + c.offsets[rows];
        constexpr size_t HALF = COPY_BYTES / 2; /* most texts are shorter */
        std::memcpy(to, source.data, HALF);
        for (size_t done = HALF; done < source.length; done += HALF)
            std::memcpy(to + done, source.data + done, HALF);
        set_text(column, source.length);
    }
    void place_optional(size_t column, Bytes source) {
        set_valid(column, rows, source.data != nullptr);
        if (source.data)
            place(column, source);
        else
            set_text(column, 0);
    }

    /* A source as place() takes it; no data: null. */
    void put_word(size_t column, Bytes source) {
        values<int32_t>(column)[rows] = columns_[column].words->number_of(source);
    }
    void put_optional_word(size_t column, Bytes source) {
        set_valid(column, rows, source.data != nullptr);
        values<int32_t>(column)[rows] = source.data ? columns_[column].words->number_of(source) : 0;
    }

    /* No data: null. */
    void put_optional(size_t column, Bytes source) {
        set_valid(column, rows, source.data != nullptr);
        if (source.data)
            put(column, source);
        else
            set_text(column, 0);
    }
    void put_time(size_t column, int64_t ms, bool valid) {
        set_valid(column, rows, valid);
        values<int64_t>(column)[rows] = valid ? ms : 0;
    }

    /* In complete rows from `first` on, the text's last byte gives way to tail(row), unless that is empty. */
    template <class Tail> void replace_ends(size_t column, size_t first, Tail &&tail) {
        Column &c = columns_[column];
        size_t growth = 0;
        for (size_t row = first; row < rows; row++) {
            size_t length = tail(row).length;
            growth += length ? length - 1 : 0;
        }
        size_t end = (size_t)c.offsets[rows], new_end = end + growth;
        if (c.capacity - end < growth + COPY_BYTES)
            grow_text(c, end, growth + COPY_BYTES);
        for (size_t row = rows; row-- > first;) {
            Bytes added = tail(row);
            size_t begin = (size_t)c.offsets[row], kept = end - begin - (added.length != 0);
            c.offsets[row + 1] = (int32_t)new_end;
            new_end -= added.length;
            if (added.length)
                std::memcpy(c.data + new_end, added.data, added.length);
            new_end -= kept;
            std::memmove(c.data + new_end, c.data + begin, kept);
            end = begin;
        }
    }

    size_t nbytes() const;

    /* Fills *out with a struct array of all rows, which then owns the buffers; the table is empty and usable. */
    void hand_over(struct ArrowArray *out);

  protected:
    TableBase(Column *columns, size_t count) : columns_(columns), count_(count) {}
    ~TableBase();
    TableBase(const TableBase &) = delete;

  private:
    Column *columns_;
    size_t count_;
    size_t row_capacity_ = 0;
    size_t first_rows_ = 64;
    size_t room_ = 0; /* bytes that every text column has left at least */
    size_t rows_marked_ = 0;

    void grow_rows();
    void find_room(size_t needed);
    static void grow_text(Column &column, size_t used, size_t more);
};

template <size_t N> class Table : public TableBase {
  public:
    /* `seed`: for the hashes of words. */
    Table(const Layout (&layouts)[N], uint64_t seed) : TableBase(columns_, N) {
        for (size_t i = 0; i < N; i++) {
            columns_[i].layout = layouts[i];
            if (layouts[i] == Layout::word || layouts[i] == Layout::optional_word)
                columns_[i].words.reset(new Words(seed));
        }
    }

  private:
    Column columns_[N];
};

} // namespace em
#pragma GCC visibility pop
#endif
