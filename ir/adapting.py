"""Low-rank adapters put beside kernels in a recorded function: uses of a kernel become `lora_linear`, `lora_conv` and
`lora_embedding`, and where there is none of these for a use, `lora_weight`.

A kernel is followed through casts, transposes and reshapes to where it is used. Whatever code holds the results of the
rewritten ops, such as a step that is still being recorded, may go on using them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dtypes import dtype
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Op, Value
from graphc.ir.rewriter import Rewriter

Kind = Literal["linear", "conv", "embedding"]


@dataclass(frozen=True)
class Form:
    """How the factors of an adapter lie beside a kernel: the kernel is taken as `shape` [..., out], or if `transposed`
    as the transpose of that matrix; A is [..., r], B is [r, out]. `kind` is what the kernel is used in; `tied` is a
    table that also gives scores, read transposed; `groups` are those of a convolution."""

    kind: Kind
    shape: tuple[int, ...]
    transposed: bool = False
    tied: bool = False
    groups: int = 1

    @property
    def inputs(self) -> int:
        """How many numbers lead to an output."""
        return prod(self.shape[:-1])

    @property
    def outputs(self) -> int:
        return self.shape[-1]

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shapes of A and B."""
        return (*self.shape[:-1], rank), (rank, self.outputs)


@dataclass(frozen=True)
class AdapterValues:
    """An adapter in a function. `dropout` is the rate for what it reads, 0 at inference; it takes a key from `key`,
    which is called with a builder where the key is wanted."""

    form: Form
    a: Value
    b: Value
    scaling: float
    magnitude: Value | None = None
    dropout: float = 0.0
    key: Callable[[Builder], Value] | None = None
    active: Value | None = None
    """Whether the magnitude counts, a bool scalar; None where it does."""


# --- uses of a kernel ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Use:
    """An op that reads a kernel as `value`, which is the kernel after casts and reshapes, and if `flipped` transposed.

    `kind` is None where it is none of those that have an op with adapters.
    """

    op: Op
    value: Value
    flipped: bool
    kind: Kind | None


_KINDS: dict[str, Kind] = {"linear": "linear", "conv": "conv", "convolution": "conv", "embedding": "embedding"}


def uses_of(kernel: Value, done: Container[Op] = ()) -> Iterator[Use]:
    """The uses of a kernel in its block, in order, but for ops that are `done`.

    An op that has an adapter already is none, and neither is the return of the kernel itself.
    """
    found: list[Use] = []
    todo: list[tuple[Value, bool]] = [(kernel, False)]
    while todo:
        value, flipped = todo.pop()
        for op in value.uses or ():
            if op in done or op.name.startswith(("lora_", "dora_")) or op.name == "return":
                continue
            if op.name == "convert" and op.result.dtype.is_float:
                todo.append((op.result, flipped))
            elif op.name == "transpose" and value.ndim == 2:
                todo.append((op.result, not flipped))
            elif op.name == "reshape" and not flipped:
                todo.append((op.result, flipped))
            else:
                found.append(Use(op, value, flipped, _kind(op, value)))
    yield from sorted(found, key=lambda use: use.op.order)


def _kind(op: Op, value: Value) -> Kind | None:
    """What an op uses a kernel for."""
    places = [i for i, operand in enumerate(op.operands) if operand is value]
    if op.name == "gather" and places == [0] and value.ndim == 2 and op.attribute_dict["axis"] == 0:
        return "embedding"
    if op.name == "embedding" and (places != [0] or value.ndim != 2):
        return None
    if op.name == "matmul" and places == [1] and value.ndim == 2:
        return "linear"
    if op.name == "dot_general" and places == [1] and value.ndim == 2 and not op.attribute_dict["batch"]:
        x = op.operands[0]
        assert x is not None
        return "linear" if op.attribute_dict["contract"] == ((x.ndim - 1, 0),) else None
    if op.name in ("conv", "convolution") and op.attribute_dict["filters_first"]:
        return None
    kind = _KINDS.get(op.name)
    return kind if kind == "embedding" or places == [1] else None


def form_of(kernel: Value) -> Form | None:
    """How an adapter of a kernel lies, by its first use that has an op with adapters; None where there is no such use.

    A table that is also read transposed, as the output layer of a language model, is adapted as a table.
    """
    uses = [use for use in uses_of(kernel) if use.kind is not None]
    uses.sort(key=lambda use: use.flipped)
    for use in uses:
        shape = tuple(size for size in use.value.shape if isinstance(size, int))
        if len(shape) != use.value.ndim:
            continue
        if not use.flipped:
            assert use.kind is not None
            groups = use.op.attribute_dict["groups"] if use.kind == "conv" else 1
            return Form(use.kind, shape, tied=uses[-1].flipped, groups=groups)
        return Form("linear", shape, transposed=True)
    return None


# --- rewriting ----------------------------------------------------------------------------------------------------


def adapt(kernel: Value, adapter: AdapterValues, name: str, done: Container[Op] = ()) -> int:
    """Give the uses of a kernel the adapter, but for ops that are `done`; returns how many there were.

    Raises `UnsupportedError` for an adapter with dropout where a use reads the kernel other than in a product, a
    convolution or an embedding; `name` is what the kernel is called there.
    """
    uses = list(uses_of(kernel, done))
    with Rewriter() as rewriter:
        direct = [use for use in uses if not _rewritten(use, adapter, rewriter)]
        if direct:
            _merge(kernel, adapter, name, direct, rewriter)
    return len(uses)


