/*
 * Sessions per device in event time: a gap of more than `gap_ms` between a device's events starts a new session.
 *
 * The state keeps the device's two newest sessions. An event within the gap of one of them joins it; one that closes the
 * gap between them merges both under the older's id; an older event that fits neither is a session of its own. A session's
 * id is the hash of the device and the session's start as first seen, so ids given earlier are provisional when a late
 * event moves a start or bridges sessions; em_session_ids over exact starts gives the final ones.
 *
 * Ownership: the caller owns the table (zeroed at first). Thread safety: one caller at a time.
 */
#ifndef EVENTMILL_SESSIONIZE_H
#define EVENTMILL_SESSIONIZE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t first; /* start that the id was made of, ms */
    int64_t last;  /* newest event, ms */
    uint32_t back; /* how far before `first` late events have moved the start, ms */
    uint32_t used;
} em_session;

typedef struct {
    uint64_t key; /* keyed hash of the device id; 0 = free */
    em_session newest, older;
} em_device;

typedef struct {
    em_device *devices; /* `slots` entries */
    uint64_t slots;     /* a power of two */
    uint64_t used;
    int64_t latest; /* newest event time seen, ms; INT64_MIN at first */
    int64_t gap_ms;
    uint64_t seed; /* keys the hash of device ids */
} em_sessions;

/* A string column: value i is data[offsets[i] .. offsets[i + 1]]. */
typedef struct {
    const int32_t *offsets;
    const uint8_t *data;
} em_strings;

/*
 * Assigns session ids to rows from `begin` on. Gives the number of the first row not done: less than `n` when the table
 * holds `limit` devices and the next row has a new one (the caller then grows or sweeps the table and calls again).
 */
size_t em_sessions_assign(em_sessions *state, em_strings devices, const int64_t *at_ms, size_t begin, size_t n,
                          uint64_t limit, int64_t *session_ids);

/* Moves the devices whose newest event is at or after `keep_from_ms` into the empty table `to`. */
void em_sessions_move(const em_sessions *from, em_sessions *to, int64_t keep_from_ms);

/* The number of devices whose newest event is at or after `keep_from_ms`. */
uint64_t em_sessions_count(const em_sessions *state, int64_t keep_from_ms);

/* session_ids[i] = XXH3-64 (seed 0) of device i's bytes and starts[i] as 8 little-endian bytes, top bit cleared. */
void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids);

#ifdef __cplusplus
}
#endif
#endif
