"""`cond`, `while` and `scan` in Python's own control flow, for targets that run statement by statement."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.items import block_items
from graphc.ir.dims import Dim, Size
from graphc.ir.errors import UnsupportedError
from graphc.ir.graph import Block, Op, Value

STEP = "    "


class Nested(BodyWriter):
    """The body of a region, one step further in, whose variables do not disturb those of the outer body."""

    def __init__(self, outer: BodyWriter, block: Block, arguments: Sequence[str | None]) -> None:
        super().__init__(
            outer.dialect, outer.members, block_items(block), block.outputs, outer.names, outer.indent + len(STEP)
        )
        self.sizes, self.sizes_read = outer.sizes, outer.sizes_read
        self.before = set(outer.names.held)
        for value, name in zip(block.parameters, arguments, strict=True):
            if name is not None:
                self.bind(value, name)
                self.kept.add(value)

    def close(self) -> None:
        """Give the names of the region's variables back."""
        for name in self.names.held - self.before:
            self.names.release(name)

    def indented(self) -> list[str]:
        return [STEP + line for line in self.lines]


def write_cond(body: BodyWriter, op: Op) -> None:
    index, *captures = op.operands
    names = [body.named(value) for value in captures if value is not None]
    chosen = body.named(index) if index is not None and len(op.regions) > 2 else body.operand(index).text
    by_bool = index is not None and index.dtype.is_bool
    reads = body.consume(op.operands)
    results = _result_names(body, op.results)
    last = len(op.regions) - 1
    for i, region in enumerate(op.regions):
        if by_bool:
            head = f"if {chosen}:" if i == 0 else "else:"
        elif last == 0:
            head = "if True:"
        else:
            head = f"if {chosen} <= 0:" if i == 0 else f"elif {chosen} == {i}:" if i < last else "else:"
        inner = Nested(body, region.block, names)
        inner.write_items()
        assign(inner, results, region.block.outputs)
        inner.close()
        body.emit(head)
        body.lines += inner.indented()
    body.release(reads)


def write_while(body: BodyWriter, op: Op) -> None:
    carried = op.attribute_dict["carried"]
    initial = [value for value in op.operands[:carried] if value is not None]
    captures = [body.named(value) for value in op.operands[carried:] if value is not None]
    variables = _loop_variables(body, initial, op.results)
    condition, step = (region.block for region in op.regions)
    test = Nested(body, condition, [*variables, *captures])
    test.write_items()
    holds = test.returned()
    test.close()
    inner = Nested(body, step, [*variables, *captures])
    inner.write_items()
    assign(inner, variables, step.outputs)
    inner.close()
    if test.lines:
        body.emit("while True:")
        body.lines += test.indented()
        body.lines += [f"{STEP}if not {_negatable(holds)}:", f"{STEP}{STEP}break"]
    else:
        body.emit(f"while {holds}:")
    body.lines += inner.indented() or [f"{STEP}pass"]
    body.release(body.consume(op.operands[carried:]))


def _negatable(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def write_scan(body: BodyWriter, op: Op) -> None:
    attributes = op.attribute_dict
    carried, sliced = attributes["carried"], attributes["sliced"]
    length, backwards = attributes["length"], attributes["reverse"]
    if not isinstance(length, Dim) and length == 0 and len(op.results) > carried:
        raise UnsupportedError("a scan of no steps that stacks results has no spelling here")
    initial = [value for value in op.operands[:carried] if value is not None]
    sources = [body.named(value) for value in op.operands[carried : carried + sliced] if value is not None]
    captures = [body.named(value) for value in op.operands[carried + sliced :] if value is not None]
    carries = _loop_variables(body, initial, op.results[:carried])
    stacked = op.results[carried:]
    lists = [body.names.take("rows") for _ in stacked]
    for name in lists:
        body.emit(f"{name} = []")
    block = op.regions[0].block
    slices = [body.names.take(slice_name(name)) for name in sources]
    slices = [name if value.uses else "_" for name, value in zip(slices, block.parameters[carried:], strict=False)]
    inner = Nested(body, block, [*carries, *slices, *captures])
    inner.write_items()
    for name, value in zip(lists, block.outputs[carried:], strict=True):
        inner.emit(f"{name}.append({inner.named(value)})")
    assign(inner, carries, block.outputs[:carried])
    inner.close()
    body.emit(_scan_head(body, slices, sources, length, backwards))
    body.lines += inner.indented() or [f"{STEP}pass"]
    for name in slices:
        body.names.release(name)
    reads = body.consume(op.operands[carried:])
    for value, name in zip(stacked, lists, strict=True):
        if value in body.uses:
            rows = f"{name}[::-1]" if backwards else name
            body.emit(f"{body.name_result(value)} = {body.dialect.stacked(rows)}")
        body.names.release(name)
    body.release(reads)


def slice_name(source: str) -> str:
    """What a slice of an array is called: after the array, if that has a name that says something."""
    return f"{source}_i" if source.isidentifier() and len(source) > 1 else "row"


def _scan_head(body: BodyWriter, slices: Sequence[str], sources: Sequence[str], length: Size, backwards: bool) -> str:
    """The head of the loop; `length` is read only where no array says how often it runs."""
    if len(sources) == 1:
        return f"for {slices[0]} in {body.dialect.backwards(sources[0]) if backwards else sources[0]}:"
    if sources:
        each = [body.dialect.backwards(source) if backwards else source for source in sources]
        return f"for {', '.join(slices)} in zip({', '.join(each)}, strict=True):"
    return f"for _ in range({body.size(length).text}):"


def _result_names(body: BodyWriter, results: Sequence[Value]) -> list[str | None]:
    return [body.name_result(value) if value in body.uses else None for value in results]


def _loop_variables(body: BodyWriter, initial: Sequence[Value], results: Sequence[Value]) -> list[str]:
    """Variables that hold the carried values, with their first values assigned."""
    names: list[str] = []
    for value, result in zip(initial, results, strict=True):
        text = body.operand(value).text
        freed = body.release(body.consume([value]))
        if result in body.uses:
            name = body.name_result(result, freed)
        else:
            name = body.names.take("state")
        names.append(name)
        if name != text:
            body.emit(f"{name} = {text}")
    return names


def assign(body: BodyWriter, names: Sequence[str | None], values: Sequence[Value]) -> None:
    """Give variables the values that a region yields, all at once."""
    pairs = [(name, value) for name, value in zip(names, values, strict=True) if name is not None]
    texts = [body.operand(value).text for _, value in pairs]
    kept = [(name, text) for (name, _), text in zip(pairs, texts, strict=True) if name != text]
    if sum(len(text) for _, text in kept) > body.room():
        for _, value in pairs:
            body.named(value)
        texts = [body.operand(value).text for _, value in pairs]
        kept = [(name, text) for (name, _), text in zip(pairs, texts, strict=True) if name != text]
    if kept:
        body.emit(f"{', '.join(name for name, _ in kept)} = {', '.join(text for _, text in kept)}")
    elif not body.lines:
        body.emit("pass")


def write_region_op(body: BodyWriter, op: Op) -> None:
    """Python control flow for a `cond`, `while` or `scan`."""
    {"cond": write_cond, "while": write_while, "scan": write_scan}[op.name](body, op)


__all__ = ["Nested", "assign", "slice_name", "write_region_op"]
