/*
 * Times and UUIDs on the same text.
 *
 * - A time lies in the years 1 to 9999, and is read again from its own RFC 3339 text, in every spelling of its zone.
 * - A number of the epoch is the one that strtold reads, rounded down.
 * - A UUID is read exactly when it is spelled as one, and spelled out again is the same text.
 */
#include <cctype>
#include <cmath>
#include <string>

#include "fuzz.h"
#include "timestamp.h"
#include "uuid.h"

namespace {

bool time_of(const std::string &text, int64_t &ms) {
    fuzz::Exact bytes(text.data(), text.size());
    return em_timestamp_parse(bytes.data(), bytes.size(), &ms);
}

/* RFC 3339 in UTC, the year found by trying: slow and obvious. */
std::string spelled(int64_t ms, const char *zone) {
    int64_t day = ms / 86400000 - (ms % 86400000 < 0), rest = ms - day * 86400000;
    int64_t year = 1, first = -719162;
    auto is_leap = [](int64_t y) { return y % 4 == 0 && (y % 100 != 0 || y % 400 == 0); };
    for (; first + 365 + is_leap(year) <= day; year++)
        first += 365 + is_leap(year);
    int64_t left = day - first, month = 1;
    for (;; month++) {
        int64_t days = month == 2                                              ? 28 + is_leap(year)
                       : month == 4 || month == 6 || month == 9 || month == 11 ? 30
                                                                               : 31;
        if (left < days)
            break;
        left -= days;
    }
    char text[64];
    std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03d%s", (int)year, (int)month, (int)left + 1,
                  (int)(rest / 3600000), (int)(rest / 60000 % 60), (int)(rest / 1000 % 60), (int)(rest % 1000), zone);
    return text;
}

void check_time(const std::string &text) {
    int64_t ms, again;
    if (!time_of(text, ms))
        return;
    CHECK(ms >= EM_TIME_MS_MIN && ms <= EM_TIME_MS_MAX);
    for (const char *zone : {"Z", "z", "+00:00", "-0000", "+00", ""}) {
        CHECK(time_of(spelled(ms, zone), again));
        CHECK(again == ms);
    }
    if (time_of(spelled(ms, "+01:30"), again))
        CHECK(again == ms - 90 * 60000);
    if (text.size() >= 10 && text[4] == '-')
        return;
    long double number = std::strtold(text.c_str(), nullptr);
    long double wanted = std::fabs(number) < 1e11L ? number * 1000 : number;
    /* The long double itself is off by one part in 2^64. */
    CHECK(std::fabs((long double)ms - std::floor(wanted)) <= 1);
}

void check_uuid(const std::string &text) {
    static const char DIGITS[] = "0123456789abcdef";
    uint8_t id[16];
    fuzz::Exact bytes(text.data(), text.size());
    int spelling = em_uuid_parse(bytes.data(), bytes.size(), id);
    std::string lower = text, out;
    bool is_uuid = text.size() == EM_UUID_TEXT_BYTES;
    for (size_t i = 0; i < text.size(); i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        is_uuid = is_uuid && (dash ? text[i] == '-' : std::isxdigit((unsigned char)text[i]) != 0);
        lower[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] | 0x20) : text[i];
    }
    CHECK((spelling != 0) == is_uuid);
    if (!is_uuid)
        return;
    CHECK(spelling == (lower == text ? 2 : 1));
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out += '-';
        out += DIGITS[id[i] >> 4];
        out += DIGITS[id[i] & 15];
    }
    CHECK(out == lower);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    std::string text(reinterpret_cast<const char *>(data), size);
    check_time(text);
    check_uuid(text);
    return 0;
}
