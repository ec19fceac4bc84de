/*
 * Enrichment, partitioning and gathering on a column of short strings, beside comparisons of all with all.
 *
 * - Groups are numbered by first appearance; rows stand by group, in order within each.
 * - A key is found exactly where an equal value is, null never; a key given twice is named.
 * - Rows picked are the rows' own strings, values and bits, in the order asked for, of a column in parts too; nothing
 * else is read or written.
 * - Kafka's hash reads no byte beyond the key.
 */
#include <string>
#include <vector>

#include "enrich.h"
#include "fuzz.h"
#include "gather.h"
#include "gather_parts.h"
#include "partition.h"

namespace {

constexpr size_t STRINGS_MAX = 200;
constexpr int32_t MISSING = -7;
const std::array<uint8_t, EM_SECRET_BYTES> SECRET = fuzz::secret();

struct Strings {
    std::vector<std::string> values;
    std::vector<int32_t> offsets{0};
    std::string data;

    void add(const std::string &value) {
        values.push_back(value);
        data += value;
        offsets.push_back((int32_t)data.size());
    }
};

/* The column in memory of exactly its size. */
struct Column {
    fuzz::Exact bytes;
    em_strings strings;

    explicit Column(const Strings &from)
        : bytes(from.data.data(), from.data.size()), strings{from.offsets.data(), bytes.data()} {}
};

struct Table {
    std::vector<em_slot> slots;
    em_table table;

