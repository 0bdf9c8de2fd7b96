"""Where weights and layers live: which class holds them, under which name, and how a body refers to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from graphc.codegen.source.dialect import Dialect, Layer, Path
from graphc.codegen.source.expressions import POSTFIX, Expression, Template
from graphc.codegen.source.naming import Names, member
from graphc.codegen.source.scopes import owner_of
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Module
from graphc.ir.recipes import Cast, Permute, Reshape, Step

SLOTS = "optimizer/"
"""How the names of what an optimizer keeps begin; the path of a weight follows where it is kept for that."""


class Layers:
    """The ops that a module of the framework stands for, by the path of the layer that owns their weights."""

    def __init__(self, module: Module, functions: Sequence[Function], dialect: Dialect) -> None:
        self.table = module.weights
        self.by_owner: dict[str, Layer] = {}
        self.owner_of_op: dict[Op, str] = {}
        self.weight_of: dict[Value, str] = {}
        self.steps: dict[str, tuple[Step, ...]] = {}
        """Weight that a layer holds → from the module's array to what the layer stores."""
        self.framework_name: dict[str, str] = {}
        """Weight that a layer holds → its name in the layer."""
        self.spelled: dict[object, tuple[Template, dict[str, str]]] = {}
        """Templates of ops with these attributes and operand types (of constants, their values)."""
        owned: dict[str, set[str]] = {}
        made: dict[tuple[object, ...], Layer | None] = {}
        candidates: dict[str, list[tuple[Op, Layer, dict[str, tuple[str, tuple[Step, ...]]]]]] = {}
        for function in functions:
            of_function = {p.value: p.weight for p in function.parameters if p.weight is not None}
            self.weight_of |= of_function
            for weight in of_function.values():
                owned.setdefault(owner_of(weight), set()).add(weight)
            if not function.public:
                continue
            for op in function.block:
                if dialect.has_classes and any(value in of_function for value in op.operands):
                    key = (op.__class__, id(op.attributes), *[v if v is None else v.type for v in op.operands])
                    if key not in made:
                        made[key] = dialect.layer(op)
                    layer = made[key]
                    held = self._held(op, layer, of_function) if layer is not None else None
                    if layer is not None and held is not None:
                        candidates.setdefault(owner_of(next(iter(held))), []).append((op, layer, held))
        inner = {ancestor for owner in owned for ancestor in ancestors(owner)}
        stored: dict[str, tuple[Step, ...]] = {}
        for owner, found in candidates.items():
            _, layer, held = found[0]
            agreed = all(other == layer and names == held for _, other, names in found)
            if not agreed or not owner or owner in inner or set(held) != owned[owner]:
                continue
            sources = {self.table.source(weight).name: steps for weight, (_, steps) in held.items()}
            if any(stored.get(source, steps) != steps for source, steps in sources.items()):
                continue  # tied to a weight that another layer stores in another layout
            stored |= sources
            trainable = {name: self.table.source(weight).trainable for weight, (name, _) in held.items()}
            self.by_owner[owner] = dialect.with_trainable(layer, trainable)
            self.owner_of_op |= {op: owner for op, _, _ in found}
            for weight, (name, steps) in held.items():
                self.framework_name[weight], self.steps[weight] = name, steps
        self._lay_out_slots()

    def _lay_out_slots(self) -> None:
        """Store what an optimizer keeps for a weight as the weight itself is: arithmetic on both is slow otherwise."""
        for slot in self.table.entries():
            weight, _ = self.slot_of(slot.name) or ("", "")
            steps = self.steps.get(weight)
            if steps and slot.name not in self.steps and slot.type.shape == self.table.info(weight).type.shape:
                self.steps[slot.name] = steps

    def slot_of(self, name: str) -> tuple[str, str] | None:
        """The weight that an optimizer keeps what is called `name` for, and what that is."""
        weight, _, kept = name.removeprefix(SLOTS).rpartition("/")
        return (weight, kept) if name.startswith(SLOTS) and weight in self.table else None

    def stored_shape(self, weight: str) -> tuple[int, ...]:
        """The shape of a weight as it is stored."""
        shape = tuple(size for size in self.table.info(weight).type.shape if isinstance(size, int))
        for step in self.steps.get(weight, ()):
            match step:
                case Permute(axes):
                    shape = tuple(shape[axis] for axis in axes)
                case Reshape(_, after):
                    shape = after
                case Cast():
                    pass
        return shape

    @staticmethod
    def _held(op: Op, layer: Layer, weights: dict[Value, str]) -> dict[str, tuple[str, tuple[Step, ...]]] | None:
        """Weight → framework name and steps, when exactly the layer's operands are weights, and of one owner."""
        held: dict[str, tuple[str, tuple[Step, ...]]] = {}
        indices = {index for index, _ in layer.weights.values()}
        if any((value in weights) != (i in indices) for i, value in enumerate(op.operands) if value is not None):
            return None
        for name, (index, steps) in layer.weights.items():
            value = op.operands[index]
            assert value is not None
            held[weights[value]] = name, steps
        return held if len({owner_of(weight) for weight in held}) == 1 else None

    def resolved(self, value: Value) -> str:
        """The weight whose place is read for `value`: its own where a layer holds it, else the one it is tied to."""
        weight = self.weight_of[value]
        return weight if weight in self.framework_name else self.table.source(weight).name


