#include "gather_parts.h"

#include "cpu.h"

/* As in gather.c: bytes copied at once, rows fetched ahead, and cache lines of each. */
enum { STEP = 64, AHEAD = 16, LINE = 64, LINES_MAX = 8 };

void em_gather_places(em_rows picked, const int32_t *starts, size_t count, em_place *places) {
    for (size_t i = 0; i < picked.n; i++) {
        const int32_t row = picked.rows[i];
        /* The last part that starts at or before the row; empty parts before it start there too. */
        size_t low = 0, size = count;
        while (size > 1) {
            const size_t half = size / 2;
            low = starts[low + half] <= row ? low + half : low;
            size -= half;
        }
        places[i].part = (int32_t)low;
        places[i].row = row - starts[low];
    }
}

int64_t em_gather_parts_offsets(const em_place *places, size_t n, const em_part *parts, int32_t *restrict offsets) {
    uint64_t total = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < n; i++) {
        total += em_string_bytes(parts[places[i].part].strings, (size_t)places[i].row);
        offsets[i + 1] = (int32_t)(uint32_t)total;
    }
    return (int64_t)total;
}

static inline void copy_rows(const em_place *places, size_t n, const em_part *parts, size_t lines,
                             uint8_t *restrict to) {
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            const em_place ahead = places[i + AHEAD];
            const uint8_t *next = em_string_at(parts[ahead.part].strings, (size_t)ahead.row);
            for (size_t line = 0; line < lines; line++)
                __builtin_prefetch(next + line * LINE, 0, 3);
        }
        const em_part *part = parts + places[i].part;
        const size_t row = (size_t)places[i].row, length = em_string_bytes(part->strings, row);
        const uint8_t *at = em_string_at(part->strings, row);
        if ((size_t)part->strings.offsets[row] + length + STEP <= part->size)
            for (size_t done = 0; done == 0 || done < length; done += STEP)
                memcpy(to + done, at + done, STEP);
        else if (length)
            memcpy(to, at, length);
        to += length;
    }
}

EM_FOR_EACH_CPU(static, copy_best, copy_rows,
                (const em_place *places, size_t n, const em_part *parts, size_t lines, uint8_t *restrict to),
                (places, n, parts, lines, to))

void em_gather_parts_strings(const em_place *places, size_t n, const em_part *parts, size_t total, uint8_t *to) {
    if (total == 0)
        return;
    const size_t lines = total / n / LINE + 1;
    copy_best(places, n, parts, lines < LINES_MAX ? lines : LINES_MAX, to);
}
