#include "bloom.h"

#include "cpu.h"
#include "siphash.h"

/* Ids hashed at once (a few KB of stack), and blocks fetched ahead of their use (enough to cover a memory access). */
enum { CHUNK = 1024, AHEAD = 16, LINE = 64, SECTION = EM_BLOOM_CELLS / EM_BLOOM_PROBES };

static inline void hash(const uint8_t *ids, size_t n, uint64_t key0, uint64_t key1, uint64_t *hashes) {
    for (size_t i = 0; i < n; i++)
        hashes[i] = em_siphash_id(ids + i * EM_BLOOM_ID_BYTES, key0, key1);
}

EM_FOR_EACH_CPU(, em_bloom_hash, hash, (const uint8_t *ids, size_t n, uint64_t key0, uint64_t key1, uint64_t *hashes),
                (ids, n, key0, key1, hashes))

/* The upper half of the hash picks the block, the lower half's eight nibbles a cell in each section: no bit twice. */
static inline uint8_t *block_of(const em_bloom *bloom, uint64_t hash) {
    return bloom->cells + (((hash >> 32) * bloom->blocks) >> 32) * EM_BLOOM_CELLS;
}

static inline void cells_of(uint8_t *block, uint64_t hash, uint8_t *cells[EM_BLOOM_PROBES]) {
    for (unsigned section = 0; section < EM_BLOOM_PROBES; section++)
        cells[section] = block + section * SECTION + (hash >> (4 * section) & (SECTION - 1));
}

/* The generations that hold the id, a bit each. */
static inline unsigned generations_with(uint8_t *const cells[EM_BLOOM_PROBES]) {
    unsigned all = 0xff;
    for (unsigned section = 0; section < EM_BLOOM_PROBES; section++)
        all &= *cells[section];
    return all;
}

static inline void prefetch(const em_bloom *bloom, uint64_t hash) {
    const uint8_t *block = block_of(bloom, hash);
    for (size_t offset = 0; offset < EM_BLOOM_CELLS; offset += LINE)
        __builtin_prefetch(block + offset, 1, 3);
}

void em_bloom_prefetch(const em_bloom *bloom, uint64_t hash) {
    prefetch(bloom, hash);
}

static unsigned generation_of(int64_t slice) {
    return (unsigned)((uint64_t)slice % EM_BLOOM_GENERATIONS);
}

static unsigned live_generations(const em_bloom *bloom) {
    unsigned live = 0;
    for (uint32_t back = 0; back <= bloom->slices; back++)
        live |= 1U << generation_of((int64_t)((uint64_t)bloom->slice - back));
    return live;
}

static int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

/* Blocks without such a bit are only read, so memory that nobody wrote to stays unbacked. */
static inline void clear(uint8_t *cells, uint64_t begin, uint64_t end, uint8_t generations) {
    for (uint64_t number = begin; number < end; number++) {
        uint8_t *block = cells + number * EM_BLOOM_CELLS;
        uint8_t found = 0;
        for (size_t cell = 0; cell < EM_BLOOM_CELLS; cell++)
            found |= block[cell] & generations;
        if (found)
            for (size_t cell = 0; cell < EM_BLOOM_CELLS; cell++)
                block[cell] &= (uint8_t)~generations;
    }
}

EM_FOR_EACH_CPU(static, clear_blocks, clear, (uint8_t *cells, uint64_t begin, uint64_t end, uint8_t generations),
                (cells, begin, end, generations))

static void sweep(em_bloom *bloom, uint64_t blocks) {
    unsigned next = generation_of((int64_t)((uint64_t)bloom->slice + 1));
    uint64_t end = bloom->blocks - bloom->swept < blocks ? bloom->blocks : bloom->swept + blocks;
    if (bloom->ids[next])
        clear_blocks(bloom->cells, bloom->swept, end, (uint8_t)(1U << next));
    bloom->swept = end;
}

