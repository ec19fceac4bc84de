#include "sessionize.h"

#include "session_id.h"

/* Rows ahead at which the device's hash is taken and its slot fetched, and at which the device itself is. */
enum { AHEAD_INDEX = 32, AHEAD_DEVICE = 16, FORGOTTEN_SHARE = 8, BINS = 2048 };

static int64_t first_of(const em_session *session) {
    return session->start - (int64_t)session->before;
}

static int64_t last_of(const em_session *session) {
    return session->start + (int64_t)session->after;
}

static em_session session_at(int64_t at) {
    em_session session = {at, 0, 0};
    return session;
}

static int touches(const em_session *session, int64_t at, int64_t gap) {
    return session->start != EM_NO_TIME && at >= first_of(session) - gap && at <= last_of(session) + gap;
}

static uint32_t at_most_32_bits(int64_t span) {
    return span > (int64_t)UINT32_MAX ? UINT32_MAX : (uint32_t)span;
}

static void extend(em_session *session, int64_t at) {
    if (at > last_of(session))
        session->after = at_most_32_bits(at - session->start);
    else if (at < first_of(session))
        session->before = at_most_32_bits(session->start - at);
}

/* The start that the event's session id is made of. */
static int64_t place(em_device *device, int64_t at, int64_t gap) {
    em_session *newest = &device->newest, *older = &device->older;
    int near_newest = touches(newest, at, gap), near_older = touches(older, at, gap);
    if (near_newest && near_older) { /* the event bridges both */
        extend(older, at);
        extend(older, last_of(newest));
        *newest = *older;
        older->start = EM_NO_TIME;
        return newest->start;
    }
    if (near_newest || near_older) {
        em_session *session = near_newest ? newest : older;
        extend(session, at);
        return session->start;
    }
    if (at > last_of(newest)) {
        *older = *newest;
        *newest = session_at(at);
    } else if (older->start == EM_NO_TIME || at > last_of(older)) {
        *older = session_at(at);
    }
    return at;
}

static inline uint64_t key_of(const em_sessions *state, em_strings devices, size_t row) {
    return XXH3_64bits_withSecret(em_string_at(devices, row), em_string_bytes(devices, row), state->secret,
                                  EM_SECRET_BYTES);
}

/* The slot of the device, or the free one where it belongs. */
static uint64_t *find(const em_sessions *state, uint64_t key) {
    for (uint64_t number = key;; number++) {
        uint64_t *slot = state->index + (number & (state->slots - 1));
        if (*slot == 0)
            return slot;
        if (*slot >> 32 == key >> 32 && state->devices[(uint32_t)*slot - 1].key == key)
            return slot;
    }
}

static uint64_t entry(uint64_t key, uint32_t device) {
    return (key >> 32) << 32 | (uint64_t)(device + 1);
}

static void enter_all(em_sessions *state) {
    for (uint32_t number = 0; number < state->count; number++) {
        if (number + AHEAD_INDEX < state->count) {
            uint64_t key = state->devices[number + AHEAD_INDEX].key;
            __builtin_prefetch(state->index + (key & (state->slots - 1)), 1, 3);
        }
        /* All keys differ, so the first free slot is the right one. */
        uint64_t key = state->devices[number].key, slot = key & (state->slots - 1);
        while (state->index[slot])
            slot = (slot + 1) & (state->slots - 1);
        state->index[slot] = entry(key, number);
    }
}

void em_sessions_reindex(em_sessions *state, uint64_t *index, uint64_t slots) {
    state->index = index;
    state->slots = slots;
    enter_all(state);
}

/* Forgets the devices whose newest event is older than `keep_from`; the others keep their order. */
static void forget_before(em_sessions *state, int64_t keep_from) {
    uint32_t kept = 0;
    for (uint32_t number = 0; number < state->count; number++)
        if (last_of(&state->devices[number].newest) >= keep_from)
            state->devices[kept++] = state->devices[number];
    if (kept == state->count)
        return;
    state->count = kept;
    memset(state->index, 0, state->slots * sizeof *state->index);
    enter_all(state);
}

