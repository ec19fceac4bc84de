/* Canonical UUID text: 8-4-4-4-12 hexadecimal digits of any case. */
#ifndef EVENTMILL_UUID_H
#define EVENTMILL_UUID_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EM_UUID_TEXT_BYTES 36

/* 0: not a UUID; 1: a UUID with upper-case digits; 2: a UUID all in lower case. Then `id` has its 16 bytes. */
int em_uuid_parse(const uint8_t *text, size_t length, uint8_t id[16]);

#ifdef __cplusplus
}
#endif
#endif
