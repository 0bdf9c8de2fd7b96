"""Which ops give views of their operands in frameworks with strided arrays (NumPy, PyTorch)."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Op, Value

RENAMED = frozenset({"barrier", "name", "stop_gradient"})
MOVED = frozenset({"transpose", "broadcast", "slice", "split", "real", "imag"})


def is_view(op: Op) -> bool:
    """Whether the results lie in the operand's memory.

    A `reshape` of what was moved is taken to copy, unless all it does is to split axes and to add or drop sizes of 1.
    """
    if op.name in RENAMED or op.name in MOVED:
        return True
    if op.name != "reshape":
        return False
    source = op.operands[0]
    assert source is not None
    return _splits(_without_ones(source), _without_ones(op.results[0])) or not _is_moved(source)


def _splits(sizes: Sequence[object], finer: Sequence[object]) -> bool:
    """Whether each size is one of the `finer` ones or the product of several that follow each other."""
    rest = list(reversed(finer))
    for size in sizes:
        if rest and rest[-1] == size:
            rest.pop()
            continue
        product = 1
        while isinstance(size, int) and product < size and rest and isinstance(part := rest[-1], int):
            product *= part
            rest.pop()
        if product != size:
            return False
    return not rest


def _is_moved(value: Value) -> bool:
    while (op := value.op) is not None:
        if op.name in MOVED:
            return True
        if op.name not in RENAMED and op.name != "reshape":
            return False
        source = op.operands[0]
        assert source is not None
        value = source
    return False


def _without_ones(value: Value) -> list[object]:
    return [size for size in value.type.shape if size != 1]
