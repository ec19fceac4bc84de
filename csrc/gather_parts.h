/*
 * Strings of a column that lies in parts, picked by number without joining the parts first.
 *
 * Rows are numbered through all parts. Ownership: the caller owns every buffer; what is written does not overlap what
 * is read. No byte beyond a part's end is read. Thread safety: calls may run side by side.
 */
#ifndef EVENTMILL_GATHER_PARTS_H
#define EVENTMILL_GATHER_PARTS_H

#include "gather.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `size`: bytes of strings.data. */
typedef struct {
    em_strings strings;
    size_t size;
} em_part;

/* Where a row lies. */
typedef struct {
    int32_t part, row;
} em_place;

/*
 * places[i] of row rows[i], all of which are below starts[count]; starts[p] is the number of part p's first row, and
 * starts[0] is 0.
 */
void em_gather_places(em_rows picked, const int32_t *starts, size_t count, em_place *places);

/* offsets[0 .. n] of the strings picked; gives the bytes of all, which is above INT32_MAX when offsets can't hold it.
 */
int64_t em_gather_parts_offsets(const em_place *places, size_t n, const em_part *parts, int32_t *offsets);

/* Their bytes, one after the other: `total` as given above, and room for EM_GATHER_PADDING more. */
void em_gather_parts_strings(const em_place *places, size_t n, const em_part *parts, size_t total, uint8_t *to);

#ifdef __cplusplus
}
#endif
#endif
