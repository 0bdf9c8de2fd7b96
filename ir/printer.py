"""The text form: `graphc-ir 1`, the weight table, then functions. `parser.parse` reads it back to the same module.

    graphc-ir 1

    weight "dense/kernel" : f32[784, 10] trainable sha256:9f86d081…

    func @mlp(%x: f32[B, 784] input, %w: f32[784, 10] param "dense/kernel") -> f32[B, 10] {
      %0 = matmul %x, %w : f32[B, 10] @ "dense" model.py:7
      return %0
    }

Attributes at their default are left out. A value is written by its name, or by a number; a name that another value of
the function has too is written with a suffix (`%x.1`), which the parser drops.
"""

from __future__ import annotations

from typing import cast

from graphc.ir.attributes import Attributes, attribute_text, quoted
from graphc.ir.builder import INLINE_CONSTANT
from graphc.ir.dims import Dim, symbols
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.location import UNKNOWN, Location
from graphc.ir.module import Module, Weight
from graphc.ir.opdef import OpDef

VERSION_LINE = "graphc-ir 1"


def module_text(module: Module, locations: bool = True) -> str:
    """The whole module as text; without `locations` it is shorter, and parses to a module that has none."""
    parts = [VERSION_LINE]
    weights = [_weight_text(module, weight) for weight in module.weights.entries()]
    if weights:
        parts.append("\n".join(weights))
    parts += [function_text(function, locations) for function in module.functions.values()]
    return "\n\n".join(parts) + "\n"


def _weight_text(module: Module, weight: Weight) -> str:
    text = f"weight {quoted(weight.name)} : {weight.type}"
    if weight.trainable:
        text += " trainable"
    if weight.recipe is not None:
        recipe = weight.recipe
        sources = ", ".join(map(quoted, recipe.sources))
        joined = f" axis {recipe.axis} splits {list(recipe.splits)}" if len(recipe.sources) > 1 else ""
        text += f" from ({sources}){joined}" + "".join(f" {step}" for step in recipe.steps)
    if weight.alias is not None:
        return f"{text} tied {quoted(weight.alias)}"
    if weight.array is not None and not weight.array.size:
        return f"{text} = []"
    if weight.array is not None and weight.array.size <= INLINE_CONSTANT:
        return f"{text} = {attribute_text(_tuples(weight.array.tolist()))}"
    digest = module.weights.digest(weight.name)
    return f"{text} sha256:{digest}" if digest else text


def _tuples(values: object) -> object:
    return tuple(_tuples(v) for v in cast("list[object]", values)) if isinstance(values, list) else values


def function_text(function: Function, locations: bool = True) -> str:
    """One function as text."""
    return "\n".join(_FunctionPrinter(locations).function(function))


