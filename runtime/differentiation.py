"""`grad` and `value_and_grad`: of functions as functions, of models and modules as modules to compile."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from graphc import frontends
from graphc.frontends.layer_paths import layer_paths
from graphc.frontends.nodes import Closure, is_symbolic, record
from graphc.frontends.ops.dispatch import tensor
from graphc.frontends.structures import flatten, map_structure, pack
from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Result, Value
from graphc.ir.interpreter import interpret
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter
from graphc.ir.suggestions import number_of
from graphc.passes.autodiff import check_gradients, differentiate, gradients_in
from graphc.passes.registry import collector_paused
from graphc.runtime.sources import module_of

Wrt = int | str | Sequence[int | str] | None


def grad(source: Any, wrt: Wrt = None, *, gradients: str = "ir") -> Any:
    """The gradient of what `source` returns, a real scalar: the result of `value_and_grad` without the value."""
    if _is_function(source):
        return _derived(source, wrt, gradients, "grad", lambda value, found: found)
    return _module(source, None, wrt, gradients, "grad")


def value_and_grad(
    source: Any, loss: Callable[..., Any] | None = None, wrt: Wrt = None, *, gradients: str = "ir"
) -> Any:
    """What `source` returns, a real scalar, with its gradient.

    Of a function: a function of the same arguments that returns the value and the gradient by its argument number
    `wrt` (or of that name; 0 by default; for several a tuple), which has the argument's structure. It can be called on
    arrays, traced, used in other traced functions, and differentiated again.

    Of a model (or a module, or a path): a module whose entry returns the value, then a gradient for each of `wrt`,
    names or numbers of inputs, or names of weights; by default of each of the model's trainable weights, in order (for
    a module without weights, of its first input). `loss(*outputs)`, written with `graphc.ops`, makes the scalar of
    what the model returns in inference mode; regularisers are no part of it. A weight that the loss does not reach
    gets zeros.

    `gradients="native"` leaves it to the target's framework, which only torch and jax can. Raises `ShapeError` for what
    is no scalar, `DTypeError` for an argument that is no float, `GraphcError` for a name there is not.
    """
    if _is_function(source):
        if loss is not None:
            _refuse_types(source, loss, "value_and_grad")
            raise GraphcError("a loss is given for a model; a function returns the scalar itself")
        return _derived(source, wrt, gradients, "value_and_grad", lambda value, found: (value, found))
    return _module(source, loss, wrt, gradients, "value_and_grad")


def _is_function(source: Any) -> bool:
    return callable(source) and not isinstance(source, (Module, frontends.Model))


# --- functions --------------------------------------------------------------------------------------------------


def _derived(
    fn: Callable[..., Any], wrt: Wrt, gradients: str, name: str, chosen: Callable[[Any, Any], Any]
) -> Callable[..., Any]:
    check_gradients(gradients)
    _refuse_types(fn, wrt, name)

    @wraps(fn)
    def derived(*args: Any, **kwargs: Any) -> Any:
        builder = Builder.current()
        if builder is not None:
            return chosen(*_recorded(fn, builder, args, kwargs, wrt, gradients))
        if is_symbolic(args, kwargs):
            return record(Closure(name, derived), args, kwargs)
        return _on_arrays(derived, args, kwargs)

    derived.__name__ = f"{name}_of_{_name(fn)}"
    return derived


def _on_arrays(derived: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    arrays = map_structure(tensor, args)
    structures: list[Any] = []

    def traced(*values: Any) -> Any:
        structures.append(derived(*values, **kwargs))
        return structures[0]

    module = frontends.trace(traced, *map_structure(lambda array: frontends.Spec(array.shape, array.dtype), arrays))
    found = interpret(module, *flatten(arrays))
    return pack(structures[0], found if isinstance(found, tuple) else (found,))


def _recorded(
    fn: Callable[..., Any], builder: Builder, args: tuple[Any, ...], kwargs: dict[str, Any], wrt: Wrt, gradients: str
) -> tuple[Any, Any]:
    """Record the function and its gradient into the block that is being recorded."""
    if builder.before is not None or builder.function is None or builder.function.module is None:
        raise GraphcError("a gradient is recorded in `graphc.trace`, `graphc.lower` and functional models")
    several = isinstance(wrt, Sequence) and not isinstance(wrt, str)
    numbers = [_number(fn, each, len(args)) for each in (wrt if several else (0 if wrt is None else wrt,))]  # type: ignore[union-attr]
    originals: dict[Value, Value] = {}

    def argument(number: int) -> Any:
        def mark(leaf: Any) -> Value:
            value = builder.value(leaf)
            if value is None or not (value.dtype.is_float or value.dtype.is_complex):
                what = "None" if value is None else str(value.type)
                raise DTypeError(
                    f"a gradient is by floating-point arguments; argument {number} of {_name(fn)} is {what}"
                )
            # A value of its own, so that the gradient is by this argument and not by what else reads the same value.
            marked = ops.name(value, tag="argument")
            originals[marked] = value
            return marked

        return map_structure(mark, args[number])

    chosen = {number: argument(number) for number in numbers}
    found = fn(*(chosen.get(i, each) for i, each in enumerate(args)), **kwargs)
    leaves = [builder.value(leaf) for leaf in flatten(found)]
    value = leaves[0] if len(leaves) == 1 else None
    if value is None or value.shape != () or not value.dtype.is_float:
        what = ", ".join("None" if leaf is None else str(leaf.type) for leaf in leaves)
        raise ShapeError(f"a gradient is of a real scalar; {_name(fn)} returned {what or 'nothing'}").at(
            builder.place()
        )
    wanted = [leaf for number in numbers for leaf in flatten(chosen[number])]
    module = builder.function.module
    taken = gradients_in(module, builder.block, value, wanted, builder.function, gradients)
    rewriter = Rewriter()
    for marked, original in originals.items():
        rewriter.replace_value(marked, original)
        assert marked.op is not None
        rewriter.erase(marked.op)
    rewriter.flush()
    packed = pack([chosen[number] for number in numbers], [originals.get(each, each) for each in taken])
    return originals.get(value, value), tuple(packed) if several else packed[0]


def _number(fn: Callable[..., Any], wrt: int | str, count: int) -> int:
    if isinstance(wrt, str):
        names = [p.name for p in inspect.signature(fn).parameters.values()][:count]
        if wrt not in names:
            raise GraphcError(f"{_name(fn)} has no argument {wrt!r} in this call; it has {', '.join(names) or 'none'}")
        return names.index(wrt)
    if not -count <= wrt < count:
        raise GraphcError(f"{_name(fn)} was called on {number_of(count, 'argument')}; there is no number {wrt}")
    return wrt % count


def _refuse_types(fn: Callable[..., Any], given: Any, name: str) -> None:
    """Raise `GraphcError` for the types of inputs, which are what `graphc.trace` takes."""
    if isinstance(given, frontends.Spec):
        call = f"graphc.{name}({_name(fn)})"
        raise GraphcError(f"{call} is a function; the types of its inputs are for graphc.trace({call}, {given}, …)")


def _name(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", "")
    return name if name.isidentifier() else "function"


# --- modules ----------------------------------------------------------------------------------------------------


@collector_paused()
def _module(source: Any, loss: Callable[..., Any] | None, wrt: Wrt, gradients: str, name: str) -> Module:
    module = module_of(source).clone()
    function = module.main
    _reduce(module, loss)
    names = _weights(source, module) if wrt is None else _names(module, wrt)
    found = differentiate(module, wrt=names, name=module.free_name("value_and_gradient"), gradients=gradients)
    found.name = name
    for other in [each for each in module.functions.values() if each.public]:
        del module.functions[other.name if other is not found else "value_and_gradient"]
    module.functions = {name: found, **{k: f for k, f in module.functions.items() if f.public is False}}
    if name == "grad":
        terminator = found.block.terminator
        Rewriter().set_operands(terminator, terminator.operands[1:])
        found.results = found.results[1:]
    elif found.results[0].name is None:
        found.results[0] = Result(function.results[0].name or "value")
    return module


def _reduce(module: Module, loss: Callable[..., Any] | None) -> None:
    """Let the main function return only what is to be differentiated."""
    function = module.main
    terminator = function.block.terminator
    kept = [i for i, result in enumerate(function.results) if result.updates is None]
    outputs = [function.outputs[i] for i in kept]
    value: Value | None = outputs[0] if outputs else None
    if loss is not None:
        with Builder(function.block, terminator, trace_lines=True) as builder:
            found = [builder.value(leaf) for leaf in flatten(loss(*outputs))]
            value = found[0] if len(found) == 1 else None
        result = Result("loss")
    elif len(outputs) != 1:
        raise ShapeError(
            f"a gradient is of one real scalar; @{function.name} returns {number_of(len(outputs), 'result')}"
        )
    else:
        result = function.results[kept[0]]
    if value is None or value.shape != () or not value.dtype.is_float:
        what = f"the loss is {'no single value' if value is None else value.type}"
        if loss is None:
            what = f"@{function.name} returns {outputs[0].type}"
        raise ShapeError(f"a gradient is of a real scalar; {what}")
    Rewriter().set_operands(terminator, [value])
    function.results = [Result(result.name)]


def _weights(source: Any, module: Module) -> list[str]:
    if isinstance(source, frontends.Model):
        names = layer_paths(source).names
        return [names[id(variable)] for variable in source.trainable_weights]
    parameters = module.main.parameters
    trained = [p.weight for p in parameters if p.weight is not None and p.role == "param"]
    found = [name for name in trained if module.weights.info(name).trainable]
    return found or [p.name for p in parameters[:1]]


def _names(module: Module, wrt: Wrt) -> list[str]:
    chosen = list(wrt) if isinstance(wrt, Sequence) and not isinstance(wrt, str) else [wrt]
    inputs = module.main.inputs
    found: list[str] = []
    for each in chosen:
        if isinstance(each, int) and not -len(inputs) <= each < len(inputs):
            raise GraphcError(f"@{module.main.name} has {number_of(len(inputs), 'input')}; there is no number {each}")
        found.append(inputs[each].name if isinstance(each, int) else str(each))
    return found


__all__ = ["grad", "value_and_grad"]
