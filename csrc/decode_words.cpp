#include "decode_words.h"

#include <xxhash.h>

#include "decode_columns.h"

namespace em {

/* As many set bytes as a text has, from the place SHORT - length on. */
const uint8_t Words::MASKS[2 * SHORT] = {
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
};

void Words::clear() {
    offsets_.assign(1, 0);
    data_.clear();
    slots_.assign(SLOTS_AT_FIRST, -1);
    generation_++;
}

void Words::truncate(size_t count) {
    if (count >= this->count())
        return;
    offsets_.resize(count + 1);
    data_.resize((size_t)offsets_[count]);
    enter_all(slots_.size());
    generation_++;
}

/* The slot of the text, or the free one where it belongs. */
size_t Words::place_of(Bytes wanted) const {
    size_t place = XXH3_64bits_withSeed(wanted.data, wanted.length, seed_) & (slots_.size() - 1);
    for (;; place = (place + 1) & (slots_.size() - 1)) {
        if (slots_[place] < 0)
            return place;
        Bytes known = text((size_t)slots_[place]);
        if (known.length == wanted.length && std::memcmp(known.data, wanted.data, wanted.length) == 0)
            return place;
    }
}

void Words::enter_all(size_t slots) {
    slots_.assign(slots, -1);
    for (size_t number = 0; number < count(); number++)
        slots_[place_of(text(number))] = (int32_t)number;
}

int32_t Words::look_up(Bytes wanted) {
    size_t place = place_of(wanted);
    if (slots_[place] >= 0)
        return slots_[place];
    if (data_.size() + wanted.length > COLUMN_BYTES_MAX)
        throw TooLarge{};
    if (2 * (count() + 1) > slots_.size()) {
        enter_all(2 * slots_.size());
        place = place_of(wanted);
    }
    data_.insert(data_.end(), wanted.data, wanted.data + wanted.length);
    offsets_.push_back((int32_t)data_.size());
    return slots_[place] = (int32_t)count() - 1;
}

} // namespace em
