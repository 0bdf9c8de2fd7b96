"""What layers need to know about the function that is being recorded: where variables and weights are, and the scopes.

A recording is active while a model is lowered, a function traced, or a layer's output types are found out; the ambient
`Builder` says where ops go, the recording what a variable is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from graphc.frontends.naming import Names
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.dtypes import u32
from graphc.ir.errors import GraphcError, UnsupportedError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.location import Scope
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.frontends.symbolic import SymbolicTensor
    from graphc.frontends.variable import Variable

_active: ContextVar[Recording | None] = ContextVar("graphc_recording", default=None)


def current_recording() -> Recording | None:
    """The active recording, if any."""
    return _active.get()


@contextmanager
def not_recording() -> Iterator[None]:
    """Let variables be arrays again inside."""
    token = _active.set(None)
    try:
        yield
    finally:
        _active.reset(token)


@dataclass(frozen=True)
class Differentiated:
    """A loss, the variables that it was differentiated by, what they were then, and the gradients."""

    loss: Value
    variables: Sequence[Any]
    values: list[Value]
    gradients: list[Value | None]


class Recording:
    """A function that is being recorded. `training` is what layers are told while it is.

    This one serves to find out types: variables and captured symbolic tensors become parameters when first met.
    """

    def __init__(self, training: bool | None = None, name: str = "forward", module: Module | None = None) -> None:
        self.module = Module() if module is None else module
        self.function: Function = self.module.add_function(name)
        self.block = self.function.block
        """Where variables may be assigned: the function's block, or the branch that is being recorded."""
        self.training = training
        self.values: dict[int, Value] = {}
        self.losses: list[tuple[Any, Value]] = []
        """What layers added to the loss, in order, each with its layer."""
        self.loss_parts: dict[str, Any] = {}
        """The loss of the step, and of its outputs where there are several, by the names of their logs."""
        self.observed: list[tuple[str, Any]] | None = None
        """Whether tensors are finite, and what they are, in order; None where that is not asked."""
        self.labels: list[tuple[Value, int, int | None]] = []
        """Targets that are classes: the input, how many there are, and the number that stands for none."""
        self.batch_size: Any = None
        """How many examples the data has, a number or symbolic size, where a step is recorded."""
        self.loss_terms: list[Any] = []
        """The terms of the loss, put together by what they count for in a batch: `Term`s of `runtime.training`."""
        self.differentiated: list[Differentiated] = []
        """What gradients were taken of so far."""
        self.host_inputs: dict[str, Callable[[], Any]] = {}
        """The inputs that the host computes for each call, by name."""
        self.applied = Counter[int]()
        """How often each optimizer was applied so far, by id."""
        self._outer_values: list[dict[int, Value]] = []
        self.captured: list[SymbolicTensor] = []
        self.unreached: list[Variable] = []
        """Variables that a loss was differentiated by and does not depend on."""
        self.scope_names: dict[Scope, Names] = {}
        self.adapted: dict[int, Variable] = {}
        """Variables with an active adapter that were read, by id."""
        self.past_adapters: set[Op] = set()
        """Ops that read such variables themselves, as the backward part does."""
        self.key: Value | None = None
        self.keys: list[Value] = []
        self.remat_blocks = 0
        self.gradients: Literal["ir", "native"] = "ir"

    @contextmanager
    def active(self) -> Iterator[Recording]:
        """Make this the recording that variables ask."""
        token = _active.set(self)
        try:
            yield self
        finally:
            _active.reset(token)

    def variable_value(self, variable: Variable) -> Value:
        """What the variable is in the function now."""
        value = self.values.get(id(variable))
        if value is None:
            value = self.parameter(variable)
            for values in (self.values, *self._outer_values):
                values[id(variable)] = value
        return value

    def name_of(self, variable: Variable) -> str:
        """What to call a variable in messages."""
        return variable.path

    def parameter(self, variable: Variable) -> Value:
        """A new parameter of the function that stands for the variable."""
        return self.function.add_parameter(variable.tensor_type, None, "param", variable.name)

    def symbolic_value(self, tensor: SymbolicTensor) -> Value:
        """What a symbolic tensor is in the function; one that is not an argument is captured."""
        value = self.values.get(id(tensor))
        if value is None:
            value = self.values[id(tensor)] = self.function.add_parameter(tensor.tensor_type)
            self.captured.append(tensor)
        return value

    def assign(self, variable: Variable, value: Value) -> None:
        """Let the variable be `value` from here on."""
        builder = Builder.current()
        if builder is not None and builder.block is not self.block:
            raise UnsupportedError(
                f"the variable {variable.name!r} is assigned inside a branch or loop; return it, assign outside"
            )
        self.values[id(variable)] = value

    @contextmanager
    def branch(self) -> Iterator[dict[int, Value]]:
        """Let variables be assigned in the branch that is being recorded. Afterwards they are what they were before;
        the dict has the new values of those that were assigned, by the variable's id."""
        builder = Builder.current()
        assert builder is not None
        assigned: dict[int, Value] = {}
        outer, block = self.values, self.block
        self._outer_values.append(outer)
        self.values, self.block = dict(outer), builder.block
        try:
            yield assigned
            assigned.update({key: value for key, value in self.values.items() if value is not outer[key]})
        finally:
            self.values, self.block = outer, block
            self._outer_values.pop()

    def host_input(self, name: str, type: TensorType, compute: Callable[[], Any]) -> Value:
        """An input that the host computes before each call, by `compute`; asked for again, it is the same one."""
        for known, other in self.host_inputs.items():
            if other == compute:
                return next(p.value for p in self.function.parameters if p.name == known)
        taken = Names(p.name for p in self.function.parameters)
        value = self.function.add_parameter(type, taken.new(name))
        self.host_inputs[value.name or name] = compute
        return value

    def observe(self, what: str, value: Any) -> None:
        """Note whether all of a tensor of floats is finite, where that is asked and the tensor is in reach."""
        builder = Builder.current()
        if self.observed is None or builder is None or builder.block is not self.function.block:
            return
        if isinstance(value, Value) and value.dtype.is_float:
            axes = tuple(range(value.ndim))
            self.observed.append((what, ir.reduce_all(ir.is_finite(value), axes=axes)))

    def random_key(self) -> Value:
        """A new key for each call: the function's parameter `key`, made when first asked for, folded with a count."""
        builder = Builder.current()
        if builder is None or builder.block is not self.function.block:
            raise UnsupportedError("random numbers inside a branch or loop need a key of their own: pass one in")
        if self.key is None:
            taken = Names(p.name for p in self.function.parameters)
            self.key = self.function.add_parameter(TensorType.of(u32, (2,)), taken.new("key"), "key")
        self.keys.append(ir.random_fold_in(self.key, len(self.keys)))
        return self.keys[-1]

    def draw_keys_at_once(self) -> None:
        """Let the keys be rows of one `random_split`, which are the same keys: a draw costs more than many rows."""
        if len(self.keys) < 2 or self.key is None:
            return
        with Rewriter() as rewriter:
            with Builder(self.function.block, self.function.block.first):
                rows = ir.random_split(self.key, count=len(self.keys))
            for i, key in enumerate(self.keys):
                folded = key.op
                assert folded is not None and folded.operands[1] is not None
                count = folded.operands[1].op
                with rewriter.before(folded):
                    row = ir.reshape(ir.slice(rows, starts=(i, 0), limits=(i + 1, 2)), shape=(2,))
                rewriter.replace(folded, row)
                if count is not None and not count.results[0].uses:
                    rewriter.erase(count)

    def layer_scope(self, layer: Any, builder: Builder) -> Scope:
        """The scope of a call of `layer` at the builder's scope."""
        return builder.location.scope.child(layer.name)

    def numbered(self, scope: Scope, name: str) -> str:
        """`name`, numbered if `scope` has had a child of this name."""
        return self.scope_names.setdefault(scope, Names()).new(name)


def numbered_scope(builder: Builder, name: str) -> str:
    """A name for a new scope below the builder's."""
    recording = current_recording()
    if recording is None:
        raise GraphcError("name_scope is for functional models, `graphc.trace` and the `call` of layers")
    return recording.numbered(builder.location.scope, name)
