/*
 * A JSON reader that is slow and obvious: RFC 8259, UTF-8, no half surrogate pairs, finite numbers, 1024 levels. The
 * decoder's verdicts and slices are compared with it.
 */
#ifndef EVENTMILL_SLOW_JSON_H
#define EVENTMILL_SLOW_JSON_H

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fuzz {

/* A value's text, its first byte telling the kind, and what it holds: members (names unescaped) or elements. */
struct Json {
    std::string_view text;
    std::vector<std::pair<std::string, Json>> members;
    std::vector<Json> elements;
};

class SlowJson {
  public:
    /* Whether `text` is one JSON value, and that value. */
    static bool read(std::string_view text, Json &value) {
        SlowJson reader(text);
        reader.space();
        if (!is_utf8(text) || !reader.value(value, 0))
            return false;
        reader.space();
        return reader.at_ == text.size();
    }

    static bool is_utf8(std::string_view text) {
        for (size_t at = 0; at < text.size();) {
            uint8_t c = (uint8_t)text[at];
            size_t more = c < 0x80 ? 0 : c >= 0xC0 && c < 0xE0 ? 1 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xF0 ? 3 : 9;
            if (more > 3 || at + more >= text.size())
                return false;
            uint32_t code = more == 0 ? c : c & (0x3F >> more);
            for (size_t i = 1; i <= more; i++) {
                if (((uint8_t)text[at + i] & 0xC0) != 0x80)
                    return false;
                code = code << 6 | ((uint8_t)text[at + i] & 0x3F);
            }
            static const uint32_t LEAST[] = {0, 0x80, 0x800, 0x10000};
            if (c >= 0xF8 || code < LEAST[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
                return false;
            at += more + 1;
        }
        return true;
    }

  private:
    static constexpr unsigned DEPTH_MAX = 1024;

    std::string_view text_;
    size_t at_ = 0;

    explicit SlowJson(std::string_view text) : text_(text) {}

    bool space() {
        while (at_ < text_.size() && std::string_view(" \t\n\r").find(text_[at_]) != std::string_view::npos)
            at_++;
        return true;
    }

    bool take(char c) {
        bool there = at_ < text_.size() && text_[at_] == c;
        at_ += there;
        return there;
    }

    bool word(std::string_view wanted) {
        bool there = text_.substr(at_, wanted.size()) == wanted;
        at_ += there ? wanted.size() : 0;
        return there;
    }

    bool value(Json &out, unsigned depth) {
        size_t begin = at_;
        bool good = false;
        std::string ignored;
        switch (at_ < text_.size() ? text_[at_] : '\0') {
        case '{':
            good = depth < DEPTH_MAX && object(out, depth + 1);
            break;
        case '[':
            good = depth < DEPTH_MAX && array(out, depth + 1);
            break;
        case '"':
            good = string(ignored);
            break;
        case 't':
            good = word("true");
            break;
        case 'f':
            good = word("false");
            break;
        case 'n':
            good = word("null");
            break;
        default:
            good = number();
        }
        out.text = text_.substr(begin, at_ - begin);
        return good;
    }

    bool object(Json &out, unsigned depth) {
        take('{');
        space();
        if (take('}'))
            return true;
        for (;;) {
            std::pair<std::string, Json> member;
            if (!(space() && string(member.first) && space() && take(':') && space() && value(member.second, depth)))
                return false;
            out.members.push_back(std::move(member));
            space();
            if (take('}'))
                return true;
            if (!take(','))
                return false;
        }
    }

    bool array(Json &out, unsigned depth) {
        take('[');
        space();
        if (take(']'))
            return true;
        for (;;) {
            out.elements.emplace_back();
            if (!(space() && value(out.elements.back(), depth) && space()))
                return false;
            if (take(']'))
                return true;
            if (!take(','))
                return false;
        }
    }

    size_t digits() {
        size_t begin = at_;
        while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9')
            at_++;
        return at_ - begin;
    }

    bool number() {
        size_t begin = at_;
        take('-');
        if (!take('0') && digits() == 0)
            return false;
        if (take('.') && digits() == 0)
            return false;
        if (take('e') || take('E')) {
            if (!take('-'))
                take('+');
            if (digits() == 0)
                return false;
        }
        return std::isfinite(std::strtod(std::string(text_.substr(begin, at_ - begin)).c_str(), nullptr));
    }

    /* Four hexadecimal digits, or -1. */
    long unit() {
        std::string four(text_.substr(at_, 4));
        if (four.size() != 4 || four.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
            return -1;
        at_ += 4;
        return std::strtol(four.c_str(), nullptr, 16);
    }

    static void put(std::string &to, unsigned long code) {
        auto add = [&to](unsigned long byte) { to.push_back((char)(uint8_t)byte); };
        if (code < 0x80)
            return add(code);
        if (code < 0x800) {
            add(0xC0 | code >> 6);
        } else {
            if (code < 0x10000) {
                add(0xE0 | code >> 12);
            } else {
                add(0xF0 | code >> 18);
                add(0x80 | (code >> 12 & 0x3F));
            }
            add(0x80 | (code >> 6 & 0x3F));
        }
        add(0x80 | (code & 0x3F));
    }

    bool escape(std::string &out) {
        static const std::string_view FROM = "\"\\/bfnrt", TO = "\"\\/\b\f\n\r\t";
        if (take('u')) {
            long code = unit();
            if (code >= 0xD800 && code < 0xDC00) {
                long low = word("\\u") ? unit() : -1;
                if (low < 0xDC00 || low > 0xDFFF)
                    return false;
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            } else if (code < 0 || (code >= 0xDC00 && code < 0xE000)) {
                return false;
            }
            put(out, (unsigned long)code);
            return true;
        }
        size_t which = at_ < text_.size() ? FROM.find(text_[at_]) : std::string_view::npos;
        if (which == std::string_view::npos)
            return false;
        at_++;
        out.push_back(TO[which]);
        return true;
    }

    bool string(std::string &out) {
        if (!take('"'))
            return false;
        while (at_ < text_.size() && text_[at_] != '"') {
            if ((uint8_t)text_[at_] < 0x20)
                return false;
            if (take('\\')) {
                if (!escape(out))
                    return false;
            } else {
                out.push_back(text_[at_++]);
            }
        }
        return take('"');
    }
};

} // namespace fuzz
#endif
