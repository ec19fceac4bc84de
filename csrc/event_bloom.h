/*
 * A Bloom filter over 16-byte ids that knows each id's own time, which is the same in all its copies.
 *
 * Own times are cut into slices, each with a split-block filter of its own: blocks of 512 bits, of which an id sets one
 * in each of the eight words (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007). An id
 * belongs to one slice, so it touches one cache line. The slices are a ring; `now`, the running maximum of the times of
 * arrival, turns it. With c the number of the slice of `now`, an id whose own slice is
 *
 *   on time   c - lateness to c + EM_EVENT_BLOOM_EARLY    is looked up in its slice and put there;
 *   late      before, or has no own time                  is looked up in its slice, if that is alive, and in `late`, a
 *                                                         filter by arrival, and put into `late`;
 *   ahead     after                                       is looked up in `late`, put there, and kept in a list until
 *                                                         its slice opens, which it is put into then.
 *
 * A slice is alive until c = its number + lateness + window, then it is cleared while one slice lasts, in step with
 * time, so no turn stops the stream. Lists are bounded: for a slice whose list was too short, ids on time ask `late`
 * too. Why an id that returns within the window is always found: engine/eventmill/kernels/event_bloom.py.
 *
 * Ownership: the caller owns all arrays; nothing is allocated here. Thread safety: one caller at a time.
 */
#ifndef EVENTMILL_EVENT_BLOOM_H
#define EVENTMILL_EVENT_BLOOM_H

#include "bloom.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EM_EVENT_BLOOM_WORDS = 8, /* 64-bit words in a block */
    EM_EVENT_BLOOM_EARLY = 1, /* slices that are open before their time */
    EM_EVENT_BLOOM_SPARE = 2  /* slots besides: the current slice's, and the one being cleared */
};

/* The own time of an id that has none. */
#define EM_NO_OWN_TIME INT64_MIN

typedef struct {
    uint64_t *words;   /* [slots][blocks][EM_EVENT_BLOOM_WORDS], zeroed at first, aligned to a block */
    uint64_t *lists;   /* [slots][list_max]: hashes of ids ahead */
    uint64_t *ids;     /* [slots]: ids in the slice, probable repeats counted once; zeroed at first */
    uint64_t *waiting; /* [slots]: ids that came ahead, repeats included; list_max of them are in the list */
    em_bloom late;     /* over `window` slices at least; its `key` is that of all hashes */
    uint64_t list_max;
    int64_t slice_ms;
    uint32_t blocks;   /* in a slice, at least 1 */
    uint32_t window;   /* in slices, at least 1; (slots + window) * slice_ms must be below 2^49 */
    uint32_t lateness; /* in slices */
    uint32_t slots;    /* window + lateness + EM_EVENT_BLOOM_EARLY + EM_EVENT_BLOOM_SPARE */
    int64_t slice;     /* number of the slice of `latest`, or EM_BLOOM_NO_SLICE */
    int64_t latest;    /* the running maximum of times of arrival */
    uint64_t swept;    /* blocks of the next slot that are clear; em_event_bloom_sweep sets it */
} em_event_bloom;

/*
 * Tests and inserts `n` ids in order. `at_ms[i * at_stride]` is the time of arrival, within 2^61 ms of the epoch;
 * `own_ms[i * own_stride]` the own time, any (stride 0: one for all). fresh[i] = 1 when the id had not been seen within
 * the window. The state depends on ids and times only, not on how they were cut into calls.
 */
void em_event_bloom_observe(em_event_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride,
                            const int64_t *own_ms, size_t own_stride, size_t n, uint8_t *fresh);

/* Tests without inserting: seen[i] = 1 when observing the id at `latest` would call it seen. */
void em_event_bloom_contains(const em_event_bloom *bloom, const uint8_t *ids, const int64_t *own_ms, size_t own_stride,
                             size_t n, uint8_t *seen);

/* Clears what is due at `latest`; after a state was put back, the same again. */
void em_event_bloom_sweep(em_event_bloom *bloom);

#ifdef __cplusplus
}
#endif
#endif
