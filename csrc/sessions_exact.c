#include "session_id.h"
#include "sessionize.h"

/* Groups up to this size are sorted by insertion. */
enum { SMALL = 32 };

static void insertion_sort(em_moment *moments, size_t n) {
    for (size_t i = 1; i < n; i++) {
        em_moment moment = moments[i];
        size_t to = i;
        for (; to > 0 && moments[to - 1].at_ms > moment.at_ms; to--)
            moments[to] = moments[to - 1];
        moments[to] = moment;
    }
}

static void merge(const em_moment *from, size_t middle, size_t n, em_moment *to) {
    size_t left = 0, right = middle;
    for (size_t i = 0; i < n; i++) {
        int take_left = right == n || (left < middle && from[left].at_ms <= from[right].at_ms);
        to[i] = take_left ? from[left++] : from[right++];
    }
}

/* Bottom-up merge sort: n log n however the times come, without recursion. */
static void sort(em_moment *moments, em_moment *spare, size_t n) {
    for (size_t begin = 0; begin < n; begin += SMALL)
        insertion_sort(moments + begin, n - begin < SMALL ? n - begin : SMALL);
    em_moment *from = moments, *to = spare;
    for (size_t width = SMALL; width < n; width *= 2) {
        for (size_t begin = 0; begin < n; begin += 2 * width) {
            size_t size = n - begin < 2 * width ? n - begin : 2 * width;
            merge(from + begin, size < width ? size : width, size, to + begin);
        }
        em_moment *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != moments)
        memcpy(moments, from, n * sizeof *moments);
}

static int in_order(const em_moment *moments, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (moments[i - 1].at_ms > moments[i].at_ms)
            return 0;
    return 1;
}

static void group_by_device(const int32_t *groups, size_t count, const int64_t *at_ms, size_t n, int64_t *starts,
                            em_moment *moments) {
    for (size_t row = 0; row < n; row++)
        starts[groups[row] + 1]++;
    for (size_t group = 0; group < count; group++)
        starts[group + 1] += starts[group];
    /* Each start is moved to its group's end while rows are placed. */
    for (size_t row = 0; row < n; row++) {
        em_moment moment = {at_ms[row], (int64_t)row};
        moments[starts[groups[row]]++] = moment;
    }
}

void em_sessions_exact(em_strings devices, const int32_t *groups, const int32_t *firsts, size_t count,
                       const int64_t *at_ms, size_t n, int64_t gap_ms, int64_t *starts, em_moment *moments,
                       em_moment *spare, int64_t *session_ids) {
    group_by_device(groups, count, at_ms, n, starts, moments);
    int64_t begin = 0;
    for (size_t group = 0; group < count; group++) {
        int64_t end = starts[group], id = 0;
        size_t rows = (size_t)(end - begin);
        if (!in_order(moments + begin, rows))
            sort(moments + begin, spare, rows);
        for (int64_t i = begin; i < end; i++) {
            em_moment moment = moments[i];
            if (i == begin || moment.at_ms - moments[i - 1].at_ms > gap_ms)
                id = em_session_id(devices, (size_t)firsts[group], moment.at_ms);
            session_ids[moment.row] = id;
        }
        begin = end;
    }
}

void em_session_ids(em_strings devices, const int64_t *starts_ms, size_t n, int64_t *session_ids) {
    for (size_t row = 0; row < n; row++)
        session_ids[row] = em_session_id(devices, row, starts_ms[row]);
}
