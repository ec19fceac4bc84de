#include "enrich.h"

int64_t em_dimension_build(const em_table *table, em_strings keys, const int32_t *numbers, size_t n) {
    XXH128_hash_t hashes[EM_TABLE_BLOCK];
    for (size_t begin = 0, count; begin < n; begin += count) {
        count = em_table_prepare(table, keys, begin, n, hashes);
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
    XXH128_hash_t hashes[2][EM_TABLE_BLOCK];
    size_t count = em_table_prepare(table, values, 0, n, hashes[0]), following;
    for (size_t begin = 0, turn = 0; count > 0; begin += count, count = following, turn ^= 1) {
        following = em_table_prepare(table, values, begin + count, n, hashes[turn ^ 1]);
        for (size_t i = 0; i < count; i++) {
            const uint32_t next = em_table_find(table, hashes[turn][i])->number_next;
            found[begin + i] = next == 0 ? missing : (int32_t)(next - 1);
        }
    }
    for (size_t i = 0; valid != NULL && i < n; i++) {
        const size_t bit = valid_offset + i;
        found[i] = valid[bit >> 3] >> (bit & 7) & 1 ? found[i] : missing + 1;
    }
}

void em_dimension_gather(const int32_t *found, size_t n, const int32_t *codes_of, int32_t *codes, uint8_t *valid) {
    for (size_t begin = 0; begin < n; begin += 8) {
        unsigned bits = 0;
        for (size_t i = begin; i < n && i < begin + 8; i++) {
            const int32_t code = codes_of[found[i]];
            bits |= (unsigned)(code >= 0) << (i - begin);
            codes[i] = code < 0 ? 0 : code;
        }
        valid[begin / 8] = (uint8_t)bits;
    }
}

void em_dimension_flags(const int32_t *found, size_t n, int32_t missing, int32_t flag, const int32_t *flags,
                        int32_t *flagged) {
    for (size_t i = 0; i < n; i++)
        flagged[i] = (flags[i] & ~flag) | (found[i] == missing ? flag : 0);
}
