"""How ops on 32-bit unsigned integers are spelled in PyTorch, which stores them but hardly calculates with them.

Random numbers and hashes need them. What wraps is calculated in int32, whose bits are the same; right shifts mask what
the sign would fill in; comparisons of order are made in int64.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.source.dialect import Spelled, Spelling
from graphc.codegen.torch.dtypes import dtype_text
from graphc.codegen.torch.spelling import SPELLING, constant_of, iota
from graphc.ir.dtypes import u32
from graphc.ir.graph import Op

MOVEMENT = (
    "reshape transpose broadcast slice pad split concat dynamic_slice dynamic_update_slice barrier name stop_gradient "
    "threefry random_bernoulli random_fold_in random_split sort assume_dim"
)
"""Ops that do not calculate with the elements, or do so in a way of their own."""

NATIVE = "mul and or xor eq ne select"


def wrapping(text: str) -> Spelling:
    """A template over the bits as int32."""
    for i in range(2):
        text = text.replace(f"{{{i}}}", f"{{{i}}}.view(torch.int32)")
    return f"({text}).view(torch.uint32)"


def in_order(sign: str) -> Spelling:
    return f"{{0}}.long() {sign} {{1}}.long()"


def shift(spell: Callable[[int], str]) -> Spelling:
    """A shift by a constant."""

    def spelling(op: Op) -> Spelled | None:
        count = constant_of(op.operands[1])
        if count is None:
            return None
        if count >= 32 or count < 0:
            return "torch.zeros_like({0})"
        return spell(count) if count else "{0}"

    return spelling


def convert(op: Op) -> Spelled | None:
    value, to = op.operands[0], op.results[0].dtype
    assert value is not None
    if to is not u32:
        wide = to.is_float and to.bits < 32
        return f"{{0}}.double().to({dtype_text(to)})" if wide else f"{{0}}.to({dtype_text(to)})"
    if value.dtype.is_float:
        return f"{{0}}.double().nan_to_num(0.0).clamp(0, {2**32 - 1}).long().to(torch.uint32)"
    return None if value.dtype.is_complex else "{0}.to(torch.uint32)"


def counting(op: Op) -> Spelled | None:
    """Counted in int32, which torch can."""
    if op.attribute_dict["dtype"] is not u32:
        return None
    found = iota(op)
    assert isinstance(found, str)
    return found.replace("dtype={dtype})", "dtype=torch.int32)", 1) + ".view(torch.uint32)"


def through_bits(name: str) -> Spelling:
    """An op on int32 with the same bits."""

    def spelling(op: Op) -> Spelled | None:
        found = SPELLING[name]
        text = found(op) if callable(found) else found
        return f"{text}.view(torch.uint32)".replace("{0}", "{0}.view(torch.int32)") if isinstance(text, str) else None

    return spelling


UNSIGNED: dict[str, Spelling] = {
    **{name: SPELLING[name] for name in (*MOVEMENT.split(), *NATIVE.split())},
    "add": wrapping("{0} + {1}"),
    "sub": wrapping("{0} - {1}"),
    "neg": wrapping("-{0}"),
    "not": wrapping("~{0}"),
    "shift_left": shift(lambda count: f"({{0}}.view(torch.int32) << {count}).view(torch.uint32)"),
    "shift_right": shift(
        lambda count: f"({{0}}.view(torch.int32) >> {count} & {2 ** (32 - count) - 1}).view(torch.uint32)"
    ),
    "lt": in_order("<"),
    "le": in_order("<="),
    "gt": in_order(">"),
    "ge": in_order(">="),
    "convert": convert,
    "bitcast": SPELLING["bitcast"],
    "iota": counting,
    "gather": through_bits("gather"),
    "reverse": through_bits("reverse"),
    "embedding": through_bits("embedding"),
}
"""Op → its spelling where an operand or a result is u32."""
