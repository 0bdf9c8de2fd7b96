"""What this processor's integer products take: whether weights need a reduced range.

Without VNNI, x86's products of u8 and i8 (`vpmaddubsw`) add pairs into 16 bits and saturate: 2 · 255 · 127 does not
fit, 2 · 255 · 63 does. With VNNI (`avx512_vnni`, `avx_vnni`) they add into 32 bits, and so do ARM's.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "avx512vnni"})


@cache
def wants_reduced_range() -> bool:
    """Whether weights are to go from −63 to 63 beside activations of 8 bits: on x86 without VNNI, or where it is not
    known (no `/proc/cpuinfo`)."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    return not (_VNNI & flags(_CPU_INFO))


def flags(path: Path) -> frozenset[str]:
    """The features that the first processor has, none where the file is not there."""
    if not path.is_file():
        return frozenset()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
