#include "sessionize.h"

#include "session_id.h"

/* Rows handled together; their lines are fetched while the rows before are handled. */
enum { BLOCK = 8, FORGOTTEN_SHARE = 8, BINS = 2048 };

#define NO_SESSION UINT32_MAX

/* Times as ages: how long before `latest`, in ms. Those of sessions kept are below 2^32. */
static inline int64_t start_age(int64_t latest, const em_session *session) {
    return (uint32_t)((uint32_t)latest - session->start);
}

static inline int64_t first_age(int64_t latest, const em_session *session) {
    return start_age(latest, session) + session->before;
}

static inline int64_t last_age(int64_t latest, const em_session *session) {
    return start_age(latest, session) - session->after;
}

static inline em_session session_at(int64_t at) {
    em_session session = {(uint32_t)at, 0, 0};
    return session;
}

static inline bool touches(int64_t latest, const em_session *session, int64_t age, int64_t gap) {
    return session->after != NO_SESSION && age <= first_age(latest, session) + gap &&
           age >= last_age(latest, session) - gap;
}

static uint32_t within_span(int64_t span) {
    return span > EM_SESSION_SPAN_MAX ? EM_SESSION_SPAN_MAX : (uint32_t)span;
}

static inline void extend(int64_t latest, em_session *session, int64_t age) {
    const int64_t start = start_age(latest, session);
    if (age < start - session->after)
        session->after = within_span(start - age);
    else if (age > start + session->before)
        session->before = within_span(age - start);
}

/* The start, as an age, that the event's session id is made of. */
static inline int64_t place(const em_sessions *state, em_device *device, int64_t age) {
    const int64_t latest = state->latest;
    em_session *newest = &device->newest, *older = &device->older;
    const bool near_newest = touches(latest, newest, age, state->gap_ms);
    const bool near_older = touches(latest, older, age, state->gap_ms);
    if (near_newest && near_older) { /* the event bridges both */
        extend(latest, older, age);
        extend(latest, older, last_age(latest, newest));
        *newest = *older;
        older->after = NO_SESSION;
        return start_age(latest, newest);
    }
    if (near_newest || near_older) {
        em_session *session = near_newest ? newest : older;
        extend(latest, session, age);
        return start_age(latest, session);
    }
    if (age < last_age(latest, newest)) {
        *older = *newest;
        *newest = session_at(latest - age);
    } else if (age <= state->lateness_ms && (older->after == NO_SESSION || age < last_age(latest, older))) {
        *older = session_at(latest - age);
    }
    return age;
}

static inline uint64_t key_of(const em_sessions *state, em_strings devices, size_t row) {
    uint64_t key = XXH3_64bits_withSecret(em_string_at(devices, row), em_string_bytes(devices, row), state->secret,
                                          EM_SECRET_BYTES);
    return key | (key == 0);
}

/* The first of the two slots of a cache line. */
static inline em_device *home_of(const em_sessions *state, uint64_t key) {
    return state->devices + ((key >> 32) * (state->slots / 2) >> 32) * 2;
}

static const em_device *end_of(const em_sessions *state) {
    return state->devices + state->slots + EM_SESSIONS_SPARE;
}

/* The first slot from the key's home on that is free or has no smaller key, or the table's end. */
static em_device *seek(const em_sessions *state, uint64_t key) {
    em_device *device = home_of(state, key);
    while (device < end_of(state) && device->key != 0 && device->key < key)
        device++;
    return device;
}

/*
 * The device, or null. Nearly all stand in the first four slots; which one it is cannot be foretold, so no branch
 * depends on that.
 */
static inline em_device *find(const em_sessions *state, uint64_t key) {
    em_device *device = home_of(state, key);
    device += (int)(device[1].key == key) | (int)(device[2].key == key) * 2 | (int)(device[3].key == key) * 3;
    if (__builtin_expect(device->key == key, 1))
        return device;
    device = seek(state, key);
    return device < end_of(state) && device->key == key ? device : NULL;
}

/* Where a device goes whose key is larger than all before `next`, the slot behind the last of those. */
static em_device *place_after(const em_sessions *state, em_device *next, uint64_t key) {
    em_device *home = home_of(state, key);
    return home > next ? home : next;
}

bool em_sessions_enter(em_sessions *state, const em_device *devices, uint64_t n) {
    em_device *next = state->devices;
    state->count = 0;
    for (const em_device *device = devices; device < devices + n; device++) {
        if (device->key == 0)
            continue;
        em_device *to = place_after(state, next, device->key);
        if (to == end_of(state))
            return false;
        *to = *device;
        next = to + 1;
        state->count++;
    }
    return true;
}

void em_sessions_pack(const em_sessions *state, em_device *to) {
    for (const em_device *device = state->devices; device < end_of(state); device++)
        if (device->key)
            *to++ = *device;
}

static int64_t last_of(const em_sessions *state, const em_session *session) {
    return state->latest - last_age(state->latest, session);
}

static inline bool is_before(const em_sessions *state, const em_session *session, int64_t keep_from) {
    return (int)(session->after != NO_SESSION) & (int)(last_of(state, session) < keep_from);
}

