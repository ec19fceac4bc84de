/*
 * A keyed hash table from strings to row numbers, for a columnar dimension join.
 *
 * Ownership: the caller owns `slots` (filled with 0xff at first) and the key column, which must outlive the table.
 * Thread safety: look-ups may run side by side.
 */
#ifndef EVENTMILL_ENRICH_H
#define EVENTMILL_ENRICH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    uint32_t tag; /* upper hash bits, so that most strangers are told apart without touching the key column */
    int32_t row;  /* -1 = free */
} em_slot;

typedef struct {
    em_slot *slots;
    uint64_t size; /* a power of two, at least twice the number of keys */
    uint64_t seed;
    const int32_t *offsets;
    const uint8_t *data;
} em_dimension;

/* Adds the first `n` keys. Gives the row of a key that is there twice, or -1. */
int64_t em_dimension_build(em_dimension *dimension, size_t n);

/*
 * rows[i] = row of the key equal to value i, or -1. `valid` is an Arrow validity bitmap beginning at bit `valid_offset`, or
 * NULL; a null value gives -1.
 */
void em_dimension_find(const em_dimension *dimension, const int32_t *offsets, const uint8_t *data, const uint8_t *valid,
                       size_t valid_offset, size_t n, int32_t *rows);

#ifdef __cplusplus
}
#endif
#endif
