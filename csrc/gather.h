/*
 * Rows of columns, picked by number.
 *
 * Ownership: the caller owns every buffer; what is written does not overlap what is read. No byte beyond a source's end
 * is read. Thread safety: calls may run side by side.
 */
#ifndef EVENTMILL_GATHER_H
#define EVENTMILL_GATHER_H

#include "strings.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that em_gather_strings may write beyond the last string. */
enum { EM_GATHER_PADDING = 64 };

/* Row numbers, in any order, any of them more than once; `runs` of them follow one another without a gap. */
typedef struct {
    const int32_t *rows;
    size_t n, runs;
} em_rows;

/* Counts the runs. Gives false if a row is negative or not below `limit`. */
int em_gather_look(em_rows *picked, size_t limit);

/* to[i] = from[rows[i]], values of `width` bytes, which is a power of two up to 16. Gives false for other widths. */
int em_gather_fixed(em_rows picked, const uint8_t *from, size_t width, uint8_t *to);

/* Bit i of `to` (as many bytes as hold n bits) = bit `offset` + rows[i] of `from`. Gives how many are set. */
size_t em_gather_bits(em_rows picked, const uint8_t *from, size_t offset, uint8_t *to);

/* offsets[0 .. n] of the strings picked; gives the bytes of all, which is above INT32_MAX when offsets can't hold it.
 */
int64_t em_gather_offsets(em_rows picked, em_strings from, int32_t *offsets);

/*
 * The bytes of the strings picked, one string after the other: `total`, as em_gather_offsets gave it, and room for
 * EM_GATHER_PADDING more. `size`: of from.data.
 */
void em_gather_strings(em_rows picked, em_strings from, size_t size, size_t total, uint8_t *to);

#ifdef __cplusplus
}
#endif
#endif
