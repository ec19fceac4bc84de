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

/* Slots in a cache line, which are filled one after the other. */
enum { EM_TABLE_LINE = 4 };

typedef struct {
    em_slot *slots;        /* zeroed at first, aligned to a cache line (or slower) */
    uint64_t size;         /* a multiple of EM_TABLE_LINE up to 2^32, above the number of strings */
    const uint8_t *secret; /* EM_SECRET_BYTES */
} em_table;

/* The line where the string belongs. */
static inline em_slot *em_table_home(const em_table *table, XXH128_hash_t hash) {
    return table->slots + ((hash.high64 >> 32) * (table->size / EM_TABLE_LINE) >> 32) * EM_TABLE_LINE;
}

/*
 * The slot of the string with that hash, or the free one where it belongs. Which slot of a line it is cannot be
 * foretold, so no branch depends on that. A free slot differs from any hash by its number.
 */
static inline em_slot *em_table_find(const em_table *table, XXH128_hash_t hash) {
    em_slot *line = em_table_home(table, hash);
    for (;;) {
        em_slot *slot = line + ((int)(line[1].low == hash.low64) | (int)(line[2].low == hash.low64) * 2 |
                                (int)(line[3].low == hash.low64) * 3);
        if ((int)(slot->low == hash.low64) & (int)(slot->high == (uint32_t)hash.high64) & (int)(slot->number_next != 0))
            return slot;
        for (slot = line; slot < line + EM_TABLE_LINE; slot++)
            if (slot->number_next == 0 || (slot->low == hash.low64 && slot->high == (uint32_t)hash.high64))
                return slot;
        line += EM_TABLE_LINE;
        line = line == table->slots + table->size ? table->slots : line;
    }
}

static inline void em_table_fill(em_slot *slot, XXH128_hash_t hash, size_t number) {
    slot->low = hash.low64;
    slot->high = (uint32_t)hash.high64;
    slot->number_next = (uint32_t)number + 1;
}

/* Rows looked up together, so that their memory accesses overlap. */
enum { EM_TABLE_BLOCK = 32 };

/*
 * Hashes the rows from `begin` on, EM_TABLE_BLOCK at most, and fetches what em_table_find will read for them; gives how
 * many they are.
 */
static inline size_t em_table_prepare(const em_table *table, em_strings strings, size_t begin, size_t n,
                                      XXH128_hash_t hashes[EM_TABLE_BLOCK]) {
    const size_t count = n - begin < EM_TABLE_BLOCK ? n - begin : (size_t)EM_TABLE_BLOCK;
    for (size_t i = 0; i < count; i++) {
        hashes[i] = XXH3_128bits_withSecret(em_string_at(strings, begin + i), em_string_bytes(strings, begin + i),
                                            table->secret, EM_SECRET_BYTES);
        __builtin_prefetch(em_table_home(table, hashes[i]), 0, 3);
    }
    return count;
}

#endif
