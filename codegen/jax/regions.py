"""`cond`, `while` and `scan` in JAX: functions handed to `jax.lax`, which close over what they read."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.regions import STEP, Nested, slice_name
from graphc.ir.graph import Block, Op, Value


def write_region_op(body: BodyWriter, op: Op) -> None:
    {"cond": _cond, "while": _while, "scan": _scan}[op.name](body, op)


def _function(
    body: BodyWriter, name: str, block: Block, parameters: str, unpack: str, arguments: Sequence[str]
) -> None:
    """A local function for a region, which returns what the region yields."""
    inner = Nested(body, block, arguments)
    inner.write_items()
    inner.write_return()
    inner.close()
    body.emit(f"def {name}({parameters}):")
    if unpack:
        body.emit(f"{STEP}{unpack}")
    body.lines += inner.indented()
    body.emit("")


def _tuple(texts: Sequence[str]) -> str:
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _finish(body: BodyWriter, results: Sequence[Value], reads: list[Value], call: str) -> None:
    body.release(reads)
    targets = [body.name_result(value) for value in results]
    body.emit(f"{', '.join(targets)} = {call}")


def _cond(body: BodyWriter, op: Op) -> None:
    index, *captures = op.operands
    names = [body.named(value) for value in captures if value is not None]
    chosen = body.operand(index).text
    functions: list[str] = []
    for i, region in enumerate(op.regions):
        name = body.names.take(f"branch_{i}")
        functions.append(name)
        _function(body, name, region.block, "", "", names)
    reads = body.consume(op.operands)
    if index is not None and index.dtype.is_bool:
        call = f"lax.cond({chosen}, {', '.join(functions)})"
    else:
        call = f"lax.switch({chosen}, [{', '.join(functions)}])"
    _finish(body, op.results, reads, call)
    for name in functions:
        body.names.release(name)


def _read(names: Sequence[str], parameters: Sequence[Value]) -> list[str]:
    """The names as targets of an unpacking, `_` for what the region does not read."""
    return [name if value.uses else "_" for name, value in zip(names, parameters, strict=False)]


def _carried(body: BodyWriter, initial: Sequence[Value]) -> list[str]:
    """Names for carried values inside a local function."""
    return [body.names.take("state" if len(initial) == 1 else f"state_{i}") for i, _ in enumerate(initial)]


def _while(body: BodyWriter, op: Op) -> None:
    carried = op.attribute_dict["carried"]
    initial = [value for value in op.operands[:carried] if value is not None]
    starts = [body.named(value) for value in initial]
    captures = [body.named(value) for value in op.operands[carried:] if value is not None]
    variables = _carried(body, initial)
    condition, step = (body.names.take(name) for name in ("keep_going", "step"))
    single = carried == 1
    parameter = variables[0] if single else body.names.take("carry")
    blocks = (op.regions[0].block, op.regions[1].block)
    for name, block in zip((condition, step), blocks, strict=True):
        unpack = "" if single else f"{', '.join(_read(variables, block.parameters))} = {parameter}"
        _function(body, name, block, parameter, unpack, [*variables, *captures])
    reads = body.consume(op.operands)
    start = starts[0] if single else _tuple(starts)
    for name in {*variables, condition, step, parameter}:
        body.names.release(name)
    _finish(body, op.results, reads, f"lax.while_loop({condition}, {step}, {start})")


def _scan(body: BodyWriter, op: Op) -> None:
    attributes = op.attribute_dict
    carried, sliced = attributes["carried"], attributes["sliced"]
    initial = [value for value in op.operands[:carried] if value is not None]
    starts = [body.named(value) for value in initial]
    sources = [body.named(value) for value in op.operands[carried : carried + sliced] if value is not None]
    captures = [body.named(value) for value in op.operands[carried + sliced :] if value is not None]
    variables = _carried(body, initial)
    rows = [body.names.take(slice_name(name)) for name in sources]
    step = body.names.take("step")
    carry, slices = body.names.take("carry"), body.names.take("slices")
    block = op.regions[0].block
    inner = Nested(body, block, [*variables, *rows, *captures])
    inner.write_items()
    texts = [inner.named(value) for value in block.outputs]
    inner.emit(f"return {_tuple(texts[:carried])}, {_tuple(texts[carried:])}")
    inner.close()
    body.emit(f"def {step}({carry}, {slices}):")
    if variables:
        body.emit(f"{STEP}{_tuple(_read(variables, block.parameters))} = {carry}")
    if rows:
        body.emit(f"{STEP}{_tuple(_read(rows, block.parameters[carried:]))} = {slices}")
    body.lines += inner.indented()
    body.emit("")
    reads = body.consume(op.operands)
    for name in {*variables, *rows, step, carry, slices}:
        body.names.release(name)
    body.release(reads)
    targets = [body.name_result(value) for value in op.results]
    first, second = _tuple(targets[:carried]), _tuple(targets[carried:])
    arguments = [step, _tuple(starts), _tuple(sources) if sources else "None"]
    if not sources:
        arguments.append(f"length={body.size(attributes['length']).text}")
    if attributes["reverse"]:
        arguments.append("reverse=True")
    first = first if first != "()" else "_"
    second = second if second != "()" else "_"
    body.emit(f"{first}, {second} = lax.scan({', '.join(arguments)})")
