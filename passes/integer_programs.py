"""Integer programs: `milp` of scipy, kept from writing into the program's own output.

HiGHS 1.12, which scipy 1.17 has in it, prints a line of its developers' to C's stdout, whatever its options say, when
it mends a solution that breaks a row by more than its tolerance (https://github.com/ERGO-Code/HiGHS/issues/2783,
https://github.com/jump-dev/HiGHS.jl/issues/312). Of some 500 programs for plans of memory one does that. Without
presolve it does not, but takes twelve times as long; with all variables whole it still does. So the line is taken out
of what is printed.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock
from typing import Any

_PRINTED = re.compile(rb"HighsMipSolverData::[^\n]*\n?")
_alone = Lock()


def milp(*args: Any, **kwargs: Any) -> Any:
    """`scipy.optimize.milp`, of which nothing is printed."""
    from scipy import optimize  # a fifth of a second, which few need

    solver: Any = optimize  # its types are incomplete
    with without_lines(_PRINTED):
        return solver.milp(*args, **kwargs)


@contextmanager
def without_lines(printed: re.Pattern[bytes]) -> Generator[None, None, None]:
    """Leave out of the standard output what matches `printed`, also where a library in C prints it.

    For so long descriptor 1 is a temporary file, whose content, but for what matches, is written to where it was before
    as soon as the block is left: what other threads print comes a little later, and none of it is lost. A process that
    another thread starts meanwhile prints into the file, and what it prints after the block is lost. Only one thread at
    a time is in such a block. Where there is no standard output nothing is done.
    """
    with _alone:
        try:
            real = os.dup(1)
        except OSError:  # closed, as of a service
            yield
            return
        try:
            with tempfile.TemporaryFile() as file:
                _flush()  # what was printed before is not held up
                os.dup2(file.fileno(), 1)
                try:
                    yield
                finally:
                    _flush()
                    os.dup2(real, 1)
                    file.seek(0)
                    _write(real, printed.sub(b"", file.read()))
        finally:
            os.close(real)


def _flush() -> None:
    """Write what C's stdout has in its buffer. Only of this stream: another may be locked by who waits for input."""
    if os.name == "nt":
        ctypes.CDLL("ucrtbase").fflush(None)
        return
    library = ctypes.CDLL(None)
    name = "__stdoutp" if sys.platform == "darwin" else "stdout"
    library.fflush(ctypes.c_void_p.in_dll(library, name))


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


__all__ = ["milp", "without_lines"]
