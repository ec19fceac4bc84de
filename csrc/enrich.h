/*
 * A columnar dimension join: numbers for keys.
 *
 * Ownership: the caller owns the table's slots. Thread safety: look-ups may run side by side.
 */
#ifndef EVENTMILL_ENRICH_H
#define EVENTMILL_ENRICH_H

#include "strings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Puts `n` keys into the table, key i under numbers[i] >= 0. Gives the row of a key that is there twice, or -1. */
int64_t em_dimension_build(const em_table *table, em_strings keys, const int32_t *numbers, size_t n);

/*
 * found[i] = number of the key equal to value i, or `missing`. `valid` is an Arrow validity bitmap beginning at bit
 * `valid_offset`, or NULL; a null value is missing.
 */
void em_dimension_find(const em_table *table, em_strings values, const uint8_t *valid, size_t valid_offset, size_t n,
                       int32_t missing, int32_t *found);

#ifdef __cplusplus
}
#endif
#endif
