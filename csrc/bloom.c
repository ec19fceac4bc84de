#include "bloom.h"

#include <string.h>
#include <xxhash.h>

/* Odd multipliers from Parquet's split-block specification; each picks one bit of its word. */
static const uint32_t SALTS[EM_BLOOM_WORDS] = {0x47b6137bU, 0x44974d91U, 0x8824ad5bU, 0xa2b7289dU,
                                               0x705495c7U, 0x2df1424bU, 0x9efc4947U, 0x5c6bfb31U};

/* Ids hashed and prefetched ahead of their use: enough to cover a memory access, few enough to stay in L1. */
enum { AHEAD = 32, LINE = 64 };

typedef struct {
    uint32_t *block;
    uint32_t bits;
} probe;

static inline probe locate(const em_bloom *bloom, const uint8_t *id) {
    XXH128_hash_t hash = XXH3_128bits_withSecret(id, EM_BLOOM_ID_BYTES, bloom->secret, EM_BLOOM_SECRET_BYTES);
    uint64_t index = ((hash.high64 >> 32) * bloom->blocks) >> 32;
    probe found = {bloom->words + index * bloom->generations * EM_BLOOM_WORDS, (uint32_t)hash.low64};
    return found;
}

static inline void prefetch(const em_bloom *bloom, const uint32_t *block) {
    size_t bytes = (size_t)bloom->generations * EM_BLOOM_WORDS * sizeof(uint32_t);
    for (size_t offset = 0; offset < bytes; offset += LINE)
        __builtin_prefetch((const char *)block + offset, 1, 3);
}

static inline void make_mask(uint32_t bits, uint32_t mask[EM_BLOOM_WORDS]) {
    for (int word = 0; word < EM_BLOOM_WORDS; word++)
        mask[word] = 1U << ((bits * SALTS[word]) >> 27);
}

static inline int holds(const uint32_t *filter, const uint32_t mask[EM_BLOOM_WORDS]) {
    uint32_t missing = 0;
    for (int word = 0; word < EM_BLOOM_WORDS; word++)
        missing |= mask[word] & ~filter[word];
    return missing == 0;
}

static int any_holds(const em_bloom *bloom, const uint32_t *block, const uint32_t mask[EM_BLOOM_WORDS]) {
    int seen = 0;
    for (uint32_t generation = 0; generation < bloom->generations; generation++)
        seen |= holds(block + (size_t)generation * EM_BLOOM_WORDS, mask);
    return seen;
}

static uint32_t generation_of(const em_bloom *bloom, int64_t slice) {
    int64_t rest = slice % (int64_t)bloom->generations;
    return (uint32_t)(rest < 0 ? rest + bloom->generations : rest);
}

static void clear_generation(em_bloom *bloom, uint32_t generation) {
    uint32_t *filter = bloom->words + (size_t)generation * EM_BLOOM_WORDS;
    for (uint64_t block = 0; block < bloom->blocks; block++) {
        memset(filter, 0, EM_BLOOM_WORDS * sizeof(uint32_t));
        filter += (size_t)bloom->generations * EM_BLOOM_WORDS;
    }
}

static void turn_to(em_bloom *bloom, int64_t slice) {
    if (bloom->slice != INT64_MIN) {
        int64_t turns = slice - bloom->slice;
        if (turns > (int64_t)bloom->generations)
            turns = bloom->generations;
        for (int64_t back = 0; back < turns; back++)
            clear_generation(bloom, generation_of(bloom, slice - back));
    }
    bloom->slice = slice;
    bloom->inserted = 0;
}

void em_bloom_observe(em_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, size_t n,
                      uint8_t *fresh) {
    probe ring[AHEAD];
    for (size_t i = 0; i < n && i < AHEAD; i++) {
        ring[i] = locate(bloom, ids + i * EM_BLOOM_ID_BYTES);
        prefetch(bloom, ring[i].block);
    }
    for (size_t i = 0; i < n; i++) {
        probe here = ring[i % AHEAD];
        if (i + AHEAD < n) {
            ring[i % AHEAD] = locate(bloom, ids + (i + AHEAD) * EM_BLOOM_ID_BYTES);
            prefetch(bloom, ring[i % AHEAD].block);
        }
        int64_t at = at_ms[i * at_stride];
        int64_t slice = at / bloom->slice_ms - (at % bloom->slice_ms < 0);
        if (slice > bloom->slice)
            turn_to(bloom, slice);
        uint32_t mask[EM_BLOOM_WORDS];
        make_mask(here.bits, mask);
        fresh[i] = (uint8_t)!any_holds(bloom, here.block, mask);
        /* Always into the current slice, even when an older one holds it: the id must last a whole window from now. */
        uint32_t *filter = here.block + (size_t)generation_of(bloom, bloom->slice) * EM_BLOOM_WORDS;
        for (int word = 0; word < EM_BLOOM_WORDS; word++)
            filter[word] |= mask[word];
        bloom->inserted++;
    }
}

void em_bloom_contains(const em_bloom *bloom, const uint8_t *ids, size_t n, uint8_t *seen) {
    for (size_t i = 0; i < n; i++) {
        probe here = locate(bloom, ids + i * EM_BLOOM_ID_BYTES);
        uint32_t mask[EM_BLOOM_WORDS];
        make_mask(here.bits, mask);
        seen[i] = (uint8_t)any_holds(bloom, here.block, mask);
    }
}