/*
 * The smallest time for which at least `wanted` devices have their newest event at or before it: a histogram of the
 * range, narrowed to one bin again and again.
 */
static int64_t oldest_share(const em_sessions *state, uint32_t wanted) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (uint32_t number = 0; number < state->count; number++) {
        int64_t last = last_of(&state->devices[number].newest);
        low = last < low ? last : low;
        high = last > high ? last : high;
    }
    while (low < high) {
        uint32_t bins[BINS] = {0};
        uint64_t width = (uint64_t)(high - low) / BINS + 1, bin = 0;
        for (uint32_t number = 0; number < state->count; number++) {
            int64_t last = last_of(&state->devices[number].newest);
            if (last >= low && last <= high)
                bins[(uint64_t)(last - low) / width]++;
        }
        for (; bins[bin] < wanted; bin++)
            wanted -= bins[bin];
        int64_t begin = low + (int64_t)(bin * width), end = begin + (int64_t)(width - 1);
        low = begin;
        high = end < high ? end : high;
    }
    return low;
}

static void make_room(em_sessions *state) {
    uint32_t before = state->count;
    forget_before(state, oldest_share(state, before / FORGOTTEN_SHARE + 1) + 1);
    state->evicted += before - state->count;
}

static int64_t tick_of(const em_sessions *state, int64_t at) {
    int64_t tick_ms = state->lateness_ms / FORGOTTEN_SHARE + 1;
    return at / tick_ms - (at % tick_ms < 0);
}

static void advance(em_sessions *state, int64_t at) {
    int crosses = state->latest != EM_NO_TIME && tick_of(state, at) > tick_of(state, state->latest);
    state->latest = at;
    if (crosses)
        forget_before(state, at - state->lateness_ms);
}

static void fetch_index(const em_sessions *state, uint64_t key) {
    __builtin_prefetch(state->index + (key & (state->slots - 1)), 1, 3);
}

/* Of the slots on the way to the key's, its upper half tells nearly all others apart. */
static void fetch_device(const em_sessions *state, uint64_t key) {
    uint64_t number = key, found;
    do {
        found = state->index[number++ & (state->slots - 1)];
        if (found == 0)
            return;
    } while (found >> 32 != key >> 32);
    const em_device *device = state->devices + (uint32_t)found - 1;
    __builtin_prefetch(device, 1, 3);
    __builtin_prefetch((const char *)(device + 1) - 1, 1, 3);
}

size_t em_sessions_assign(em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n,
                          int64_t *session_ids) {
    uint64_t keys[AHEAD_INDEX];
    for (size_t row = begin; row < n && row < begin + AHEAD_INDEX; row++) {
        keys[row % AHEAD_INDEX] = key_of(state, devices, row);
        fetch_index(state, keys[row % AHEAD_INDEX]);
    }
    for (size_t row = begin; row < n; row++) {
        uint64_t key = keys[row % AHEAD_INDEX];
        int64_t at = at_ms[row];
        if (at > state->latest)
            advance(state, at);
        uint64_t *slot = find(state, key);
        if (*slot == 0) {
            if (state->count >= state->slots / 4 * 3)
                return row;
            if (state->count >= state->devices_max) {
                make_room(state);
                slot = find(state, key);
            }
            em_device device = {key, session_at(at), session_at(EM_NO_TIME)};
            state->devices[state->count] = device;
            *slot = entry(key, state->count++);
            session_ids[row] = em_session_id(devices, row, at);
        } else {
            int64_t start = place(state->devices + (uint32_t)*slot - 1, at, state->gap_ms);
            session_ids[row] = em_session_id(devices, row, start);
        }
        if (row + AHEAD_INDEX < n) {
            keys[row % AHEAD_INDEX] = key_of(state, devices, row + AHEAD_INDEX);
            fetch_index(state, keys[row % AHEAD_INDEX]);
        }
        if (row + AHEAD_DEVICE < n)
            fetch_device(state, keys[(row + AHEAD_DEVICE) % AHEAD_INDEX]);
    }
    return n;
}
