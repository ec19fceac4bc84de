/*
 * JSON text against programs of any shape. The input's first bytes make a program, the rest are rows, one a line.
 *
 * - Nothing outside a row is read, whatever its bytes are.
 * - A row's answer and its deferred strings are the same alone, among others, and chosen by number.
 * - Deferred strings lie within their row, rows ascending; without room for them a row does not pass.
 * - A number taken as exact is the one that strtod reads.
 */
#include <string>
#include <vector>

#include "fuzz.h"
extern "C" {
#include "schema.h"
#include "schema_text.h"
}

namespace {

constexpr uint8_t TEXT[] = "abpricea\nb12";

struct Program {
    std::vector<em_schema_node> nodes;
    std::vector<em_schema_key> keys;
    std::vector<em_schema_value> values;

    explicit Program(fuzz::Input &input) {
        size_t count = input.between(1, 4);
        auto node_or_less = [&](int32_t least) { return (int32_t)input.between(0, count - 1 - least) + least; };
        for (size_t i = 0; i < count; i++) {
            em_schema_node node{};
            node.types = (uint32_t)input.between(0, 127);
            node.rules = (uint32_t)input.number(2) & 8191;
            node.minimum = (double)(int8_t)input.byte();
            node.maximum = (double)(int8_t)input.byte();
            node.multiple = (double)input.between(1, 5);
            node.length_min = (uint32_t)input.between(0, 2);
            node.length_max = (uint32_t)input.between(0, 9);
            node.items_min = (uint32_t)input.between(0, 2);
            node.items_max = (uint32_t)input.between(0, 9);
            node.items = node_or_less(EM_SCHEMA_ANY);
            node.additional = node_or_less(EM_SCHEMA_NONE);
            node.keys = (uint32_t)keys.size();
            node.keys_count = (uint32_t)input.between(0, 3);
            node.required = input.byte() & ((1u << node.keys_count) - 1);
            for (uint32_t key = 0; key < node.keys_count; key++) {
                uint32_t begin = (uint32_t)input.between(0, 5);
                keys.push_back({begin, (uint32_t)input.between(0, 6), node_or_less(EM_SCHEMA_NONE), 0});
            }
            node.values = (uint32_t)values.size();
            node.values_count = (uint32_t)input.between(0, 2);
            for (uint32_t value = 0; value < node.values_count; value++)
                values.push_back({(double)(int8_t)input.byte(), 1u << input.between(0, 5),
                                  (uint32_t)input.between(0, 5), (uint32_t)input.between(0, 6), 0});
            nodes.push_back(node);
        }
    }

    em_schema schema() const {
        return {nodes.data(), keys.data(), values.data(), TEXT};
    }
};

struct Answer {
    std::vector<uint8_t> passes;
    std::vector<std::vector<int32_t>> deferred;
    size_t found;

    Answer(const Program &program, const std::vector<int32_t> &offsets, const uint8_t *data, const int32_t *rows,
           size_t n, size_t room)
        : passes(n, 7), deferred(4, std::vector<int32_t>(room)) {
        em_schema schema = program.schema();
        em_schema_deferred out{deferred[0].data(), deferred[1].data(), deferred[2].data(), deferred[3].data(), room};
        found = em_schema_check(&schema, offsets.data(), data, rows, n, passes.data(), &out);
        CHECK(found <= room);
    }
};

void check_number(const std::string &text) {
    double value;
    fuzz::Exact bytes(text.data(), text.size());
    if (em_exact_number(bytes.data(), bytes.data() + bytes.size(), &value))
        CHECK(value == std::strtod(text.c_str(), nullptr));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz::Input input(data, size);
    Program program(input);
    std::vector<std::string> rows(1);
    while (!input.empty()) {
        char byte = (char)input.byte();
        if (byte == '\n')
            rows.emplace_back();
        else
            rows.back() += byte;
    }
    std::string text;
    std::vector<int32_t> offsets{0};
    for (const std::string &row : rows) {
        text += row;
        offsets.push_back((int32_t)text.size());
        check_number(row);
    }
    size_t n = rows.size(), room = text.size() + 1;
    fuzz::Exact whole(text.data(), text.size());
    Answer all(program, offsets, whole.data(), nullptr, n, room);
    for (size_t i = 0; i < all.found; i++) {
        int32_t row = all.deferred[0][i];
        CHECK(row >= (i ? all.deferred[0][i - 1] : 0) && row < (int32_t)n && all.passes[row] == 1);
        CHECK(all.deferred[1][i] >= 0 && all.deferred[1][i] < (int32_t)program.nodes.size());
        CHECK(offsets[row] <= all.deferred[2][i] && all.deferred[2][i] <= all.deferred[3][i]);
        CHECK(all.deferred[3][i] <= offsets[row + 1]);
    }
    size_t alone = 0;
    for (size_t i = 0; i < n; i++) {
        fuzz::Exact bytes(rows[i].data(), rows[i].size());
        Answer one(program, {0, (int32_t)rows[i].size()}, bytes.data(), nullptr, 1, room);
        CHECK(one.passes[0] == all.passes[i] && one.passes[0] <= 1);
        alone += one.found;
        int32_t number = (int32_t)i;
        Answer chosen(program, offsets, whole.data(), &number, 1, room);
        CHECK(chosen.passes[0] == one.passes[0] && chosen.found == one.found);
        if (one.found) {
            Answer narrow(program, offsets, whole.data(), &number, 1, one.found - 1);
            CHECK(narrow.passes[0] == 0 && narrow.found == 0);
        }
    }
    CHECK(alone == all.found);
    return 0;
}
