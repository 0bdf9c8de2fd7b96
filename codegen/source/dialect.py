"""What a source target tells the shared writer: how ops, numbers, dtypes, members and control flow are spelled."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from graphc.codegen.source.expressions import ATOM, UNARY, Expression
from graphc.codegen.source.naming import entry_names
from graphc.ir.dtypes import DType, f32
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Module, Weight
from graphc.ir.recipes import Step
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.codegen.source.body import BodyWriter
    from graphc.codegen.source.members import Places
    from graphc.codegen.source.writer import Definition, ModuleWriter, PrivateFunction

Spelled = str | tuple[str, dict[str, str]]
"""A template, alone or with the text of further slots."""

Spelling = str | Callable[[Op], Spelled | None]
"""How an op is spelled: a template, or a function of the op's types and attributes; None where it cannot be."""

Path = tuple[str | int, ...]
"""A member below another: attributes or keys, integers for elements of lists."""

RESIDUALS = "residuals"
"""What a step, and a block's functions, call what the forward part leaves for the backward part."""

BACKWARD = "From the gradient of the output to those of the input and, by name, of the weights."
"""What a block's backward function says of itself."""

BACKWARD_WITH_UPDATES = "From the gradient of the output to that of the input; weights are updated on the way."
"""What it says where it updates weights."""

SLOTS_OF_BLOCK = "slots"
"""What is called so is what the optimizer keeps for a block's weights, where these do not have it beside them."""

GRADIENTS = "gradients"
"""What a step calls the gradients that blocks' updates read."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A module of the framework that stands for an op with its weights.

    `weights`: the framework's name → the operand it holds, and the steps from the operand's array to what is stored.
    `call` is a template over the op's operands in which `{layer}` is the module. `settings` are statements about it
    that follow its making.
    """

    constructor: str
    weights: Mapping[str, tuple[int, tuple[Step, ...]]]
    call: str = "{layer}({0})"
    settings: tuple[str, ...] = ()


class Update(NamedTuple):
    """The new value of the weight at `path`, which is stored after `steps`."""

    path: Path
    value: Value
    steps: tuple[Step, ...]


@dataclass(eq=False, slots=True)
class Code:
    """A class or function of the emitted file: its name, and its text without that name."""

    name: str
    text: str
    functions: dict[str, Code] = field(default_factory=dict)
    """What its blocks do in a training step, by the text of the function."""


