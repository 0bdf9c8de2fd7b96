"""What a body consists of: ops, calls of scopes, loops over lists of members, calls that update weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from graphc.codegen.source.dialect import Code, Path
from graphc.codegen.source.expressions import Expression
from graphc.codegen.source.scopes import Node
from graphc.ir.graph import Block, Op, Value
from graphc.ir.recipes import Step

if TYPE_CHECKING:
    from graphc.codegen.source.updates import Form


class Pending(NamedTuple):
    """An expression that waits for its only reader: the named values it reads, how many ops and nested calls it has."""

    expression: Expression
    reads: list[Value]
    ops: int
    calls: int
    stands_alone: bool


class Call(NamedTuple):
    """The call of a scope's class or function: where its weights are below this body, and what it takes and gives."""

    node: Node
    code: Code
    path: Path


class Loop(NamedTuple):
    """Calls of the members of a list, one after another: `inputs[position]` is what runs through them."""

    code: Code
    path: Path
    inputs: tuple[Value, ...]
    position: int
    output: Value


class UpdateCall(NamedTuple):
    """The call of the function that updates a weight; see `updates.py`."""

    node: Node
    code: Code
    form: Form


class Hint(NamedTuple):
    """What to call a value, and the steps after which it is held, where its only reader wants it so."""

    name: str
    steps: tuple[Step, ...] = ()


Item = Op | Call | Loop | UpdateCall


def block_items(block: Block) -> list[Op]:
    """The ops of a region as items, without its terminator."""
    return [op for op in block if op.next is not None]
