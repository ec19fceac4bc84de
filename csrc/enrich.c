#include "enrich.h"

int64_t em_dimension_build(const em_table *table, em_strings keys, const int32_t *numbers, size_t n) {
    XXH128_hash_t hashes[EM_TABLE_BLOCK];
    for (size_t begin = 0; begin < n; begin += EM_TABLE_BLOCK) {
        size_t count = n - begin < EM_TABLE_BLOCK ? n - begin : EM_TABLE_BLOCK;
        em_table_prepare(table, keys, begin, count, hashes);
        for (size_t i = 0; i < count; i++) {
            em_slot *slot = em_table_find(table, hashes[i]);
            if (slot->number_next)
                return (int64_t)(begin + i);
            em_table_fill(slot, hashes[i], (size_t)numbers[begin + i]);
        }
    }
    return -1;
}

void em_dimension_find(const em_table *table, em_strings values, const uint8_t *valid, size_t valid_offset, size_t n,
                       int32_t missing, int32_t *found) {
    XXH128_hash_t hashes[EM_TABLE_BLOCK];
    for (size_t begin = 0; begin < n; begin += EM_TABLE_BLOCK) {
        size_t count = n - begin < EM_TABLE_BLOCK ? n - begin : EM_TABLE_BLOCK;
        em_table_prepare(table, values, begin, count, hashes);
        for (size_t i = 0; i < count; i++) {
            size_t bit = valid_offset + begin + i;
            int null = valid != NULL && !(valid[bit >> 3] >> (bit & 7) & 1);
            uint32_t next = em_table_find(table, hashes[i])->number_next;
            found[begin + i] = null || next == 0 ? missing : (int32_t)(next - 1);
        }
    }
}
