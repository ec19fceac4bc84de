#include "event_bloom.h"

#include "cpu.h"
#include "siphash.h"

#include <string.h>

/* Ids handled at once (some KB of stack), and lines fetched ahead of their use (enough to cover a memory access). */
enum { CHUNK = 1024, AHEAD = 24, WORDS = EM_EVENT_BLOOM_WORDS, BLOCK_BYTES = 8 * WORDS, EARLY = EM_EVENT_BLOOM_EARLY };

/* The number of an id that belongs to no slice. */
#define NO_NUMBER UINT32_MAX

/* A run of ids, all of them within one slice of `latest`. */
typedef struct {
    uint64_t hashes[CHUNK];
    uint64_t *lines[CHUNK];  /* the block to look into */
    uint32_t numbers[CHUNK]; /* of slices from the oldest one alive to the id's */
    uint32_t slots[CHUNK];
    uint8_t plain[CHUNK]; /* on time, with nothing to be asked but its slice */
} run;

/* How own times are slots as long as the current slice lasts. */
typedef struct {
    int64_t begins;          /* of the oldest slice alive */
    uint64_t span;           /* ms from there to the last list's end */
    double per_ms;           /* slices a ms */
    uint32_t oldest, slots;  /* the slot of the oldest slice; all of them */
    uint32_t on_time, ahead; /* the first such number */
    bool short_list;         /* some open slice's list was too short */
} calendar;

static int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

static uint32_t slot_of(const em_event_bloom *bloom, int64_t slice) {
    int64_t rest = slice % (int64_t)bloom->slots;
    return (uint32_t)(rest < 0 ? rest + bloom->slots : rest);
}

/* The upper half of the hash picks the block, the lower half a bit in each word. */
static inline uint64_t *line_of(uint64_t *words, uint32_t blocks, uint32_t slot, uint64_t hash) {
    return words + ((uint64_t)slot * blocks + ((hash >> 32) * blocks >> 32)) * WORDS;
}

/*
 * Eight odd multipliers, so that the upper bits of the products are eight hash functions of 32 bits (Dietzfelbinger et
 * al.: "A Reliable Randomized Algorithm for the Closest-Pair Problem", 1997): the fractional parts of the square roots
 * of the first eight primes, made odd.
 */
static const uint32_t MULTIPLIERS[WORDS] = {0x6a09e667, 0xbb67ae85, 0x3c6ef373, 0xa54ff53b,
                                            0x510e527f, 0x9b05688d, 0x1f83d9ab, 0x5be0cd19};

static inline uint64_t bit_of(uint64_t hash, unsigned word) {
    return 1ULL << ((uint32_t)hash * MULTIPLIERS[word] >> 26);
}

static inline bool holds(const uint64_t *line, uint64_t hash) {
    uint64_t missing = 0;
    for (unsigned word = 0; word < WORDS; word++)
        missing |= bit_of(hash, word) & ~line[word];
    return missing == 0;
}

/* True when the id was not there. */
static inline bool put(uint64_t *line, uint64_t hash) {
    uint64_t missing = 0;
    for (unsigned word = 0; word < WORDS; word++) {
        uint64_t bit = bit_of(hash, word);
        missing |= bit & ~line[word];
        line[word] |= bit;
    }
    return missing != 0;
}

