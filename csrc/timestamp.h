/*
 * Timestamps as analytics SDKs spell them, to milliseconds since the epoch (UTC), rounded down.
 *
 * Accepted: RFC 3339 with 'T', 't' or one space, 1 to 9 fraction digits or none, 'Z', 'z', +hh:mm, +hhmm, +hh or no
 * zone (then UTC); a date alone; a decimal number of the epoch (as JSON spells numbers): seconds when its absolute
 * value is below 1e11, else milliseconds. Days per month, leap years and ranges are checked; a leap second (:60) counts
 * as the next minute's first. Years 1 to 9999.
 */
#ifndef EVENTMILL_TIMESTAMP_H
#define EVENTMILL_TIMESTAMP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EM_TIME_MS_MIN (-62135596800000LL) /* 0001-01-01 */
#define EM_TIME_MS_MAX 253402300799999LL   /* the last millisecond of 9999 */

/* 1 and *ms, or 0 when the text is none of the above. Reads `length` bytes; the text need not end in NUL. */
int em_timestamp_parse(const uint8_t *text, size_t length, int64_t *ms);

#ifdef __cplusplus
}
#endif
#endif
