#include "uuid.h"

#include <string.h>

/* Each byte of a word at once; bytes are independent as long as no sum carries, for which all are below 0x80. */
#define EACH(byte) (0x0101010101010101u * (byte))

/* Eight hexadecimal digits, the first in the lowest byte, to four bytes, the first lowest; marks in *bad the bytes that
 * are no digits by their top bit, and in *upper the capitals by 0x20. */
static inline uint64_t unhex(uint64_t text, uint64_t *bad, uint64_t *upper) {
    uint64_t low = text & EACH(0x7F), letter = low | EACH(0x20);
    uint64_t digit = (low + EACH(0x80 - '0')) & ~(low + EACH(0x80 - '9' - 1));
    uint64_t alpha = (letter + EACH(0x80 - 'a')) & ~(letter + EACH(0x80 - 'f' - 1)) & (low << 1);
    *bad |= (text | ~(digit | alpha)) & EACH(0x80);
    *upper |= (low >> 1) & ~low & EACH(0x20);
    uint64_t values = (low & EACH(0x0F)) + 9 * ((low >> 6) & EACH(1));
    uint64_t pairs = (values << 4 | values >> 8) & 0x00FF00FF00FF00FF;
    pairs = (pairs | pairs >> 8) & 0x0000FFFF0000FFFF;
    return (pairs | pairs >> 16) & 0xFFFFFFFF;
}

/* Of four or eight bytes, the first lowest. */
static uint64_t load(const uint8_t *from, size_t bytes) {
    uint64_t word = 0;
    memcpy(&word, from, bytes);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static void store(uint8_t *to, uint64_t word, size_t bytes) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(to, &word, bytes);
}

int em_uuid_parse(const uint8_t *text, size_t length, uint8_t id[16]) {
    uint64_t bad = 0, upper = 0;
    if (length != EM_UUID_TEXT_BYTES || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-')
        return 0;
    const uint64_t quarters[4] = {load(text, 8), load(text + 9, 4) | load(text + 14, 4) << 32,
                                  load(text + 19, 4) | load(text + 24, 4) << 32, load(text + 28, 8)};
    for (int i = 0; i < 4; i++)
        store(id + 4 * i, unhex(quarters[i], &bad, &upper), 4);
    return bad ? 0 : upper ? 1 : 2;
}
