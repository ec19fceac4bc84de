/*
 * A rotating-window split-block Bloom filter over 16-byte ids.
 *
 * Time is cut into slices, and each slice has a filter of its own (a generation). A filter is an array of blocks of
 * EM_BLOOM_CELLS bits in EM_BLOOM_PROBES sections; an id sets one bit in each section of one block (Putze, Sanders,
 * Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007). Eight generations lie on top of one another, bit
 * by bit: a cell is a byte, and bit g of it belongs to the generation of every slice whose number is g modulo 8. So an
 * id touches two neighbouring cache lines and eight bytes in them, however many generations are asked.
 *
 * Of the eight, `slices` + 1 are asked (an id is remembered for at least `slices` whole slices after it was seen), and
 * the next slice's is cleared while the current one lasts: one block for each id observed, so that a turn of the slice
 * finds it done after blocks ids. What a quiet slice left over is cleared at its turn, at the speed of memory.
 *
 * Ownership: the caller owns `cells` (blocks * EM_BLOOM_CELLS bytes, zeroed at first, best aligned to EM_BLOOM_CELLS).
 * Nothing is allocated here. Thread safety: one caller at a time.
 */
#ifndef EVENTMILL_BLOOM_H
#define EVENTMILL_BLOOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    EM_BLOOM_CELLS = 128,
    EM_BLOOM_PROBES = 8,
    EM_BLOOM_GENERATIONS = 8,
    EM_BLOOM_SLICES_MAX = EM_BLOOM_GENERATIONS - 2,
    EM_BLOOM_ID_BYTES = 16
};

/* `slice` before the first id. */
#define EM_BLOOM_NO_SLICE INT64_MIN

typedef struct {
    uint8_t *cells;                     /* [blocks][EM_BLOOM_CELLS] */
    uint64_t blocks;                    /* 1 to 2^32 - 1 */
    uint64_t key[2];                    /* keys the hash */
    int64_t slice_ms;                   /* length of a slice, at least 1 */
    uint32_t slices;                    /* in a window, 1 to EM_BLOOM_SLICES_MAX */
    int64_t slice;                      /* number of the current slice, or EM_BLOOM_NO_SLICE */
    uint64_t swept;                     /* blocks of the next slice's generation that are clear */
    uint64_t ids[EM_BLOOM_GENERATIONS]; /* ids in each generation, probable repeats counted once */
} em_bloom;

/*
 * Tests and inserts `n` ids in order. `at_ms[i * at_stride]` is the time of row i in ms since the epoch, within 2^61 of
 * it (at_stride 0: one time for all); the running maximum decides the slice, so late times never turn the window back.
 * fresh[i] = 1 when the id had not been seen within the window, else 0. The state depends on the ids and times only,
 * not on how they were cut into calls.
 */
void em_bloom_observe(em_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, size_t n,
                      uint8_t *fresh);

/* Tests without inserting: seen[i] = 1 when the id may have been seen within the window. */
void em_bloom_contains(const em_bloom *bloom, const uint8_t *ids, size_t n, uint8_t *seen);

/* hashes[i] = SipHash-1-3 of the id at ids + 16 * i. */
void em_bloom_hash(const uint8_t *ids, size_t n, uint64_t key0, uint64_t key1, uint64_t *hashes);

/*
 * The same in steps, for hashes under `key`. em_bloom_advance turns the window to the slice of `at_ms`, if that is a
 * later one, and clears as much of the next slice as its share of the current one has passed; before the first call of
 * it, em_bloom_put must not be called.
 */
void em_bloom_advance(em_bloom *bloom, int64_t at_ms);

/* Fetches the id's block. */
void em_bloom_prefetch(const em_bloom *bloom, uint64_t hash);

/* Tests and inserts; true when the id had not been seen within the window. */
bool em_bloom_put(em_bloom *bloom, uint64_t hash);

/* Tests; true when the id may have been seen within the window. */
bool em_bloom_holds(const em_bloom *bloom, uint64_t hash);

#ifdef __cplusplus
}
#endif
#endif
