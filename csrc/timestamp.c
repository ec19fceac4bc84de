#include "timestamp.h"

#include <string.h>

#define SECONDS_BELOW 100000000000LL /* 1e11: an epoch number below counts seconds (to the year 5138) */
#define NUMBER_BYTES_MAX 64
#define EXPONENT_MAX 1000 /* beyond it a number is zero or out of range, whatever its digits */

static const uint16_t DAYS_BEFORE_MONTH[13] = {0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
static const uint8_t DAYS_IN_MONTH[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

static int is_digit(uint8_t c) {
    return (uint8_t)(c - '0') < 10;
}

/* Two digits as a number, or -1. */
static int two(const uint8_t *at) {
    return is_digit(at[0]) && is_digit(at[1]) ? (at[0] - '0') * 10 + (at[1] - '0') : -1;
}

/* Days since 1970-01-01; 0 in *valid when there is no such date. */
static inline int64_t days_from(int year, int month, int day, int *valid) {
    *valid = 0;
    if (year < 1 || month < 1 || month > 12 || day < 1)
        return 0;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (day > DAYS_IN_MONTH[month] + (month == 2 && leap))
        return 0;
    *valid = 1;
    int before = year - 1;
    int64_t days = (int64_t)before * 365 + before / 4 - before / 100 + before / 400;
    return days + DAYS_BEFORE_MONTH[month] + (month > 2 && leap) + day - 1 - 719162;
}

/* Of YYYY-MM-DD at `at`. */
static int64_t days_of(const uint8_t *at, int *valid) {
    int high = two(at), low = two(at + 2), month = two(at + 5), day = two(at + 8);
    *valid = 0;
    if (high < 0 || low < 0 || at[4] != '-' || month < 0 || at[7] != '-' || day < 0)
        return 0;
    return days_from(high * 100 + low, month, day, valid);
}

/* A zone's offset in minutes; 0 in *valid when the text is no zone. */
static int zone_of(const uint8_t *at, size_t length, int *valid) {
    *valid = 1;
    if (length == 0 || (length == 1 && (at[0] | 0x20) == 'z'))
        return 0;
    *valid = 0;
    if ((at[0] != '+' && at[0] != '-') || (length != 3 && length != 5 && length != 6))
        return 0;
    int hours = two(at + 1);
    int minutes = length == 3 ? 0 : two(at + length - 2);
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59 || (length == 6 && at[3] != ':'))
        return 0;
    *valid = 1;
    return (at[0] == '-' ? -1 : 1) * (hours * 60 + minutes);
}

static int in_range(int64_t value, int64_t *ms) {
    *ms = value;
    return value >= EM_TIME_MS_MIN && value <= EM_TIME_MS_MAX;
}

/*
 * What nearly all SDKs send, YYYY-MM-DDTHH:MM:SS.mmmZ, eight characters at once: after "0" is taken from the digits and
 * the separators from themselves, each byte must be at most 9, and 0 for a separator; then each byte times ten plus the
 * next is the number that two digits make. Texts of another form are left to parse_date.
 */
enum { USUAL_BYTES = 24 };
#define EACH(byte) (0x0101010101010101u * (byte))

static uint64_t load_xor(const uint8_t *text, const char *zero) {
    uint64_t word, other;
    memcpy(&word, text, sizeof word);
    memcpy(&other, zero, sizeof other);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word ^ other);
#else
    return word ^ other;
#endif
}

static int byte_of(uint64_t word, int number) {
    return (int)(word >> (8 * number) & 0xFF);
}

static int parse_usual(const uint8_t *text, int64_t *ms) {
    const uint64_t date = load_xor(text, "0000-00-"), hours = load_xor(text + 8, "00T00:00"),
                   seconds = load_xor(text + 16, ":00.000Z");
    const uint64_t all = date | hours | seconds;
    /* A byte above 9 has the top bit in itself or in its sum; what carries into its neighbour is marked itself. */
    const uint64_t above =
        (date | (date + EACH(0x76))) | (hours | (hours + EACH(0x76))) | (seconds | (seconds + EACH(0x76)));
    const uint64_t separators =
        (date & 0xFF0000FF00000000) | (hours & 0x0000FF0000FF0000) | (seconds & 0xFF000000FF0000FF);
    if (((all | above) & EACH(0x80)) || separators)
        return 0;
    const uint64_t d = date * 10 + (date >> 8), h = hours * 10 + (hours >> 8), s = seconds * 10 + (seconds >> 8);
    const int hour = byte_of(h, 3), minute = byte_of(h, 6), second = byte_of(s, 1);
    int valid;
    int64_t days = days_from(byte_of(d, 0) * 100 + byte_of(d, 2), byte_of(d, 5), byte_of(h, 0), &valid);
    if (!valid || hour > 23 || minute > 59 || second > 60)
        return 0;
    *ms = days * 86400000 + ((hour * 60 + minute) * 60 + second) * 1000LL + byte_of(s, 4) * 10 + byte_of(seconds, 6);
    return 1;
}

