"""From a legal module to one source file and its weights: classes of equal scopes, entries, helpers, imports."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from graphc.codegen.artifact import write_weights
from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.dialect import Code, Dialect, Path, Update
from graphc.codegen.source.documentation import quoted
from graphc.codegen.source.formatting import formatted, with_imports
from graphc.codegen.source.forms import node_form
from graphc.codegen.source.freeing import with_deletions
from graphc.codegen.source.items import BlockCall, BlockLoop, Call, Item, Loop, UpdateCall, UpdateLoop
from graphc.codegen.source.members import Layers, Members, Places, ancestors, mirror, relative
from graphc.codegen.source.naming import Names, class_name, identifier, plural, stem
from graphc.codegen.source.scopes import UPDATES, Node, ScopeTree, owner_of, scope_tree
from graphc.codegen.source.sections import Sections
from graphc.codegen.source.signatures import guard_lines, parameter_names, unread
from graphc.codegen.source.steps import Step, with_blocks
from graphc.codegen.source.updates import form, function_text, hints, unfit
from graphc.ir.dims import symbols
from graphc.ir.dtypes import c128, f8e4m3fn, f8e5m2, i4, u4
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Module
from graphc.ir.recipes import Recipe
from graphc.passes.partition.backward import is_backward


@dataclass(slots=True)
class Definition:
    """A class or function to write: where its weights are, its members in order, its methods' parameters and lines."""

    owner: str
    members: list[str] = field(default_factory=list)
    """Statements that make the members of a class."""
    methods: list[Method] = field(default_factory=list)

    def entries(self) -> list[tuple[Function, list[str]]]:
        """The methods that are entries, with the names of their parameters."""
        return [(method.entry, method.parameters) for method in self.methods if method.entry is not None]


@dataclass(slots=True)
class Method:
    """A function body with its parameters."""

    name: str
    parameters: list[str]
    lines: list[str]
    entry: Function | None = None
    records_nothing: bool = False
    """Whether it is a step of training or testing, of which no gradient is taken from outside."""


PrivateFunction = tuple[str, list[str], list[str]]
"""Name, parameters and lines of a function that entries call."""


STEP = "    "
"""What a class's methods are indented by."""

OF_STEPS = (f"{UPDATES}/", "metrics/")
"""How the names of weights begin that belong to steps of training and testing, and to no layer."""


UNSTORED = frozenset({i4, u4, f8e4m3fn, f8e5m2, c128})
"""Dtypes that safetensors, or its loaders for NumPy arrays, lack."""


