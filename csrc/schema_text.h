/*
 * Texts of common formats and exact numbers, for csrc/schema.c. Each says yes only where every reading of the standard
 * does; no means: ask somebody who knows all of it.
 */
#ifndef EVENTMILL_SCHEMA_TEXT_H
#define EVENTMILL_SCHEMA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool em_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static inline bool em_alnum(uint8_t c) {
    return em_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* Code points of valid UTF-8. */
static inline size_t em_code_points(const uint8_t *begin, const uint8_t *end) {
    size_t points = 0;
    for (; begin < end; begin++)
        points += (*begin & 0xC0) != 0x80;
    return points;
}

/* The double that a JSON number of up to 15 digits spells: such a one is exact, or one correctly rounded quotient. */
static inline bool em_exact_number(const uint8_t *at, const uint8_t *end, double *value) {
    static const double powers[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    int64_t digits = 0;
    unsigned count = 0, behind = 0;
    bool negative = at < end && *at == '-', point = false;
    for (at += negative; at < end; at++) {
        if (*at == '.' && !point && count > 0)
            point = true;
        else if (em_digit(*at) && count < 15) {
            digits = digits * 10 + (*at - '0');
            count++;
            behind += point;
        } else
            return false;
    }
    if (count == 0 || (point && behind == 0))
        return false;
    *value = (double)(negative ? -digits : digits) / powers[behind];
    return true;
}

static inline bool em_two(const uint8_t *at, unsigned least, unsigned most) {
    if (!em_digit(at[0]) || !em_digit(at[1]))
        return false;
    unsigned number = (at[0] - '0') * 10u + (at[1] - '0');
    return number >= least && number <= most;
}

/* RFC 3339 with a T and a Z or ±hh:mm; days up to 28, which every month has, and no leap seconds. */
static inline bool em_is_date_time(const uint8_t *at, size_t length) {
    if (length < 20 || !em_two(at, 0, 99) || !em_two(at + 2, 1, 99) || at[4] != '-' || !em_two(at + 5, 1, 12) ||
        at[7] != '-' || !em_two(at + 8, 1, 28) || at[10] != 'T' || !em_two(at + 11, 0, 23) || at[13] != ':' ||
        !em_two(at + 14, 0, 59) || at[16] != ':' || !em_two(at + 17, 0, 59))
        return false;
    size_t i = 19;
    if (at[i] == '.') {
        size_t first = ++i;
        while (i < length && em_digit(at[i]))
            i++;
        if (i == first || i - first > 9)
            return false;
    }
    if (i + 1 == length)
        return at[i] == 'Z';
    return i + 6 == length && (at[i] == '+' || at[i] == '-') && em_two(at + i + 1, 0, 23) && at[i + 3] == ':' &&
           em_two(at + i + 4, 0, 59);
}

static inline bool em_is_uuid(const uint8_t *at, size_t length) {
    if (length != 36)
        return false;
    for (size_t i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        bool hex = em_digit(at[i]) || ((at[i] | 32) >= 'a' && (at[i] | 32) <= 'f');
        if (dash ? at[i] != '-' : !hex)
            return false;
    }
    return true;
}

/* Labels of letters and digits, joined by single dots, hyphens inside; the last one begins with a letter. */
static inline bool em_is_host(const uint8_t *at, size_t length, bool dot) {
    size_t label = 0, dots = 0;
    if (length == 0 || length > 200)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (at[i] == '.') {
            if (i == label || at[i - 1] == '-')
                return false;
            label = i + 1;
            dots++;
        } else if (!em_alnum(at[i]) && !(at[i] == '-' && i > label && at[i - 1] != '-'))
            return false;
        if (i + 1 - label > 60)
            return false;
    }
    return label < length && at[length - 1] != '-' && !em_digit(at[label]) && (!dot || dots > 0);
}

static inline bool em_is_email(const uint8_t *at, size_t length) {
    size_t local = 0;
    while (local < length && (em_alnum(at[local]) || at[local] == '_' || at[local] == '+' || at[local] == '-' ||
                              (at[local] == '.' && local > 0 && at[local - 1] != '.')))
        local++;
    if (local == 0 || local > 60 || local >= length || at[local] != '@' || at[local - 1] == '.')
        return false;
    return em_is_host(at + local + 1, length - local - 1, true);
}

/* http or https, a host, and a path, query and fragment of unreserved characters. */
static inline bool em_is_uri(const uint8_t *at, size_t length) {
    size_t i = 4, host;
    if (length < 8 || at[0] != 'h' || at[1] != 't' || at[2] != 't' || at[3] != 'p')
        return false;
    i += at[i] == 's';
    if (length - i < 4 || at[i] != ':' || at[i + 1] != '/' || at[i + 2] != '/')
        return false;
    for (host = i += 3; i < length && at[i] != '/'; i++)
        ;
    if (!em_is_host(at + host, i - host, false))
        return false;
    for (bool query = false; i < length; i++) {
        query |= at[i] == '?';
        bool known = em_alnum(at[i]) || at[i] == '-' || at[i] == '.' || at[i] == '_' || at[i] == '~' || at[i] == '/';
        if (!known && at[i] != '?' && !(query && (at[i] == '=' || at[i] == '&')))
            return false;
    }
    return true;
}

#endif
