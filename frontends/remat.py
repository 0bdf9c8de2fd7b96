"""Rematerialisation as Keras writes it: `remat(fn)` and `RematScope` say what the backward pass computes again.

Nothing else is recorded than the borders of the blocks; see `graphc.ir.analysis.remat_blocks` for how they are marked,
and the pass `remat` for what becomes of them. Without that pass, or where no gradient is taken, they mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from functools import wraps
from typing import TYPE_CHECKING, Any

from graphc.frontends.nodes import Closure, is_symbolic, record
from graphc.frontends.recording import current_recording
from graphc.frontends.structures import flatten, map_structure
from graphc.ir import ops as ir
from graphc.ir.analysis.remat_blocks import remat_tag
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Op, Value
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter

if TYPE_CHECKING:
    from graphc.frontends.layer import Layer

MODES = ("full", "activations", "larger_than", "list_of_layers")

_scope: ContextVar[RematScope | None] = ContextVar("graphc_remat_scope", default=None)


def remat(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, whose inner values are not kept for the backward pass but computed again from what it is called on.

    For functions and layers, in traced functions, in the `call` of layers, in functional models and in `train_step`;
    blocks may be nested. On arrays it is `f`.
    """

    @wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if Builder.current() is not None:
            return as_block(lambda: f(*args, **kwargs))
        if is_symbolic(args, kwargs):
            return record(Closure("remat", call), args, kwargs)
        return f(*args, **kwargs)

    return call


class RematScope:
    """Layers that are made inside are computed again for the backward pass, each as a block of its own.

    `mode` says which: `"full"` all, `"activations"` only the activations of layers that have one, `"larger_than"` those
    whose outputs have more than `output_size_threshold` elements (open sizes count as 1), `"list_of_layers"` those
    called as one of `layer_names`, None none, inside another scope. Raises `GraphcError` for another mode.
    """

    def __init__(
        self, mode: str | None = "full", output_size_threshold: int = 1024, layer_names: Sequence[str] | None = None
    ) -> None:
        if mode is not None and mode not in MODES:
            raise GraphcError(f"the mode of RematScope is one of {', '.join(MODES)} or None, not {mode!r}")
        self.mode = mode
        self.output_size_threshold = output_size_threshold
        self.layer_names = list(layer_names or ())
        self._tokens: list[Token[RematScope | None]] = []

    def __enter__(self) -> RematScope:
        self._tokens.append(_scope.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _scope.reset(self._tokens.pop())

    def call(self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`layer.call` on traced values, as the scope has it."""
        if self.mode == "full" or (self.mode == "list_of_layers" and layer.name in self.layer_names):
            return as_block(lambda: layer.call(*args, **kwargs))
        if self.mode == "larger_than":
            return as_block(lambda: layer.call(*args, **kwargs), self.output_size_threshold)
        activation = getattr(layer, "activation", None)
        if self.mode != "activations" or not callable(activation):
            return layer.call(*args, **kwargs)
        object.__setattr__(layer, "activation", remat(activation))
        try:
            return layer.call(*args, **kwargs)
        finally:
            object.__setattr__(layer, "activation", activation)


def current_remat_scope() -> RematScope | None:
    """The innermost `RematScope` that is open."""
    return _scope.get()


def as_block(run: Callable[[], Any], larger_than: int = -1) -> Any:
    """What `run` returns, recorded as a block if its results have more elements than `larger_than`."""
    builder, recording = Builder.current(), current_recording()
    if builder is None or recording is None or builder.before is not None:
        raise GraphcError("remat is for functional models, `graphc.trace` and the `call` of layers")
    last = builder.block.last
    found = map_structure(builder.value, run())
    inner: dict[Op, None] = {}
    op = builder.block.last
    while op is not None and op is not last:
        inner[op] = None
        op = op.prev
    results = [value for value in flatten(found) if isinstance(value, Value) and value.op in inner]
    size = sum(math.prod(s if isinstance(s, int) else 1 for s in value.shape) for value in results)
    if not results or size <= larger_than:
        return found
    number = recording.remat_blocks
    recording.remat_blocks += 1
    _mark_inputs(builder, list(reversed(inner)), remat_tag(number, "in"))
    marked = {value: ir.name(value, tag=remat_tag(number, "out")) for value in dict.fromkeys(results)}
    return map_structure(lambda leaf: marked.get(leaf, leaf) if isinstance(leaf, Value) else leaf, found)


def _mark_inputs(builder: Builder, inner: Sequence[Op], tag: str) -> None:
    """Let the ops read what comes from outside through a border, but for weights, keys and constants."""
    function = builder.function
    parameters = [] if function is None else function.parameters
    unmarked = {p.value for p in parameters if p.weight is not None or p.role == "key"}
    made = {value for op in inner for value in op.results}
    constant = OPS["constant"].op_class
    borders: dict[Value, Value] = {}
    with Builder(builder.block, inner[0], builder.location, function=function), Rewriter() as rewriter:
        for op in inner:
            for value in op.operands:
                if value is None or value in made or value in unmarked or value.owner.__class__ is constant:
                    continue
                if value not in borders:
                    borders[value] = ir.name(value, tag=tag)
            if any(value in borders for value in op.operands):
                rewriter.set_operands(op, [v if v is None else borders.get(v, v) for v in op.operands])


__all__ = ["RematScope", "as_block", "current_remat_scope", "remat"]
