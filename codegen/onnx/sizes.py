"""Symbolic sizes in an ONNX graph: each symbol is bound once, from the input that has it; expressions are arithmetic.

A size is an int64 vector of one element, so that shapes are concatenations. Most shapes need none of it: one unknown
size of a reshape is written -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.dims import Dim, Size, bounds, lower_with, substitute, symbols
from graphc.ir.dtypes import DType, i64
from graphc.ir.errors import UnsupportedError

if TYPE_CHECKING:
    from graphc.codegen.onnx.graph import GraphWriter, Tensor


class Sizes:
    """The sizes of one graph. `bind` says where a symbol is read from; it is read where it is first needed."""

    def __init__(self, graph: GraphWriter) -> None:
        self.graph = graph
        self.places: dict[Dim, tuple[str, int, Size]] = {}

    def bind(self, name: str, shape: Sequence[Size]) -> None:
        """Note what symbols the shape of an input determines: those that stand alone first, then in a linear term."""
        for axis, size in enumerate(shape):
            if isinstance(size, Dim):
                for symbol in symbols(size):
                    known = self.places.get(symbol)
                    if known is None or (size.is_symbol and not _is_symbol(known[2])):
                        self.places[symbol] = (name, axis, size)

    def define(self, symbol: Dim, count: Tensor) -> None:
        """Bind a symbol to a scalar that is calculated in this graph."""
        graph = self.graph
        vector = graph.node("Reshape", [graph.cast(count, i64).name, graph.integers(1)], i64)
        graph.remember(symbol, vector)

    def size(self, size: Size) -> Tensor:
        """A size as an int64 vector of one element."""
        if not isinstance(size, Dim):
            return self.const(size)
        found = self.graph.lookup(size)
        if found is None:
            found = lower_with(size, self)
            self.graph.remember(size, found)
        return found

    def scalar(self, size: Size, dtype: DType = i64) -> Tensor:
        """A size as a scalar."""
        if not isinstance(size, Dim):
            return self.graph.constant(size, dtype)
        vector = self.size(size)
        return self.graph.cast(self.graph.node("Reshape", [vector.name, self.graph.integers()], i64), dtype)

    def shape(self, shape: Sequence[Size]) -> str:
        """The name of a shape as an int64 vector."""
        if all(type(size) is int for size in shape):
            return self.graph.integers(*shape)  # type: ignore[arg-type]
        key = tuple(shape)
        found = self.graph.lookup(key)
        if found is None:
            parts: list[str] = []
            known: list[int] = []
            for size in (*shape, None):
                if isinstance(size, int):
                    known.append(size)
                    continue
                if known:
                    parts.append(self.graph.integers(*known))
                    known = []
                if size is not None:
                    parts.append(self.size(size).name)
            found = self.graph.node("Concat", parts, i64, axis=0) if len(parts) > 1 else self.size(key[0])
            self.graph.remember(key, found)
        return found.name

    def reshape_target(self, shape: Sequence[Size]) -> str:
        """What to reshape to: the shape, its one unknown size as -1 where nothing else is 0."""
        unknown = [size for size in shape if isinstance(size, Dim)]
        if len(unknown) == 1 and 0 not in shape:
            return self.graph.integers(*(size if isinstance(size, int) else -1 for size in shape))
        return self.shape(shape)

    # --- the algebra that `lower_with` folds a size with --------------------------------------------------------

    def const(self, value: int) -> Tensor:
        return self.graph.constant([value], i64)

    def symbol(self, symbol: Dim) -> Tensor:
        found = self.graph.lookup(symbol)
        if found is not None:
            return found
        place = self.places.pop(symbol, None)
        if place is None:
            raise UnsupportedError(f"the size {symbol} is bound by no input of the graph")
        name, axis, size = place
        graph = self.graph
        with graph.in_root(str(symbol)):
            found = graph.node("Shape", [name], i64, start=axis, end=axis + 1)
            graph.remember(size, found)
            if not size.is_symbol:  # type: ignore[union-attr]
                found = self._solved(size, symbol, found)
            return graph.remember(symbol, found)

    def _solved(self, size: Size, symbol: Dim, value: Tensor) -> Tensor:
        """The symbol in a size that is linear in it: `S` from `2*S + 1`."""
        offset = substitute(size, {symbol: 0})
        slope = substitute(size, {symbol: 1}) - offset
        if substitute(size, {symbol: 2}) - offset != slope * 2 or symbol in (*symbols(offset), *symbols(slope)):
            raise UnsupportedError(f"the size {size} does not determine {symbol}")
        graph = self.graph
        if offset != 0:
            value = graph.node("Sub", [value.name, self.size(offset).name], i64)
        return value if slope == 1 else graph.node("Div", [value.name, self.size(slope).name], i64)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self.graph.node("Add", [a.name, b.name], i64)

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self.graph.node("Mul", [a.name, b.name], i64)

    def floordiv(self, a: Tensor, b: Tensor) -> Tensor:
        """Rounded down: `Div` truncates, `Mod` has the divisor's sign."""
        rest = self.mod(a, b)
        return self.graph.node("Div", [self.graph.node("Sub", [a.name, rest.name], i64).name, b.name], i64)

    def mod(self, a: Tensor, b: Tensor) -> Tensor:
        return self.graph.node("Mod", [a.name, b.name], i64)

    def min(self, a: Tensor, b: Tensor) -> Tensor:
        return self.graph.node("Min", [a.name, b.name], i64)

    def max(self, a: Tensor, b: Tensor) -> Tensor:
        return self.graph.node("Max", [a.name, b.name], i64)


def _is_symbol(size: Size) -> bool:
    return isinstance(size, Dim) and size.is_symbol


def at_least(size: Size, least: int) -> bool:
    """Whether a size is known to be `least` or more."""
    low = bounds(size)[0]
    return low is not None and low >= least
