/*
 * A validating walk over simdjson's structural index.
 *
 * simdjson's first stage checks UTF-8, control characters and quotes, and lists where every token begins. On-Demand
 * navigates that list but skips what nobody asks for without checking it; a body that another reader would refuse would
 * then be stored. This walk checks every token that it passes (grammar, numbers, escapes, depth) and gives each value
 * as a slice of the body, so the slices that are kept are JSON. A value in a string or a number costs no copy.
 */
#ifndef EVENTMILL_DECODE_WALK_H
#define EVENTMILL_DECODE_WALK_H

#include <cstddef>
#include <cstdint>
#include <cstring>

#pragma GCC visibility push(hidden) /* calls within the kernel need no indirection */
namespace em {

constexpr size_t PADDING = 64;        /* readable bytes after a body, zeroed */
constexpr unsigned DEPTH_MAX = 1024;  /* as orjson */
constexpr size_t NAME_BYTES_MAX = 24; /* a longer member name is none that we look for */

struct Bytes {
    const uint8_t *data;
    size_t length;
};

enum class Kind : uint8_t { none, null, boolean, number, string, object, array };

/* By the first byte of what is neither string nor container. */
inline Kind scalar_kind(uint8_t c) {
    return c == 'n' ? Kind::null : c == 't' || c == 'f' ? Kind::boolean : Kind::number;
}

/* A value of the body. A string's slice is without its quotes, a container's with its brackets. */
struct Slot {
    Kind kind = Kind::none;
    bool escaped = false; /* a string with backslashes */
    uint32_t name = 0;    /* where its member name's quote stands */
    uint32_t begin = 0, end = 0;
    const uint32_t *token = nullptr;

    bool given() const {
        return kind > Kind::null;
    }
    uint32_t member_end() const {
        return end + (kind == Kind::string);
    }
};

/* A member's name, unescaped when it is short enough to be one of ours, and where its quote stands. */
struct Name {
    const uint8_t *data;
    size_t length;
    uint32_t quote;

    template <size_t N> bool is(const char (&literal)[N]) const {
        return length == N - 1 && std::memcmp(data, literal, N - 1) == 0;
    }
};

/*
 * Whether the text is a number of up to eight characters without exponent; false for any other number too. Branches on
 * its digits would be guessed wrong half of the time, so all are looked at together.
 */
inline bool is_short_number(const uint8_t *text, size_t length) {
    constexpr uint64_t EACH = 0x0101010101010101;
    text += *text == '-' && length > 1 ? (length--, 1) : 0;
    if (length == 0 || length > 8)
        return false;
    uint64_t word = 0;
    std::memcpy(&word, text, sizeof word); /* within the body's PADDING */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    const uint64_t ends = EACH * 0x80 >> (64 - 8 * length); /* the top bit of each character */
    const uint64_t low = word & EACH * 0x7F;
    const uint64_t digits = (low + EACH * (0x80 - '0')) & ~(low + EACH * (0x80 - '9' - 1)) & ~word & ends;
    const uint64_t point = ends & ~digits; /* the one that is no digit may be a point, neither first nor last */
    const bool leading_zero = (word & 0xFF) == '0' && (digits >> 15 & 1);
    const bool one_point = (point & (point - 1)) == 0 && (point & 0x80) == 0 &&
                           point != (uint64_t(0x80) << (8 * length - 8)) &&
                           (word & (point >> 7) * 0xFF) == (point >> 7) * '.';
    return !leading_zero && one_point;
}

/* Writes a string without its escapes, which have been checked; gives the length, at most source.length. */
size_t unescape(Bytes source, uint8_t *to);

/* Where a body that simdjson's first stage refuses breaks, and `what` is wrong there. */
size_t locate(const uint8_t *body, size_t length, const char **what);

class Walker {
  public:
    const uint8_t *body = nullptr;
    unsigned depth = 0;   /* open containers */
    unsigned deepest = 0; /* the most since it was last set */
    size_t offset = 0;    /* of the failure */
    const char *what = nullptr;

    /* `tokens` ends in two sentinels at `length`, where `body` has zeroes. */
    void start(const uint8_t *text, size_t size, const uint32_t *tokens) {
        body = text;
        length_ = size;
        tokens_ = tokens;
        again();
    }

    /* From the top once more. */
    const uint32_t *again() {
        depth = deepest = 0;
        next_backslash_ = 0;
        return tokens_;
    }

    const uint32_t *fail(size_t at, const char *expected) {
        offset = at;
        what = at >= length_ ? "it ends too soon" : expected;
        return nullptr;
    }

    Bytes slice(const Slot &slot) const {
        return {body + slot.begin, slot.end - slot.begin};
    }

    bool empty(const Slot &container) const {
        uint8_t c = body[container.token[1]];
        return c == '}' || c == ']';
    }

