"""Branches and loops as functions. On arrays they run at once; while tracing they record `cond`, `while` and `scan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.frontends.nodes import Closure, is_symbolic, record
from graphc.frontends.ops.dispatch import tensor, truth
from graphc.frontends.structures import flatten, map_structure, pack
from graphc.ir import ops as ir
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Value


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What `true_fn()` returns if the scalar `pred` holds, else what `false_fn()` returns; both of like structure."""
    if Builder.current() is not None:
        return _branch(truth(pred), [true_fn, false_fn])
    if is_symbolic(pred):
        return record(Closure("cond", lambda pred: cond(pred, true_fn, false_fn)), (pred,), {})
    return true_fn() if bool(np.asarray(pred)) else false_fn()


def switch(index: Any, branches: list[Callable[..., Any]], *operands: Any) -> Any:
    """What the branch of this index, clamped to those there are, returns for the operands."""
    if Builder.current() is not None:
        return _branch(tensor(index), [lambda branch=branch: branch(*operands) for branch in branches])
    if is_symbolic(index, operands):
        closure = Closure("switch", lambda index, *operands: switch(index, branches, *operands))
        return record(closure, (index, *operands), {})
    return branches[min(max(int(np.asarray(index)), 0), len(branches) - 1)](*operands)


def _branch(index: Any, branches: list[Callable[[], Any]]) -> Any:
    structures: list[Any] = []

    def flat(branch: Callable[[], Any]) -> Callable[[], tuple[Any, ...]]:
        def run() -> tuple[Any, ...]:
            found = branch()
            structures.append(found)
            return tuple(flatten(found))

        return run

    results = ir.cond(index, *[flat(branch) for branch in branches])
    return pack(structures[0], results)


def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: int | None = None
) -> Any:
    """Repeat `loop_vars = body(*loop_vars)` while `cond(*loop_vars)` holds, at most `maximum_iterations` times."""
    single = not isinstance(loop_vars, (list, tuple, dict))
    structure: Any = (loop_vars,) if single else loop_vars
    if Builder.current() is None and is_symbolic(structure):
        closure = Closure(
            "while_loop",
            lambda *flat: while_loop(cond, body, _unwrapped(pack(structure, flat), single), maximum_iterations),
        )
        return record(closure, tuple(flatten(structure)), {})

    def apply(function: Callable[..., Any], flat: Any) -> Any:
        packed = pack(structure, flat)
        return function(**packed) if isinstance(packed, dict) else function(*packed)

    def step(*flat: Any) -> list[Any]:
        found = apply(body, flat)
        return flatten((found,) if single and not isinstance(found, (list, tuple)) else found)

    first = [tensor(leaf) for leaf in flatten(structure)]
    if Builder.current() is None:
        count = 0
        while bool(np.asarray(apply(cond, first))) and (maximum_iterations is None or count < maximum_iterations):
            first = [tensor(leaf, like) for leaf, like in zip(step(*first), first, strict=True)]
            count += 1
        return _unwrapped(pack(structure, first), single)
    if maximum_iterations is None:
        results = ir.while_loop(lambda *flat: truth(apply(cond, flat)), lambda *flat: _like(step(*flat), flat), first)
        return _unwrapped(pack(structure, results), single)
    counted = ir.while_loop(
        lambda count, *flat: ir.and_(ir.lt(count, maximum_iterations), truth(apply(cond, flat))),
        lambda count, *flat: (count + 1, *_like(step(*flat), flat)),
        [np.int32(0), *first],
        maximum_iterations,
    )
    return _unwrapped(pack(structure, counted[1:]), single)


def _unwrapped(structure: Any, single: bool) -> Any:
    return structure[0] if single else structure


def _like(values: list[Any], wanted: Any) -> tuple[Any, ...]:
    """Python numbers in the dtypes of the values they replace."""
    return tuple(tensor(value, like) for value, like in zip(values, wanted, strict=True))


def scan(
    f: Callable[..., Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False, unroll: int = 1
) -> tuple[Any, Any]:
    """Run `carry, y = f(carry, x)` over the first axis of `xs`; returns the last carry and the stacked `y`.

    Carry, `x` and `y` may be structures; `y` may be None. `unroll` is accepted and has no effect on the result.
    """
    if xs is None and length is None:
        raise GraphcError("scan needs `xs` or a `length`")
    if Builder.current() is None:
        if is_symbolic(init, xs):
            return record(Closure("scan", lambda init, xs: scan(f, init, xs, length, reverse, unroll)), (init, xs), {})
        return _scan_arrays(f, init, xs, length, reverse)
    structures: dict[str, Any] = {}

    def body(carries: tuple[Value, ...], slices: tuple[Value, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        carry, y = f(pack(init, carries), None if xs is None else pack(xs, slices))
        structures["y"] = y
        return _like(flatten(carry), carries), () if y is None else tuple(tensor(leaf) for leaf in flatten(y))

    carried = [tensor(leaf) for leaf in flatten(init)]
    sliced = [] if xs is None else [tensor(leaf) for leaf in flatten(xs)]
    last, stacked = ir.scan(body, carried, sliced, length=length, reverse=reverse)
    return pack(init, last), None if structures["y"] is None else pack(structures["y"], stacked)


def _scan_arrays(f: Callable[..., Any], init: Any, xs: Any, length: int | None, reverse: bool) -> tuple[Any, Any]:
    carry = map_structure(tensor, init)
    arrays = None if xs is None else map_structure(tensor, xs)
    count = length if arrays is None else len(flatten(arrays)[0])
    assert count is not None
    found: list[Any] = []
    for i in reversed(range(count)) if reverse else range(count):
        carry, y = f(carry, None if arrays is None else map_structure(lambda array: array[i], arrays))  # noqa: B023
        found.append(y)
    if not found or found[0] is None:
        return carry, None
    if reverse:
        found.reverse()
    return carry, pack(found[0], [np.stack(leaves) for leaves in zip(*map(flatten, found), strict=True)])