/* Forgets sessions whose newest event is older than `keep_from`, and devices without any; the others close ranks. */
static void forget_before(em_sessions *state, int64_t keep_from) {
    em_device *next = NULL; /* where the next device goes, after one was forgotten, until ranks are closed */
    for (em_device *device = state->devices; device < end_of(state); device++) {
        const bool stale = is_before(state, &device->newest, keep_from);
        const bool older_stale = is_before(state, &device->older, keep_from);
        const bool nothing_to_do = !((int)(device->key != 0) & ((int)stale | (int)older_stale)) & (next == NULL);
        if (__builtin_expect(nothing_to_do, 1))
            continue;
        if (device->key == 0) {
            next = NULL;
            continue;
        }
        if (stale) {
            device->key = 0;
            state->count--;
            next = next ? next : device;
            continue;
        }
        if (older_stale)
            device->older.after = NO_SESSION;
        if (next == NULL)
            continue;
        em_device *to = place_after(state, next, device->key);
        next = to == device ? NULL : to + 1;
        if (to != device) {
            *to = *device;
            device->key = 0;
        }
    }
}

/*
 * The smallest time for which at least `wanted` devices have their newest event at or before it: a histogram of the
 * range, narrowed to one bin again and again.
 */
static int64_t oldest_share(const em_sessions *state, uint64_t wanted) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (const em_device *device = state->devices; device < end_of(state); device++) {
        if (device->key == 0)
            continue;
        int64_t last = last_of(state, &device->newest);
        low = last < low ? last : low;
        high = last > high ? last : high;
    }
    while (low < high) {
        uint64_t bins[BINS] = {0};
        uint64_t width = (uint64_t)(high - low) / BINS + 1, bin = 0;
        for (const em_device *device = state->devices; device < end_of(state); device++) {
            int64_t last = device->key ? last_of(state, &device->newest) : INT64_MIN;
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
    uint64_t before = state->count;
    forget_before(state, oldest_share(state, before / FORGOTTEN_SHARE + 1) + 1);
    state->evicted += before - state->count;
}

/* The first multiple of an eighth of the lateness after `at`. */
static int64_t tick_after(const em_sessions *state, int64_t at) {
    const int64_t tick_ms = state->lateness_ms / FORGOTTEN_SHARE + 1;
    return (at / tick_ms - (at % tick_ms < 0) + 1) * tick_ms;
}

/* Enters a new device. False when that needs a larger table. */
static bool enter(em_sessions *state, uint64_t key, int64_t at) {
    if (state->count >= state->devices_max)
        make_room(state);
    em_device *slot = seek(state, key), *free = slot;
    while (free < end_of(state) && free->key != 0)
        free++;
    if (state->count >= state->slots / EM_SESSIONS_LOAD * (EM_SESSIONS_LOAD - 1) || free == end_of(state))
        return false;
    const em_device device = {key, session_at(at), {0, 0, NO_SESSION}};
    memmove(slot + 1, slot, (size_t)(free - slot) * sizeof *slot);
    *slot = device;
    state->count++;
    return true;
}

/* Hashes the devices of the rows and fetches their lines; gives how many rows. */
static inline size_t prepare(const em_sessions *state, em_strings devices, size_t begin, size_t n, uint64_t *keys) {
    const size_t count = n - begin < BLOCK ? n - begin : BLOCK;
    for (size_t i = 0; i < count; i++) {
        keys[i] = key_of(state, devices, begin + i);
        const em_device *home = home_of(state, keys[i]);
        __builtin_prefetch(home, 1, 3);
        __builtin_prefetch(home + 2, 1, 3);
    }
    return count;
}

/* Where the sessions of `count` rows start; gives how many rows were done. */
static inline size_t place_all(em_sessions *state, const uint64_t *keys, const int64_t *at_ms, size_t count,
                               int64_t *starts) {
    int64_t tick = state->latest == EM_NO_TIME ? INT64_MAX : tick_after(state, state->latest);
    for (size_t i = 0; i < count; i++) {
        const int64_t at = at_ms[i];
        if (at >= tick)
            forget_before(state, at - state->lateness_ms);
        if (at >= tick || state->latest == EM_NO_TIME)
            tick = tick_after(state, at);
        state->latest = at > state->latest ? at : state->latest;
        const int64_t age = state->latest - at;
        em_device *device = find(state, keys[i]);
        starts[i] = at;
        if (device)
            starts[i] = state->latest - place(state, device, age);
        else if (age <= state->lateness_ms && !enter(state, keys[i], at))
            return i;
    }
    return count;
}

size_t em_sessions_assign(em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n,
                          int64_t *session_ids) {
    uint64_t keys[2][BLOCK];
    int64_t starts[BLOCK];
    size_t count = prepare(state, devices, begin, n, keys[0]), following, done;
    for (unsigned turn = 0; count > 0; turn ^= 1, begin += count, count = following) {
        following = prepare(state, devices, begin + count, n, keys[turn ^ 1]);
        done = place_all(state, keys[turn], at_ms + begin, count, starts);
        for (size_t i = 0; i < done; i++)
            session_ids[begin + i] = em_session_id(devices, begin + i, starts[i]);
        if (done < count)
            return begin + done;
    }
    return n;
}