static int parse_date(const uint8_t *text, size_t length, int64_t *ms) {
    int valid;
    if (length < 10)
        return 0;
    int64_t value = days_of(text, &valid) * 86400000;
    if (!valid || length == 10)
        return valid && in_range(value, ms);
    if (length < 19 || ((text[10] | 0x20) != 't' && text[10] != ' ') || text[13] != ':' || text[16] != ':')
        return 0;
    int hour = two(text + 11), minute = two(text + 14), second = two(text + 17);
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60)
        return 0;
    value += ((hour * 60 + minute) * 60 + second) * 1000LL;
    size_t at = 19;
    if (at < length && text[at] == '.') {
        size_t first = ++at;
        int scale = 100;
        for (; at < length && is_digit(text[at]); at++, scale /= 10)
            value += (text[at] - '0') * scale;
        if (at == first || at - first > 9)
            return 0;
    }
    int minutes = zone_of(text + at, length - at, &valid);
    return valid && in_range(value - minutes * 60000LL, ms);
}

/* Digits from *at on go to `digits`; *at moves behind them. Gives their count. */
static size_t take_digits(const uint8_t *text, size_t length, size_t *at, uint8_t *digits) {
    size_t count = 0;
    for (; *at < length && is_digit(text[*at]); ++*at)
        digits[count++] = text[*at] - '0';
    return count;
}

/* Exact decimal arithmetic: a double would put some milliseconds into the one before. */
static int parse_number(const uint8_t *text, size_t length, int64_t *ms) {
    uint8_t digits[NUMBER_BYTES_MAX];
    int negative = text[0] == '-', more = 0;
    size_t at = (size_t)negative;
    if (length > NUMBER_BYTES_MAX)
        return 0;
    size_t count = take_digits(text, length, &at, digits);
    int64_t point = (int64_t)count; /* digits before the decimal point */
    if (count == 0)
        return 0;
    if (at < length && text[at] == '.') {
        at++;
        size_t fraction = take_digits(text, length, &at, digits + count);
        if (fraction == 0)
            return 0;
        count += fraction;
    }
    if (at < length && (text[at] | 0x20) == 'e') {
        at++;
        int shrink = at < length && text[at] == '-';
        at += at < length && (text[at] == '-' || text[at] == '+');
        size_t first = at;
        int64_t exponent = 0;
        for (; at < length && is_digit(text[at]); at++)
            exponent = exponent > EXPONENT_MAX ? exponent : exponent * 10 + (text[at] - '0');
        if (at == first)
            return 0;
        point += shrink ? -exponent : exponent;
    }
    if (at != length)
        return 0;
    int64_t whole = 0, thousandths = 0, scale = 100;
    for (int64_t i = point < 0 ? point : 0; i < point || i < (int64_t)count; i++) {
        int digit = i >= 0 && i < (int64_t)count ? digits[i] : 0;
        if (i < point) {
            whole = whole * 10 + digit;
            if (whole > EM_TIME_MS_MAX)
                return 0;
        } else {
            thousandths += digit * scale;
            more |= scale == 0 && digit != 0;
            scale /= 10;
        }
        if (i > EXPONENT_MAX)
            break;
    }
    if (whole < SECONDS_BELOW)
        whole = whole * 1000 + thousandths;
    else
        more |= thousandths != 0;
    return in_range(negative ? -whole - more : whole, ms);
}

int em_timestamp_parse(const uint8_t *text, size_t length, int64_t *ms) {
    if (length == 0)
        return 0;
    if (length == USUAL_BYTES && text[USUAL_BYTES - 1] == 'Z' && parse_usual(text, ms))
        return in_range(*ms, ms);
    return length >= 10 && text[4] == '-' ? parse_date(text, length, ms) : parse_number(text, length, ms);
}
