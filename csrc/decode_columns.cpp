#include "decode_columns.h"

#include <cstdlib>
#include <new>

namespace em {
namespace {

constexpr size_t ID_BYTES = 16;
constexpr size_t TEXT_BYTES_MIN = 1024, RESERVE_BYTES = 16384;

size_t width(Layout layout) {
    switch (layout) {
    case Layout::id:
        return ID_BYTES;
    case Layout::int64:
    case Layout::optional_int64:
        return sizeof(int64_t);
    case Layout::int32:
    case Layout::word:
    case Layout::optional_word:
        return sizeof(int32_t);
    default:
        return 0;
    }
}

bool is_text(Layout layout) {
    return layout == Layout::text || layout == Layout::optional_text;
}

bool is_optional(Layout layout) {
    return layout == Layout::optional_text || layout == Layout::optional_word || layout == Layout::optional_int64;
}

template <class T> void resize(T *&memory, size_t count) {
    void *grown = std::realloc(memory, count * sizeof(T));
    if (!grown)
        throw std::bad_alloc();
    memory = static_cast<T *>(grown);
}

int64_t count_nulls(const uint8_t *valid, size_t rows) {
    int64_t set = 0;
    size_t whole = rows / 64 * 8;
    for (size_t i = 0; i < whole; i += 8) {
        uint64_t word;
        std::memcpy(&word, valid + i, sizeof word);
        set += __builtin_popcountll(word);
    }
    for (size_t i = whole; i < rows / 8; i++)
        set += __builtin_popcount(valid[i]);
    if (rows % 8)
        set += __builtin_popcount(valid[rows / 8] & ((1u << rows % 8) - 1));
    return (int64_t)rows - set;
}

/* A text column's capacity for about as much as `used` bytes in `rows`: an eighth more, and room to reserve several
 * rows. */
size_t enough_for(size_t used, size_t rows) {
    size_t more = rows * COPY_BYTES;
    return used + used / 8 + (more < RESERVE_BYTES ? more : RESERVE_BYTES) + COPY_BYTES;
}

/* One column in the consumer's hands, with its dictionary if it has one. */
struct Shared {
    const void *buffers[3];
    struct ArrowArray dictionary;
    const void *dictionary_buffers[3];
};

void release_column(struct ArrowArray *array) {
    Shared *shared = static_cast<Shared *>(array->private_data);
    for (const void *buffer : shared->buffers)
        std::free(const_cast<void *>(buffer));
    if (shared->dictionary.release)
        shared->dictionary.release(&shared->dictionary);
    std::free(shared);
    array->release = nullptr;
}

void release_dictionary(struct ArrowArray *array) {
    const void **buffers = array->buffers;
    std::free(const_cast<void *>(buffers[1]));
    std::free(const_cast<void *>(buffers[2]));
    array->release = nullptr;
}

/* A copy of the words in `shared`. Throws std::bad_alloc. */
void share_dictionary(const Words &words, Shared &shared) {
    int32_t *offsets = nullptr;
    uint8_t *data = nullptr;
    resize(offsets, words.offsets().size());
    shared.dictionary_buffers[1] = offsets;
    shared.dictionary.buffers = shared.dictionary_buffers;
    shared.dictionary.release = release_dictionary; /* from here on release_column frees all that is there */
    resize(data, words.data().size() + 1);
    shared.dictionary_buffers[2] = data;
    std::memcpy(offsets, words.offsets().data(), words.offsets().size() * sizeof *offsets);
    if (!words.data().empty())
        std::memcpy(data, words.data().data(), words.data().size());
    shared.dictionary.length = (int64_t)words.count();
    shared.dictionary.n_buffers = 3;
}

/* What the struct array itself owns. */
struct SharedTable {
    const void *validity;
    struct ArrowArray **pointers;
    struct ArrowArray *children;
};

void free_table(SharedTable *shared) {
    if (shared) {
        std::free(shared->pointers);
        std::free(shared->children);
        std::free(shared);
    }
}

void release_table(struct ArrowArray *array) {
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release)
            array->children[i]->release(array->children[i]);
    free_table(static_cast<SharedTable *>(array->private_data));
    array->release = nullptr;
}

/* All memory that a hand-over of `count` columns needs, so that it cannot fail half-way; null when there is none. */
SharedTable *allocate_table(const Column *columns, size_t count) {
    auto *table = static_cast<SharedTable *>(std::calloc(1, sizeof(SharedTable)));
    if (!table)
        return nullptr;
    table->pointers = static_cast<struct ArrowArray **>(std::calloc(count, sizeof(struct ArrowArray *)));
    table->children = static_cast<struct ArrowArray *>(std::calloc(count, sizeof(struct ArrowArray)));
    bool enough = table->pointers && table->children;
    for (size_t i = 0; enough && i < count; i++) {
        Shared *shared = static_cast<Shared *>(std::calloc(1, sizeof(Shared)));
        table->children[i].private_data = shared;
        enough = shared != nullptr;
        try {
            if (enough && columns[i].words)
                share_dictionary(*columns[i].words, *shared);
        } catch (const std::bad_alloc &) {
            enough = false;
        }
    }
    if (enough)
        return table;
    for (size_t i = 0; table->children && i < count; i++)
        if (table->children[i].private_data)
            release_column(&table->children[i]);
    free_table(table);
    return nullptr;
}

} // namespace

