"""Compile the kernels: `python proxy_model/native/build.py`, and when the package is installed.

The file's name carries a digest of the sources, so that what was compiled from others is never loaded.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
COMPILED = FOLDER / "compiled"
FLAGS = [
    *("-O3", "-std=gnu11", "-shared", "-fPIC", "-ffp-contract=off", "-Wall"),
    "-march=cooperlake",  # the oldest that has all of the instructions
]
ZIG = "ziglang==0.15.2"
"""A C compiler from the package index, for machines without one."""


def library() -> Path:
    """Where the compiled kernels of these sources lie, or would."""
    digest = hashlib.sha256()
    for source in sorted(FOLDER.glob("*.[ch]")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return COMPILED / f"kernels-{digest.hexdigest()[:12]}.so"


def is_supported() -> bool:
    """Whether kernels exist for this kind of machine: Linux on x86-64."""
    return sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64")


def own_compiler() -> list[str] | None:
    """The machine's C compiler, if it has headers and knows the instructions."""
    headers = b"#include <immintrin.h>\n#include <math.h>\n"
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            probe = [path, *FLAGS, "-fsyntax-only", "-x", "c", "-"]
            if not subprocess.run(probe, input=headers, capture_output=True, check=False).returncode:
                return [path]
    return None


def compile_kernels() -> Path:
    """Compile, and take what older sources left away. Raises `subprocess.CalledProcessError`."""
    target = library()
    compiler = own_compiler() or [sys.executable, "-m", "ziglang", "cc"]
    sources = [str(source) for source in sorted(FOLDER.glob("*.c"))]
    COMPILED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=COMPILED) as folder:
        made = Path(folder, target.name)
        subprocess.run([*compiler, *FLAGS, *sources, "-lm", "-o", str(made)], check=True)
        made.replace(target)
    for old in COMPILED.glob("kernels-*.so"):
        if old != target:
            old.unlink()
    return target


if __name__ == "__main__":
    print(compile_kernels())