def _rewritten(use: Use, adapter: AdapterValues, rewriter: Rewriter) -> bool:
    """Whether the use now has the adapter."""
    op = use.op
    if use.kind is None:
        return False
    before = op.prev
    if adapter.magnitude is not None and adapter.form.transposed != use.flipped:
        return False  # the magnitudes are those of the other side
    with rewriter.before(op):
        factors = _factors(use, adapter)
        if factors is None:
            return False
        a, b = factors
        gain = None
        if adapter.magnitude is not None:
            gain = _gain(adapter, use.value, ops.dora_norm(use.value, a, b, scaling=adapter.scaling))
        found = _with_adapter(use, adapter, a, b, gain, rewriter)
    rewriter.hand_over(op, (found,), before)
    return True


def _with_adapter(
    use: Use, adapter: AdapterValues, a: Value, b: Value, gain: Value | None, rewriter: Rewriter
) -> Value:
    op = use.op
    x, bias = op.operands[0], op.operands[2] if op.name in ("linear", "conv") else None
    named = op.attribute_dict
    assert x is not None
    if use.kind == "embedding":
        return ops.lora_embedding(use.value, op.operands[1], a, b, gain, scaling=adapter.scaling)
    dropped = None
    if adapter.dropout:
        assert adapter.key is not None
        key = adapter.key(rewriter.before(op))
        dropped = ops.dropout(x, key, rate=adapter.dropout)
    if use.kind == "linear":
        return ops.lora_linear(x, use.value, a, b, bias, gain, dropped, scaling=adapter.scaling)
    named.pop("filters_first")
    return ops.lora_conv(x, use.value, a, b, bias, gain, dropped, scaling=adapter.scaling, **named)


def _factors(use: Use, adapter: AdapterValues) -> tuple[Value, Value] | None:
    """The factors for the kernel as the use reads it, None where they do not lie like that."""
    a, b = _in_dtype(adapter.a, use.value), _in_dtype(adapter.b, use.value)
    if adapter.form.transposed != use.flipped:
        if use.value.ndim != 2 or a.ndim != 2:
            return None
        a, b = (ops.transpose(x, permutation=(1, 0)) for x in (b, a))
    wanted = tuple(use.value.shape)
    if (*a.shape[:-1], b.shape[-1]) == wanted:
        return a, b
    if len(wanted) == 2 and wanted[1] == b.shape[-1]:
        return ops.reshape(a, shape=(wanted[0], a.shape[-1])), b
    return None


def _gain(adapter: AdapterValues, kernel: Any, norm: Any) -> Any:
    gain = _in_dtype(adapter.magnitude, kernel) / norm
    return gain if adapter.active is None else ops.select(adapter.active, gain, 1.0)


def _in_dtype(x: Any, like: Any) -> Any:
    return x if dtype(x.dtype) is dtype(like.dtype) else ops.convert(x, dtype=dtype(like.dtype))


def _merge(kernel: Value, adapter: AdapterValues, name: str, uses: Sequence[Use], rewriter: Rewriter) -> None:
    """Let ops read the kernel with its adapter added to it, computed once."""
    if adapter.dropout:
        op = uses[0].op
        raise UnsupportedError(
            f"an adapter with dropout needs {name!r} in a product, a convolution or an embedding; {op.name} reads it "
            "in another way: use dropout=0 for it"
        ).at(str(op.location))
    with rewriter.before(uses[0].op):
        merged = merged_weight(kernel, adapter)
    for use in uses:
        with rewriter.before(use.op):
            read = _again(use.value, kernel, merged)
        rewriter.set_operands(use.op, [read if value is use.value else value for value in use.op.operands])


def _again(value: Value, kernel: Value, merged: Value) -> Value:
    """What became of the kernel on the way to `value`, done to the merged one."""
    if value is kernel:
        return merged
    op = value.op
    assert op is not None and op.operands[0] is not None
    before = _again(op.operands[0], kernel, merged)
    builder = Builder.current()
    assert builder is not None
    return op.definition.build(builder, (before,), op.attributes).result


def merged_weight(kernel: Any, adapter: AdapterValues) -> Any:
    """The kernel with its adapter added to it, in its own shape."""
    form = adapter.form
    shape = tuple(kernel.shape)
    own = (form.shape[1], form.shape[0]) if form.transposed and len(form.shape) == 2 else form.shape
    matrix = kernel if shape == own else ops.reshape(kernel, shape=own)
    a, b = _in_dtype(adapter.a, kernel), _in_dtype(adapter.b, kernel)
    named: dict[str, Any] = {"scaling": adapter.scaling, "transposed": form.transposed}
    gain = None
    if adapter.magnitude is not None:
        gain = _gain(adapter, kernel, ops.dora_norm(matrix, a, b, **named))
    merged = ops.lora_weight(matrix, a, b, gain, **named)
    return merged if shape == own else ops.reshape(merged, shape=shape)


__all__ = ["AdapterValues", "Form", "Kind", "Use", "adapt", "form_of", "merged_weight", "uses_of"]