TableBase::~TableBase() {
    for (size_t i = 0; i < count_; i++) {
        std::free(columns_[i].offsets);
        std::free(columns_[i].data);
        std::free(columns_[i].valid);
    }
}

void TableBase::grow_rows() {
    size_t grown = row_capacity_ ? row_capacity_ * 2 : first_rows_;
    for (size_t i = 0; i < count_; i++) {
        Column &c = columns_[i];
        if (is_optional(c.layout))
            resize(c.valid, grown / 8 + 1);
        if (!is_text(c.layout)) {
            resize(c.data, grown * width(c.layout));
            continue;
        }
        resize(c.offsets, grown + 1);
        if (row_capacity_ == 0)
            c.offsets[0] = 0;
        if (!c.data) {
            size_t first = c.first_capacity < TEXT_BYTES_MIN ? TEXT_BYTES_MIN : c.first_capacity;
            resize(c.data, first);
            c.capacity = first;
        }
    }
    row_capacity_ = grown;
}

void TableBase::grow_text(Column &c, size_t used, size_t more) {
    if (more > COLUMN_BYTES_MAX || used + more > COLUMN_BYTES_MAX)
        throw TooLarge{};
    size_t grown = c.capacity * 2 > used + more ? c.capacity * 2 : used + more;
    resize(c.data, grown);
    c.capacity = grown;
}

void TableBase::find_room(size_t needed) {
    room_ = COLUMN_BYTES_MAX;
    for (size_t i = 0; i < count_; i++) {
        Column &c = columns_[i];
        if (!is_text(c.layout))
            continue;
        size_t used = (size_t)c.offsets[rows];
        if (c.capacity - used < needed)
            grow_text(c, used, needed);
        if (c.capacity - used < room_)
            room_ = c.capacity - used;
    }
}

void TableBase::mark() {
    rows_marked_ = rows;
    for (size_t i = 0; i < count_; i++)
        if (columns_[i].words)
            columns_[i].words_marked = columns_[i].words->count();
}

void TableBase::truncate() {
    rows = rows_marked_;
    for (size_t i = 0; i < count_; i++)
        if (columns_[i].words)
            columns_[i].words->truncate(columns_[i].words_marked);
}

size_t TableBase::nbytes() const {
    size_t total = 0;
    if (row_capacity_ == 0)
        return 0;
    for (size_t i = 0; i < count_; i++) {
        const Column &c = columns_[i];
        total += is_text(c.layout) ? (size_t)c.offsets[rows] + rows * sizeof(int32_t) : rows * width(c.layout);
        total += is_optional(c.layout) ? rows / 8 : 0;
        total += c.words ? c.words->nbytes() : 0;
    }
    return total;
}

void TableBase::hand_over(struct ArrowArray *out) {
    if (row_capacity_ == 0)
        grow_rows();
    SharedTable *table = allocate_table(columns_, count_);
    if (!table)
        throw std::bad_alloc();
    for (size_t i = 0; i < count_; i++) {
        Column &c = columns_[i];
        struct ArrowArray &array = table->children[i];
        Shared *shared = static_cast<Shared *>(array.private_data);
        bool text = is_text(c.layout);
        shared->buffers[0] = c.valid;
        shared->buffers[1] = text ? static_cast<const void *>(c.offsets) : c.data;
        shared->buffers[2] = text ? c.data : nullptr;
        array.length = (int64_t)rows;
        array.null_count = c.valid ? count_nulls(c.valid, rows) : 0;
        array.n_buffers = text ? 3 : 2;
        array.buffers = shared->buffers;
        array.release = release_column;
        array.dictionary = c.words ? &shared->dictionary : nullptr;
        table->pointers[i] = &array;
        /* The next batch is likely as large: no copies while it grows, no pages touched that it does not need. */
        if (text)
            c.first_capacity = enough_for((size_t)c.offsets[rows], rows);
        if (c.words)
            c.words->clear();
        c.offsets = nullptr;
        c.data = nullptr;
        c.valid = nullptr;
        c.capacity = 0;
    }
    *out = {};
    out->length = (int64_t)rows;
    out->n_buffers = 1;
    out->n_children = (int64_t)count_;
    out->buffers = &table->validity;
    out->children = table->pointers;
    out->release = release_table;
    out->private_data = table;
    first_rows_ = (rows + rows / 8 + 64) / 64 * 64;
    rows = row_capacity_ = room_ = 0;
    mark();
}

} // namespace em
