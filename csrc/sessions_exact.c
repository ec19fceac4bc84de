#include "session_id.h"
#include "sessionize.h"

/* Groups up to this size are sorted by insertion. */
enum { SMALL = 32 };

static inline int before(em_visit left, em_visit right) {
    return left.device < right.device || (left.device == right.device && left.at_ms < right.at_ms);
}

static void insertion_sort(em_visit *visits, size_t n) {
    for (size_t i = 1; i < n; i++) {
        em_visit visit = visits[i];
        size_t to = i;
        for (; to > 0 && before(visit, visits[to - 1]); to--)
            visits[to] = visits[to - 1];
        visits[to] = visit;
    }
}

static void merge(const em_visit *from, size_t middle, size_t n, em_visit *to) {
    size_t left = 0, right = middle;
    for (size_t i = 0; i < n; i++) {
        int take_left = right == n || (left < middle && !before(from[right], from[left]));
        to[i] = take_left ? from[left++] : from[right++];
    }
}

/* Bottom-up merge sort: n log n however the visits come, without recursion. */
static void sort(em_visit *visits, em_visit *spare, size_t n) {
    for (size_t begin = 0; begin < n; begin += SMALL)
        insertion_sort(visits + begin, n - begin < SMALL ? n - begin : SMALL);
    em_visit *from = visits, *to = spare;
    for (size_t width = SMALL; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t size = n - begin < 2 * width ? n - begin : 2 * width;
            merge(from + begin, size < width ? size : width, size, to + begin);
        }
        em_visit *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != visits)
        memcpy(visits, from, n * sizeof *visits);
}

static void spread(const uint64_t *devices, const int64_t *at_ms, size_t n, unsigned bits, int64_t *starts,
                   em_visit *visits) {
    for (size_t row = 0; row < n; row++)
        starts[(devices[row] >> (64 - bits)) + 1]++;
    for (size_t bucket = 0; bucket < (size_t)1 << bits; bucket++)
        starts[bucket + 1] += starts[bucket];
    /* Each start is moved to its bucket's end while rows are placed. */
    for (size_t row = 0; row < n; row++) {
        em_visit visit = {devices[row], at_ms[row], (int64_t)row};
        visits[starts[devices[row] >> (64 - bits)]++] = visit;
    }
}

void em_sessions_exact(const uint64_t *devices, const int64_t *at_ms, size_t n, int64_t gap_ms, unsigned bits,
                       int64_t *starts, em_visit *visits, em_visit *spare, int64_t *session_ids) {
    spread(devices, at_ms, n, bits, starts, visits);
    int64_t begin = 0, id = 0;
    for (size_t bucket = 0; bucket < (size_t)1 << bits; bucket++) {
        int64_t end = starts[bucket];
        sort(visits + begin, spare, (size_t)(end - begin));
        for (int64_t i = begin; i < end; i++) {
            em_visit visit = visits[i];
            if (i == begin || visit.device != visits[i - 1].device || visit.at_ms - visits[i - 1].at_ms > gap_ms)
                id = em_session_id_of(visit.device, visit.at_ms);
            session_ids[visit.row] = id;
        }
        begin = end;
    }
}

void em_device_hashes(em_strings devices, size_t n, uint64_t *hashes) {
    for (size_t row = 0; row < n; row++)
        hashes[row] = em_device_hash(devices, row);
}

void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids) {
    for (size_t row = 0; row < n; row++)
        session_ids[row] = em_session_id(devices, row, starts_ms[row]);
}
