"""The graph: values, ops, blocks, regions and functions, as mutable SSA.

Everything is a plain object with slots. Reading is free; changing goes through `Builder` (new ops) and `Rewriter`
(everything else), which keep uses, order and locations right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from graphc.ir.attributes import Attributes
from graphc.ir.dims import Dim, Guard, Size
from graphc.ir.dtypes import DType
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.location import Location
from graphc.ir.types import Shape, TensorType

if TYPE_CHECKING:
    from graphc.ir.module import Module
    from graphc.ir.opdef import OpDef
    from graphc.ir.ops.operators import Operators
else:
    Operators = object  # the ops need values first; importing them gives `Value` the methods

ORDER_GAP = 1 << 20
"""Space between the order numbers of neighbouring ops, so that inserting seldom renumbers a block."""


_NO_NUMBERS = (
    ": a traced value has no numbers yet, it stands for those that a compiled function computes; write it with "
    "`graphc.ops`"
)
_NOT_TRACED = {
    **dict.fromkeys(("numpy", "item", "tolist", "detach", "cpu", "data_ptr", "block_until_ready"), _NO_NUMBERS),
    **dict.fromkeys(
        ("backward", "grad", "requires_grad"),
        ": gradients are recorded too, by `graphc.gradients(loss, variables)`, and `optimizer.apply` trains with them",
    ),
}


class Value(Operators):
    """A tensor in the graph: the result of an op (`owner` is an `Op`) or a parameter of a block.

    `uses` maps each op that reads the value to how many of its operands do; it is None until there is one.
    Arithmetic operators and indexing record ops at the ambient insertion point (see `ir/ops/operators.py`).
    """

    __slots__ = ("index", "name", "owner", "type", "uses")

    def __init__(self, type: TensorType, owner: Op | Block, index: int, name: str | None = None) -> None:
        self.type = type
        self.owner = owner
        self.index = index
        self.name = name
        self.uses: dict[Op, int] | None = None

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def ndim(self) -> int:
        return len(self.type.shape)

    @property
    def op(self) -> Op | None:
        """The op that produces the value, or None for a block parameter."""
        owner = self.owner
        return owner if isinstance(owner, Op) else None

    @property
    def block(self) -> Block:
        owner = self.owner
        return owner.block if isinstance(owner, Op) else owner

    @property
    def use_count(self) -> int:
        return sum(self.uses.values()) if self.uses else 0

    def __bool__(self) -> bool:
        raise GraphcError(
            "the truth of a traced value is not known while tracing; use `graphc.ops.where` or `graphc.ops.cond`, "
            "and compare with `is None`"
        )

    def __float__(self) -> float:
        raise GraphcError(
            "a traced value has no number yet: it stands for one that a compiled function computes; use `graphc.ops` "
            "in place of `float` and `int`"
        )

    def __int__(self) -> int:
        return int(self.__float__())

    def __len__(self) -> int:
        if not self.type.shape:
            raise TypeError("len() of a scalar")
        size = self.type.shape[0]
        if isinstance(size, int):
            return size
        raise ShapeError(f"len() of a value whose first size is symbolic ({size}); use `x.shape[0]`")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise GraphcError("a traced value has no array yet; use NumPy functions graphc knows, or `graphc.ops`")

    def __getattr__(self, name: str) -> Any:
        """Called for what a value does not have: what other frameworks' tensors have is explained."""
        hint = _NOT_TRACED.get(name, "")
        raise AttributeError(f"'Value' object has no attribute {name!r}{hint}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"<%{self.name or '?'}: {self.type}>"


class Op:
    """One operation. Each op declaration makes a subclass whose properties are its operands and attributes by name.

    `operands` may hold None for an optional operand that is absent. `order` grows along the block.
    """

    __slots__ = ("attributes", "block", "location", "next", "operands", "order", "prev", "regions", "results")

    definition: ClassVar[OpDef[..., Any]]
    block: Block
    """The block the op stands in, or stood in until it was erased."""

    def __init__(
        self,
        operands: tuple[Value | None, ...],
        attributes: Attributes,
        result_types: tuple[TensorType, ...],
        regions: tuple[Region, ...],
        location: Location,
    ) -> None:
        self.operands = operands
        self.attributes = attributes
        self.regions = regions
        self.location = location
        self.prev: Op | None = None
        self.next: Op | None = None
        self.order = 0
        if len(result_types) == 1:
            self.results: tuple[Value, ...] = (Value(result_types[0], self, 0),)
        else:
            self.results = tuple([Value(type, self, i) for i, type in enumerate(result_types)])
        for operand in operands:
            if operand is not None:
                uses = operand.uses
                if uses is None:
                    operand.uses = {self: 1}
                else:
                    uses[self] = uses.get(self, 0) + 1
        for region in regions:
            region.op = self

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def result(self) -> Value:
        """The only result. Raises ValueError when there is not exactly one."""
        (value,) = self.results
        return value

    @property
    def attribute_dict(self) -> dict[str, Any]:
        return dict(zip(self.definition.attribute_names, self.attributes, strict=True))

    def is_before(self, other: Op) -> bool:
        """Whether this op stands earlier than `other` in the same block. O(1)."""
        return self.order < other.order

    def walk(self) -> Iterator[Op]:
        """The op, then all ops of its regions, in order."""
        yield self
        for region in self.regions:
            for op in region.block:
                yield from op.walk()

    def __repr__(self) -> str:
        return f"<{self.name} : {', '.join(str(r.type) for r in self.results)}>"


class Block:
    """A straight line of ops with parameters; its last op is a `return` or `yield` once it is complete.

    Iterating allows the current op to be erased, and sees ops inserted after it.
    """

    __slots__ = ("first", "last", "owner", "parameters")

    def __init__(self, owner: Function | Region | None = None) -> None:
        self.owner = owner
        self.parameters: list[Value] = []
        self.first: Op | None = None
        self.last: Op | None = None

    def add_parameter(self, type: TensorType, name: str | None = None) -> Value:
        value = Value(type, self, len(self.parameters), name)
        self.parameters.append(value)
        return value

    @property
    def terminator(self) -> Op:
        if self.last is None:
            raise GraphcError("the block is empty: it has no return or yield")
        return self.last

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What the terminator returns or yields."""
        return cast("tuple[Value, ...]", self.terminator.operands)

    @property
    def function(self) -> Function | None:
        """The function the block is in, however deep."""
        owner = self.owner
        while isinstance(owner, Region):
            if owner.op is None:
                return None
            owner = owner.op.block.owner
        return owner

    def append(self, op: Op) -> None:
        last = self.last
        op.block = self
        if last is None:
            self.first = self.last = op
        else:
            op.prev = last
            last.next = op
            op.order = last.order + ORDER_GAP
            self.last = op

    def insert_before(self, anchor: Op, op: Op) -> None:
        previous = anchor.prev
        op.block, op.prev, op.next, anchor.prev = self, previous, anchor, op
        if previous is None:
            self.first = op
            op.order = anchor.order - ORDER_GAP
            return
        previous.next = op
        if anchor.next is None:  # at the end of a block there is room, before its terminator as behind it
            op.order = previous.order + ORDER_GAP
            anchor.order = op.order + ORDER_GAP
            return
        op.order = (previous.order + anchor.order) // 2
        if op.order == previous.order:
            self._renumber()

    def remove(self, op: Op) -> None:
        """Unlink `op`; its own `next` stays readable, so that a walk over the block can go on from it."""
        if op.prev is None:
            self.first = op.next
        else:
            op.prev.next = op.next
        if op.next is None:
            self.last = op.prev
        else:
            op.next.prev = op.prev

    def _renumber(self) -> None:
        order = 0
        for op in self:
            op.order = order
            order += ORDER_GAP

    def __iter__(self) -> Iterator[Op]:
        op = self.first
        while op is not None:
            yield op
            op = op.next

    def __reversed__(self) -> Iterator[Op]:
        op = self.last
        while op is not None:
            yield op
            op = op.prev

    def walk(self) -> Iterator[Op]:
        """All ops, those of nested regions after the op that holds them."""
        for op in self:
            if op.regions:
                yield from op.walk()
            else:
                yield op


class Region:
    """A block inside an op (a branch, a loop body). It sees nothing but its parameters."""

    __slots__ = ("block", "op")

    def __init__(self) -> None:
        self.block = Block(self)
        self.op: Op | None = None


Role = Literal["input", "param", "state", "key"]
ROLES: tuple[Role, ...] = ("input", "param", "state", "key")


@dataclass(slots=True, eq=False)
class Parameter:
    """What a function's parameter is: its value, its role, and for `param` and `state` the weight it stands for."""

    value: Value
    role: Role = "input"
    weight: str | None = None

    @property
    def name(self) -> str:
        return self.value.name or f"arg{self.value.index}"

    @property
    def type(self) -> TensorType:
        return self.value.type


@dataclass(slots=True, eq=False)
class Result:
    """What a function's result is: a name, and the parameter whose new value it is (`updates`), if any."""

    name: str | None = None
    updates: Parameter | None = None


class Function:
    """Named, typed parameters, one block, results. Pure: state comes in as parameters and goes out as results.

    A `public` function is an entry that users call. `guards` must hold at entry.
    """

    __slots__ = ("block", "guards", "module", "name", "parameters", "public", "results")

    def __init__(self, name: str, public: bool = True) -> None:
        self.name = name
        self.public = public
        self.block = Block(self)
        self.parameters: list[Parameter] = []
        self.results: list[Result] = []
        self.guards: dict[Guard, None] = {}
        self.module: Module | None = None

    def add_parameter(
        self, type: TensorType, name: str | None = None, role: Role = "input", weight: str | None = None
    ) -> Value:
        value = self.block.add_parameter(type, name)
        self.parameters.append(Parameter(value, role, weight))
        return value

    def add_arguments(self, likes: Iterable[Value], bases: Mapping[Value, str] | None = None) -> list[Value]:
        """Parameters of a private function for values like these, named as they are or else by `bases`; names that are
        taken get a number. Linear."""
        taken = {p.value.name for p in self.parameters}
        numbers: dict[str, int] = {}
        found: list[Value] = []
        for like in likes:
            base = like.name or (bases or {}).get(like)
            name = base
            while base is not None and name in taken:
                numbers[base] = numbers.get(base, 0) + 1
                name = f"{base}_{numbers[base]}"
            taken.add(name)
            found.append(self.add_parameter(like.type, name))
        return found

    @property
    def inputs(self) -> list[Parameter]:
        """The parameters a caller passes: all but those that stand for a weight."""
        return [p for p in self.parameters if p.weight is None]

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self.block.outputs

    @property
    def result_types(self) -> tuple[TensorType, ...]:
        return tuple(value.type for value in self.outputs)

    @property
    def symbols(self) -> tuple[Dim, ...]:
        """The symbols that parameter types bind, each once, in order of occurrence."""
        return tuple(dict.fromkeys(s for p in self.parameters for s in p.value.type.symbols))

    def add_guard(self, guard: Guard) -> None:
        self.guards[guard] = None

    def walk(self) -> Iterator[Op]:
        return self.block.walk()

    def bind(self, *shapes: Shape) -> dict[Dim, Size]:
        """Bind the symbols by the shapes of the parameters, in order, and check the guards.

        Raises `ShapeError` that names the parameter, or the guard and the sizes that break it.
        """
        from graphc.ir.binding import bind_symbols

        return bind_symbols(self, shapes)

    def __str__(self) -> str:
        from graphc.ir.printer import function_text

        return function_text(self)

    def __repr__(self) -> str:
        return f"<func @{self.name}>"


def operand_values(op: Op) -> Iterator[Value]:
    """The operands that are present."""
    for operand in op.operands:
        if operand is not None:
            yield operand
