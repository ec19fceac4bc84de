#include "event_bloom.h"

#include <string.h>

/* Ids handled at once (some KB of stack), and lines fetched ahead of their use (enough to cover a memory access). */
enum { CHUNK = 1024, AHEAD = 24, WORDS = EM_EVENT_BLOOM_WORDS, EARLY = EM_EVENT_BLOOM_EARLY };

typedef enum { ON_TIME, LATE, ASKS_BOTH, IS_AHEAD, NO_SLICE } place_kind;

/* What a run of ids, all of them within one slice of `latest`, is looked up in; `lines` has null for all but ON_TIME. */
typedef struct {
    uint64_t hashes[CHUNK];
    uint64_t *lines[CHUNK];
    uint32_t slots[CHUNK];
    uint8_t kinds[CHUNK];
} run;

/* Own times as slots, as long as the current slice lasts. */
typedef struct {
    int64_t begins;  /* of the oldest slice alive */
    uint64_t span;   /* ms from there to the last list's end */
    double per_ms;   /* slices a ms */
    uint32_t oldest; /* the slot of the oldest slice */
    uint32_t on_time, ahead; /* the first such slice, counted from the oldest */
    bool short_list;         /* some open slice's list was too short */
} calendar;

static int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

static uint32_t slot_of(const em_event_bloom *bloom, int64_t slice) {
    int64_t rest = slice % (int64_t)bloom->slots;
    return (uint32_t)(rest < 0 ? rest + bloom->slots : rest);
}

static uint64_t *slice_words(const em_event_bloom *bloom, uint32_t slot) {
    return bloom->words + (uint64_t)slot * bloom->blocks * WORDS;
}

/* The upper half of the hash picks the block, the lower half a bit in each word. */
static inline uint64_t *line_of(const em_event_bloom *bloom, uint32_t slot, uint64_t hash) {
    return bloom->words + ((uint64_t)slot * bloom->blocks + ((hash >> 32) * bloom->blocks >> 32)) * WORDS;
}

/*
 * Eight odd multipliers, so that the upper bits of the products are eight hash functions of 32 bits (Dietzfelbinger et al.:
 * "A Reliable Randomized Algorithm for the Closest-Pair Problem", 1997): the fractional parts of the square roots of the
 * first eight primes, made odd.
 */
#define MULTIPLIERS                                                                                                    \
    { 0x6a09e667, 0xbb67ae85, 0x3c6ef373, 0xa54ff53b, 0x510e527f, 0x9b05688d, 0x1f83d9ab, 0x5be0cd19 }

