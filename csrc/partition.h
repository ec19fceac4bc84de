/*
 * Splitting a batch by group: a stable counting sort of row numbers, and Kafka's key hash.
 */
#ifndef EVENTMILL_PARTITION_H
#define EVENTMILL_PARTITION_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * order[] = row numbers grouped by codes[row] (each below `groups`), groups ascending, rows in order within a group.
 * starts[g] = where group g begins in order[]; starts has groups + 1 entries and is zeroed by the caller.
 */
void em_partition_order(const int32_t *codes, size_t n, size_t groups, int64_t *starts, int64_t *order);

/* MurmurHash2 with the seed and the byte order of Apache Kafka's Java client, as a signed 32-bit number. */
int32_t em_murmur2(const uint8_t *key, size_t length);

#ifdef __cplusplus
}
#endif
#endif