static void turn_to(em_bloom *bloom, int64_t slice) {
    uint64_t turns = bloom->slice == EM_BLOOM_NO_SLICE ? 0 : (uint64_t)slice - (uint64_t)bloom->slice;
    if (turns == 1)
        sweep(bloom, bloom->blocks);
    unsigned expired = 0;
    for (uint64_t turn = 1; turn <= turns && turn <= EM_BLOOM_GENERATIONS; turn++) {
        unsigned generation = generation_of((int64_t)((uint64_t)bloom->slice + turn));
        expired |= bloom->ids[generation] ? 1U << generation : 0;
        bloom->ids[generation] = 0;
    }
    if (turns > 1 && expired)
        clear_blocks(bloom->cells, 0, bloom->blocks, (uint8_t)expired);
    bloom->slice = slice;
    bloom->swept = 0;
}

static inline bool put(em_bloom *bloom, uint64_t hash, unsigned live, unsigned current) {
    uint8_t *cells[EM_BLOOM_PROBES];
    cells_of(block_of(bloom, hash), hash, cells);
    unsigned found = generations_with(cells);
    /* Into the current slice even when an older one holds it: the id must last a whole window from now. */
    if (!(found >> current & 1)) {
        for (unsigned section = 0; section < EM_BLOOM_PROBES; section++)
            *cells[section] |= (uint8_t)(1U << current);
        bloom->ids[current]++;
    }
    return (found & live) == 0;
}

static inline bool holds(const em_bloom *bloom, uint64_t hash, unsigned live) {
    uint8_t *cells[EM_BLOOM_PROBES];
    cells_of(block_of(bloom, hash), hash, cells);
    return (generations_with(cells) & live) != 0;
}

void em_bloom_advance(em_bloom *bloom, int64_t at_ms) {
    int64_t slice = floor_divide(at_ms, bloom->slice_ms);
    if (bloom->slice == EM_BLOOM_NO_SLICE || slice > bloom->slice)
        turn_to(bloom, slice);
    double elapsed = (double)(at_ms - bloom->slice * bloom->slice_ms) / (double)bloom->slice_ms;
    uint64_t due = (uint64_t)(elapsed * (double)bloom->blocks);
    if (slice == bloom->slice && due > bloom->swept)
        sweep(bloom, due - bloom->swept);
}

bool em_bloom_put(em_bloom *bloom, uint64_t hash) {
    bool fresh = put(bloom, hash, live_generations(bloom), generation_of(bloom->slice));
    sweep(bloom, 1);
    return fresh;
}

bool em_bloom_holds(const em_bloom *bloom, uint64_t hash) {
    return holds(bloom, hash, live_generations(bloom));
}

void em_bloom_observe(em_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride, size_t n,
                      uint8_t *fresh) {
    uint64_t hashes[CHUNK];
    int64_t turn_at = bloom->slice == EM_BLOOM_NO_SLICE ? INT64_MIN : (bloom->slice + 1) * bloom->slice_ms;
    unsigned live = live_generations(bloom), current = generation_of(bloom->slice);
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t count = n - begin < CHUNK ? n - begin : CHUNK, unswept = 0;
        em_bloom_hash(ids + begin * EM_BLOOM_ID_BYTES, count, bloom->key[0], bloom->key[1], hashes);
        for (size_t i = 0; i < count && i < AHEAD; i++)
            prefetch(bloom, hashes[i]);
        for (size_t i = 0; i < count; i++) {
            if (i + AHEAD < count)
                prefetch(bloom, hashes[i + AHEAD]);
            int64_t at = at_ms[(begin + i) * at_stride];
            if (at >= turn_at) {
                turn_to(bloom, floor_divide(at, bloom->slice_ms));
                turn_at = (bloom->slice + 1) * bloom->slice_ms;
                live = live_generations(bloom);
                current = generation_of(bloom->slice);
                unswept = 0;
            }
            fresh[begin + i] = put(bloom, hashes[i], live, current);
            unswept++;
        }
        sweep(bloom, unswept);
    }
}

void em_bloom_contains(const em_bloom *bloom, const uint8_t *ids, size_t n, uint8_t *seen) {
    uint64_t hashes[CHUNK];
    unsigned live = live_generations(bloom);
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t count = n - begin < CHUNK ? n - begin : CHUNK;
        em_bloom_hash(ids + begin * EM_BLOOM_ID_BYTES, count, bloom->key[0], bloom->key[1], hashes);
        for (size_t i = 0; i < count; i++) {
            if (i + AHEAD < count)
                prefetch(bloom, hashes[i + AHEAD]);
            seen[begin + i] = holds(bloom, hashes[i], live);
        }
    }
}
