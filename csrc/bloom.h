/*
 * A rotating-window split-block Bloom filter over 16-byte ids.
 *
 * Time is cut into slices; `generations` = slices + 1 filters are kept, one a slice, so an id is remembered for at least
 * `slices` whole slices after it was seen. A filter is an array of 256-bit blocks (8 words of 32 bits; an id sets one bit
 * in each word of one block), as in Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters" (2007) and
 * Parquet's split-block filter. The generations of one block stand side by side, so an id touches neighbouring cache
 * lines only.
 *
 * Ownership: the caller owns `words` (blocks * generations * 8, zeroed at first) and `secret`. Nothing is allocated here.
 * Thread safety: one caller at a time.
 */
#ifndef EVENTMILL_BLOOM_H
#define EVENTMILL_BLOOM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EM_BLOOM_WORDS = 8, EM_BLOOM_ID_BYTES = 16, EM_BLOOM_SECRET_BYTES = 192 };

typedef struct {
    uint32_t *words;       /* [blocks][generations][EM_BLOOM_WORDS] */
    const uint8_t *secret; /* EM_BLOOM_SECRET_BYTES, keys the hash */
    uint64_t blocks;       /* below 2^32 */
    uint32_t generations;  /* at least 2 */
    int64_t slice_ms;      /* length of a slice */
    int64_t slice;         /* number of the current slice; INT64_MIN before the first id */
    uint64_t inserted;     /* ids observed in the current slice */
} em_bloom;

/*
 * Tests and inserts `n` ids in order. `at_ms[i * at_stride]` is the time of row i in ms since the epoch (at_stride 0: one
 * time for all); the running maximum decides the slice, so late times never turn the window back. fresh[i] = 1 when the
 * id had not been seen within the window, else 0.
 */
void em_bloom_observe(em_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, size_t n,
                      uint8_t *fresh);

/* Tests without inserting: seen[i] = 1 when the id may have been seen. */
void em_bloom_contains(const em_bloom *bloom, const uint8_t *ids, size_t n, uint8_t *seen);

#ifdef __cplusplus
}
#endif
#endif
