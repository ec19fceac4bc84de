#include "partition.h"

size_t em_groups(const em_table *table, em_strings strings, size_t n, int32_t *groups, int32_t *firsts) {
    XXH128_hash_t hashes[EM_TABLE_BLOCK];
    size_t distinct = 0;
    for (size_t begin = 0, count; begin < n; begin += count) {
        count = em_table_prepare(table, strings, begin, n, hashes);
        for (size_t i = 0; i < count; i++) {
            em_slot *slot = em_table_find(table, hashes[i]);
            if (slot->number_next == 0) {
                em_table_fill(slot, hashes[i], distinct);
                firsts[distinct++] = (int32_t)(begin + i);
            }
            groups[begin + i] = (int32_t)(slot->number_next - 1);
        }
    }
    return distinct;
}

void em_group_order(const int32_t *groups, size_t n, size_t count, int64_t *starts, int32_t *order) {
    for (size_t row = 0; row < n; row++)
        starts[groups[row] + 1]++;
    for (size_t group = 0; group < count; group++)
        starts[group + 1] += starts[group];
    /* Each start is moved to its group's end while rows are placed, and moved back after. */
    for (size_t row = 0; row < n; row++)
        order[starts[groups[row]]++] = (int32_t)row;
    for (size_t group = count; group > 0; group--)
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

void em_key_partitions(em_strings strings, size_t n, uint32_t count, int32_t *numbers) {
    for (size_t row = 0; row < n; row++) {
        size_t begin = (size_t)strings.offsets[row], end = (size_t)strings.offsets[row + 1];
        uint32_t hash = (uint32_t)em_murmur2(strings.data + begin, end - begin) & 0x7fffffffU;
        numbers[row] = (int32_t)(hash % count);
    }
}
