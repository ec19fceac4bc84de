/*
 * SipHash-1-3 of 16-byte ids (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012; one round a word, three at
 * the end, as in the hash tables of Rust and CPython). A pseudorandom function: who lacks the key cannot tell its
 * values from random ones, so chosen ids fare like any others.
 */
#ifndef EVENTMILL_SIPHASH_H
#define EVENTMILL_SIPHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t em_rotate(uint64_t word, unsigned bits) {
    return word << bits | word >> (64 - bits);
}

static inline void em_sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[1] = em_rotate(v[1], 13) ^ v[0];
    v[0] = em_rotate(v[0], 32);
    v[2] += v[3];
    v[3] = em_rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = em_rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = em_rotate(v[1], 17) ^ v[2];
    v[2] = em_rotate(v[2], 32);
}

static inline uint64_t em_load_le64(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The hash of the 16 bytes at `id`; `key` is two little-endian words. */
static inline uint64_t em_siphash_id(const uint8_t *id, uint64_t key0, uint64_t key1) {
    const uint64_t words[3] = {em_load_le64(id), em_load_le64(id + 8), (uint64_t)16 << 56};
    uint64_t v[4] = {key0 ^ 0x736f6d6570736575ULL, key1 ^ 0x646f72616e646f6dULL, key0 ^ 0x6c7967656e657261ULL,
                     key1 ^ 0x7465646279746573ULL};
    for (int i = 0; i < 3; i++) {
        v[3] ^= words[i];
        em_sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        em_sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
