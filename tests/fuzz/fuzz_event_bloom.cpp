/*
 * The Bloom filter by own times on a stream of few ids, each with a time of its own or none, at times of arrival that
 * jump, beside a map of when each was last observed.
 *
 * - An id observed within the window is never called fresh, and `contains` has it.
 * - The first id is fresh.
 * - The state does not depend on how the stream was cut into calls.
 */
#include <map>
#include <vector>

#include "event_bloom.h"
#include "fuzz.h"

namespace {

constexpr size_t IDS_MAX = 512;

struct Shape {
    uint32_t blocks, late_blocks, window, lateness;
    uint64_t list_max;
    int64_t slice_ms;

    uint32_t slots() const {
        return window + lateness + EM_EVENT_BLOOM_EARLY + EM_EVENT_BLOOM_SPARE;
    }
};

/* A stream: ids, their times of arrival, and their own times. */
struct Stream {
    std::vector<uint8_t> ids;
    std::vector<int64_t> at, own;
};

struct Filter {
    struct alignas(64) Block {
        uint64_t words[EM_EVENT_BLOOM_WORDS];
    };
    std::vector<Block> blocks;
    std::vector<uint8_t> cells;
    std::vector<uint64_t> lists, ids, waiting;
    em_event_bloom bloom = {};

    explicit Filter(const Shape &shape)
        : blocks((size_t)shape.slots() * shape.blocks), cells(shape.late_blocks * EM_BLOOM_CELLS),
          lists(shape.slots() * shape.list_max + 1), ids(shape.slots()), waiting(shape.slots()) {
        bloom.words = blocks[0].words;
        bloom.lists = lists.data();
        bloom.ids = ids.data();
        bloom.waiting = waiting.data();
        bloom.list_max = shape.list_max;
        bloom.slice_ms = shape.slice_ms;
        bloom.blocks = shape.blocks;
        bloom.window = shape.window;
        bloom.lateness = shape.lateness;
        bloom.slots = shape.slots();
        bloom.slice = EM_BLOOM_NO_SLICE;
        bloom.late.cells = cells.data();
        bloom.late.blocks = shape.late_blocks;
        bloom.late.key[0] = 1;
        bloom.late.key[1] = 2;
        bloom.late.slices = EM_BLOOM_SLICES_MAX;
        bloom.late.slice_ms = (shape.window * shape.slice_ms + EM_BLOOM_SLICES_MAX - 1) / EM_BLOOM_SLICES_MAX;
        bloom.late.slice = EM_BLOOM_NO_SLICE;
    }
    std::vector<uint8_t> observe(const Stream &stream, size_t begin, size_t end) {
        fuzz::Exact some(stream.ids.data() + begin * EM_BLOOM_ID_BYTES, (end - begin) * EM_BLOOM_ID_BYTES);
        std::vector<uint8_t> fresh(end - begin);
        if (end > begin)
            em_event_bloom_observe(&bloom, some.data(), stream.at.data() + begin, 1, stream.own.data() + begin, 1,
                                   end - begin, fresh.data());
        CHECK(bloom.swept <= bloom.blocks && bloom.late.swept <= bloom.late.blocks);
        return fresh;
    }
    bool same(const Filter &other) const {
        return std::memcmp(blocks.data(), other.blocks.data(), blocks.size() * sizeof blocks[0]) == 0 &&
               cells == other.cells && lists == other.lists && ids == other.ids && waiting == other.waiting &&
               bloom.slice == other.bloom.slice && bloom.latest == other.bloom.latest &&
               bloom.swept == other.bloom.swept && bloom.late.slice == other.bloom.late.slice &&
               bloom.late.swept == other.bloom.late.swept;
    }
};

int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz::Input input(data, size);
    Shape shape;
    shape.blocks = (uint32_t)input.between(1, 8);
    shape.late_blocks = (uint32_t)input.between(1, 8);
    shape.window = (uint32_t)input.between(1, 12);
    shape.lateness = (uint32_t)input.between(0, 4);
    shape.list_max = input.between(0, 4);
    shape.slice_ms = (int64_t)input.between(1, 100);
    int64_t now = (int64_t)input.number(8) >> 3;
    Stream stream;
    std::map<unsigned, int64_t> own_of;
    std::vector<size_t> cuts;
    while (!input.empty() && stream.at.size() < IDS_MAX) {
        uint8_t id[EM_BLOOM_ID_BYTES] = {}, step = input.byte();
        id[step & 15] = input.byte();
        stream.ids.insert(stream.ids.end(), id, id + sizeof id);
        /* Mostly forwards by less than a slice, now and then far, or back. */
        int64_t by = step >> 6 == 3 ? (int64_t)(int16_t)input.number(2) : (step >> 4 & 3) * shape.slice_ms / 2;
        now += now + by < (1LL << 60) && now + by > -(1LL << 60) ? by : 0;
        stream.at.push_back(now);
        const unsigned name = (step & 15u) << 8 | id[step & 15];
        if (!own_of.count(name)) {
            uint8_t kind = input.byte();
            int64_t away = (int64_t)(int8_t)input.byte() * shape.slice_ms / 4;
            own_of[name] = kind % 8 == 0 ? EM_NO_OWN_TIME : kind % 8 == 1 ? (int64_t)input.number(8) : now + away;
        }
        stream.own.push_back(own_of[name]);
        if (step >> 6 == 2)
            cuts.push_back(stream.at.size());
    }
    cuts.push_back(stream.at.size());

    Filter whole(shape), cut(shape);
    std::vector<uint8_t> fresh = whole.observe(stream, 0, stream.at.size()), pieces;
    size_t begin = 0;
    for (size_t end : cuts) {
        std::vector<uint8_t> piece = cut.observe(stream, begin, end);
        pieces.insert(pieces.end(), piece.begin(), piece.end());
        begin = end;
    }
    CHECK(pieces == fresh && cut.same(whole));

    /* Ids by their bytes: those of different names may be the same (all zeroes), and then have two own times. */
    std::map<std::pair<std::vector<uint8_t>, int64_t>, int64_t> last;
    int64_t slice = INT64_MIN;
    for (size_t i = 0; i < stream.at.size(); i++) {
        int64_t of_row = floor_divide(stream.at[i], shape.slice_ms);
        slice = of_row > slice ? of_row : slice;
        auto id = std::make_pair(std::vector<uint8_t>(stream.ids.begin() + (long)(i * EM_BLOOM_ID_BYTES),
                                                      stream.ids.begin() + (long)((i + 1) * EM_BLOOM_ID_BYTES)),
                                 stream.own[i]);
        auto found = last.find(id);
        if (found != last.end() && slice - found->second <= (int64_t)shape.window)
            CHECK(!fresh[i]);
        CHECK(i > 0 || fresh[i]);
        last[id] = slice;
    }
    for (const auto &[id, of_id] : last) {
        uint8_t seen;
        em_event_bloom_contains(&whole.bloom, id.first.data(), &id.second, 1, 1, &seen);
        CHECK(seen || slice - of_id > (int64_t)shape.window);
    }
    return 0;
}
