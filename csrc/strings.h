/*
 * String columns, as Arrow lays them out, and a hash table that numbers strings.
 *
 * Strings that clients choose are hashed with XXH3 keyed by EM_SECRET_BYTES random bytes: three times faster on a
 * device id than SipHash. It is no pseudorandom function by proof, but no way is known to find strings that collide
 * without the secret. The table keeps 96 bits of the hash instead of the string, so a look-up costs one memory access:
 * among 10 million strings any two are taken for the same with a probability below 1e-15.
 */
#ifndef EVENTMILL_STRINGS_H
#define EVENTMILL_STRINGS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <xxhash.h>

enum { EM_SECRET_BYTES = 192 };

/* Value i is data[offsets[i] .. offsets[i + 1]]. */
typedef struct {
    const int32_t *offsets;
    const uint8_t *data;
} em_strings;

static inline size_t em_string_bytes(em_strings strings, size_t row) {
    return (size_t)(strings.offsets[row + 1] - strings.offsets[row]);
}

static inline const uint8_t *em_string_at(em_strings strings, size_t row) {
    return strings.data + strings.offsets[row];
}

/* All zero = free. A string's place follows from the hash bits that are not kept. */
typedef struct {
    uint64_t low;
    uint32_t high;
    uint32_t number_next; /* number of the string, plus one */
} em_slot;

typedef struct {
    em_slot *slots;        /* zeroed at first */
    uint64_t size;         /* a power of two up to 2^32, above the number of strings */
    const uint8_t *secret; /* EM_SECRET_BYTES */
} em_table;

static inline uint64_t em_table_place(const em_table *table, XXH128_hash_t hash) {
    return hash.high64 >> 32 & (table->size - 1);
}

/* The slot of the string with that hash, or the free one where it belongs. */
static inline em_slot *em_table_find(const em_table *table, XXH128_hash_t hash) {
    for (uint64_t place = em_table_place(table, hash);; place = (place + 1) & (table->size - 1)) {
        em_slot *slot = table->slots + place;
        if (slot->number_next == 0 || (slot->low == hash.low64 && slot->high == (uint32_t)hash.high64))
            return slot;
    }
}

static inline void em_table_fill(em_slot *slot, XXH128_hash_t hash, size_t number) {
    slot->low = hash.low64;
    slot->high = (uint32_t)hash.high64;
    slot->number_next = (uint32_t)number + 1;
}

/* Rows looked up together, so that their memory accesses overlap. */
enum { EM_TABLE_BLOCK = 64 };

/* Hashes `count` <= EM_TABLE_BLOCK rows from `begin` on, and fetches what em_table_find will read for them. */
static inline void em_table_prepare(const em_table *table, em_strings strings, size_t begin, size_t count,
                                    XXH128_hash_t hashes[EM_TABLE_BLOCK]) {
    for (size_t i = 0; i < count; i++) {
        hashes[i] = XXH3_128bits_withSecret(em_string_at(strings, begin + i), em_string_bytes(strings, begin + i),
                                            table->secret, EM_SECRET_BYTES);
        __builtin_prefetch(table->slots + em_table_place(table, hashes[i]), 0, 3);
    }
}

#endif