    /* Reads the value at token t into `slot`; gives the token after it, or null on failure (like all that follow).
     */
    const uint32_t *read(const uint32_t *t, Slot &slot) {
        uint32_t at = *t;
        slot.token = t;
        slot.begin = at;
        switch (body[at]) {
        case '"': {
            slot.kind = Kind::string;
            slot.escaped = has_backslash(at, t[1]);
            if (slot.escaped && !check_escapes(t[1]))
                return nullptr;
            slot.begin = at + 1;
            slot.end = closing_quote(t[1]);
            return t + 1;
        }
        case '{':
        case '[':
            slot.kind = body[at] == '{' ? Kind::object : Kind::array;
            if (!(t = skip_container(t)))
                return nullptr;
            slot.end = t[-1] + 1;
            return t;
        default: {
            const uint8_t *end = scalar(at);
            if (!end)
                return nullptr;
            slot.kind = scalar_kind(body[at]);
            slot.end = (uint32_t)(end - body);
            return t + 1;
        }
        }
    }

    const uint32_t *skip(const uint32_t *t) {
        switch (body[*t]) {
        case '"':
            return has_backslash(*t, t[1]) && !check_escapes(t[1]) ? nullptr : t + 1;
        case '{':
        case '[':
            return skip_container(t);
        default:
            return scalar(*t) ? t + 1 : nullptr;
        }
    }

    /* Walks the object at token t: visit(name, value's token) reads or skips the value and gives the token after
     * it. */
    template <class Visit> const uint32_t *members(const uint32_t *t, Visit &&visit) {
        if (!enter(*t))
            return nullptr;
        if (body[*++t] == '}') {
            depth--;
            return t + 1;
        }
        for (;;) {
            uint32_t quote = *t, colon = t[1];
            if (body[quote] != '"')
                return fail(quote, "a member's name in double quotes is expected");
            if (body[colon] != ':')
                return fail(colon, "':' is expected");
            Name name{body + quote + 1, closing_quote(colon) - quote - 1, quote};
            uint8_t plain[NAME_BYTES_MAX * 6];
            if (has_backslash(quote, colon)) {
                if (!check_escapes(colon))
                    return nullptr;
                name.length = name.length > sizeof plain ? 0 : unescape({name.data, name.length}, plain);
                name.data = plain;
            }
            if (!(t = visit(name, t + 2)))
                return nullptr;
            uint8_t c = body[*t++];
            if (c == ',')
                continue;
            depth--;
            return c == '}' ? t : fail(t[-1], "',' or '}' is expected");
        }
    }

    /* Walks the array at token t: visit(element's token) as above. */
    template <class Visit> const uint32_t *elements(const uint32_t *t, Visit &&visit) {
        if (!enter(*t))
            return nullptr;
        if (body[*++t] == ']') {
            depth--;
            return t + 1;
        }
        for (;;) {
            if (!(t = visit(t)))
                return nullptr;
            uint8_t c = body[*t++];
            if (c == ',')
                continue;
            depth--;
            return c == ']' ? t : fail(t[-1], "',' or ']' is expected");
        }
    }

    /* Whether the object has a member of that name. It has been checked before. */
    bool has_member(const Slot &object, Bytes wanted) const;

    /* Bodies have few backslashes: one search runs ahead, and a string costs a comparison. */
    bool has_backslash(uint32_t from, uint32_t to) {
        if (next_backslash_ <= from)
            find_backslash(from);
        return next_backslash_ < to;
    }

    /* Whether the bytes from `begin` to `end` are a number, true, false or null. */
    bool is_scalar(uint32_t begin, uint32_t end) {
        return is_short_number(body + begin, end - begin) || scalar(begin) == body + end;
    }

  private:
    size_t length_ = 0;
    const uint32_t *tokens_ = nullptr;
    size_t next_backslash_ = 0; /* the first at or after the place last searched from; 0: not searched yet */

    bool enter(uint32_t at) {
        if (++depth > DEPTH_MAX)
            return fail(at, "it nests deeper than 1024") != nullptr;
        if (depth > deepest)
            deepest = depth;
        return true;
    }

    /* Between a string's end and the next token stands nothing but white space. */
    uint32_t closing_quote(uint32_t next_token) const {
        uint32_t at = next_token - 1;
        while (body[at] != '"')
            at--;
        return at;
    }

    void find_backslash(size_t from) {
        const void *found = std::memchr(body + from, '\\', length_ - from);
        next_backslash_ = found ? (size_t)((const uint8_t *)found - body) : length_;
    }

    bool check_escapes(uint32_t to);
    const uint32_t *skip_container(const uint32_t *t);
    const uint8_t *scalar(uint32_t at);
    const uint8_t *number(const uint8_t *at);
};

} // namespace em
#pragma GCC visibility pop
#endif