/* All of a block's words at once, where the processor can shift each lane by another number. */
typedef uint32_t eight32 __attribute__((vector_size(4 * WORDS)));
typedef uint64_t eight64 __attribute__((vector_size(8 * WORDS), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE bool put_lanes(uint64_t *line, uint64_t hash) {
    eight32 products;
    memcpy(&products, MULTIPLIERS, sizeof products);
    products *= (uint32_t)hash;
    const eight64 ones = {1, 1, 1, 1, 1, 1, 1, 1}, bits = ones << __builtin_convertvector(products >> 26, eight64);
    const eight64 missing = bits & ~*(eight64 *)line;
    *(eight64 *)line |= bits;
    uint64_t any = 0;
    for (unsigned word = 0; word < WORDS; word++)
        any |= missing[word];
    return any != 0;
}

static bool put_counted(em_event_bloom *bloom, uint32_t slot, uint64_t hash) {
    bool fresh = put(line_of(bloom->words, bloom->blocks, slot, hash), hash);
    bloom->ids[slot] += fresh;
    return fresh;
}

/* Ids that are not plain. */
static bool observe_aside(em_event_bloom *bloom, const calendar *now, const run *run, size_t i) {
    const uint64_t hash = run->hashes[i];
    const uint32_t number = run->numbers[i], slot = run->slots[i];
    if (number == NO_NUMBER)
        return em_bloom_put(&bloom->late, hash);
    if (number < now->on_time)
        return (int)em_bloom_put(&bloom->late, hash) & (int)!holds(run->lines[i], hash);
    if (number < now->ahead)
        return (int)put_counted(bloom, slot, hash) & (int)!em_bloom_holds(&bloom->late, hash);
    /* Into the list also when `late` holds it: that may be an error, and then nothing else would remember the id. */
    if (bloom->waiting[slot]++ < bloom->list_max)
        bloom->lists[slot * bloom->list_max + bloom->waiting[slot] - 1] = hash;
    return em_bloom_put(&bloom->late, hash);
}

INLINE void observe_run(em_event_bloom *bloom, const calendar *now, const run *run, size_t n, uint8_t *fresh,
                        bool put_plain(uint64_t *, uint64_t)) {
    for (size_t i = 0; i < n && i < AHEAD; i++)
        __builtin_prefetch(run->lines[i], 1, 3);
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n)
            __builtin_prefetch(run->lines[i + AHEAD], 1, 3);
        if (__builtin_expect(run->plain[i], 1)) {
            fresh[i] = put_plain(run->lines[i], run->hashes[i]);
            bloom->ids[run->slots[i]] += fresh[i];
        } else {
            fresh[i] = observe_aside(bloom, now, run, i);
        }
    }
}

static void observe_portable(em_event_bloom *bloom, const calendar *now, const run *run, size_t n, uint8_t *fresh) {
    observe_run(bloom, now, run, n, fresh, put);
}

INLINE void observe_lanes(em_event_bloom *bloom, const calendar *now, const run *run, size_t n, uint8_t *fresh) {
    observe_run(bloom, now, run, n, fresh, put_lanes);
}

EM_FOR_EACH_CPU(static, observe_wide, observe_lanes,
                (em_event_bloom * bloom, const calendar *now, const run *run, size_t n, uint8_t *fresh),
                (bloom, now, run, n, fresh))

static bool is_open(const em_event_bloom *bloom, int64_t slice) {
    return slice >= bloom->slice - bloom->lateness && slice <= bloom->slice + EARLY;
}

static calendar calendar_of(const em_event_bloom *bloom) {
    const int64_t oldest = bloom->slice - bloom->lateness - bloom->window;
    calendar now = {
        .begins = oldest * bloom->slice_ms,
        .per_ms = 1.0 / (double)bloom->slice_ms,
        .oldest = slot_of(bloom, oldest),
        .slots = bloom->slots,
        .on_time = bloom->window,
        .ahead = bloom->window + bloom->lateness + EARLY + 1,
    };
    now.span = (uint64_t)(now.ahead + bloom->window) * (uint64_t)bloom->slice_ms;
    for (int64_t slice = bloom->slice - bloom->lateness; is_open(bloom, slice); slice++)
        now.short_list |= bloom->waiting[slot_of(bloom, slice)] > bloom->list_max;
    return now;
}

/*
 * The number of whole slices in `ms` < 2^49, by instructions that every vector unit has: the lower bits of 2^52 + x are
 * x, and those of 2^52 + 2^51 + x are x rounded. (ms + 1/2) / slice_ms - 1/2 is never half-way between two whole
 * numbers, and further from there than the arithmetic errs.
 */
static inline uint32_t slices_in(uint64_t ms, double per_ms) {
    const double shift = 0x1p52, rounding = 0x1.8p52;
    uint64_t pattern;
    double value;
    memcpy(&pattern, &shift, sizeof pattern);
    pattern |= ms;
    memcpy(&value, &pattern, sizeof value);
    value = (value - shift + 0.5) * per_ms - 0.5 + rounding;
    memcpy(&pattern, &value, sizeof pattern);
    return (uint32_t)pattern;
}

