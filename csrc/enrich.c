#include "enrich.h"

#include <string.h>
#include <xxhash.h>

enum { AHEAD = 16 };

static inline uint64_t hash_of(const em_dimension *dimension, const uint8_t *text, size_t length) {
    return XXH3_64bits_withSeed(text, length, dimension->seed);
}

static int same(const em_dimension *dimension, int32_t row, const uint8_t *text, size_t length) {
    size_t begin = (size_t)dimension->offsets[row];
    return (size_t)dimension->offsets[row + 1] - begin == length &&
           (length == 0 || memcmp(dimension->data + begin, text, length) == 0);
}

static em_slot *slot_of(const em_dimension *dimension, uint64_t hash, const uint8_t *text, size_t length) {
    uint64_t mask = dimension->size - 1;
    uint32_t tag = (uint32_t)(hash >> 32);
    for (uint64_t slot = hash & mask;; slot = (slot + 1) & mask) {
        em_slot *here = dimension->slots + slot;
        if (here->row < 0 || (here->tag == tag && same(dimension, here->row, text, length)))
            return here;
    }
}

int64_t em_dimension_build(em_dimension *dimension, size_t n) {
    for (size_t row = 0; row < n; row++) {
        const uint8_t *text = dimension->data + dimension->offsets[row];
        size_t length = (size_t)(dimension->offsets[row + 1] - dimension->offsets[row]);
        uint64_t hash = hash_of(dimension, text, length);
        em_slot *slot = slot_of(dimension, hash, text, length);
        if (slot->row >= 0)
            return (int64_t)row;
        slot->tag = (uint32_t)(hash >> 32);
        slot->row = (int32_t)row;
    }
    return -1;
}

void em_dimension_find(const em_dimension *dimension, const int32_t *offsets, const uint8_t *data, const uint8_t *valid,
                       size_t valid_offset, size_t n, int32_t *rows) {
    uint64_t hashes[AHEAD];
    uint64_t mask = dimension->size - 1;
    for (size_t block = 0; block < n; block += AHEAD) {
        size_t count = n - block < AHEAD ? n - block : AHEAD;
        for (size_t i = 0; i < count; i++) {
            size_t row = block + i;
            hashes[i] = hash_of(dimension, data + offsets[row], (size_t)(offsets[row + 1] - offsets[row]));
            __builtin_prefetch(dimension->slots + (hashes[i] & mask), 0, 3);
        }
        for (size_t i = 0; i < count; i++) {
            size_t row = block + i, bit = valid_offset + row;
            int null = valid != NULL && !(valid[bit >> 3] >> (bit & 7) & 1);
            size_t length = (size_t)(offsets[row + 1] - offsets[row]);
            rows[row] = null ? -1 : slot_of(dimension, hashes[i], data + offsets[row], length)->row;
        }
    }
}
