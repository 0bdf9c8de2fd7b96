"""Warnings that point at the user's line, however deep inside graphc they arise."""

from __future__ import annotations

import contextlib
import sys
import warnings

from graphc.ir.builder import in_graphc


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the nearest caller outside graphc: what is shown, and filtered by, is a line of the user's."""
    level, frame = 2, sys._getframe(1)
    # contextlib stands between the two where graphc warns as a context of its own ends.
    while frame.f_back is not None and (
        in_graphc(frame.f_code.co_filename) or frame.f_code.co_filename == contextlib.__file__
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
