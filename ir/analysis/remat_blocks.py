"""Blocks of a body that are to be computed again for the backward pass: `graphc.remat` and `RematScope` record them.

A block is marked at its borders by the op `name`, whose tags say its number: what goes in is read through
`name(x, tag="remat/3/in")`, what comes out through `name(y, tag="remat/3/out")`. Weights, keys and constants go in
unmarked. The ops of block 3 are those on a path from one of its `in` to one of its `out`; whatever passes make of them
in between is so too, as they do not look through `name`. A gradient that reads a value made by one of these ops, the
ones that an `out` names excepted, is to get it by computing it again from what went in. Ops that depend on weights and
constants only are on no such path and may be saved or not.
"""

from __future__ import annotations

import re
from typing import Literal

from graphc.ir.graph import Block, Op
from graphc.ir.opdef import OPS

_TAG = re.compile(r"remat/([0-9]+)/(in|out)")


def remat_tag(number: int, side: Literal["in", "out"]) -> str:
    """The tag of a border of block `number`."""
    return f"remat/{number}/{side}"


def remat_border(op: Op) -> tuple[int, str] | None:
    """The number of the block whose border `op` is, and which side (`in`, `out`); None for other ops."""
    if op.name != "name":
        return None
    match = _TAG.fullmatch(op.attributes[0])
    return None if match is None else (int(match[1]), match[2])


def remat_blocks(block: Block) -> dict[int, list[Op]]:
    """The ops inside each marked block, in order; an op of a nested one is in both. Borders are in no block.

    A body that was copied, and so has a block of one number twice, has the ops of both, and none between them. Linear
    in the ops and the blocks around each.
    """
    name = OPS["name"].op_class
    inside: dict[Op, set[int]] = {}
    if not any(op.__class__ is name for op in block):
        return {}
    reached: dict[Op, set[int]] = {}
    for op in block:
        found: set[int] = set()
        for value in op.operands:
            if value is not None and value.op is not None:
                found |= reached.get(value.op, set())
        border = remat_border(op)
        if border is not None:
            found = found | {border[0]} if border[1] == "in" else found - {border[0]}
        if found:
            reached[op] = found
    leading: dict[Op, set[int]] = {}
    for op in reversed(block):
        found = leading.get(op, set())
        border = remat_border(op)
        if border is not None:
            found = found | {border[0]} if border[1] == "out" else found - {border[0]}
        elif found and (numbers := found & reached.get(op, set())):
            inside[op] = numbers
        if found:
            for value in op.operands:
                if value is not None and value.op is not None:
                    leading[value.op] = leading.get(value.op, set()) | found
    blocks: dict[int, list[Op]] = {}
    for op in block:
        for number in sorted(inside.get(op, ())):
            blocks.setdefault(number, []).append(op)
    return blocks
