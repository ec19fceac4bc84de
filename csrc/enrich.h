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
 * found[i] = number of the key equal to value i, `missing` if there is none, or `missing` + 1 if the value is null.
 * `valid` is an Arrow validity bitmap beginning at bit `valid_offset`, or NULL.
 */
void em_dimension_find(const em_table *table, em_strings values, const uint8_t *valid, size_t valid_offset, size_t n,
                       int32_t missing, int32_t *found);

/* codes[i] = codes_of[found[i]], with its bit in `valid` (as many bytes as hold n bits); where that is negative, null.
 */
void em_dimension_gather(const int32_t *found, size_t n, const int32_t *codes_of, int32_t *codes, uint8_t *valid);

/* flagged[i] = flags[i] with `flag` where found[i] is `missing`, and without it elsewhere. */
void em_dimension_flags(const int32_t *found, size_t n, int32_t missing, int32_t flag, const int32_t *flags,
                        int32_t *flagged);

#ifdef __cplusplus
}
#endif
#endif
