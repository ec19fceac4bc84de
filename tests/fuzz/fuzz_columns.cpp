/*
 * Enrichment and partitioning on a column of short strings, beside comparisons of all with all.
 *
 * - Groups are numbered by first appearance; rows stand by group, in order within each.
 * - A key is found exactly where an equal value is, null never; a key given twice is named.
 * - Kafka's hash reads no byte beyond the key.
 */
#include <string>
#include <vector>

#include "enrich.h"
#include "fuzz.h"
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
    return 0;
}
