/* The id of a session: a hash of its device and its start, the same in a stream and over a whole data set. */
#ifndef EVENTMILL_SESSION_ID_H
#define EVENTMILL_SESSION_ID_H

#include "strings.h"

static inline int64_t em_session_id(em_strings devices, size_t row, int64_t start_ms) {
    enum { DEVICE_BYTES_INLINE = 512, START_BYTES = 8 };
    const uint8_t *device = em_string_at(devices, row);
    size_t bytes = em_string_bytes(devices, row);
    uint8_t start[START_BYTES], text[DEVICE_BYTES_INLINE + START_BYTES];
    for (int i = 0; i < START_BYTES; i++)
        start[i] = (uint8_t)((uint64_t)start_ms >> (8 * i));
    uint64_t hash;
    if (bytes <= DEVICE_BYTES_INLINE) {
        memcpy(text, device, bytes);
        memcpy(text + bytes, start, START_BYTES);
        hash = XXH3_64bits(text, bytes + START_BYTES);
    } else {
        XXH3_state_t stream;
        XXH3_64bits_reset(&stream);
        XXH3_64bits_update(&stream, device, bytes);
        XXH3_64bits_update(&stream, start, START_BYTES);
        hash = XXH3_64bits_digest(&stream);
    }
    return (int64_t)(hash & INT64_MAX);
}

#endif
