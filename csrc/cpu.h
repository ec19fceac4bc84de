/*
 * Which instructions a kernel's code may use: one choice for all kernels of a process.
 *
 * A kernel that gains by wider vectors has one body, compiled for each level by EM_FOR_EACH_CPU; the wrapper branches
 * on the level, so a body should do much work a call. The level is the best that the processor has, or, so that tests
 * run every variant, the one that the environment's EVENTMILL_CPU names. It is settled by the first call and does not
 * change. Wider code gives the same results.
 */
#ifndef EVENTMILL_CPU_H
#define EVENTMILL_CPU_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    EM_CPU_PORTABLE, /* what every processor of the architecture has */
    EM_CPU_AVX2,
    EM_CPU_AVX512, /* F, BW, DQ, VL */
    EM_CPU_LEVELS
} em_cpu;

static inline const char *em_cpu_name(em_cpu level) {
    static const char *const NAMES[EM_CPU_LEVELS] = {"portable", "avx2", "avx512"};
    return NAMES[level];
}

static inline int em_cpu_has(em_cpu level) {
#if defined(__x86_64__)
    if (level == EM_CPU_AVX2)
        return __builtin_cpu_supports("avx2") != 0;
    if (level == EM_CPU_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return level == EM_CPU_PORTABLE;
}

/* The level named, the best when `name` is null, or -1 when there is none of that name on this processor. */
static inline int em_cpu_choose(const char *name) {
    for (int level = EM_CPU_LEVELS - 1; level >= 0; level--)
        if (em_cpu_has((em_cpu)level) && (name == NULL || strcmp(name, em_cpu_name((em_cpu)level)) == 0))
            return level;
    return -1;
}

/* The level of this process. A name that is none counts as no name here; eventmill.kernels.cpu refuses it. */
static inline em_cpu em_cpu_level(void) {
    static int chosen = -1;
    int level = __atomic_load_n(&chosen, __ATOMIC_RELAXED);
    if (level < 0) {
        level = em_cpu_choose(getenv("EVENTMILL_CPU"));
        level = level < 0 ? em_cpu_choose(NULL) : level;
        __atomic_store_n(&chosen, level, __ATOMIC_RELAXED);
    }
    return (em_cpu)level;
}

/*
 * Defines `name` with `parameters`, which calls `body` with `arguments` compiled for the process's level. `body` is
 * static inline and gives nothing back.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#define EM_FOR_EACH_CPU(linkage, name, body, parameters, arguments)                                                    \
    __attribute__((target("avx2"), flatten)) static void name##_avx2 parameters {                                      \
        body arguments;                                                                                                \
    }                                                                                                                  \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"), flatten)) static void name##_avx512 parameters {      \
        body arguments;                                                                                                \
    }                                                                                                                  \
    linkage void name parameters {                                                                                     \
        em_cpu level = em_cpu_level();                                                                                 \
        if (level == EM_CPU_AVX512)                                                                                    \
            name##_avx512 arguments;                                                                                   \
        else if (level == EM_CPU_AVX2)                                                                                 \
            name##_avx2 arguments;                                                                                     \
        else                                                                                                           \
            body arguments;                                                                                            \
    }
#else
#define EM_FOR_EACH_CPU(linkage, name, body, parameters, arguments)                                                    \
    linkage void name parameters {                                                                                     \
        body arguments;                                                                                                \
    }
#endif

#endif