    explicit Table(size_t strings) : slots((strings / EM_TABLE_LINE + 1) * EM_TABLE_LINE) {
        table = {slots.data(), slots.size(), SECRET.data()};
    }
};

size_t first_of(const std::vector<std::string> &values, const std::string &wanted) {
    size_t at = 0;
    while (at < values.size() && values[at] != wanted)
        at++;
    return at;
}

void check_partition(const Strings &rows) {
    size_t n = rows.values.size();
    Column column(rows);
    Table table(n);
    std::vector<int32_t> groups(n), firsts(n), order(n);
    size_t count = em_groups(&table.table, column.strings, n, groups.data(), firsts.data());
    size_t distinct = 0;
    for (size_t row = 0; row < n; row++) {
        size_t first = first_of(rows.values, rows.values[row]);
        if (first == row) {
            CHECK(groups[row] == (int32_t)distinct);
            CHECK(firsts[distinct++] == (int32_t)row);
        }
        CHECK(groups[row] == groups[first]);
    }
    CHECK(count == distinct);
    std::vector<int64_t> starts(count + 1);
    em_group_order(groups.data(), n, count, starts.data(), order.data());
    CHECK(starts[0] == 0 && starts[count] == (int64_t)n);
    for (size_t group = 0; group < count; group++)
        for (int64_t at = starts[group]; at < starts[group + 1]; at++) {
            CHECK(groups[(size_t)order[(size_t)at]] == (int32_t)group);
            CHECK(at == starts[group] || order[(size_t)at - 1] < order[(size_t)at]);
        }
}

void check_enrich(const Strings &keys, const Strings &rows, uint64_t nulls, size_t skipped) {
    Column key_column(keys), row_column(rows);
    Table table(keys.values.size());
    std::vector<int32_t> numbers, found(rows.values.size());
    size_t twice = keys.values.size();
    for (size_t i = 0; i < keys.values.size(); i++) {
        numbers.push_back((int32_t)(i / 2));
        if (twice == keys.values.size() && first_of(keys.values, keys.values[i]) != i)
            twice = i;
    }
    int64_t answer = em_dimension_build(&table.table, key_column.strings, numbers.data(), numbers.size());
    CHECK(answer == (twice == keys.values.size() ? -1 : (int64_t)twice));
    if (answer >= 0)
        return;
    std::vector<uint8_t> bits((skipped + rows.values.size() + 7) / 8);
    auto is_null = [nulls](size_t row) { return nulls >> (row % 64) & 1; };
    for (size_t row = 0; row < rows.values.size(); row++)
        bits[(skipped + row) / 8] |= (uint8_t)(!is_null(row) << (skipped + row) % 8);
    em_dimension_find(&table.table, row_column.strings, nulls ? bits.data() : nullptr, skipped, found.size(), MISSING,
                      found.data());
    for (size_t row = 0; row < found.size(); row++) {
        size_t key = first_of(keys.values, rows.values[row]);
        bool there = key < keys.values.size() && !is_null(row);
        CHECK(found[row] == (there ? numbers[key] : is_null(row) ? MISSING + 1 : MISSING));
    }
}

/* Rows in runs (of one, often), each beginning at some row. */
void check_gather(const Strings &rows, uint64_t picks) {
    size_t n = rows.values.size();
    std::vector<int32_t> chosen;
    while (n && chosen.size() < STRINGS_MAX && picks) {
        size_t row = picks % n, run = picks % 3 ? 1 : picks % 11;
        for (picks /= 7; run > 0 && row < n; run--)
            chosen.push_back((int32_t)row++);
    }
    em_rows picked = {chosen.data(), chosen.size(), 0};
    CHECK(em_gather_look(&picked, n) == 1);
    Column column(rows);
    std::vector<int32_t> offsets(chosen.size() + 1);
    int64_t total = em_gather_offsets(picked, column.strings, offsets.data());
    std::string expected;
    for (size_t i = 0; i < chosen.size(); i++) {
        CHECK(offsets[i] == (int32_t)expected.size());
        CHECK(i == 0 || picked.runs > 0);
        expected += rows.values[(size_t)chosen[i]];
    }
    CHECK(total == (int64_t)expected.size() && offsets.back() == (int32_t)total);
    std::vector<uint8_t> bytes((size_t)total + EM_GATHER_PADDING);
    em_gather_strings(picked, column.strings, column.bytes.size(), (size_t)total, bytes.data());
    CHECK(total == 0 || std::memcmp(bytes.data(), expected.data(), expected.size()) == 0);

    for (size_t width = 1; width <= 16; width++) {
        size_t count = rows.data.size() / width;
        std::vector<uint8_t> values(chosen.size() * width);
        em_rows inside = picked;
        fuzz::Exact exact(rows.data.data(), count * width);
        if (!em_gather_look(&inside, count))
            continue;
        int known = em_gather_fixed(inside, exact.data(), width, values.data());
        CHECK(known == ((width & (width - 1)) == 0));
        for (size_t i = 0; known && i < chosen.size(); i++)
            CHECK(std::memcmp(&values[i * width], exact.data() + (size_t)chosen[i] * width, width) == 0);
    }
    for (size_t skipped = 0; skipped < 9 && skipped + n <= column.bytes.size() * 8; skipped++) {
        fuzz::Exact exact(column.bytes.data(), (skipped + n + 7) / 8);
        std::vector<uint8_t> bits((chosen.size() + 7) / 8);
        size_t set = 0;
        size_t count = em_gather_bits(picked, exact.data(), skipped, bits.data());
        for (size_t i = 0; i < chosen.size(); i++) {
            size_t bit = skipped + (size_t)chosen[i];
            CHECK((bits[i / 8] >> i % 8 & 1) == (exact.data()[bit / 8] >> bit % 8 & 1));
            set += bits[i / 8] >> i % 8 & 1;
        }
        CHECK(count == set);
    }
}

/* The same of the strings of three parts, one of them empty, which rows are numbered through. */
void check_parts(const Strings &first, const Strings &last, uint64_t picks) {
    const Strings none;
    const Strings *columns[] = {&first, &none, &last};
    std::vector<Column> memory;
    std::vector<em_part> parts;
    std::vector<int32_t> starts, chosen;
    std::vector<std::string> values;
    memory.reserve(3);
    for (const Strings *column : columns) {
        starts.push_back((int32_t)values.size());
        values.insert(values.end(), column->values.begin(), column->values.end());
        memory.emplace_back(*column);
        parts.push_back({memory.back().strings, memory.back().bytes.size()});
    }
    for (; !values.empty() && picks; picks /= 5)
        chosen.push_back((int32_t)(picks % values.size()));
    em_rows picked = {chosen.data(), chosen.size(), 0};
    CHECK(em_gather_look(&picked, values.size()) == 1);
    std::vector<em_place> places(chosen.size());
    em_gather_places(picked, starts.data(), starts.size(), places.data());
    std::vector<int32_t> offsets(chosen.size() + 1);
    int64_t total = em_gather_parts_offsets(places.data(), places.size(), parts.data(), offsets.data());
    std::string expected;
    for (size_t i = 0; i < chosen.size(); i++) {
        CHECK(offsets[i] == (int32_t)expected.size());
        expected += values[(size_t)chosen[i]];
    }
    CHECK(total == (int64_t)expected.size() && offsets.back() == (int32_t)total);
    std::vector<uint8_t> bytes((size_t)total + EM_GATHER_PADDING);
    em_gather_parts_strings(places.data(), places.size(), parts.data(), (size_t)total, bytes.data());
    CHECK(total == 0 || std::memcmp(bytes.data(), expected.data(), expected.size()) == 0);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz::Input input(data, size);
    uint64_t nulls = input.number(8);
    size_t skipped = input.between(0, 40);
    Strings columns[2];
    while (!input.empty() && columns[1].values.size() < STRINGS_MAX && columns[0].values.size() < STRINGS_MAX) {
        uint8_t kind = input.byte();
        std::string value(kind & 15, (char)input.byte());
        for (unsigned i = 0; i < (kind >> 4 & 3); i++)
            value += (char)input.byte();
        if (kind >> 6 == 3)
            value = std::string(300, 'l') + value;
        columns[kind >> 6 & 1].add(value);
        fuzz::Exact exact(value.data(), value.size());
        em_murmur2(exact.data(), exact.size());
    }
    check_partition(columns[0]);
    check_enrich(columns[1], columns[0], nulls, skipped);
    check_gather(columns[0], nulls);
    check_gather(columns[1], nulls >> skipped);
    check_parts(columns[0], columns[1], nulls);
    return 0;
}
