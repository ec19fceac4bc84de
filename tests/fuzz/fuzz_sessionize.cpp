/*
 * Sessions on a stream of few devices at times that jump.
 *
 * - The ids of a whole data set are those of a sort by device and time, one row after another.
 * - In a stream, ids do not depend on how it was cut into calls, nor on how large the table was at first.
 * - Where times only rise, nobody is forgotten early and no session outlasts its field, stream and whole agree.
 * - The state has no more devices than it may, and finds each of them.
 */
#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "fuzz.h"
#include "session_id.h"
#include "sessionize.h"

namespace {

constexpr size_t ROWS_MAX = 300;
const std::array<uint8_t, EM_SECRET_BYTES> SECRET = fuzz::secret();

struct Events {
    std::vector<int32_t> offsets{0};
    std::vector<uint8_t> data;
    std::vector<int64_t> at;

    size_t count() const {
        return at.size();
    }
    std::string device(size_t row) const {
        return std::string(data.begin() + offsets[row], data.begin() + offsets[row + 1]);
    }
    em_strings devices(const fuzz::Exact &bytes) const {
        return {offsets.data(), bytes.data()};
    }
};

struct Stream {
    std::vector<em_device> devices;
    em_sessions state = {};

    Stream(uint32_t devices_max, size_t slots, int64_t gap_ms, int64_t lateness_ms)
        : devices(slots + EM_SESSIONS_SPARE) {
        state.devices = devices.data();
        state.slots = slots;
        state.devices_max = devices_max;
        state.latest = EM_NO_TIME;
        state.gap_ms = gap_ms;
        state.lateness_ms = lateness_ms;
        state.secret = SECRET.data();
    }
    void assign(const Events &events, size_t end, size_t begin, std::vector<int64_t> &ids) {
        fuzz::Exact bytes(events.data.data(), events.data.size());
        while ((begin = em_sessions_assign(&state, events.devices(bytes), events.at.data(), begin, end, ids.data())) <
               end) {
            state.slots = state.slots * 3 / 2 / 2 * 2 + 2;
            std::vector<em_device> larger(state.slots + EM_SESSIONS_SPARE);
            state.devices = larger.data();
            CHECK(em_sessions_enter(&state, devices.data(), devices.size()));
            devices.swap(larger);
        }
        CHECK(state.count <= state.devices_max);
    }
    std::vector<em_device> packed() const {
        std::vector<em_device> all(state.count);
        em_sessions_pack(&state, all.data());
        return all;
    }
};

std::vector<int64_t> slow_sessions(const Events &events, int64_t gap_ms, bool &fits) {
    std::vector<size_t> rows(events.count());
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(), [&](size_t a, size_t b) {
        return std::make_pair(events.device(a), events.at[a]) < std::make_pair(events.device(b), events.at[b]);
    });
    std::vector<int64_t> ids(events.count());
    fuzz::Exact bytes(events.data.data(), events.data.size());
    int64_t start = 0;
    fits = true;
    for (size_t i = 0; i < rows.size(); i++) {
        size_t row = rows[i], before = rows[i ? i - 1 : 0];
        if (i == 0 || events.device(row) != events.device(before) || events.at[row] - events.at[before] > gap_ms)
            start = events.at[row];
        fits = fits && events.at[row] - start <= (int64_t)EM_SESSION_SPAN_MAX;
        ids[row] = em_session_id(events.devices(bytes), row, start);
    }
    return ids;
}

std::vector<int64_t> exact_sessions(const Events &events, int64_t gap_ms, unsigned bits) {
    size_t n = events.count();
    std::vector<int64_t> starts(((size_t)1 << bits) + 1), ids(n);
    std::vector<em_visit> visits(n), spare(n);
    std::vector<uint64_t> hashes(n);
    fuzz::Exact bytes(events.data.data(), events.data.size());
    em_device_hashes(events.devices(bytes), n, hashes.data());
    em_sessions_exact(hashes.data(), events.at.data(), n, gap_ms, bits, starts.data(), visits.data(), spare.data(),
                      ids.data());
    return ids;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz::Input input(data, size);
    int64_t gap_ms = (int64_t)input.number(2), lateness_ms = 1 + (int64_t)(input.number(4) % EM_LATENESS_MAX_MS);
    uint32_t devices_max = (uint32_t)input.between(1, 64);
    int64_t now = (int64_t)input.number(8) >> 3;
    Events events;
    std::vector<size_t> cuts;
    bool rises = true;
    while (!input.empty() && events.count() < ROWS_MAX) {
        uint8_t step = input.byte(), name = input.byte();
        events.data.insert(events.data.end(), name >> 6 == 3 ? name * 4 : name & 1, name);
        events.offsets.push_back((int32_t)events.data.size());
        int64_t by = step >> 6 == 3   ? (int64_t)(int16_t)input.number(2)
                     : step >> 6 == 2 ? (int64_t)(int32_t)input.number(4) * (step & 1 ? 4096 : 1)
                                      : (step & 15) * (gap_ms / 8);
        by = now + by < (1LL << 60) && now + by > -(1LL << 60) ? by : 0;
        rises = rises && by >= 0;
        events.at.push_back(now += by);
        if (step & 32)
            cuts.push_back(events.count());
    }
    size_t n = events.count();
    cuts.push_back(n);

    bool fits;
    std::vector<int64_t> wanted = slow_sessions(events, gap_ms, fits);
    for (unsigned bits : {1u, 5u, 10u})
        CHECK(exact_sessions(events, gap_ms, bits) == wanted);

    Stream whole(devices_max, 4, gap_ms, lateness_ms), cut(devices_max, 1024, gap_ms, lateness_ms);
    std::vector<int64_t> ids(n), pieces(n);
    whole.assign(events, n, 0, ids);
    size_t begin = 0;
    for (size_t end : cuts) {
        cut.assign(events, end, begin, pieces);
        begin = end;
    }
    CHECK(ids == pieces);
    CHECK(whole.state.count == cut.state.count && whole.state.evicted == cut.state.evicted);
    CHECK(whole.state.latest == cut.state.latest);
    CHECK(whole.state.count == 0 ||
          std::memcmp(whole.packed().data(), cut.packed().data(), whole.state.count * sizeof(em_device)) == 0);
    if (rises && fits && whole.state.evicted == 0 && lateness_ms > gap_ms)
        CHECK(ids == wanted);
    return 0;
}
