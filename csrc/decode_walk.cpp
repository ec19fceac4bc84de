#include "decode_walk.h"

#include <charconv>
#include <system_error>

namespace em {
namespace {

constexpr size_t FINITE_DIGITS = 308; /* a number of so many digits and no exponent is a finite double */

bool is_digit(uint8_t c) {
    return (uint8_t)(c - '0') < 10;
}

/* What may stand behind a number or a literal; NUL only as the end of the body, so it is not among them. */
bool ends_scalar(uint8_t c) {
    switch (c) {
    case ' ':
    case '\t':
    case '\n':
    case '\r':
    case ',':
    case ':':
    case '[':
    case ']':
    case '{':
    case '}':
        return true;
    default:
        return false;
    }
}

int hex_digit(uint8_t c) {
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Four hexadecimal digits, or -1. */
int hex_four(const uint8_t *at) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The length of the escape at the backslash, or 0 when it is none that JSON has. */
size_t escape_length(const uint8_t *at) {
    switch (at[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return 2;
    case 'u':
        break;
    default:
        return 0;
    }
    int unit = hex_four(at + 2);
    if (unit < 0 || (unit >> 10) == 0xDC00 >> 10)
        return 0;
    if ((unit >> 10) != 0xD800 >> 10)
        return 6;
    int low = at[6] == '\\' && at[7] == 'u' ? hex_four(at + 8) : -1;
    return low >= 0 && (low >> 10) == 0xDC00 >> 10 ? 12 : 0;
}

size_t write_utf8(uint32_t code, uint8_t *to) {
    if (code < 0x80) {
        to[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (uint8_t)(0xC0 | code >> 6);
        to[1] = (uint8_t)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (uint8_t)(0xE0 | code >> 12);
        to[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        to[2] = (uint8_t)(0x80 | (code & 0x3F));
        return 3;
    }
    to[0] = (uint8_t)(0xF0 | code >> 18);
    to[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
    to[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    to[3] = (uint8_t)(0x80 | (code & 0x3F));
    return 4;
}

/* Whether a well-formed number is too large for a double: other readers of the raw text would refuse it. */
bool is_infinite(const uint8_t *begin, const uint8_t *end) {
    double value;
    const char *from = reinterpret_cast<const char *>(begin), *to = reinterpret_cast<const char *>(end);
    if (std::from_chars(from, to, value).ec != std::errc::result_out_of_range)
        return false;
    /* Too large or too small: the power of ten of the first digit that is not zero tells which. */
    long long before = 0, first = 0, exponent = 0;
    bool point = false, found = false, negative = false;
    for (; begin < end && (*begin | 0x20) != 'e'; begin++) {
        if (*begin == '.')
            point = true;
        if (!is_digit(*begin))
            continue;
        before += !point;
        found = found || *begin != '0';
        first += !found;
    }
    if (begin < end) {
        begin++;
        negative = *begin == '-';
        for (begin += !is_digit(*begin); begin < end; begin++)
            exponent = exponent > 1000000000 ? exponent : exponent * 10 + (*begin - '0');
    }
    return before - first + (negative ? -exponent : exponent) > 0;
}

/* The length of the valid UTF-8 sequence at `at`, or 0. */
size_t utf8_length(const uint8_t *at, size_t left) {
    uint8_t c = at[0];
    size_t length = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    bool wrong = (c == 0xE0 && at[1] < 0xA0) || (c == 0xED && at[1] > 0x9F) || (c == 0xF0 && at[1] < 0x90) ||
                 (c == 0xF4 && at[1] > 0x8F);
    return wrong ? 0 : length;
}

} // namespace

size_t unescape(Bytes source, uint8_t *to) {
    const uint8_t *at = source.data, *end = at + source.length;
    uint8_t *start = to;
    while (at < end) {
        const void *found = std::memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((found ? (const uint8_t *)found : end) - at);
        std::memmove(to, at, plain);
        to += plain;
        at += plain;
        if (!found)
            break;
        if (at[1] == 'u') {
            uint32_t code = (uint32_t)hex_four(at + 2);
            at += 6;
            if ((code >> 10) == 0xD800 >> 10) {
                code = 0x10000 + ((code - 0xD800) << 10) + ((uint32_t)hex_four(at + 2) - 0xDC00);
                at += 6;
            }
            to += write_utf8(code, to);
        } else {
            uint8_t c = at[1];
            *to++ = c == 'b' ? '\b' : c == 'f' ? '\f' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
            at += 2;
        }
    }
    return (size_t)(to - start);
}

size_t locate(const uint8_t *body, size_t length, const char **what) {
    size_t opened = 0;
    bool inside = false;
    for (size_t at = 0; at < length;) {
        size_t step = utf8_length(body + at, length - at);
        if (step == 0) {
            *what = "it is not UTF-8";
            return at;
        }
        uint8_t c = body[at];
        if (inside && c < 0x20) {
            *what = "a control character stands unescaped in a string";
            return at;
        }
        if (c == '"') {
            inside = !inside;
            opened = at;
        } else if (c == '\\') {
            step += at + 1 < length && body[at + 1] < 0x80 && body[at + 1] >= 0x20;
        }
        at += step;
    }
    *what = inside ? "a string is not closed" : "no JSON value is in it";
    return inside ? opened : length;
}

bool Walker::check_escapes(uint32_t to) {
    do {
        size_t length = escape_length(body + next_backslash_);
        if (length == 0)
            return fail(next_backslash_, "a string has an escape that JSON does not have, or half a surrogate pair");
        find_backslash(next_backslash_ + length);
    } while (next_backslash_ < to);
    return true;
}

const uint8_t *Walker::number(const uint8_t *at) {
    const uint8_t *begin = at;
    bool exponent = false;
    at += *at == '-';
    const uint8_t *digits = at;
    if (*at == '0')
        at++;
    else
        while (is_digit(*at))
            at++;
    size_t whole = (size_t)(at - digits);
    if (whole == 0)
        return nullptr;
    if (*at == '.') {
        const uint8_t *fraction = ++at;
        while (is_digit(*at))
            at++;
        if (at == fraction)
            return nullptr;
    }
    if ((*at | 0x20) == 'e') {
        exponent = true;
        at++;
        at += *at == '+' || *at == '-';
        const uint8_t *power = at;
        while (is_digit(*at))
            at++;
        if (at == power)
            return nullptr;
    }
    return (exponent || whole > FINITE_DIGITS) && is_infinite(begin, at) ? nullptr : at;
}

const uint8_t *Walker::scalar(uint32_t at) {
    const uint8_t *text = body + at, *end = nullptr;
    switch (*text) {
    case 't':
        end = std::memcmp(text, "true", 4) == 0 ? text + 4 : nullptr;
        break;
    case 'f':
        end = std::memcmp(text, "false", 5) == 0 ? text + 5 : nullptr;
        break;
    case 'n':
        end = std::memcmp(text, "null", 4) == 0 ? text + 4 : nullptr;
        break;
    default:
        end = number(text);
    }
    if (end && (ends_scalar(*end) || end == body + length_))
        return end;
    fail(at, "a JSON value is expected");
    return nullptr;
}

const uint32_t *Walker::skip_container(const uint32_t *t) {
    bool in_object[DEPTH_MAX + 1];
    const unsigned base = depth;
    unsigned level = depth;
    uint8_t c = body[*t];
open:
    if (++level > DEPTH_MAX)
        return fail(*t, "it nests deeper than 1024");
    if (level > deepest)
        deepest = level;
    in_object[level] = c == '{';
    c = body[*++t];
    if (in_object[level]) {
        if (c == '}')
            goto close;
        goto name;
    }
    if (c == ']')
        goto close;
    goto value;
name:
    if (c != '"')
        return fail(*t, "a member's name in double quotes is expected");
    if (has_backslash(*t, t[1]) && !check_escapes(t[1]))
        return nullptr;
    if (body[t[1]] != ':')
        return fail(t[1], "':' is expected");
    t += 2;
    c = body[*t];
value:
    switch (c) {
    case '"':
        if (has_backslash(*t, t[1]) && !check_escapes(t[1]))
            return nullptr;
        break;
    case '{':
    case '[':
        goto open;
    default:
        if (!scalar(*t))
            return nullptr;
    }
    t++;
after:
    c = body[*t];
    if (c == ',') {
        c = body[*++t];
        if (in_object[level])
            goto name;
        goto value;
    }
    if (c != (in_object[level] ? '}' : ']'))
        return fail(*t, in_object[level] ? "',' or '}' is expected" : "',' or ']' is expected");
close:
    t++;
    if (--level > base)
        goto after;
    return t;
}

bool Walker::has_member(const Slot &object, Bytes wanted) const {
    uint8_t plain[NAME_BYTES_MAX * 6];
    unsigned level = 0;
    for (const uint32_t *t = object.token;; t++) {
        switch (body[*t]) {
        case '{':
        case '[':
            level++;
            break;
        case '}':
        case ']':
            if (--level == 0)
                return false;
            break;
        case '"': {
            if (level != 1 || body[t[1]] != ':')
                break;
            Bytes name{body + *t + 1, closing_quote(t[1]) - *t - 1};
            if (name.length <= sizeof plain && std::memchr(name.data, '\\', name.length))
                name = {plain, unescape(name, plain)};
            if (name.length == wanted.length && std::memcmp(name.data, wanted.data, wanted.length) == 0)
                return true;
            break;
        }
        }
    }
}

} // namespace em