/* A block's words at once; the compiler makes vector instructions of it for each variant's target. */
typedef uint32_t eight32 __attribute__((vector_size(4 * WORDS)));
typedef uint64_t eight64 __attribute__((vector_size(8 * WORDS), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* The id's bits; an out parameter, since a function must not return vectors that its target may lack. */
INLINE void bits_of(uint64_t hash, eight64 *bits) {
    const eight32 products = (eight32)MULTIPLIERS * (uint32_t)hash;
    *bits = (eight64){1, 1, 1, 1, 1, 1, 1, 1} << __builtin_convertvector(products >> 26, eight64);
}

INLINE bool any_of(const eight64 *words) {
    uint64_t any = 0;
    for (int word = 0; word < WORDS; word++)
        any |= (*words)[word];
    return any != 0;
}

INLINE bool holds(const uint64_t *line, uint64_t hash) {
    eight64 bits;
    bits_of(hash, &bits);
    bits &= ~*(const eight64 *)line;
    return !any_of(&bits);
}

/* True when the id was not there. */
INLINE bool put(uint64_t *line, uint64_t hash) {
    eight64 bits, missing, *words = (eight64 *)line;
    bits_of(hash, &bits);
    missing = bits & ~*words;
    *words |= bits;
    return any_of(&missing);
}

static bool put_counted(em_event_bloom *bloom, uint32_t slot, uint64_t hash) {
    bool fresh = put(line_of(bloom, slot, hash), hash);
    bloom->ids[slot] += fresh;
    return fresh;
}

/* Ids that are not simply on time. */
static bool observe_aside(em_event_bloom *bloom, const run *run, size_t i) {
    const uint64_t hash = run->hashes[i];
    const uint32_t slot = run->slots[i];
    if (run->kinds[i] == ASKS_BOTH)
        return put_counted(bloom, slot, hash) & !em_bloom_holds(&bloom->late, hash);
    if (run->kinds[i] == LATE)
        return em_bloom_put(&bloom->late, hash) & !holds(line_of(bloom, slot, hash), hash);
    /* Into the list also when `late` holds it: that may be an error, and then nothing else would remember the id. */
    if (run->kinds[i] == IS_AHEAD && bloom->waiting[slot]++ < bloom->list_max)
        bloom->lists[slot * bloom->list_max + bloom->waiting[slot] - 1] = hash;
    return em_bloom_put(&bloom->late, hash);
}

INLINE void observe_run(em_event_bloom *bloom, const run *run, size_t begin, size_t end, uint8_t *fresh) {
    for (size_t i = begin; i < end && i < begin + AHEAD; i++)
        __builtin_prefetch(run->lines[i], 1, 3);
    for (size_t i = begin; i < end; i++) {
        if (i + AHEAD < end)
            __builtin_prefetch(run->lines[i + AHEAD], 1, 3);
        if (__builtin_expect(run->lines[i] != NULL, 1)) {
            fresh[i] = put(run->lines[i], run->hashes[i]);
            bloom->ids[run->slots[i]] += fresh[i];
        } else {
            fresh[i] = observe_aside(bloom, run, i);
        }
    }
}

typedef void observer(em_event_bloom *bloom, const run *run, size_t begin, size_t end, uint8_t *fresh);

static void observe_portable(em_event_bloom *bloom, const run *run, size_t begin, size_t end, uint8_t *fresh) {
    observe_run(bloom, run, begin, end, fresh);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx512f"))) static void observe_avx512(em_event_bloom *bloom, const run *run, size_t begin,
                                                              size_t end, uint8_t *fresh) {
    observe_run(bloom, run, begin, end, fresh);
}

__attribute__((target("avx2"))) static void observe_avx2(em_event_bloom *bloom, const run *run, size_t begin, size_t end,
                                                         uint8_t *fresh) {
    observe_run(bloom, run, begin, end, fresh);
}

#define RUNS(feature) (__builtin_cpu_supports(feature) != 0)
#endif

typedef struct {
    const char *name;
    observer *observe;
} variant;

/* The variant `number` of those that this processor runs; without a name where there is none. */
static variant select_variant(uint32_t number) {
#ifdef RUNS
    if (RUNS("avx512f") && number-- == 0)
        return (variant){"avx512", observe_avx512};
    if (RUNS("avx2") && number-- == 0)
        return (variant){"avx2", observe_avx2};
#endif
    return (variant){number == 0 ? "portable" : NULL, observe_portable};
}

const char *em_event_bloom_variant(uint32_t number) {
    return select_variant(number).name;
}

static bool is_open(const em_event_bloom *bloom, int64_t slice) {
    return slice >= bloom->slice - bloom->lateness && slice <= bloom->slice + EARLY;
}

static calendar calendar_of(const em_event_bloom *bloom) {
    const int64_t oldest = bloom->slice - bloom->lateness - bloom->window;
    calendar now = {
        .begins = oldest * bloom->slice_ms,
        .per_ms = 1.0 / (double)bloom->slice_ms,
        .oldest = slot_of(bloom, oldest),
        .on_time = bloom->window,
        .ahead = bloom->window + bloom->lateness + EARLY + 1,
    };
    now.span = (uint64_t)(now.ahead + bloom->window) * (uint64_t)bloom->slice_ms;
    for (int64_t slice = bloom->slice - bloom->lateness; is_open(bloom, slice); slice++)
        now.short_list |= bloom->waiting[slot_of(bloom, slice)] > bloom->list_max;
    return now;
}

/* Finds row i's place. */
static inline void place(const em_event_bloom *bloom, const calendar *now, int64_t own, size_t i, run *run) {
    const uint64_t since = (uint64_t)own - (uint64_t)now->begins, hash = run->hashes[i];
    run->lines[i] = NULL;
    run->kinds[i] = NO_SLICE;
    if (since < now->span) {
        /* Exact below 2^49: (since + 1/2) / slice_ms is further from a whole number than its rounding reaches. */
        const uint32_t number = (uint32_t)(int64_t)(((double)(int64_t)since + 0.5) * now->per_ms);
        uint32_t slot = now->oldest + number;
        while (slot >= bloom->slots)
            slot -= bloom->slots;
        uint64_t *line = line_of(bloom, slot, hash);
        run->slots[i] = slot;
        if (__builtin_expect(number - now->on_time < now->ahead - now->on_time, 1)) {
            run->kinds[i] = ON_TIME;
            if (__builtin_expect(!now->short_list || bloom->waiting[slot] <= bloom->list_max, 1)) {
                run->lines[i] = line;
                return;
            }
            run->kinds[i] = ASKS_BOTH;
        } else {
            run->kinds[i] = number < now->on_time ? LATE : IS_AHEAD;
        }
        __builtin_prefetch(line, 1, 3);
    }
    em_bloom_prefetch(&bloom->late, hash);
}

static void clear_slice(em_event_bloom *bloom, uint32_t slot, uint64_t begin, uint64_t end) {
    if (bloom->ids[slot])
        memset(slice_words(bloom, slot) + begin * WORDS, 0, (end - begin) * WORDS * sizeof(uint64_t));
}

void em_event_bloom_sweep(em_event_bloom *bloom) {
    if (bloom->slice == EM_BLOOM_NO_SLICE)
        return;
    double elapsed = (double)(bloom->latest - bloom->slice * bloom->slice_ms) / (double)bloom->slice_ms;
    uint64_t due = (uint64_t)(elapsed * (double)bloom->blocks);
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
            __builtin_prefetch(line_of(bloom, slot, list[i + AHEAD]), 1, 3);
        put_counted(bloom, slot, list[i]);
    }
}

static void turn_to(em_event_bloom *bloom, int64_t slice) {
    const int64_t old = bloom->slice;
    const bool first = old == EM_BLOOM_NO_SLICE;
    bloom->slice = slice;
    for (int64_t was = old - bloom->lateness; !first && was <= old + EARLY && !is_open(bloom, was); was++)
        bloom->waiting[slot_of(bloom, was)] = 0;
    for (int64_t step = 1; !first && step <= slice - old && step <= bloom->slots; step++) {
        uint32_t slot = slot_of(bloom, old + EARLY + step);
        clear_slice(bloom, slot, step == 1 ? bloom->swept : 0, bloom->blocks);
        bloom->ids[slot] = 0;
        if (is_open(bloom, old + EARLY + step))
            open_slice(bloom, slot);
        else
            bloom->waiting[slot] = 0;
    }
    bloom->swept = 0;
    em_bloom_advance(&bloom->late, slice * bloom->slice_ms);
}

void em_event_bloom_observe(em_event_bloom *bloom, const uint8_t *ids, const int64_t *at_ms, size_t at_stride,
                            const int64_t *own_ms, size_t own_stride, size_t n, uint8_t *fresh) {
    observer *const observe = select_variant(bloom->variant).observe;
    run run;
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        const size_t count = n - begin < CHUNK ? n - begin : CHUNK;
        em_bloom_hash(ids + begin * EM_BLOOM_ID_BYTES, count, bloom->late.key[0], bloom->late.key[1], run.hashes);
        for (size_t i = 0, done = 0; i < count; done = i) {
            int64_t at = at_ms[(begin + i) * at_stride];
            if (bloom->slice == EM_BLOOM_NO_SLICE || at >= (bloom->slice + 1) * bloom->slice_ms) {
                turn_to(bloom, floor_divide(at, bloom->slice_ms));
                bloom->latest = at;
            }
            const calendar now = calendar_of(bloom);
            const int64_t turn_at = (bloom->slice + 1) * bloom->slice_ms;
            for (; i < count && (at = at_ms[(begin + i) * at_stride]) < turn_at; i++) {
                bloom->latest = at > bloom->latest ? at : bloom->latest;
                place(bloom, &now, own_ms[(begin + i) * own_stride], i, &run);
            }
            observe(bloom, &run, done, i, fresh + begin);
            em_event_bloom_sweep(bloom);
        }
    }
}

