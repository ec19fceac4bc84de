/* What the fuzz targets share: numbers out of an input's bytes, and checks that stop the run. */
#ifndef EVENTMILL_FUZZ_H
#define EVENTMILL_FUZZ_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

/* The entry point of libFuzzer, and of replay.cpp. */
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                        \
            std::abort();                                                                                              \
        }                                                                                                              \
    } while (0)

namespace fuzz {

/* Takes an input apart; behind its end come zeroes. */
class Input {
  public:
    Input(const uint8_t *data, size_t size) : at_(data), end_(data + size) {}

    bool empty() const {
        return at_ == end_;
    }
    uint8_t byte() {
        return at_ < end_ ? *at_++ : 0;
    }
    uint64_t number(unsigned bytes) {
        uint64_t value = 0;
        for (unsigned i = 0; i < bytes; i++)
            value |= (uint64_t)byte() << (8 * i);
        return value;
    }
    /* `low` to `high`, both of which may come; one byte, so spans are at most 256. */
    uint64_t between(uint64_t low, uint64_t high) {
        return low + byte() % (high - low + 1);
    }

  private:
    const uint8_t *at_, *end_;
};

/* Bytes in memory of exactly their size, so that a sanitizer sees every read beyond them. */
class Exact {
  public:
    Exact(const void *data, size_t size) : bytes_(new uint8_t[size]), size_(size) {
        if (size)
            std::memcpy(bytes_.get(), data, size);
    }
    const uint8_t *data() const {
        return bytes_.get();
    }
    size_t size() const {
        return size_;
    }

  private:
    std::unique_ptr<uint8_t[]> bytes_;
    size_t size_;
};

/* A secret for keyed hashes. Zeroes would not do: XXH3 collides without one. */
inline std::array<uint8_t, 192> secret() {
    std::array<uint8_t, 192> bytes;
    uint32_t state = 1;
    for (uint8_t &byte : bytes)
        byte = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    return bytes;
}

} // namespace fuzz
#endif
