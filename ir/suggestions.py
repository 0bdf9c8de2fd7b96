"""What error messages have in common: what is suggested for a name that is not known, and counts of things."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

FEW = 8
"""So many names are listed even beside a suggestion."""


def number_of(number: int, noun: str, plural: str | None = None) -> str:
    """`1 value`, `3 values`, and `2 axes` where the plural is given."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for a misspelt name, and what there is where nothing is near or there is little."""
    names = sorted(set(map(str, known)))
    listed = f"here {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"
    by_lowered: dict[str, list[str]] = {}
    for each in names:
        by_lowered.setdefault(each.lower(), []).append(each)
    near = get_close_matches(name.lower(), by_lowered, n=3, cutoff=0.5)
    # Of names that differ by case only, the one that is written as the misspelt one is.
    close = [min(by_lowered[each], key=lambda known: known.islower() != name.islower()) for each in near]
    if not close:
        return f"; t{listed}"
    meant = f"; did you mean {' or '.join(close)}?"
    return f"{meant} T{listed}" if len(close) < len(names) <= FEW else meant
