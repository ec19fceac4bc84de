#include "partition.h"

void em_partition_order(const int32_t *codes, size_t n, size_t groups, int64_t *starts, int64_t *order) {
    for (size_t row = 0; row < n; row++)
        starts[codes[row] + 1]++;
    for (size_t group = 0; group < groups; group++)
        starts[group + 1] += starts[group];
    /* Each start is moved to its group's end while rows are placed, and moved back after. */
    for (size_t row = 0; row < n; row++)
        order[starts[codes[row]]++] = (int64_t)row;
    for (size_t group = groups; group > 0; group--)
        starts[group] = starts[group - 1];
    starts[0] = 0;
}

int32_t em_murmur2(const uint8_t *key, size_t length) {
    const uint32_t m = 0x5bd1e995U;
    uint32_t hash = 0x9747b28cU ^ (uint32_t)length;
    size_t whole = length / 4;
    for (size_t i = 0; i < whole; i++) {
        const uint8_t *at = key + i * 4;
        uint32_t k = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        k *= m;
        k ^= k >> 24;
        k *= m;
        hash = (hash * m) ^ k;
    }
    const uint8_t *rest = key + whole * 4;
    size_t left = length & 3;
    if (left == 3)
        hash ^= (uint32_t)rest[2] << 16;
    if (left >= 2)
        hash ^= (uint32_t)rest[1] << 8;
    if (left >= 1)
        hash = (hash ^ rest[0]) * m;
    hash ^= hash >> 13;
    hash *= m;
    return (int32_t)(hash ^ (hash >> 15));
}