/* Finds the places of `n` ids, and how many of them are not plain, if none of the open slices had too short a list.
 */
static inline void place_each(uint64_t *words, uint32_t blocks, calendar now, const int64_t *own_ms, size_t n, run *run,
                              uint32_t *count_aside) {
    uint32_t aside = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t since = (uint64_t)own_ms[i] - (uint64_t)now.begins;
        /* All ones where the slice has a number: what is written without a choice becomes vector instructions. */
        const uint64_t known = -(uint64_t)(since < now.span);
        const uint32_t number = slices_in(since & known, now.per_ms) | ~(uint32_t)known;
        uint32_t slot = now.oldest + (number & (uint32_t)known);
        slot -= now.slots & -(uint32_t)(slot >= now.slots);
        slot -= now.slots & -(uint32_t)(slot >= now.slots);
        const uint8_t plain = number - now.on_time < now.ahead - now.on_time;
        run->numbers[i] = number;
        run->slots[i] = slot;
        run->lines[i] = line_of(words, blocks, slot, run->hashes[i]);
        run->plain[i] = plain;
        aside += 1U - plain;
    }
    *count_aside = aside;
}

EM_FOR_EACH_CPU(static, place_all, place_each,
                (uint64_t *words, uint32_t blocks, calendar now, const int64_t *own_ms, size_t n, run *run,
                 uint32_t *count_aside),
                (words, blocks, now, own_ms, n, run, count_aside))

/* Gives the time that all ids have in common where the caller named but one. */
static const int64_t *times_at(const int64_t *times, size_t stride, size_t begin, size_t count, int64_t same[CHUNK]) {
    if (stride)
        return times + begin;
    for (size_t i = 0; i < count; i++)
        same[i] = *times;
    return same;
}

static void place(const em_event_bloom *bloom, const calendar *now, const int64_t *own_ms, size_t n, run *run) {
    uint32_t aside;
    place_all(bloom->words, bloom->blocks, *now, own_ms, n, run, &aside);
    if (!aside && !now->short_list)
        return;
    for (size_t i = 0; now->short_list && i < n; i++)
        run->plain[i] &= bloom->waiting[run->slots[i]] <= bloom->list_max;
    const uint8_t *end = run->plain + n;
    for (const uint8_t *at = run->plain; (at = memchr(at, false, (size_t)(end - at))) != NULL; at++)
        em_bloom_prefetch(&bloom->late, run->hashes[at - run->plain]);
}

static void clear_slice(em_event_bloom *bloom, uint32_t slot, uint64_t begin, uint64_t end) {
    if (bloom->ids[slot])
        memset(bloom->words + (slot * (uint64_t)bloom->blocks + begin) * WORDS, 0, (end - begin) * BLOCK_BYTES);
}

void em_event_bloom_sweep(em_event_bloom *bloom) {
    if (bloom->slice == EM_BLOOM_NO_SLICE)
        return;
    double elapsed = (double)(bloom->latest - bloom->slice * bloom->slice_ms) / (double)bloom->slice_ms;
    uint64_t due = (uint64_t)(elapsed * bloom->blocks);
    if (due > bloom->swept)
        clear_slice(bloom, slot_of(bloom, bloom->slice + EARLY + 1), bloom->swept, due);
    bloom->swept = due;
}

/* Puts the ids that came ahead of it into a slice that opens. */
static void open_slice(em_event_bloom *bloom, uint32_t slot) {
    const uint64_t *list = bloom->lists + slot * bloom->list_max;
    uint64_t count = bloom->waiting[slot] < bloom->list_max ? bloom->waiting[slot] : bloom->list_max;
    for (uint64_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            __builtin_prefetch(line_of(bloom->words, bloom->blocks, slot, list[i + AHEAD]), 1, 3);
        put_counted(bloom, slot, list[i]);
    }
}

