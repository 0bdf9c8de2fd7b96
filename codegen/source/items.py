"""What a body consists of: ops, calls of scopes, loops over lists of members, calls that update weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from graphc.codegen.source.dialect import Code, Path
from graphc.codegen.source.expressions import Expression
from graphc.codegen.source.scopes import Node
from graphc.ir.graph import Block, Op, Value
from graphc.ir.recipes import Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphc.codegen.source.segments import Passed, Segment
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


@dataclass(eq=False, slots=True)
class BlockCall:
    """The call of what a block does forward or backward in a training step; see `segments.py`."""

    segment: Segment
    code: Code

    @property
    def inputs(self) -> Sequence[Value]:
        return self.segment.arguments


@dataclass(eq=False, slots=True)
class BlockLoop:
    """Such calls for blocks that follow one another in a list."""

    segments: tuple[Segment, ...]
    code: Code
    passed: Passed

    @property
    def inputs(self) -> Sequence[Value]:
        """What the loop reads, each as often as it is an argument."""
        rows = self.passed.rows
        return [rows[i][0] if i in rows else value for i, value in enumerate(self.segments[0].arguments)]


@dataclass(eq=False, slots=True)
class UpdateLoop:
    """Calls that update the weights of blocks alike, in a loop over these; `calls` are those for each block."""

    name: str
    """What a block is called."""
    paths: list[Path]
    calls: list[list[UpdateCall]]
    keys: dict[Value, str]
    """The gradients, with the names under which the block's backward part has kept them."""
    hints: dict[Value, Hint]
    """What the backward part calls them, and how it holds them."""
    inputs: list[Value]
    """What all read alike, such as the learning rate."""


Item = Op | Call | Loop | UpdateCall | BlockCall | BlockLoop | UpdateLoop


def block_items(block: Block) -> list[Op]:
    """The ops of a region as items, without its terminator."""
    return [op for op in block if op.next is not None]