class Conflict(Exception):
    """Calls of one scope that came out unlike each other: the scope cannot be a class."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self.owner = owner


@dataclass(slots=True)
class Source:
    """What the writer found: the text of the file, and each stored weight with its recipe."""

    text: str
    weights: dict[str, Recipe]


def write_source(module: Module, dialect: Dialect, folder: FilePath) -> dict[str, Recipe]:
    """Write `model.py` and `model.safetensors`. Returns the recipes of the stored weights."""
    lacking = [f"{w.name} ({w.type})" for w in module.weights.entries() if w.type.dtype in UNSTORED]
    if lacking:
        raise UnsupportedError(f"model.safetensors cannot hold the weights {', '.join(lacking)}")
    source = emit(module, dialect)
    (folder / "model.py").write_text(source.text, encoding="utf-8")
    sources = {name: {n: module.weights[n] for n in recipe.sources} for name, recipe in source.weights.items()}
    arrays = {name: recipe.apply(sources[name]) for name, recipe in source.weights.items()}
    write_weights(folder / "model.safetensors", arrays)
    return source.weights


def emit(module: Module, dialect: Dialect) -> Source:
    """The text of `model.py`, formatted, and what goes into its weights."""
    dissolved: set[str] = set()
    while True:
        try:
            return ModuleWriter(module, dialect, dissolved).emit()
        except Conflict as conflict:
            dissolved.add(conflict.owner)


class ModuleWriter:
    """One attempt at writing a module, with the scopes in `dissolved` left out of the classes."""

    def __init__(self, module: Module, dialect: Dialect, dissolved: set[str]) -> None:
        self.module = module
        self.dialect = dialect
        self.dissolved = dissolved
        self.functions = list(module.functions.values())
        self.layers = Layers(module, self.functions, dialect)
        methods = set(dialect.entry_names(module.entries).values())
        self.places = Places(dialect.taken_members | methods)
        self.codes: dict[str, Code] = {}
        """The class or function of each owner."""
        self.by_text: dict[str, Code] = {}
        self.by_form: dict[tuple[object, ...], tuple[Code, list[Path]]] = {}
        self.owners_of: dict[str, dict[str, None]] = {}
        self.definitions: list[Code] = []
        self.update_calls: dict[Node, UpdateCall] = {}
        self.class_names = Names(dialect.reserved | methods)
        self.function_names = {
            f.name: self.class_names.take(identifier(f.name)) for f in self.functions if not f.public
        }
        resolved = {self.layers.resolved(value): None for value in self.layers.weight_of}
        self.weights = list(resolved)
        owners = {owner_of(weight) for weight in resolved}
        self.inner = {ancestor for owner in owners for ancestor in ancestors(owner)}
        self.own = {owner for owner in owners if owner and owner not in self.layers.by_owner}
        self.members: dict[str, list[str]] = {}
        self._mirror: dict[str, Path] = {}
        self.keeps_order = dialect.is_eager and any(is_backward(op) for f in self.functions for op in f.block)
        """Whether there is a backward part, whose memory is planned, and the target runs as it is written."""

    def is_class(self, owner: str) -> bool:
        if not owner:
            return False
        return owner in self.inner or (self.dialect.has_classes and owner in self.own)

    # --- the whole --------------------------------------------------------------------------------------------

    def emit(self) -> Source:
        entries = list(self.module.entries.values())
        main = self._tree(entries[0], self.is_class, self.dissolved)
        self.places.classes |= set(main.instances)
        self._place_weights()
        root = Definition("")
        root.methods.append(self._entry(entries[0], main.root))
        for entry in entries[1:]:
            root.methods.append(self._entry(entry, self._later_tree(entry).root))
        root.members = self._member_lines("")
        private = [self._function(f) for f in self.functions if not f.public]
        text = self.dialect.file(self, root, private)
        return Source(formatted(with_imports(text, self.dialect)), self._stored())

    def _tree(self, entry: Function, is_class: Callable[[str], bool], dissolved: set[str]) -> ScopeTree:
        """The scopes of an entry that are classes and, of those that update weights, functions."""
        while True:
            tree = scope_tree(entry, is_class, dissolved, self.layers.resolved)
            found = unfit(tree.root, entry, self.layers)
            if not found:
                return tree
            dissolved |= found

    def _later_tree(self, entry: Function) -> ScopeTree:
        """The scopes of a later entry: those that it runs forward as the first entry does are the classes of that."""
        dissolved: set[str] = set()
        has_backward = any(is_backward(op) for op in entry.block)
        while True:
            tree = self._tree(entry, lambda owner: not has_backward and owner in self.codes, dissolved)
            unlike = {owner for item in tree.root.items if isinstance(item, Node) for owner in self._unlike(item)}
            if not unlike:
                return tree
            dissolved |= unlike

    def _unlike(self, node: Node) -> set[str]:
        """The scopes from `node` down that are not what their classes were written for."""
        if node.is_update:
            return set()
        unlike = {owner for item in node.items if isinstance(item, Node) for owner in self._unlike(item)}
        if not unlike and self.by_form.get(node_form(self, node), (None,))[0] is not self.codes[node.owner]:
            unlike.add(node.owner)
        return unlike

    def _stored(self) -> dict[str, Recipe]:
        members = Members(self.dialect, self.layers, self.places, "", {})
        stored: dict[str, Recipe] = {}
        for weight in self.weights:
            source = self.module.weights.source(weight).name
            if source == weight:
                name = self.dialect.stored_name(members.path_of(weight))
                stored[name] = Recipe((weight,), self.layers.steps.get(weight, ()))
        return stored

    def ties(self) -> list[tuple[Path, Path]]:
        """Paths of the weights that layers hold in common with another, with the path of the one stored."""
        members = Members(self.dialect, self.layers, self.places, "", {})
        found: list[tuple[Path, Path]] = []
        for weight in self.weights:
            source = self.module.weights.source(weight).name
            if source != weight:
                found.append((members.path_of(weight), members.path_of(source)))
        return found

    def with_name(self, code: Code) -> str:
        """The text of a class or function under its name, with the scopes that it stands for."""
        owners = list(self.owners_of[code.name])
        shown = quoted(owners[0] if len(owners) == 1 else f"{owners[0]} … {owners[-1]}")
        text = code.text.replace("NAME", code.name, 1).replace("OWNERS", shown, 1)
        if self.dialect.has_classes:
            for method in code.functions.values():
                text += f"\n\n{textwrap.indent(method.text.replace('NAME', method.name, 1), STEP)}"
        return text

    # --- members ----------------------------------------------------------------------------------------------

    def _place_weights(self) -> None:
        """Give layers and single weights their holders; names are given once the bodies have placed their classes."""
        self.held_layers: dict[str, list[str]] = {}
        self.held_weights: dict[str, list[str]] = {}
        for weight in self.weights:
            owner = owner_of(weight)
            if weight in self.layers.framework_name:
                held = self.held_layers.setdefault(self.places.holder(owner.rpartition("/")[0]), [])
                if owner not in held:
                    held.append(owner)
            else:
                slot = self.layers.slot_of(weight)
                beside = owner_of(slot[0]) if slot is not None and self.dialect.has_classes else owner
                self.held_weights.setdefault(self.places.holder(beside), []).append(weight)

    def _name_members(self, holder: str) -> None:
        """Names for what a class holds besides the classes below it."""
        for owner in self.held_layers.get(holder, ()):
            self.places.put(f"layer {owner}", holder, relative(owner, holder))
        for weight in self.held_weights.get(holder, ()):
            if f"weight {weight}" not in self.places.of:
                path = self._mirrored(weight, holder) or self.dialect.weight_path(
                    self.places, holder, self.below(weight, holder)
                )
                self.places.of[f"weight {weight}"] = holder, path

    def below(self, weight: str, holder: str) -> str:
        """A weight by the path that its name comes from: what an optimizer keeps for a weight is called after it."""
        slot = self.layers.slot_of(weight)
        return f"{slot[0]}/{slot[1]}" if holder and slot is not None else weight

    def _mirrored(self, weight: str, holder: str) -> Path | None:
        """The place of what an optimizer keeps for a weight, where that is a tree like that of the weights."""
        if holder or self.dialect.has_classes or self.layers.slot_of(weight) is None:
            return None  # in a class of its own the optimizer is no tree: its weights are named below that class
        if not self._mirror:
            self._mirror = mirror(self.weights, self.layers, self._path_of)
        return self._mirror.get(weight)

    def _path_of(self, weight: str) -> Path | None:
        """The place of a weight below the root; None while it has none."""
        if f"weight {weight}" not in self.places.of:
            return None
        return self.places.path(f"weight {weight}", "")

    def _member_lines(self, holder: str) -> list[str]:
        """The statements that make the members, in the order the bodies use them."""
        if not self.dialect.has_classes:
            return []
        held = {
            weight: self.dialect.weight_member(
                self.places.of[f"weight {weight}"][1],
                self.module.weights.info(weight),
                self.layers.stored_shape(weight),
            )
            for weight in self.held_weights.get(holder, ())
        }
        lines = [line for weight, line in held.items() if not weight.startswith(OF_STEPS)]
        order = dict.fromkeys(
            [*self.members.get(holder, ()), *(f"layer {o}" for o in self.held_layers.get(holder, ()))]
        )
        lists: dict[str, list[Code]] = {}
        for key in order:
            kind, _, owner = key.partition(" ")
            _, path = self.places.of[key]
            if kind == "layer":
                layer, made = self.layers.by_owner[owner], self.dialect.member(path)
                lines += [f"{made} = {layer.constructor}", *(each.format(layer=made) for each in layer.settings)]
                continue
            code = self.codes[owner]
            if len(path) == 1:
                lines.append(f"{self.dialect.member(path)} = {code.name}()")
            else:
                codes = lists.setdefault(str(path[0]), [])
                codes.append(code)
                if len(codes) == 1:
                    lines.append(f"list {path[0]}")
        lines += [line for weight, line in held.items() if weight.startswith(OF_STEPS)]
        return [
            self.dialect.list_member(line[5:], lists[line[5:]]) if line.startswith("list ") else line for line in lines
        ]

    # --- bodies -----------------------------------------------------------------------------------------------

    def _items(self, node: Node) -> tuple[list[Item], list[str]]:
        """The node's items, with classes below written and chains of siblings as loops; members in order of use."""
        holder = node.owner
        used: list[str] = []
        items: list[Item] = []
        queue = node.items
        i = 0
        while i < len(queue):
            item = queue[i]
            if isinstance(item, Op):
                owner = self.layers.owner_of_op.get(item)
                if owner is not None and self.places.holder(owner.rpartition("/")[0]) == holder:
                    used.append(f"layer {owner}")
                items.append(item)
                i += 1
                continue
            if item.is_update:
                items.append(self.update_calls[item])
                i += 1
                continue
            chain = self._chain(queue, i)
            if chain is not None:
                nodes, position = chain
                name = self._list_name(holder, nodes)
                for index, each in enumerate(nodes):
                    self.places.put(f"class {each.owner}", holder, name, index)
                    used.append(f"class {each.owner}")
                first = nodes[0]
                items.append(
                    Loop(self.codes[first.owner], (name,), tuple(first.inputs), position, nodes[-1].outputs[0])
                )
                i += len(nodes)
                continue
            path = self.places.put(f"class {item.owner}", holder, relative(item.owner, holder))
            used.append(f"class {item.owner}")
            items.append(Call(item, self.codes[item.owner], path))
            i += 1
        return items, list(dict.fromkeys(used))

    def _list_name(self, holder: str, nodes: Sequence[Node]) -> str:
        placed = self.places.of.get(f"class {nodes[0].owner}")
        if placed is not None:
            if [self.places.of.get(f"class {n.owner}") for n in nodes] != [
                (holder, (placed[1][0], index)) for index in range(len(nodes))
            ]:
                raise Conflict(nodes[0].owner)
            return str(placed[1][0])
        base = stem(nodes[0].scope.name)
        return self.places.name(holder, base if len(nodes) == 1 else plural(base))

    def _chain(self, queue: Sequence[Op | Node], start: int) -> tuple[list[Node], int] | None:
        """The longest run of siblings from `start` that feed one into the next, and the input that does."""
        first = queue[start]
        if not isinstance(first, Node) or first.is_update or len(first.outputs) != 1:
            return None
        nodes = [first]
        position: int | None = None
        for following in queue[start + 1 :]:
            last = nodes[-1]
            if (
                not isinstance(following, Node)
                or following.is_update
                or self.codes[following.owner] is not self.codes[first.owner]
                or stem(following.scope.name) != stem(first.scope.name)
                or following.owner in {node.owner for node in nodes[-1:]}
                or len(following.outputs) != 1
                or len(following.inputs) != len(first.inputs)
            ):
                break
            passed = last.outputs[0]
            readers = passed.uses or {}
            inside = set(following.ops)
            at = [i for i, value in enumerate(following.inputs) if value is passed]
            if len(at) != 1 or any(reader not in inside for reader in readers):
                break
            if position is None:
                position = at[0]
            same = all(
                a is b for i, (a, b) in enumerate(zip(first.inputs, following.inputs, strict=True)) if i != position
            )
            if at[0] != position or not same:
                break
            nodes.append(following)
        owners = {node.owner for node in nodes}
        if position is None or len(owners) != len(nodes):
            return None
        return nodes, position

    def _class(self, node: Node) -> None:
        """Write the class (or function) of a scope, or find the one of an equal scope."""
        children = [item for item in node.items if isinstance(item, Node)]
        for child in children:
            self._class(child)
        form = node_form(self, node)
        written = self.by_form.get(form)
        if written is not None:
            code, paths = written
            for name in dict.fromkeys(str(path[0]) for path in paths):
                self.places.reserve(node.owner, name)
            for child, path in zip(children, paths, strict=True):
                self.places.of.setdefault(f"class {child.owner}", (node.owner, path))
            self._name_members(node.owner)
            self._stands_for(code, node.owner)
            return
        items, used = self._items(node)
        self._name_members(node.owner)
        self.members.setdefault(node.owner, used)
        writer, parameters = self._body(node, Step(items), None)
        lines = self._finished(writer, node.inputs)
        method = Method("forward", parameters, lines)
        definition = Definition(node.owner, self._member_lines(node.owner), [method])
        text = self.dialect.definition(definition)
        code = self.by_text.get(text)
        if code is None:
            code = Code(self._class_name(node), text)
            self.by_text[text] = code
            self.definitions.append(code)
            self.owners_of[code.name] = {}
        self.by_form[form] = code, [self.places.of[f"class {child.owner}"][1] for child in children]
        self._stands_for(code, node.owner)

    def _stands_for(self, code: Code, owner: str) -> None:
        if self.codes.setdefault(owner, code) is not code:
            raise Conflict(owner)
        self.owners_of[code.name][owner] = None

    def _class_name(self, node: Node) -> str:
        style: Callable[[str], str] = class_name if self.dialect.has_classes else lambda name: identifier(stem(name))
        base = style(node.scope.name)
        if not self.class_names.is_free(base) and node.scope.parent is not None and node.scope.parent.name:
            base = style(f"{stem(node.scope.parent.name)}_{node.scope.name}")
        name = base
        number = 2
        while not self.class_names.is_free(name):
            name = f"{base}{number}" if self.dialect.has_classes else f"{base}_{number}"
            number += 1
        return self.class_names.take(name)

    def _body(self, node: Node, step: Step, function: Function | None) -> tuple[BodyWriter, list[str]]:
        items = step.items
        members = Members(self.dialect, self.layers, self.places, node.owner, self.function_names)
        names = Names(self.dialect.reserved | set(self.function_names.values()) | {c.name for c in self.definitions})
        writer = BodyWriter(self.dialect, members, items, node.outputs, names)
        writer.ordered = self.keeps_order
        if function is not None:
            results = zip(function.results, function.outputs, strict=True)
            writer.result_names = {value: identifier(result.name) for result, value in results if result.name}
            writer.records_nothing = self._is_step(function, items)
            if writer.records_nothing:
                writer.sections = Sections(items)
                writer.updates = {v for r, v in zip(function.results, function.outputs, strict=True) if r.updates}
        bases = parameter_names(node.inputs, function)
        parameters: list[str] = []
        for value, base in zip(node.inputs, bases, strict=True):
            name = names.take(base)
            parameters.append(name)
            writer.bind(value, name)
        writer.reserve_sizes([dim for value in node.inputs for dim in value.type.symbols])
        self._parameters = dict(zip(node.inputs, parameters, strict=True))
        writer.hints = step.hints | hints(item for item in items if isinstance(item, UpdateCall))
        writer.stored |= step.stored
        writer.write_items()
        return writer, parameters

    def _finished(self, writer: BodyWriter, inputs: Sequence[Value]) -> list[str]:
        names = self._parameters
        writer.write_return()
        missing = unread(writer, inputs)
        if missing:
            raise Conflict(missing)
        return [*writer.sizes_at_top(inputs, names), *freeing(writer)]

    def _entry(self, function: Function, root: Node) -> Method:
        for item in root.items:
            if isinstance(item, Node) and not item.is_update:
                self._class(item)
        calls = [self._update(n, function) for n in root.items if isinstance(n, Node) and n.is_update]
        self.update_calls |= {call.node: call for call in calls}
        items, used = self._items(root)
        self._name_members("")
        step = with_blocks(self, items)
        items = step.items
        self.members[""] = list(dict.fromkeys([*self.members.get("", ()), *used]))
        writer, parameters = self._body(root, step, function)
        names = dict(self._parameters)
        updates: list[Update] = []
        for result, value in zip(function.results, function.outputs, strict=True):
            placed = value in writer.written
            if result.updates is not None and result.updates.weight is not None and not placed:
                weight = self.module.weights.source(result.updates.weight).name
                steps = self.layers.steps.get(weight, ())
                updates.append(Update(writer.members.path_of(weight), value, steps))
        if any(result.updates is not None for result in function.results):
            kept = [v for r, v in zip(function.results, function.outputs, strict=True) if r.updates is None]
            self.dialect.updated(writer, updates, kept)
        else:
            writer.write_return()
        guards: list[str] = []
        for guard in function.guards:
            for dim in (*symbols(guard.left), *symbols(guard.right)):
                writer.size(dim)
            guards += guard_lines(guard, writer, function)
        lines = [*writer.sizes_at_top(root.inputs, names), *guards, *freeing(writer)]
        name = self.dialect.method_name(function, self.module)
        return Method(name, parameters, lines, function, writer.records_nothing)

    def _is_step(self, function: Function, items: Sequence[Item]) -> bool:
        """Whether an entry is a step of training or testing; of what only runs forward a user may want the gradient."""
        if function is not self.module.main and any(result.updates is not None for result in function.results):
            return True
        return any(
            isinstance(each, BlockCall | BlockLoop | UpdateCall | UpdateLoop)
            or (isinstance(each, Op) and is_backward(each))
            for each in items
        )

    def _update(self, node: Node, function: Function) -> UpdateCall:
        """The call of the function that updates a weight, which is written unless there is one of its text."""
        called = form(node, function, self.layers)
        members = Members(self.dialect, self.layers, self.places, "", self.function_names)
        text = function_text(node, called, members, Names(self.dialect.reserved | set(self.function_names.values())))
        code = self.by_text.get(text)
        if code is None:
            code = self.by_text[text] = Code(self.class_names.take(identifier(node.scope.parts[1].name)), text)
            self.definitions.append(code)
            self.owners_of[code.name] = {}
        self.owners_of[code.name][called.weight] = None
        return UpdateCall(node, code, called)

    def _function(self, function: Function) -> PrivateFunction:
        """A private function: every weight it reads is a parameter."""
        members = Members(self.dialect, self.layers, self.places, "", self.function_names)
        names = Names(self.dialect.reserved | set(self.function_names.values()))
        ops = [op for op in function.block if op.next is not None]
        writer = BodyWriter(self.dialect, members, ops, function.outputs, names, indent=4)
        writer.ordered = self.keeps_order
        parameters: list[str] = []
        for parameter in function.parameters:
            name = names.take(identifier(parameter.name))
            parameters.append(name)
            writer.bind(parameter.value, name)
        writer.reserve_sizes(function.symbols)
        writer.write_items()
        writer.write_return()
        values = [p.value for p in function.parameters]
        top = writer.sizes_at_top(values, dict(zip(values, parameters, strict=True)))
        return self.function_names[function.name], parameters, [*top, *freeing(writer)]


def freeing(writer: BodyWriter) -> list[str]:
    """The lines of a body; where its memory is planned, arrays are let go of after their last use."""
    return with_deletions(writer.lines, writer.large) if writer.ordered else writer.lines


__all__ = ["Definition", "Method", "ModuleWriter", "Source", "emit", "write_source"]
