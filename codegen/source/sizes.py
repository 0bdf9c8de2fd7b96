"""Statements that read symbolic sizes from the shapes of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.dims import Dim, symbols
from graphc.ir.graph import Value


def size_statements(
    wanted: Sequence[Dim], parameters: Sequence[Value], names: Mapping[Value, str], spelled: Mapping[Dim, str]
) -> list[str]:
    """One statement for each parameter that binds symbols in `wanted`. Symbols that none binds are left out."""
    missing = dict.fromkeys(wanted)
    lines: list[str] = []
    for value in parameters:
        if not missing:
            break
        shape = value.type.shape
        here = {
            size: axis for axis, size in reversed(list(enumerate(shape))) if isinstance(size, Dim) and size in missing
        }
        if not here:
            continue
        if len(here) == 1:
            ((dim, axis),) = here.items()
            lines.append(f"{spelled[dim]} = {names[value]}.shape[{axis}]")
        else:
            targets = [
                spelled[s] if isinstance(s, Dim) and here.get(s) == axis else "_" for axis, s in enumerate(shape)
            ]
            lines.append(f"{', '.join(targets)} = {names[value]}.shape")
        for dim in here:
            del missing[dim]
    for dim in list(missing):
        for value in parameters:
            found = _solved(dim, value, names[value], spelled)
            if found is not None:
                lines.append(f"{spelled[dim]} = {found}")
                del missing[dim]
                break
    return lines


def _solved(dim: Dim, value: Value, name: str, spelled: Mapping[Dim, str]) -> str | None:
    """The symbol from a size that is a multiple of it plus a constant: `S` from `x: [2*S + 1]` is `(n - 1) // 2`."""
    for axis, size in enumerate(value.type.shape):
        if isinstance(size, Dim) and symbols(size) == (dim,) and len(size.terms) == 1:
            (monomial, coefficient), constant = size.terms[0], size.constant
            if len(monomial) == 1 and monomial[0].kind == "symbol" and coefficient > 0:
                read = f"{name}.shape[{axis}]"
                moved = f"{read} - {constant}" if constant > 0 else f"{read} + {-constant}" if constant else read
                if coefficient == 1:
                    return moved
                return f"({moved}) // {coefficient}" if constant else f"{moved} // {coefficient}"
    return None
