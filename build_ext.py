"""Builds punchd._native from csrc/ with cffi in API mode; `python build_ext.py` builds in place.
It declares nothing itself: the cdef is the marked slices of csrc/punchd.h and csrc/calls.h, verbatim.

PUNCHD_SANITIZE=address,undefined builds with those sanitizers (csrc/asan.sh uses it).
"""

import os
from pathlib import Path

from cffi import FFI
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
NAME = "punchd._native"
HEADERS = ("punchd.h", "calls.h")
BEGIN, END = "/* cffi: begin */", "/* cffi: end */"
RELEASE = ["-O2", "-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
SANITIZED = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-U_FORTIFY_SOURCE"]


class BuildNative(build_ext):
    """setuptools' build_ext that fills in the one extension named in pyproject.toml."""

    def build_extension(self, ext: Extension) -> None:
        if ext.name == NAME:
            self._fill(ext)
        super().build_extension(ext)

    def _fill(self, ext: Extension) -> None:
        generated = Path(self.build_temp) / "_native.c"
        generated.parent.mkdir(parents=True, exist_ok=True)
        ffi = FFI()
        ffi.cdef(header_slices())
        ffi.set_source(NAME, '#include "punchd.h"')
        ffi.emit_c_code(str(generated))
        sources = sorted((ROOT / "csrc").glob("*.c"))
        ext.sources = [str(generated), *(os.path.relpath(source) for source in sources)]
        ext.depends = [os.path.relpath(header) for header in sorted((ROOT / "csrc").glob("*.h"))]
        ext.include_dirs = [str(ROOT / "csrc")]
        ext.extra_compile_args, ext.extra_link_args = compiler_flags(os.environ.get("PUNCHD_SANITIZE", ""))


def header_slices() -> str:
    """The parts of the headers between the cffi marks."""
    return "".join(_slice(ROOT / "csrc" / name) for name in HEADERS)


def _slice(header: Path) -> str:
    text = header.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{header} must hold {BEGIN!r} and {END!r} once each")
    return text.split(BEGIN)[1].split(END)[0]


def compiler_flags(sanitize: str) -> tuple[list[str], list[str]]:
    """Flags for compiling and for linking."""
    if not sanitize:
        return RELEASE, ["-Wl,-z,relro,-z,now"]
    return [*SANITIZED, f"-fsanitize={sanitize}"], [f"-fsanitize={sanitize}"]


def main() -> None:
    """Build in place, without the configuration in pyproject.toml: any setuptools will do."""
    os.chdir(ROOT)
    command = BuildNative(Distribution({"name": "punchd", "ext_modules": [Extension(NAME, [])]}))
    command.inplace = True
    command.ensure_finalized()
    command.run()


if __name__ == "__main__":
    main()
