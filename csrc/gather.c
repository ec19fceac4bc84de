#include "gather.h"

#include "cpu.h"

/* Bytes copied at once, of which the last ones may belong to nobody. */
enum { STEP = 64 };
/* Rows fetched ahead; a row's string takes up to so many cache lines that are asked for. */
enum { AHEAD = 16, LINE = 64, LINES_MAX = 8 };
/* Strings in runs of at least so many on average are copied run by run. */
enum { RUN_FEW = 4 };

static inline void look(em_rows *picked, size_t limit, int *fits) {
    uint32_t most = 0;
    size_t runs = picked->n > 0;
    for (size_t i = 0; i < picked->n; i++)
        most = (uint32_t)picked->rows[i] > most ? (uint32_t)picked->rows[i] : most;
    *fits = picked->n == 0 || (most <= INT32_MAX && most < limit);
    for (size_t i = 1; *fits && i < picked->n; i++)
        runs += picked->rows[i] != picked->rows[i - 1] + 1;
    picked->runs = runs;
}

EM_FOR_EACH_CPU(static, look_best, look, (em_rows * picked, size_t limit, int *fits), (picked, limit, fits))

int em_gather_look(em_rows *picked, size_t limit) {
    int fits;
    look_best(picked, limit, &fits);
    return fits;
}

typedef struct {
    uint64_t halves[2];
} pair;

/* Columns need not be aligned to their values' width, so values are moved as bytes. */
#define GATHER(type)                                                                                                   \
    for (size_t i = 0; i < picked.n; i++)                                                                              \
    memcpy(to + i * sizeof(type), from + (size_t)picked.rows[i] * sizeof(type), sizeof(type))

int em_gather_fixed(em_rows picked, const uint8_t *restrict from, size_t width, uint8_t *restrict to) {
    switch (width) {
    case 1:
        GATHER(uint8_t);
        return 1;
    case 2:
        GATHER(uint16_t);
        return 1;
    case 4:
        GATHER(uint32_t);
        return 1;
    case 8:
        GATHER(uint64_t);
        return 1;
    case 16:
        GATHER(pair);
        return 1;
    default:
        return 0;
    }
}

size_t em_gather_bits(em_rows picked, const uint8_t *restrict from, size_t offset, uint8_t *restrict to) {
    size_t set = 0;
    for (size_t begin = 0; begin < picked.n; begin += 8) {
        const size_t count = picked.n - begin < 8 ? picked.n - begin : 8;
        unsigned bits = 0;
        for (size_t i = 0; i < count; i++) {
            const size_t bit = offset + (size_t)picked.rows[begin + i];
            bits |= (unsigned)(from[bit >> 3] >> (bit & 7) & 1) << i;
        }
        to[begin / 8] = (uint8_t)bits;
        set += (size_t)__builtin_popcount(bits);
    }
    return set;
}

int64_t em_gather_offsets(em_rows picked, em_strings from, int32_t *restrict offsets) {
    uint64_t total = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < picked.n; i++) {
        total += em_string_bytes(from, (size_t)picked.rows[i]);
        offsets[i + 1] = (int32_t)(uint32_t)total;
    }
    return (int64_t)total;
}

/* Strings that are not near the source's end are copied in whole steps; the next string overwrites what is too much. */
static inline void copy_rows(em_rows picked, em_strings from, size_t size, size_t lines, uint8_t *restrict to) {
    for (size_t i = 0; i < picked.n; i++) {
        if (i + AHEAD < picked.n) {
            const uint8_t *next = em_string_at(from, (size_t)picked.rows[i + AHEAD]);
            for (size_t line = 0; line < lines; line++)
                __builtin_prefetch(next + line * LINE, 0, 3);
        }
        const size_t row = (size_t)picked.rows[i], length = em_string_bytes(from, row);
        const uint8_t *at = em_string_at(from, row);
        if ((size_t)from.offsets[row] + length + STEP <= size)
            for (size_t done = 0; done == 0 || done < length; done += STEP)
                memcpy(to + done, at + done, STEP);
        else if (length)
            memcpy(to, at, length);
        to += length;
    }
}

EM_FOR_EACH_CPU(static, copy_best, copy_rows,
                (em_rows picked, em_strings from, size_t size, size_t lines, uint8_t *restrict to),
                (picked, from, size, lines, to))

static void copy_runs(em_rows picked, em_strings from, uint8_t *restrict to) {
    for (size_t begin = 0, end; begin < picked.n; begin = end) {
        for (end = begin + 1; end < picked.n && picked.rows[end] == picked.rows[end - 1] + 1;)
            end++;
        const uint8_t *at = em_string_at(from, (size_t)picked.rows[begin]);
        const size_t length = (size_t)(em_string_at(from, (size_t)picked.rows[end - 1] + 1) - at);
        if (length)
            memcpy(to, at, length);
        to += length;
    }
}

void em_gather_strings(em_rows picked, em_strings from, size_t size, size_t total, uint8_t *to) {
    if (total == 0)
        return;
    if (picked.runs * RUN_FEW <= picked.n) {
        copy_runs(picked, from, to);
        return;
    }
    const size_t lines = total / picked.n / LINE + 1;
    copy_best(picked, from, size, lines < LINES_MAX ? lines : LINES_MAX, to);
}
