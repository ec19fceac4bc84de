/*
 * Sessions per device in event time: more than `gap_ms` between a device's events starts a new session.
 *
 * In a stream (em_sessions_assign) the state keeps each device's two newest sessions. An event within the gap of one of
 * them joins it; one that closes the gap between them joins both under the older's id; another is a session of its own,
 * kept when it is newer than the older one kept. A session's id is made of the device and the session's start as it was
 * when the session began, so ids given earlier are provisional when a late event moves a start or bridges two sessions.
 * Over a whole data set (em_sessions_exact) the ids are final.
 *
 * Devices stand densely in order of arrival, 40 bytes each; an index of 8 bytes a slot finds them by a keyed hash of
 * their id. The hash stands for the device: among 10 million, two share one of 64 bits with a probability of 3 in a
 * million.
 *
 * All times are ms since the epoch, within 2^61 of it. Ownership: the caller owns every buffer. Thread safety: one
 * caller at a time.
 */
#ifndef EVENTMILL_SESSIONIZE_H
#define EVENTMILL_SESSIONIZE_H

#include "strings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `start` of a session that is not there, and `latest` before the first event. */
#define EM_NO_TIME INT64_MIN

/* A session that is longer than UINT32_MAX ms (49 days) on either side of its first event seen is cut there. */
typedef struct {
    int64_t start;   /* time that the id is made of */
    uint32_t before; /* how far late events have moved the beginning before `start` */
    uint32_t after;  /* how far the newest event lies after `start` */
} em_session;

typedef struct {
    uint64_t key;
    em_session newest, older;
} em_device;

typedef struct {
    em_device *devices; /* room for `devices_max` */
    uint64_t *index; /* `slots` entries, zeroed: upper half of the key, and number of the device plus one; 0 = free */
    uint64_t slots;  /* a power of two, at least 2 */
    uint32_t count;  /* devices */
    uint32_t devices_max;
    uint64_t evicted; /* devices forgotten before their time, since there was no room */
    int64_t latest;   /* newest event time, or EM_NO_TIME */
    int64_t gap_ms, lateness_ms;
    const uint8_t *secret; /* EM_SECRET_BYTES, keys the hash of device ids */
} em_sessions;

/*
 * Assigns session ids to rows from `begin` on. Gives the first row not done: below `n` when the index is three quarters
 * full and the row's device is new (the caller then gives a larger one to em_sessions_reindex, and calls again).
 *
 * Each time the newest event time crosses a multiple of an eighth of the lateness, devices idle for longer than the
 * lateness are forgotten: one pass over the state. When `devices_max` are known and another comes, so is the eighth of
 * them that has been idle longest. Both follow from the rows alone, not from how they were cut into calls.
 */
size_t em_sessions_assign(em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n,
                          int64_t *session_ids);

/* Enters all devices into a new index: zeroed, and with more slots than devices. */
void em_sessions_reindex(em_sessions *state, uint64_t *index, uint64_t slots);

/* A row's time, and which row it is. */
typedef struct {
    int64_t at_ms;
    int64_t row;
} em_moment;

/*
 * Final session ids of a whole data set, whose rows may come in any order. groups[i] numbers the device of row i, from
 * 0 to count - 1, and firsts[g] is a row of device g; `starts` has count + 1 entries, zeroed; `moments` and `spare`
 * have room for n each.
 */
void em_sessions_exact(em_strings devices, const int32_t *groups, const int32_t *firsts, size_t count,
                       const int64_t *at_ms, size_t n, int64_t gap_ms, int64_t *starts, em_moment *moments,
                       em_moment *spare, int64_t *session_ids);

/* session_ids[i] = XXH3-64 (seed 0) of device i's bytes and starts[i] as 8 little-endian bytes, top bit cleared. */
void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids);

#ifdef __cplusplus
}
#endif
#endif
