/*
 * Sessions per device in event time: more than `gap_ms` between a device's events starts a new session.
 *
 * In a stream (em_sessions_assign) the state keeps each device's two newest sessions. An event within the gap of one of
 * them joins it; one that closes the gap between them joins both under the older's id; another is a session of its own,
 * kept when it is newer than the older one kept. A session's id is made of the device and the session's start as it was
 * when the session began, so ids given earlier are provisional when a late event moves a start or bridges two sessions.
 * Over a whole data set (em_sessions_exact) the ids are final.
 *
 * Devices stand in one table, 32 bytes each, in the order of a keyed hash of their id: each as near behind its home,
 * the first slot of a cache line that follows from the upper half of the hash, as that order lets it (ordered linear
 * probing: Amble, Knuth, "Ordered hash tables", 1974). So nearly all stand in the two lines from their home on, which
 * are fetched together; growing and forgetting are one pass from the start to the end; and the table does not depend on
 * the order in which devices came. The hash stands for the device: among 10 million, two share one of 64 bits with a
 * probability of 3 in a million.
 *
 * All times are ms since the epoch, within 2^61 of it. Ownership: the caller owns every buffer. Thread safety: one
 * caller at a time.
 */
#ifndef EVENTMILL_SESSIONIZE_H
#define EVENTMILL_SESSIONIZE_H

#include "strings.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `latest` before the first event. */
#define EM_NO_TIME INT64_MIN

/* A session is cut this long before and after the first event seen of it: 24 days. */
#define EM_SESSION_SPAN_MAX (1U << 31)

/* Times are kept by their lower 32 bits, so what is kept must be less than 49 days old: 20 days and a session's span.
 */
#define EM_LATENESS_MAX_MS (20 * 86400000LL)

enum {
    EM_SESSIONS_SPARE = 256, /* slots behind the others */
    EM_SESSIONS_LOAD = 4     /* three of so many slots are filled at most */
};

typedef struct {
    uint32_t start;  /* lower bits of the time that the id is made of */
    uint32_t before; /* how far late events have moved the beginning before `start` */
    uint32_t after;  /* how far the newest event lies after `start`, or UINT32_MAX: there is no session */
} em_session;

/* `key` is 0 where there is no device. */
typedef struct {
    uint64_t key;
    em_session newest, older;
} em_device;

typedef struct {
    em_device *devices;   /* room for `slots` and EM_SESSIONS_SPARE more, zeroed at first, aligned to a cache line */
    uint64_t slots;       /* even, from 2 to 2^32 */
    uint64_t count;       /* devices */
    uint64_t devices_max; /* when another comes, the eighth of them that has been idle longest is forgotten */
    uint64_t evicted;     /* devices forgotten so */
    int64_t latest;       /* newest event time, or EM_NO_TIME */
    int64_t gap_ms, lateness_ms; /* lateness from 1 to EM_LATENESS_MAX_MS */
    const uint8_t *secret;       /* EM_SECRET_BYTES, keys the hash of device ids */
} em_sessions;

/*
 * Assigns session ids to rows from `begin` on. Gives the first row not done: below `n` when the table is three quarters
 * full and the row's device is new (the caller then gives a larger one, and calls again).
 *
 * An event older than the lateness that belongs to no session kept is one of its own, and is not kept. Each time the
 * newest event time crosses a multiple of an eighth of the lateness, sessions idle for longer than the lateness are
 * forgotten: one pass over the state. This and `devices_max` follow from the rows alone, not from how they were cut
 * into calls.
 */
size_t em_sessions_assign(em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n,
                          int64_t *session_ids);

/*
 * Enters `n` devices, in the order of another table, into an empty one; slots without a device are passed over. False
 * when the spare slots are too few: then a larger table is to be tried. `count` is set.
 */
bool em_sessions_enter(em_sessions *state, const em_device *devices, uint64_t n);

/* Writes all devices to `to`, one behind the other, as em_sessions_enter takes them. */
void em_sessions_pack(const em_sessions *state, em_device *to);

/* A row of a data set: its device's hash, its time, and which row it is. */
typedef struct {
    uint64_t device;
    int64_t at_ms, row;
} em_visit;

/* hashes[i] = XXH3-64 of device i's bytes: all of a device that a session's id is made of. */
void em_device_hashes(em_strings devices, size_t n, uint64_t *hashes);

/*
 * Final session ids of a whole data set, whose rows may come in any order; devices[i] is the hash of row i's device,
 * which stands for it. Rows are spread over 2^bits buckets (1 to 24 bits) by the upper bits of the hash, and each
 * bucket is sorted: `starts` has 2^bits + 1 entries, zeroed; `visits` and `spare` have room for n each.
 */
void em_sessions_exact(const uint64_t *devices, const int64_t *at_ms, size_t n, int64_t gap_ms, unsigned bits,
                       int64_t *starts, em_visit *visits, em_visit *spare, int64_t *session_ids);

/*
 * session_ids[i] = XXH3-64 of 16 bytes, top bit cleared: XXH3-64 of device i's bytes, and starts[i], both little-endian
 * (seed 0).
 */
void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids);

#ifdef __cplusplus
}
#endif
#endif
