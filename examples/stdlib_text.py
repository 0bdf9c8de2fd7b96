"""Text that every machine has: the sources of Python's standard library, read where they are installed, and the C
headers beside it, which are unlike them.

Ten modules, and as many headers, are held out by name, for measuring. A training file that repeats part of one of them
is left out: of its shingles (eight words in a row, Broder, "On the resemblance and containment of documents", 1997) at
most 2 % may occur in a held-out file. Run as a script, it says what there is.
"""

import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

import numpy as np

from graphc import random

HELD_OUT = (
    "argparse.py",
    "asyncio/queues.py",
    "calendar.py",
    "csv.py",
    "email/header.py",
    "graphlib.py",
    "heapq.py",
    "json/decoder.py",
    "tempfile.py",
    "textwrap.py",
)
"""Modules of every Python since 3.9, by their place in the standard library."""

HELD_OUT_HEADERS = (
    "abstract.h",
    "codecs.h",
    "datetime.h",
    "descrobject.h",
    "listobject.h",
    "modsupport.h",
    "pymem.h",
    "pythread.h",
    "structmember.h",
    "weakrefobject.h",
)
"""Headers of every Python since 3.9, by their place in its folder of headers."""

SKIPPED = {
    *("site-packages", "dist-packages", "__pycache__"),  # not the standard library
    *("test", "tests", "idle_test"),  # larger than all the rest
    *("encodings", "pydoc_data"),  # tables
    *("distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo"),  # not in every installation
}
"""Folders that are not read."""

OF_A_BUILD = ("_sysconfigdata", "pyconfig")
"""Beginnings of names of files that a build writes for one machine."""

SHINGLE = 8
"""Words in a row that are compared."""

MOST_SHARED = 0.02
"""The part of a training file's shingles that may occur in held-out files."""

END = b"\0"
"""Follows each file."""


class Corpus(NamedTuple):
    """Bytes to train on and bytes to measure on, uint8[N], and the names of the files that were left out as copies."""

    train: np.ndarray
    held_out: np.ndarray
    copies: list[str]


def corpus(folder: Path | None = None) -> Corpus:
    """The modules under `folder`, by default this Python's standard library."""
    return corpus_of(Path(folder or sysconfig.get_path("stdlib")), "*.py", HELD_OUT)


def headers(folder: Path | None = None) -> Corpus:
    """The C headers under `folder`, by default those that this Python is extended by."""
    return corpus_of(Path(folder or sysconfig.get_path("include")), "*.h", HELD_OUT_HEADERS)


def corpus_of(folder: Path, pattern: str, names: tuple[str, ...]) -> Corpus:
    """The files of a pattern under `folder`, in the order of their names; those in `names` are held out."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob(pattern) if is_read(path, folder)}
    missing = [name for name in names if name not in files]
    if missing:
        raise FileNotFoundError(f"{folder} has no {', '.join(missing)}: is it in a zip file, or not installed?")
    texts = {name: files[name].read_bytes() for name in sorted(files)}
    known = {shingle for name in names for shingle in shingles(texts[name])}
    held_out = [texts.pop(name) for name in names]
    copies = [name for name, text in texts.items() if shared(text, known) > MOST_SHARED]
    train = [text for name, text in texts.items() if name not in copies]
    return Corpus(joined(train), joined(held_out), copies)


def is_read(path: Path, folder: Path) -> bool:
    """Whether a file belongs to the text: no links, and nothing of one machine."""
    inside = path.relative_to(folder)
    return not (SKIPPED.intersection(inside.parts) or path.name.startswith(OF_A_BUILD) or path.is_symlink())


def shingles(text: bytes) -> set[tuple[bytes, ...]]:
    """All runs of `SHINGLE` words."""
    words = re.findall(rb"\w+", text)
    return set(zip(*(words[i:] for i in range(SHINGLE)), strict=False))


def shared(text: bytes, known: set[tuple[bytes, ...]]) -> float:
    """The part of the shingles of `text` that are known."""
    own = shingles(text)
    return len(own & known) / max(len(own), 1)


def joined(texts: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(text + END for text in texts), np.uint8)


def windows(text: np.ndarray, count: int, context: int, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`count` windows that start where `key` says: tokens, and the tokens that follow them, int32[count, context]."""
    starts = (random.uniform((count,), seed=key) * (len(text) - context)).astype(np.int64)
    found = np.lib.stride_tricks.sliding_window_view(text, context + 1)[starts].astype(np.int32)
    return found[:, :-1], found[:, 1:]


def all_windows(text: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """The whole text in windows side by side, without the rest that fills none; as `windows`."""
    found = np.lib.stride_tricks.sliding_window_view(text, context + 1)[::context].astype(np.int32)
    return found[:, :-1], found[:, 1:]


if __name__ == "__main__":
    for text, held_out in ((corpus(), HELD_OUT), (headers(), HELD_OUT_HEADERS)):
        print(f"{len(text.train):,} bytes to train on, {len(text.held_out):,} held out ({', '.join(held_out)})")
        print(f"left out, as they repeat held-out text: {', '.join(text.copies) or 'none'}")
