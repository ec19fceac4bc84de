#include "sessionize.h"

#include <string.h>
#include <xxhash.h>

enum { DEVICE_BYTES_INLINE = 512, AHEAD = 16 };

static int64_t session_id(const uint8_t *device, size_t length, int64_t start_ms) {
    uint8_t text[DEVICE_BYTES_INLINE + sizeof start_ms];
    uint64_t hash;
    if (length <= DEVICE_BYTES_INLINE) {
        memcpy(text, device, length);
        memcpy(text + length, &start_ms, sizeof start_ms);
        hash = XXH3_64bits(text, length + sizeof start_ms);
    } else {
        XXH3_state_t stream;
        XXH3_64bits_reset(&stream);
        XXH3_64bits_update(&stream, device, length);
        XXH3_64bits_update(&stream, &start_ms, sizeof start_ms);
        hash = XXH3_64bits_digest(&stream);
    }
    return (int64_t)(hash & INT64_MAX);
}

static inline uint64_t device_key(const em_sessions *state, em_strings devices, size_t row) {
    size_t length = (size_t)(devices.offsets[row + 1] - devices.offsets[row]);
    uint64_t key = XXH3_64bits_withSeed(devices.data + devices.offsets[row], length, state->seed);
    return key ? key : 1;
}

static em_device *slot_of(const em_sessions *state, uint64_t key) {
    uint64_t mask = state->slots - 1;
    uint64_t slot = key & mask;
    while (state->devices[slot].key != key && state->devices[slot].key != 0)
        slot = (slot + 1) & mask;
    return state->devices + slot;
}

static int touches(const em_session *session, int64_t at, int64_t gap) {
    return session->used && at >= session->first - (int64_t)session->back - gap && at <= session->last + gap;
}

static void extend(em_session *session, int64_t at) {
    if (at > session->last)
        session->last = at;
    int64_t back = session->first - at;
    if (back > (int64_t)session->back)
        session->back = back > UINT32_MAX ? UINT32_MAX : (uint32_t)back;
}

static em_session begin_session(int64_t at) {
    em_session session = {at, at, 0, 1};
    return session;
}

/* The start that the event's session id is made of. */
static int64_t place(em_device *device, int64_t at, int64_t gap) {
    em_session *newest = &device->newest, *older = &device->older;
    int near_newest = touches(newest, at, gap), near_older = touches(older, at, gap);
    if (near_newest && near_older) { /* the event bridges both */
        extend(older, at);
        extend(older, newest->first - (int64_t)newest->back);
        extend(older, newest->last);
        *newest = *older;
        memset(older, 0, sizeof *older);
        return newest->first;
    }
    if (near_newest) {
        extend(newest, at);
        return newest->first;
    }
    if (near_older) {
        extend(older, at);
        return older->first;
    }
    if (!newest->used || at > newest->last) {
        *older = *newest;
        *newest = begin_session(at);
    } else if (!older->used || at > older->last) {
        *older = begin_session(at);
    }
    return at;
}

size_t em_sessions_assign(em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n,
                          uint64_t limit, int64_t *session_ids) {
    uint64_t keys[AHEAD];
    uint64_t mask = state->slots - 1;
    for (size_t row = begin; row < n && row < begin + AHEAD; row++) {
        keys[row % AHEAD] = device_key(state, devices, row);
        __builtin_prefetch(state->devices + (keys[row % AHEAD] & mask), 1, 3);
    }
    for (size_t row = begin; row < n; row++) {
        em_device *device = slot_of(state, keys[row % AHEAD]);
        if (device->key == 0) {
            if (state->used >= limit)
                return row;
            device->key = keys[row % AHEAD];
            state->used++;
        }
        if (row + AHEAD < n) {
            keys[row % AHEAD] = device_key(state, devices, row + AHEAD);
            __builtin_prefetch(state->devices + (keys[row % AHEAD] & mask), 1, 3);
        }
        if (at_ms[row] > state->latest)
            state->latest = at_ms[row];
        int64_t start = place(device, at_ms[row], state->gap_ms);
        size_t length = (size_t)(devices.offsets[row + 1] - devices.offsets[row]);
        session_ids[row] = session_id(devices.data + devices.offsets[row], length, start);
    }
    return n;
}

void em_sessions_move(const em_sessions *from, em_sessions *to, int64_t keep_from_ms) {
    for (uint64_t slot = 0; slot < from->slots; slot++) {
        const em_device *device = from->devices + slot;
        if (device->key == 0 || device->newest.last < keep_from_ms)
            continue;
        *slot_of(to, device->key) = *device;
        to->used++;
    }
}

uint64_t em_sessions_count(const em_sessions *state, int64_t keep_from_ms) {
    uint64_t count = 0;
    for (uint64_t slot = 0; slot < state->slots; slot++)
        count += state->devices[slot].key != 0 && state->devices[slot].newest.last >= keep_from_ms;
    return count;
}

void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids) {
    for (size_t row = 0; row < n; row++) {
        size_t length = (size_t)(devices.offsets[row + 1] - devices.offsets[row]);
        session_ids[row] = session_id(devices.data + devices.offsets[row], length, starts_ms[row]);
    }
}