void em_event_bloom_contains(const em_event_bloom *bloom, const uint8_t *ids, const int64_t *own_ms, size_t own_stride,
                             size_t n, uint8_t *seen) {
    run run;
    if (bloom->slice == EM_BLOOM_NO_SLICE) {
        memset(seen, 0, n);
        return;
    }
    const calendar now = calendar_of(bloom);
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        const size_t count = n - begin < CHUNK ? n - begin : CHUNK;
        em_bloom_hash(ids + begin * EM_BLOOM_ID_BYTES, count, bloom->late.key[0], bloom->late.key[1], run.hashes);
        for (size_t i = 0; i < count; i++)
            place(bloom, &now, own_ms[(begin + i) * own_stride], i, &run);
        for (size_t i = 0; i < count; i++) {
            if (i + AHEAD < count)
                __builtin_prefetch(run.lines[i + AHEAD], 0, 3);
            if (run.lines[i] != NULL)
                seen[begin + i] = holds(run.lines[i], run.hashes[i]);
            else
                seen[begin + i] =
                    em_bloom_holds(&bloom->late, run.hashes[i]) ||
                    ((run.kinds[i] == LATE || run.kinds[i] == ASKS_BOTH) &&
                     holds(line_of(bloom, run.slots[i], run.hashes[i]), run.hashes[i]));
        }
    }
}
