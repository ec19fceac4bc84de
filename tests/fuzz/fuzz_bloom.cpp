/*
 * The rotating Bloom filter on a stream of few ids at times that jump, beside a map of when each was last observed.
 *
 * - An id observed within the window is never called fresh, and `contains` has it.
 * - Without any id of the same hash bits before it, an id is fresh.
 * - The state does not depend on how the stream was cut into calls.
 */
#include <map>
#include <vector>

#include "bloom.h"
#include "fuzz.h"

namespace {

constexpr size_t IDS_MAX = 512;

struct Filter {
    std::vector<uint8_t> cells;
    em_bloom bloom = {};

    Filter(uint64_t blocks, uint32_t slices, int64_t slice_ms) : cells(blocks * EM_BLOOM_CELLS) {
        bloom.cells = cells.data();
        bloom.blocks = blocks;
        bloom.key[0] = 1;
        bloom.key[1] = 2;
        bloom.slices = slices;
        bloom.slice_ms = slice_ms;
        bloom.slice = EM_BLOOM_NO_SLICE;
    }
    std::vector<uint8_t> observe(const std::vector<uint8_t> &ids, const std::vector<int64_t> &at, size_t begin,
                                 size_t end) {
        fuzz::Exact some(ids.data() + begin * EM_BLOOM_ID_BYTES, (end - begin) * EM_BLOOM_ID_BYTES);
        std::vector<uint8_t> fresh(end - begin);
        em_bloom_observe(&bloom, some.data(), at.data() + begin, 1, end - begin, fresh.data());
        CHECK(bloom.swept <= bloom.blocks);
        return fresh;
    }
};

int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz::Input input(data, size);
    uint64_t blocks = input.between(1, 64);
    uint32_t slices = (uint32_t)input.between(1, EM_BLOOM_SLICES_MAX);
    int64_t slice_ms = (int64_t)input.between(1, 100);
    int64_t now = (int64_t)input.number(8) >> 3;
    std::vector<uint8_t> ids, known;
    std::vector<int64_t> at;
    std::vector<size_t> cuts;
    while (!input.empty() && at.size() < IDS_MAX) {
        uint8_t id[EM_BLOOM_ID_BYTES] = {}, step = input.byte();
        id[step & 15] = input.byte();
        ids.insert(ids.end(), id, id + sizeof id);
        /* Mostly forwards by less than a slice, now and then far, or back. */
        int64_t by = step >> 6 == 3 ? (int64_t)(int16_t)input.number(2) : (step >> 4 & 3) * slice_ms / 2;
        now += now + by < (1LL << 60) && now + by > -(1LL << 60) ? by : 0;
        at.push_back(now);
        if (step >> 6 == 2)
            cuts.push_back(at.size());
    }
    cuts.push_back(at.size());

    Filter whole(blocks, slices, slice_ms), cut(blocks, slices, slice_ms);
    std::vector<uint8_t> fresh = whole.observe(ids, at, 0, at.size()), pieces;
    size_t begin = 0;
    for (size_t end : cuts) {
        std::vector<uint8_t> piece = cut.observe(ids, at, begin, end);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
        begin = end;
    }
    CHECK(pieces == fresh && cut.cells == whole.cells);
    CHECK(cut.bloom.slice == whole.bloom.slice && cut.bloom.swept == whole.bloom.swept);
    CHECK(std::memcmp(cut.bloom.ids, whole.bloom.ids, sizeof cut.bloom.ids) == 0);

    std::map<std::vector<uint8_t>, int64_t> last;
    int64_t slice = INT64_MIN;
    for (size_t i = 0; i < at.size(); i++) {
        int64_t of_row = floor_divide(at[i], slice_ms);
        slice = of_row > slice ? of_row : slice;
        std::vector<uint8_t> id(ids.begin() + (long)(i * EM_BLOOM_ID_BYTES),
                                ids.begin() + (long)((i + 1) * EM_BLOOM_ID_BYTES));
        auto found = last.find(id);
        if (found != last.end() && slice - found->second <= (int64_t)slices)
            CHECK(!fresh[i]);
        if (i == 0)
            CHECK(fresh[i]);
        last[id] = slice;
    }
    for (const auto &[id, of_id] : last) {
        uint8_t seen;
        em_bloom_contains(&whole.bloom, id.data(), 1, &seen);
        CHECK(seen || slice - of_id > (int64_t)slices);
    }
    return 0;
}
