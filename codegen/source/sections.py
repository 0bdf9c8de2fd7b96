"""The parts of a training step, such as forward, loss and backward: their headings and the names in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from graphc.codegen.source.items import BlockCall, BlockLoop, Item, Loop, UpdateLoop
from graphc.codegen.source.naming import Names, identifier, stem
from graphc.codegen.source.roles import layer_role, role_of_op
from graphc.codegen.source.scopes import UPDATES
from graphc.ir.graph import Op, Value
from graphc.ir.location import Scope
from graphc.passes.autodiff.joint import MARK
from graphc.passes.partition.backward import is_backward
from graphc.passes.partition.rewrite import AGAIN

COTANGENTS = ("dx", "dy", "dz")
"""Names of gradients on their way back through the layers."""

LARGE = 16
"""Ops of a part of the model, from which on the parts of the forward section have headings of their own."""

LOSS = "loss"
"""The scope of a step's loss."""

STEPS = frozenset({LOSS, "metrics", UPDATES})
"""Scopes of a step that are no layers."""


class Sections:
    """The sections of a step of training or testing. Each begins once; what comes late stands where it comes."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._titles: dict[Scope, str | None] = {}
        self._rank: dict[str, int] = {}
        self._at = -1
        sizes = Counter(_part(item.location.scope) for item in items if isinstance(item, Op))
        self._in_parts = any(isinstance(item, BlockCall | BlockLoop) for item in items) or any(
            part not in STEPS and size >= LARGE for part, size in sizes.items() if part
        )
        for item in items:
            title = self.title(item)
            if title is not None:
                self._rank.setdefault(title, len(self._rank))

    def title(self, item: Item | Value) -> str | None:
        """The heading of the section that an item or value belongs to; None where it goes with what is around it."""
        if isinstance(item, Value):
            return None if item.op is None else self.title(item.op)
        if isinstance(item, BlockCall | BlockLoop):
            segment = item.segment if isinstance(item, BlockCall) else item.segments[0]
            return f"{'backward' if segment.backward else 'forward'}: {segment.path[-2]}"
        if isinstance(item, UpdateLoop):
            return UPDATES
        if isinstance(item, Loop):
            return None
        scope = item.location.scope if isinstance(item, Op) else item.node.scope
        if scope not in self._titles:
            self._titles[scope] = self._title(scope)
        return self._titles[scope]

    def _title(self, scope: Scope) -> str | None:
        part = _part(scope)
        if not scope.depth:
            return None if self._in_parts else "forward"
        if not part:
            return f"backward: {scope.parts[1].path.partition('/')[2]}" if scope.depth > 1 else None
        return part if part in STEPS else f"forward: {scope.parts[0].path}" if self._in_parts else "forward"

    def heading(self, title: str | None) -> str | None:
        """The heading to write before a statement of the section `title`, if that begins here."""
        rank = self._at if title is None else self._rank.get(title, self._at)
        if rank <= self._at:
            return None
        self._at = rank
        return title

    def name(self, value: Value, freed: Iterable[str], names: Names) -> str | None:
        """What to call a value of a training step, where that is not what any body calls it."""
        op = value.op
        if op is None:
            return None
        if value.name and not value.name.isdigit():
            return identifier(value.name)
        if is_backward(op):
            if value.dtype.is_bool:
                return "mask"
            if not value.dtype.is_float:
                return None
            again = (name for name in freed if name.partition("_")[0] in COTANGENTS and names.is_free(name))
            return next(again, None) or next((name for name in COTANGENTS if names.is_free(name)), "dy")
        scope = op.location.scope
        if scope.depth and (scope.name == LOSS or any(map(is_backward, value.uses or ()))):
            return self.residual(value, op)
        if value.dtype.is_bool:
            chooses = any(user.name == "select" and user.operands[0] is value for user in value.uses or ())
            return "condition" if chooses else "mask"
        return None

    def residual(self, value: Value, op: Op) -> str:
        """What to call a value of the forward part that the backward part reads."""
        return value_name(value)


class BlockSections(Sections):
    """The sections of what a block does in a step: the layers of which the backward part has the gradients."""

    def __init__(self, owner: str, items: Sequence[Item], backward: bool) -> None:
        self._owner = owner
        self._backward = backward
        super().__init__(items)

    def _title(self, scope: Scope) -> str | None:
        if not self._backward:
            return None
        parts = [part.name for part in scope.parts if part.name not in (MARK, AGAIN)]
        depth = self._owner.count("/") + 1
        return parts[depth] if len(parts) > depth and "/".join(parts[:depth]) == self._owner else None

    def residual(self, value: Value, op: Op) -> str:
        return "hidden" if op.location.scope.owner == self._owner else value_name(value)


def is_loss(value: Value) -> bool:
    """Whether it is what the scope of the loss computes."""
    return value.op is not None and value.op.location.scope.name == LOSS


def value_name(value: Value) -> str:
    """What to call a value where it is one of several that pass on to another part of a step."""
    op = value.op
    if op is None:
        return identifier(value.name or "y")
    if value.name and not value.name.isdigit():
        return identifier(value.name)
    if is_backward(op):
        return "dy"
    name = layer_role(value) or role_of_op(value) or identifier(stem(op.location.scope.name) or "y")
    return f"{name}_mask" if value.dtype.is_bool else name


def _part(scope: Scope) -> str:
    """The name of the outermost scope, none for backward ops."""
    parts = scope.parts
    return parts[0].name if parts and parts[0].name != MARK else ""


__all__ = ["BlockSections", "Sections", "is_loss", "value_name"]
