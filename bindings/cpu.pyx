"""Translation of csrc/cpu.h; eventmill._native.cpu is documented in its .pyi."""

import os


cdef extern from "cpu.h":
    ctypedef enum em_cpu:
        EM_CPU_LEVELS

    const char *em_cpu_name(em_cpu level)
    int em_cpu_has(em_cpu level)
    int em_cpu_choose(const char *name)
    em_cpu em_cpu_level()


AVAILABLE = tuple([em_cpu_name(<em_cpu>level).decode() for level in range(EM_CPU_LEVELS) if em_cpu_has(<em_cpu>level)])
CHOSEN = em_cpu_name(em_cpu_level()).decode()
cdef bytes _asked = os.environb.get(b"EVENTMILL_CPU")
UNKNOWN = _asked is not None and em_cpu_choose(_asked) < 0
