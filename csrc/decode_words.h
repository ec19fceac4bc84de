/*
 * The distinct texts of a dictionary column, numbered in the order of their first appearance.
 *
 * Such a column has few texts that come again and again, so a small direct-mapped cache of short ones stands before the
 * hash table: a hit costs one comparison. Texts are the clients', so the table's hash is seeded.
 */
#ifndef EVENTMILL_DECODE_WORDS_H
#define EVENTMILL_DECODE_WORDS_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "decode_walk.h"

#pragma GCC visibility push(hidden) /* calls within the kernel need no indirection */
namespace em {

class Words {
  public:
    explicit Words(uint64_t seed) : seed_(seed) {
        clear();
    }

    /* The text's number. It is readable for SHORT bytes; throws std::bad_alloc or TooLarge. */
    int32_t number_of(Bytes text) {
        if (text.length > SHORT)
            return look_up(text);
        const uint64_t tag = generation_ << 32 | text.length;
        uint64_t words[SHORT_WORDS], mixed = tag;
        for (size_t i = 0; i < SHORT_WORDS; i++) {
            uint64_t word, mask;
            std::memcpy(&word, text.data + 8 * i, sizeof word);
            std::memcpy(&mask, MASKS + SHORT - text.length + 8 * i, sizeof mask);
            words[i] = word & mask;
            mixed += words[i] * FACTORS[i];
        }
        Recent &recent = recent_[mixed * FACTORS[0] >> (64 - RECENT_BITS)];
        uint64_t differs = recent.tag ^ tag;
        for (size_t i = 0; i < SHORT_WORDS; i++)
            differs |= recent.words[i] ^ words[i];
        if (differs != 0) {
            recent.tag = 0; /* until look_up has succeeded */
            recent.number = look_up(text);
            std::memcpy(recent.words, words, sizeof words);
            recent.tag = tag;
        }
        return recent.number;
    }

    size_t count() const {
        return offsets_.size() - 1;
    }
    size_t nbytes() const {
        return data_.size() + count() * sizeof offsets_[0];
    }
    const std::vector<int32_t> &offsets() const {
        return offsets_;
    }
    const std::vector<uint8_t> &data() const {
        return data_;
    }

    /* Forgets all but the first `count` texts. */
    void truncate(size_t count);
    void clear();

  private:
    static constexpr size_t SHORT = 32, SHORT_WORDS = SHORT / 8, RECENT_BITS = 8, SLOTS_AT_FIRST = 64;
    static constexpr uint64_t FACTORS[SHORT_WORDS] = {0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                                                      0xD6E8FEB86659FD93};
    static const uint8_t MASKS[2 * SHORT];

    struct Recent {
        uint64_t words[SHORT_WORDS];
        uint64_t tag = 0; /* the generation and the length */
        int32_t number;
    };

    uint64_t seed_;
    uint64_t generation_ = 0; /* what was kept in an earlier one is forgotten */
    std::vector<int32_t> offsets_;
    std::vector<uint8_t> data_;
    std::vector<int32_t> slots_; /* numbers, or -1; at most half are taken */
    Recent recent_[size_t(1) << RECENT_BITS];

    Bytes text(size_t number) const {
        return {data_.data() + offsets_[number], (size_t)(offsets_[number + 1] - offsets_[number])};
    }
    int32_t look_up(Bytes text);
    void enter_all(size_t slots);
    size_t place_of(Bytes text) const;
};

} // namespace em
#pragma GCC visibility pop
#endif