class Dialect(ABC):
    """The spelling of one framework's Python."""

    spelling: ClassVar[Mapping[str, Spelling]]
    helpers: ClassVar[Mapping[str, str]] = {}
    """Functions pasted into a file that mentions them, by name."""

    imports: ClassVar[Mapping[str, str]] = {}
    """Name that emitted code uses → the import statement that brings it."""

    scalars_anywhere: ClassVar[bool] = True
    """Whether functions take Python numbers in place of arrays, as operators do."""

    is_eager: ClassVar[bool] = False
    """Whether statements run as they stand and arrays live as long as names hold them: plans of memory are kept."""
    has_classes: ClassVar[bool] = False
    """Whether scopes become classes that make their members, rather than functions over a nested dict."""

    reserved: ClassVar[frozenset[str]] = frozenset()
    """Names that variables may not take: modules, helpers, the parameter that holds the weights."""

    taken_members: ClassVar[frozenset[str]] = frozenset()
    """Names that members of a class may not take: what the framework's own class has."""

    writes_in_place: ClassVar[bool] = False
    """Whether functions write over the arrays that they are given."""

    has_native_gradient: ClassVar[bool] = False
    """Whether the framework differentiates by itself; see `native_gradient`."""

    indent: ClassVar[int] = 4
    """Columns before the statements of a body."""

    light: ClassVar[frozenset[str]] = frozenset()
    """Ops that, being wrapped around another, do not make an expression harder to read."""

    # --- ops --------------------------------------------------------------------------------------------------

    def spelled(self, op: Op) -> Spelled | None:
        """The template of an op, None where there is none."""
        found = self.spelling.get(op.name)
        return found if found is None or not callable(found) else found(op)

    def layer(self, op: Op) -> Layer | None:
        """The module that stands for the op and its weights, for targets with modules."""
        return None

    # --- values -----------------------------------------------------------------------------------------------

    @abstractmethod
    def dtype(self, dtype: DType) -> str:
        """The framework's dtype as source."""

    def number(self, value: Any, dtype: DType) -> Expression:
        """A Python number; arithmetic with it keeps the dtype of the other operand."""
        if isinstance(value, float) and not math.isfinite(value):
            text = "nan" if math.isnan(value) else "inf"
            return Expression(f"-{self.non_finite(text)}", UNARY) if value < 0 else Expression(self.non_finite(text))
        if isinstance(value, complex):
            parts = (self.number(part, dtype).text for part in (value.real, value.imag))
            return Expression(f"complex({', '.join(parts)})")
        text = repr(shortest(value) if dtype is f32 and isinstance(value, float) else value)
        return Expression(text, UNARY if text.startswith("-") else ATOM)

    def is_weak_beside(self, value: Any, dtype: DType) -> bool:
        """Whether arithmetic of the Python number `value` with an array of this dtype can be, and keeps the dtype."""
        return True

    @abstractmethod
    def non_finite(self, name: str) -> str:
        """`inf` or `nan` as source."""

    @abstractmethod
    def array(self, value: str, type: TensorType) -> str:
        """A constant array; `value` is the source of a number or of nested lists."""

    # --- members ----------------------------------------------------------------------------------------------

    @abstractmethod
    def member(self, path: Path) -> str:
        """A weight or module at `path` below the body's own class."""

    @abstractmethod
    def weight_path(self, places: Places, holder: str, weight: str) -> Path:
        """The path below the class at `holder` of a weight that no layer of the framework holds."""

    @abstractmethod
    def stored_name(self, path: Path) -> str:
        """The name in the weights' file of what is at `path` from the root."""

    def undone(self, text: str, step: Step) -> str:
        """The expression `text` of a stored weight with a step of its recipe undone."""
        raise NotImplementedError

    def weight_member(self, path: Path, weight: Weight, shape: tuple[int, ...]) -> str:
        """The statement that makes the member of a weight that no layer holds, which is stored in this shape."""
        raise NotImplementedError

    def with_trainable(self, layer: Layer, trainable: Mapping[str, bool]) -> Layer:
        """The layer, told which of its weights are trained, by their names in it."""
        return layer

    def list_member(self, name: str, codes: Sequence[Code]) -> str:
        """The statement that makes a list of modules."""
        raise NotImplementedError

    # --- calls and control flow -----------------------------------------------------------------------------

    @abstractmethod
    def call(self, code: Code, path: Path, arguments: Sequence[str]) -> str:
        """The call of a class or function whose weights are at `path`."""

    @abstractmethod
    def loop(self, body: BodyWriter, code: Code, path: Path, arguments: Sequence[str], position: int) -> None:
        """Statements that call each member of the list at `path`; the argument at `position` is also the result."""

    @abstractmethod
    def region_op(self, body: BodyWriter, op: Op) -> None:
        """Statements of a `cond`, `while` or `scan`."""

    def stacked(self, rows: str) -> str:
        """The arrays of a list, stacked along a new first axis."""
        raise NotImplementedError

    def backwards(self, array: str) -> str:
        """An array from its last slice to its first."""
        return f"{array}[::-1]"

    @abstractmethod
    def block_function_name(self, block: Code, backward: bool) -> str:
        """What the function is called that does what blocks do forward or backward in a training step."""

    @abstractmethod
    def block_function(
        self, block: Code, backward: bool, parameters: Sequence[str], lines: Sequence[str], updates: bool
    ) -> str:
        """That function, with `NAME` where its name stands; `updates` says whether it updates weights."""

    @abstractmethod
    def block_call(self, name: str, block: str, arguments: Sequence[str]) -> str:
        """The call of that function for the block, or the block's weights, `block`."""

    def function_call(self, name: str, arguments: Sequence[str]) -> str:
        """The call of another function of the module."""
        return f"{name}({', '.join(arguments)})"

    def native_gradient(self, name: str, arguments: Sequence[str], wrt: Sequence[int]) -> str:
        """The results of another function of the module, and the gradients of the first by the arguments `wrt`."""
        return f"value_and_grad({name}, {_tuple(arguments)}, {_tuple(wrt)})"

    @abstractmethod
    def update_function(self, parameters: Sequence[str], lines: Sequence[str]) -> str:
        """A function that updates weights, with `NAME` and `OWNERS` where its name and its weights stand."""

    def update_call(self, call: str, places: Sequence[str]) -> str:
        """The statement that calls such a function and lets its results take the weights' places."""
        return f"{', '.join(places)} = {call}"

    def rewritten(self, body: BodyWriter, name: str, value: Value, new: Expression) -> str:
        """The statement that writes a value over the array `name`."""
        raise NotImplementedError

    def stored(self, value: Expression, steps: tuple[Step, ...]) -> Expression:
        """The value of a weight as it is stored."""
        if steps:
            raise NotImplementedError(steps)
        return value

    @abstractmethod
    def updated(self, body: BodyWriter, updates: Sequence[Update], outputs: Sequence[Value]) -> None:
        """Statements that give weights their new values, after every read, and the return of `outputs`."""

    # --- the file -------------------------------------------------------------------------------------------

    def method_name(self, function: Function, module: Module) -> str:
        """What the method or function of an entry is called."""
        return self.entry_names(module.entries)[function.name]

    @classmethod
    def entry_names(cls, entries: Iterable[str]) -> dict[str, str]:
        """What the methods or functions of a file's entries are called: none as what the file imports or defines."""
        return entry_names(entries, cls.reserved | cls.imports.keys() | cls.helpers.keys())

    @abstractmethod
    def definition(self, definition: Definition) -> str:
        """A class or function of a scope, with `NAME` and `OWNERS` where its name and its scopes stand."""

    @abstractmethod
    def file(self, writer: ModuleWriter, root: Definition, functions: Sequence[PrivateFunction]) -> str:
        """The file: docstring, `IMPORTS`, classes or functions, entries, `load`."""


def shortest(value: float) -> float:
    """The number of fewest digits that is the same in float32, whose digits are those that say which float32 it is.

    Source holds it in float64, from which it is rounded once more; where that gave another float32, it is `value`.
    """
    single = np.float32(value)
    found = float(str(single))
    return found if np.float32(found).tobytes() == single.tobytes() and math.isfinite(found) else value


def _tuple(items: Sequence[object]) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
