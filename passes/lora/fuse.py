"""Layers with adapters that belong together become blocks: `lora_linears` for those of one input, `lora_mlp` for gate,
up and down projection. See `ir/ops/lora_blocks.py` for what that saves.

It works on a forward part, before gradients are taken. Their kernels are concatenated where the block stands;
`join.py` then does that once, to the stored weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Literal

from graphc.ir import ops
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.location import Location, common_scope
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.passes.partition.remat import has_backward

Activation = Literal["silu", "gelu", "gelu_tanh"]
Frozen = Callable[[Value], bool]
"""Whether a kernel is not trained."""


def fuse_adapters(block: Block, frozen: Frozen) -> int:
    """Fuse the layers of a block in place; returns how many blocks were made. Linear."""
    rewriter = Rewriter()
    count = sum(_fuse_mlp(op, frozen, rewriter) for op in [op for op in block if op.name == "lora_linear"])
    by_input: dict[Value, list[Op]] = {}
    for op in block:
        if _is_plain(op, frozen) and any(value.uses for value in op.results):
            assert op.operands[0] is not None
            by_input.setdefault(op.operands[0], []).append(op)
    for group in by_input.values():
        if len(group) > 1 and _gather(group, rewriter):
            _fuse_linears(group, rewriter)
            count += 1
    rewriter.flush()
    return count


def fuse_frozen(module: Module, function: Function) -> int:
    """Fuse the layers of a function without a backward part whose kernels are frozen weights, in place."""
    if has_backward(function):
        return 0
    frozen = {p.value for p in function.parameters if p.weight and not module.weights.source(p.weight).trainable}
    return fuse_adapters(function.block, lambda kernel: source_of(kernel) in frozen)


def without_unread_outputs(module: Module) -> None:
    """Let an MLP of which only gate and up are read, as where it runs again for its gradient, be no more than those, in
    place. Linear."""
    rewriter = Rewriter()
    for op in [op for op in module.walk() if op.name == "lora_mlp" and not op.results[0].uses]:
        x, gate_up, _, *factors = op.operands
        with rewriter.before(op) as builder:
            builder.location = op.location
            wide = ops.lora_linears(x, gate_up, *factors[:4], scaling=op.attribute_dict["scaling"][:2])
        rewriter.replace_value(op.results[1], wide)
        rewriter.erase(op)
    rewriter.flush()


def source_of(kernel: Value) -> Value:
    """What a kernel is a cast or transpose of."""
    while kernel.op is not None and kernel.op.name in ("convert", "transpose", "reshape"):
        source = kernel.op.operands[0]
        assert source is not None
        kernel = source
    return kernel


def _is_plain(op: Op | None, frozen: Frozen) -> bool:
    """Whether an op is a linear layer with an adapter and no more: no bias, gain or dropout, the kernel frozen."""
    if op is None or op.name != "lora_linear" or any(value is not None for value in op.operands[4:]):
        return False
    x, kernel = op.operands[:2]
    return x is not None and kernel is not None and x.ndim > 1 and frozen(kernel)


def _location(group: Sequence[Op]) -> Location:
    scope = reduce(common_scope, (op.location.scope for op in group))
    return Location.of(scope, group[0].location.file, group[0].location.line, tuple(op.location.scope for op in group))


def _factors(group: Iterable[Op]) -> list[Value]:
    return [value for op in group for value in op.operands[2:4] if value is not None]


def _scaling(group: Iterable[Op]) -> tuple[float, ...]:
    return tuple(op.attribute_dict["scaling"] for op in group)


def _kernel(group: Sequence[Op]) -> Value:
    """The kernels side by side, recorded at the current builder."""
    return ops.concat(*[op.operands[1] for op in group], axis=1)


def _gather(group: Sequence[Op], rewriter: Rewriter, anchor: Op | None = None) -> bool:
    """Let what the layers read stand before `anchor` (the first of them): casts and transposes of weights are moved
    there. False where something else is made later."""
    anchor = group[0] if anchor is None else anchor
    late: list[Op] = []
    for op in group:
        for value in op.operands[1:4]:
            chain: list[Op] = []
            while value is not None and value.op is not None and not value.op.is_before(anchor):
                if value.op.name not in ("convert", "transpose", "reshape") or value.op.block is not anchor.block:
                    return False
                chain.append(value.op)
                value = value.op.operands[0]
            late += reversed(chain)
    for op in dict.fromkeys(late):
        rewriter.move_before(op, anchor)
    return True


def _fuse_linears(group: Sequence[Op], rewriter: Rewriter) -> None:
    first, before = group[0], group[0].prev
    with rewriter.before(first) as builder:
        builder.location = _location(group)
        joined = ops.lora_linears(first.operands[0], _kernel(group), *_factors(group), scaling=_scaling(group))
        sizes = tuple(op.result.shape[-1] for op in group)
        parts = ops.split(joined, sizes=sizes, axis=joined.ndim - 1)
    for op, part in zip(group, parts, strict=True):
        rewriter.hand_over(op, (part,), before)


def _fuse_mlp(down: Op, frozen: Frozen, rewriter: Rewriter) -> bool:
    """Replace the down projection of a gated MLP by the whole; the other ops die with it."""
    if not _is_plain(down, frozen) or (found := _gated(down.operands[0], frozen)) is None:
        return False
    gate, up, activation = found
    group = [gate, up, down]
    if gate.operands[1].type != up.operands[1].type or not _gather(group, rewriter, down):  # type: ignore[union-attr]
        return False
    before = down.prev
    with rewriter.before(down) as builder:
        builder.location = _location(group)
        y, _ = ops.lora_mlp(
            gate.operands[0],
            _kernel([gate, up]),
            down.operands[1],
            *_factors(group),
            scaling=_scaling(group),
            activation=activation,
        )
    rewriter.hand_over(down, (y,), before)
    return True


def _gated(hidden: Value | None, frozen: Frozen) -> tuple[Op, Op, Activation] | None:
    """Gate, up and the activation, where `hidden` is activation(gate(x)) · up(x) and nothing else reads what leads to
    it."""
    product = _only_maker(hidden, "mul")
    if product is None:
        return None
    for first, second in (product.operands, product.operands[::-1]):
        activation = _only_maker(first, "silu", "gelu")
        if activation is None:
            continue
        gate, up = _only_maker(activation.operands[0], "lora_linear"), _only_maker(second, "lora_linear")
        if gate is None or up is None or gate.operands[0] is not up.operands[0]:
            continue
        if _is_plain(gate, frozen) and _is_plain(up, frozen):
            if activation.name == "silu":
                return gate, up, "silu"
            return gate, up, "gelu_tanh" if activation.attribute_dict["approximate"] else "gelu"
    return None


def _only_maker(value: Value | None, *names: str) -> Op | None:
    """The op of one of these names that makes a value which has one reader."""
    op = None if value is None else value.op
    return op if op is not None and op.name in names and value is not None and len(value.uses or ()) == 1 else None


__all__ = ["fuse_adapters", "fuse_frozen", "source_of", "without_unread_outputs"]