def ancestors(owner: str) -> Iterator[str]:
    """The paths strictly above `owner`, the root left out."""
    while "/" in owner:
        owner = owner.rpartition("/")[0]
        yield owner


class Places:
    """The place of each class, layer and weight: the owner of the class that holds it, and the path from there.

    No member is called as one of `taken`.
    """

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = taken
        self.classes: set[str] = {""}
        self.of: dict[str, tuple[str, Path]] = {}
        self._names: dict[str, Names] = {}

    def holder(self, owner: str) -> str:
        """The nearest class at or above `owner`."""
        while owner not in self.classes:
            owner = owner.rpartition("/")[0]
        return owner

    def put(self, key: str, holder: str, name: str | None = None, index: int | None = None) -> Path:
        """Give what is called `key` its name below `holder`; with `index` it is an element of the list `name`."""
        if key in self.of:
            return self.of[key][1]
        if index is not None:
            assert name is not None
            path: Path = (name, index)
        else:
            path = (self.name(holder, name or relative(key, holder)),)
        self.of[key] = holder, path
        return path

    def name(self, holder: str, base: str) -> str:
        """A member's name that is free in `holder`, and taken from now on."""
        return self._names.setdefault(holder, Names(self._taken)).take(member(base))

    def reserve(self, holder: str, name: str) -> None:
        """Keep a name below `holder` for members that are put there by their paths."""
        self._names.setdefault(holder, Names(self._taken)).held.add(name)

    def path(self, key: str, start: str) -> Path:
        """The path of `key` from the class at `start`."""
        holder, path = self.of[key]
        while holder != start:
            holder, above = self.of[f"class {holder}"]
            path = (*above, *path)
        return path


def mirror(weights: Sequence[str], layers: Layers, path_of: Callable[[str], Path | None]) -> dict[str, Path]:
    """Places for what an optimizer keeps for weights, in a tree like theirs below `optimizer`.

    Left out are those below lists of which some members have nothing kept for them: lists are read from their indices.
    """
    found: dict[str, Path] = {}
    held: dict[Path, set[str | int]] = {}
    kept: dict[Path, set[str | int]] = {}
    for weight in weights:
        slot = layers.slot_of(weight)
        path = path_of(weight if slot is None else slot[0])
        if path is None:
            continue
        for i, key in enumerate(path):
            if isinstance(key, int):
                (held if slot is None else kept).setdefault(path[:i], set()).add(key)
        if slot is not None:
            found[weight] = (SLOTS[:-1], *path, slot[1])
    partial = {path for path, indices in kept.items() if indices != held.get(path)}
    return {name: path for name, path in found.items() if not any(path[1:i] in partial for i in range(2, len(path)))}


def relative(owner: str, holder: str) -> str:
    """The part of a path below `holder`, as one name."""
    below = owner[len(holder) + 1 :] if holder else owner
    return below.replace("/", "_")


class Members:
    """How the body of one class refers to weights, layers and functions."""

    def __init__(self, dialect: Dialect, layers: Layers, places: Places, start: str, functions: dict[str, str]) -> None:
        self.dialect = dialect
        self._layers = layers
        self._places = places
        self.start = start
        self._functions = functions
        self.spelled = layers.spelled

    def layer(self, op: Op) -> Layer | None:
        owner = self._layers.owner_of_op.get(op)
        return None if owner is None else self._layers.by_owner[owner]

    def path_of_layer(self, op: Op) -> Path:
        owner = self._layers.owner_of_op[op]
        return self._places.path(f"layer {owner}", self.start)

    def path_of(self, weight: str) -> Path:
        """The path of a weight by its resolved name."""
        name = self._layers.framework_name.get(weight)
        if name is None:
            return self._places.path(f"weight {weight}", self.start)
        return (*self._places.path(f"layer {owner_of(weight)}", self.start), name)

    def place_of(self, value: Value) -> Path | None:
        """The path under which the weight that a parameter stands for is stored; None for other values."""
        weight = self._layers.weight_of.get(value)
        return None if weight is None else self.path_of(self._layers.table.source(weight).name)

    def weight(self, value: Value) -> Expression:
        """The source of a weight as the IR has it."""
        weight = self._layers.resolved(value)
        steps = self._layers.steps.get(weight, ())
        text = self.dialect.member(self.path_of(weight))
        for step in reversed(steps):
            text = self.dialect.undone(text, step)
        return Expression(text, POSTFIX)

    def function_name(self, callee: str) -> str:
        return self._functions[callee]
