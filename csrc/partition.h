/*
 * Splitting rows by a string: dense group numbers, a stable counting sort of the rows, and Kafka's key hash.
 *
 * Ownership: the caller owns every buffer. Thread safety: one caller at a time for a table.
 */
#ifndef EVENTMILL_PARTITION_H
#define EVENTMILL_PARTITION_H

#include "strings.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * groups[i] = number of the distinct string at row i, counted from 0 by first appearance; firsts[g] = the row where
 * group g appears first (room for `n`). The table is empty, and larger than the number of distinct strings. Gives the
 * number of groups.
 */
size_t em_groups(const em_table *table, em_strings strings, size_t n, int32_t *groups, int32_t *firsts);

/*
 * order[] = row numbers by groups[row] (each below `count`), groups ascending, rows in order within a group.
 * starts[g] = where group g begins in order[]; starts has count + 1 entries and is zeroed by the caller.
 */
void em_group_order(const int32_t *groups, size_t n, size_t count, int64_t *starts, int32_t *order);

/* MurmurHash2 with the seed and the byte order of Apache Kafka's Java client, as a signed 32-bit number. */
int32_t em_murmur2(const uint8_t *key, size_t length);

/* numbers[i] = the partition of string i among `count` (at least 1), as Apache Kafka's Java client chooses it. */
void em_key_partitions(em_strings strings, size_t n, uint32_t count, int32_t *numbers);

#ifdef __cplusplus
}
#endif
#endif
