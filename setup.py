"""Builds the native kernels. Everything else stands in pyproject.toml.

``EVENTMILL_SANITIZE=address,undefined`` builds with sanitizers, in a folder of their own under ``build``, so that nothing of
it is taken for the kernels themselves; what they find ends the process. ``EVENTMILL_DEBUG=1`` builds without optimization.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CURE = "On Debian or Ubuntu: apt-get install -y g++ pkg-config libsimdjson-dev libxxhash-dev (or: make system-packages)"

SANITIZERS = os.environ.get("EVENTMILL_SANITIZE", "")

#: extension -> (C and C++ sources, pkg-config packages)
KERNELS: dict[str, tuple[list[str], list[str]]] = {
    "decode": (
        [
            "csrc/decode.cpp",
            "csrc/decode_columns.cpp",
            "csrc/decode_event.cpp",
            "csrc/decode_plain.cpp",
            "csrc/decode_row.cpp",
            "csrc/decode_shape.cpp",
            "csrc/decode_walk.cpp",
            "csrc/decode_words.cpp",
            "csrc/timestamp.c",
            "csrc/uuid.c",
        ],
        ["simdjson", "libxxhash"],
    ),
    "cpu": ([], []),
    "bloom": (["csrc/bloom.c", "csrc/event_bloom.c"], ["libxxhash"]),
    "sessionize": (["csrc/sessionize.c", "csrc/sessions_exact.c"], ["libxxhash"]),
    "enrich": (["csrc/enrich.c"], ["libxxhash"]),
    "partition": (["csrc/partition.c"], ["libxxhash"]),
    "schema": (["csrc/schema.c"], []),
    "gather": (["csrc/gather.c", "csrc/gather_parts.c"], ["libxxhash"]),
}


def fail(message: str) -> None:
    """Stop the build; there is no slow fallback to hide behind."""
    sys.exit(f"\neventmill: {message}\n{CURE}\n")


def pkg_config(packages: list[str]) -> dict[str, list[str]]:
    """Compiler and linker flags of system packages."""
    tool = shutil.which("pkg-config")
    if tool is None:
        fail("pkg-config is not installed, so the native kernels cannot be built.")
    flags: dict[str, list[str]] = {"compile": [], "link": []}
    for package in packages:
        for kind, option in (("compile", "--cflags"), ("link", "--libs")):
            done = subprocess.run([str(tool), option, package], capture_output=True, text=True, check=False)
            if done.returncode:
                fail(f"{package} is not installed, so the native kernels cannot be built.")
            flags[kind] += shlex.split(done.stdout)
    return flags


def extensions() -> list[Extension]:
    """One extension a kernel."""
    optimize = ["-O0", "-g"] if os.environ.get("EVENTMILL_DEBUG") else ["-O3", "-g1"]
    sanitize = [f"-fsanitize={SANITIZERS}", "-fno-omit-frame-pointer"] if SANITIZERS else []
    if "undefined" in SANITIZERS:
        sanitize.append("-fno-sanitize-recover=all")
    built = []
    for name, (sources, packages) in KERNELS.items():
        flags = pkg_config(packages)
        cplusplus = any(source.endswith(".cpp") for source in sources)
        built.append(
            Extension(
                f"eventmill._native.{name}",
                [f"bindings/{name}.pyx", *sources],
                depends=[str(path) for path in Path("csrc").rglob("*.h")],
                define_macros=[("XXH_INLINE_ALL", "1")],
                # Quoted includes only: csrc/ must not hide a system header of the same name.
                extra_compile_args=[
                    "-iquotecsrc",
                    *optimize,
                    "-Wall",
                    "-Wextra",
                    "-Wno-unused-parameter",
                    *sanitize,
                    *flags["compile"],
                ],
                extra_link_args=[*sanitize, *flags["link"]],
                language="c++" if cplusplus else "c",
            )
        )
    return built


class BuildKernels(build_ext):
    """Adds the language standard per source file: C11 kernels stand beside C++17 ones in one extension."""

    def build_extension(self, ext: Extension) -> None:
        compiler = self.compiler
        compile_one = compiler._compile

        def compile_with_standard(obj, src, extension, cc_args, postargs, pp_opts):  # type: ignore[no-untyped-def]
            standard = "-std=c11" if src.endswith(".c") else "-std=c++17"
            compile_one(obj, src, extension, cc_args, [*postargs, standard], pp_opts)

        compiler._compile = compile_with_standard
        try:
            super().build_extension(ext)
        except Exception as error:
            fail(f"compiling the kernel {ext.name} failed: {error}")
        finally:
            compiler._compile = compile_one


setup(
    ext_modules=cythonize(
        extensions(),
        build_dir="build/cython",
        include_path=["bindings"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "embedsignature": False,
            "freethreading_compatible": True,  # what one thread at a time may use, claims itself (em_enter)
        },
    ),
    cmdclass={"build_ext": BuildKernels},
    options={"build": {"build_base": f"build/{SANITIZERS.replace(',', '-')}"}} if SANITIZERS else {},
)