static void turn_from(em_event_bloom *bloom, int64_t old) {
    for (int64_t was = old - bloom->lateness; was <= old + EARLY && !is_open(bloom, was); was++)
        bloom->waiting[slot_of(bloom, was)] = 0;
    for (int64_t step = 1; step <= bloom->slice - old && step <= bloom->slots; step++) {
        uint32_t slot = slot_of(bloom, old + EARLY + step);
        clear_slice(bloom, slot, step == 1 ? bloom->swept : 0, bloom->blocks);
        bloom->ids[slot] = 0;
        if (is_open(bloom, old + EARLY + step))
            open_slice(bloom, slot);
        else
            bloom->waiting[slot] = 0;
    }
}

static void turn_to(em_event_bloom *bloom, int64_t slice) {
    const int64_t old = bloom->slice;
    bloom->slice = slice;
    if (old != EM_BLOOM_NO_SLICE)
        turn_from(bloom, old);
    bloom->swept = 0;
    em_bloom_advance(&bloom->late, slice * bloom->slice_ms);
}

static int64_t latest_of(const int64_t *at_ms, size_t n, int64_t latest) {
    for (size_t i = 0; i < n; i++)
        latest = at_ms[i] > latest ? at_ms[i] : latest;
    return latest;
}

/* Takes the times up to the next turn into `latest`; gives how many those are. */
static size_t arrive(em_event_bloom *bloom, const int64_t *at_ms, size_t n) {
    const int64_t turn_at = (bloom->slice + 1) * bloom->slice_ms;
    int64_t latest = latest_of(at_ms, n, bloom->latest);
    if (latest >= turn_at) {
        size_t before = 0;
        while (at_ms[before] < turn_at)
            before++;
        n = before;
        latest = latest_of(at_ms, n, bloom->latest);
    }
    bloom->latest = latest;
    return n;
}

void em_event_bloom_observe(em_event_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride,
                            const int64_t *own_ms, size_t own_stride, size_t n, uint8_t *fresh) {
    const bool wide = em_cpu_level() != EM_CPU_PORTABLE;
    int64_t same_at[CHUNK], same_own[CHUNK];
    run run;
    for (size_t done = 0, count; done < n; done += count) {
        const int64_t *at = times_at(at_ms, at_stride, done, n - done < CHUNK ? n - done : CHUNK, same_at);
        count = n - done < CHUNK ? n - done : CHUNK;
        if (bloom->slice == EM_BLOOM_NO_SLICE || *at >= (bloom->slice + 1) * bloom->slice_ms) {
            turn_to(bloom, floor_divide(*at, bloom->slice_ms));
            bloom->latest = *at;
        }
        count = arrive(bloom, at, count);
        const calendar now = calendar_of(bloom);
        em_bloom_hash(ids + done * EM_BLOOM_ID_BYTES, count, bloom->late.key[0], bloom->late.key[1], run.hashes);
        place(bloom, &now, times_at(own_ms, own_stride, done, count, same_own), count, &run);
        if (wide)
            observe_wide(bloom, &now, &run, count, fresh + done);
        else
            observe_portable(bloom, &now, &run, count, fresh + done);
        em_event_bloom_sweep(bloom);
    }
}

void em_event_bloom_contains(const em_event_bloom *bloom, const uint8_t *ids, const int64_t *own_ms, size_t own_stride,
                             size_t n, uint8_t *seen) {
    int64_t same_own[CHUNK];
    run run;
    memset(seen, 0, n);
    if (bloom->slice == EM_BLOOM_NO_SLICE)
        return;
    const calendar now = calendar_of(bloom);
    for (size_t done = 0, count; done < n; done += count) {
        count = n - done < CHUNK ? n - done : CHUNK;
        em_bloom_hash(ids + done * EM_BLOOM_ID_BYTES, count, bloom->late.key[0], bloom->late.key[1], run.hashes);
        place(bloom, &now, times_at(own_ms, own_stride, done, count, same_own), count, &run);
        for (size_t i = 0; i < count; i++) {
            if (i + AHEAD < count)
                __builtin_prefetch(run.lines[i + AHEAD], 0, 3);
            if (run.numbers[i] < now.ahead)
                seen[done + i] = holds(run.lines[i], run.hashes[i]);
            if (!run.plain[i])
                seen[done + i] |= em_bloom_holds(&bloom->late, run.hashes[i]);
        }
    }
}
