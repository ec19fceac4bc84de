/* The id of a session: a hash of its device and its start, the same in a stream and over a whole data set. */
#ifndef EVENTMILL_SESSION_ID_H
#define EVENTMILL_SESSION_ID_H

#include "strings.h"

/* In one store, which the load that follows is served from. */
static inline void em_put_little_endian(uint8_t to[8], uint64_t value) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    memcpy(to, &value, sizeof value);
}

static inline uint64_t em_device_hash(em_strings devices, size_t row) {
    return XXH3_64bits(em_string_at(devices, row), em_string_bytes(devices, row));
}

/* The device's own hash and the start are hashed as 16 bytes: copies of an id of any length would cost more. */
static inline int64_t em_session_id_of(uint64_t device_hash, int64_t start_ms) {
    uint8_t text[16];
    em_put_little_endian(text, device_hash);
    em_put_little_endian(text + 8, (uint64_t)start_ms);
    return (int64_t)(XXH3_64bits(text, sizeof text) & INT64_MAX);
}

static inline int64_t em_session_id(em_strings devices, size_t row, int64_t start_ms) {
    return em_session_id_of(em_device_hash(devices, row), start_ms);
}

#endif