class _FunctionPrinter:
    def __init__(self, locations: bool) -> None:
        self.names: dict[Value, str] = {}
        self.taken: dict[str, int] = {}
        self.numbered = 0
        self.locations = locations
        self.attribute_texts: dict[tuple[OpDef[..., object], int], str] = {}
        self.location_texts: dict[Location, str] = {UNKNOWN: ""}

    def name(self, value: Value) -> str:
        """Give a value its name; values are named where they are defined."""
        name = value.name
        if name is None:
            text = f"%{self.numbered}"
            self.numbered += 1
        else:
            seen = self.taken.get(name)
            self.taken[name] = 0 if seen is None else seen + 1
            text = f"%{name}" if seen is None else f"%{name}.{seen + 1}"
        self.names[value] = text
        return text

    def function(self, function: Function) -> list[str]:
        parameters: list[str] = []
        for parameter in function.parameters:
            text = f"{self.name(parameter.value)}: {parameter.type} {parameter.role}"
            if parameter.weight is not None:
                text += f" {quoted(parameter.weight)}"
            parameters.append(text)
        minimums = sorted({(s.name, s.minimum) for s in _symbols(function) if s.minimum != 1})
        declared = f"<{', '.join(f'{name} >= {minimum}' for name, minimum in minimums)}>" if minimums else ""
        head = f"{'func' if function.public else 'private func'} @{function.name}{declared}"
        guards = f" where {', '.join(map(str, function.guards))}" if function.guards else ""
        tail = f" -> {self.results(function)}{guards} {{"
        one_line = f"{head}({', '.join(parameters)}){tail}"
        if len(one_line) <= 120 or not parameters:
            lines = [one_line]
        else:
            lines = [f"{head}(", *(f"    {p}," for p in parameters[:-1]), f"    {parameters[-1]}", f"){tail}"]
        self.block(function.block, "  ", lines)
        lines.append("}")
        return lines

    def results(self, function: Function) -> str:
        texts: list[str] = []
        last = function.block.last
        outputs = last.operands if last is not None and last.name == "return" else ()  # or it is not complete yet
        for i, value in enumerate(outputs):
            result = function.results[i] if i < len(function.results) else None
            text = "_" if value is None else str(value.type)
            if result is not None and result.name is not None:
                text = f"{result.name}: {text}"
            if result is not None and result.updates is not None:
                text += f" updates {self.names[result.updates.value]}"
            texts.append(text)
        plain = len(texts) == 1 and not texts[0].endswith(")") and ": " not in texts[0] and " updates " not in texts[0]
        return texts[0] if plain else f"({', '.join(texts)})"

    def block(self, block: Block, indent: str, lines: list[str]) -> None:
        names = self.names
        for op in block:
            results = op.results
            if len(results) == 1:
                # The common case of `self.name`, spelled out because printing is judged by the microsecond.
                value = results[0]
                if value.name is None:
                    text = f"%{self.numbered}"
                    self.numbered += 1
                    names[value] = text
                else:
                    text = self.name(value)
                head = f"{indent}{text} = {op.definition.name}"
            elif results:
                head = f"{indent}{', '.join([self.name(v) for v in results])} = {op.definition.name}"
            else:
                head = indent + op.definition.name
            operands = op.operands
            if operands:
                head += " " + ", ".join(["_" if v is None else names[v] for v in operands])
            if op.attributes:
                head += self.attributes(op)
            if op.regions:
                self.regions(op, head, indent, lines)
                continue
            lines.append(head + self.tail(op))

    def regions(self, op: Op, head: str, indent: str, lines: list[str]) -> None:
        for i, region in enumerate(op.regions):
            parameters = ", ".join(f"{self.name(v)}: {v.type}" for v in region.block.parameters)
            lines.append(f"{head} ({parameters}) {{" if i == 0 else f"{indent}}}, ({parameters}) {{")
            self.block(region.block, indent + "  ", lines)
        lines.append(indent + "}" + self.tail(op))

    def tail(self, op: Op) -> str:
        results = op.results
        if len(results) == 1:
            text = f" : {results[0].type}"
        elif results:
            text = f" : {', '.join([str(value.type) for value in results])}"
        else:
            text = ""
        if self.locations:
            location = op.location
            if location is not UNKNOWN:
                found = self.location_texts.get(location)
                if found is None:
                    found = self.location_texts[location] = f" @ {location}"
                text += found
        return text

    def attributes(self, op: Op) -> str:
        definition = op.definition
        key = (definition, id(op.attributes))
        found = self.attribute_texts.get(key)
        if found is None:
            found = self.attribute_texts[key] = attributes_text(definition, op.attributes)
        return found


def attributes_text(definition: OpDef[..., object], attributes: Attributes) -> str:
    """` {axis = 1}` with a leading space, or nothing when all are at their default."""
    shown = [
        f"{declared.name} = {text}"
        for declared, value in zip(definition.attributes, attributes, strict=True)
        if (text := attribute_text(value)) != attribute_text(declared.default)
    ]
    return f" {{{', '.join(shown)}}}" if shown else ""


def _symbols(function: Function) -> set[Dim]:
    """Every symbol that the function's text mentions."""
    found: set[Dim] = set()
    types = {p.type for p in function.parameters}
    attributes: set[int] = set()

    def note(value: object) -> None:
        if isinstance(value, Dim):
            found.update(symbols(value))
        elif isinstance(value, tuple):
            for item in cast("tuple[object, ...]", value):
                note(item)

    for op in function.walk():
        for result in op.results:
            types.add(result.type)
        if id(op.attributes) not in attributes:
            attributes.add(id(op.attributes))
            note(op.attributes)
    for type in types:
        found.update(type.symbols)
    for guard in function.guards:
        found.update(symbols(guard.left), symbols(guard.right))
    return found
