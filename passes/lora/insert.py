"""Adapters beside the weights of a module from anywhere: new trainable weights, the others frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir import ops
from graphc.ir.adapting import AdapterValues, Form, adapt, form_of
from graphc.ir.builder import Builder
from graphc.ir.dtypes import u32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Function, Op, Value
from graphc.ir.module import Array, Module, Weight
from graphc.ir.recipes import Recipe
from graphc.ir.types import TensorType
from graphc.passes.lora.settings import Settings, choose, layer_of, matches, matches_nothing
from graphc.passes.partition.remat import has_backward
from graphc.passes.weight_parameters import WeightParameters

MARK = 0x6C6F7261
"""What the key of a function is folded with for the dropout of adapters, so that it is not that of a layer."""


@dataclass(frozen=True)
class Factors:
    """The weights of one adapter in a module, and how they lie beside the kernel."""

    kernel: str
    form: Form
    a: str
    b: str
    scaling: float
    magnitude: str | None = None


def candidates(module: Module) -> dict[str, Form]:
    """The weights that an adapter can be for, with how it lies; tied ones under their first name."""
    found: dict[str, Form] = {}
    for function in module.functions.values():
        for name, value in kernels(module, function):
            form = form_of(value)
            if form is not None and (name not in found or found[name].transposed):
                found[name] = form
    order = [_kernel_name(weight) for weight in module.weights.entries()]
    return {name: found[name] for name in dict.fromkeys(order) if name in found}


def kernels(module: Module, function: Function) -> list[tuple[str, Value]]:
    """The weights of floats that a function reads: its parameters, and what is dequantized of others, which goes by the
    name of the weight that was quantized."""
    table = module.weights
    found: list[tuple[str, Value]] = []
    for parameter in function.parameters:
        if parameter.weight is None:
            continue
        weight = table.source(parameter.weight)
        step = None if weight.recipe is None else weight.recipe.quantized
        if step is not None and step.part == 0:
            readers = [op for op in parameter.value.uses or () if op.name == "dequantize"]
            found += [(_kernel_name(weight), op.result) for op in readers]
        elif step is None and parameter.type.dtype.is_float:
            found.append((weight.name, parameter.value))
    return found


def _kernel_name(weight: Weight) -> str:
    """What a weight is called as a kernel: of arrays that another was quantized to, by that one's name."""
    recipe = weight.recipe
    return weight.name if recipe is None or recipe.quantized is None else recipe.sources[0]


def factor_names(kernel: str, adapter: str = "default") -> tuple[str, str, str]:
    """The names of A, B and the magnitudes beside a kernel: `dense/lora_kernel_a` beside `dense/kernel`."""
    above, slash, leaf = kernel.rpartition("/")
    end = "" if adapter == "default" else f"_{adapter}"
    a, b, magnitude = (f"{above}{slash}lora_{leaf}_{what}{end}" for what in ("a", "b", "magnitude"))
    return a, b, magnitude


def insert_adapters(module: Module, settings: Settings, seed: int = 0) -> list[Factors]:
    """Give the weights that the settings choose adapters, and freeze all others, in place.

    A is drawn uniformly within 1 / √inputs (PEFT's default) and B is 0; of embeddings A is 0 and B normal. Random
    numbers follow from `seed` and the weight's name.
    Raises `GraphcError` for patterns that match nothing, ranks larger than a layer, and a module that has adapters.
    """
    if not module.functions:
        return []
    trained_before = [name for name, function in module.functions.items() if has_backward(function)]
    if trained_before:
        raise GraphcError(
            f"@{trained_before[0]} has a backward part already; adapters come before gradients: use the model's "
            "add_adapter, or the pass on a module that is not trained"
        )
    having = [op for op in module.walk() if is_adapted(op)]
    if having:
        raise GraphcError(f"the module has adapters already, the first at {having[0].location}")
    forms = candidates(module)
    others = [w.name for w in module.weights.entries() if _kernel_name(w) not in forms and w.alias is None]
    chosen = choose(settings, forms, others)
    places = _Places(module)
    trained = set(kept_beside(settings, chosen, [w.name for w in module.weights.entries()]))
    for weight in module.weights.entries():
        weight.trainable = weight.trainable and weight.name in trained
    return [_insert(places, name, forms[name], settings, seed) for name in chosen]


class _Places:
    """Where the kernels of a module are read and stored, looked up once."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.parameters = WeightParameters(module)
        self.readers: dict[Function, dict[str, list[Value]]] = {}
        for function in module.functions.values():
            readers = self.readers[function] = {}
            for name, value in kernels(module, function):
                readers.setdefault(name, []).append(value)
        self.parts: dict[str, list[Weight]] = {}
        for weight in module.weights.entries():
            if weight.alias is None:
                self.parts.setdefault(_kernel_name(weight), []).append(weight)

    def array(self, kernel: str) -> Array:
        """The array of a kernel, dequantized where it is stored so."""
        weights = self.module.weights
        if kernel in weights:
            return weights[kernel]
        parts = self.parts[kernel]
        recipes = [weight.recipe for weight in parts if weight.recipe is not None]
        return Recipe.invert_together(recipes, [weights[weight.name] for weight in parts])[kernel]


def is_adapted(op: Op) -> bool:
    """Whether an op has an adapter."""
    return op.name.startswith("lora_")


def kept_beside(settings: Settings, chosen: list[str], names: list[str]) -> list[str]:
    """The weights that are trained beside adapters."""
    kept: list[str] = []
    for pattern in settings.modules_to_save:
        found = [name for name in names if matches(pattern, name)]
        if not found:
            raise matches_nothing(pattern, "modules_to_save", names)
        kept += found
    if settings.bias != "none":
        layers = {layer_of(name) for name in chosen}
        biases = [name for name in names if name.rpartition("/")[2] in ("bias", "beta")]
        kept += [name for name in biases if settings.bias == "all" or layer_of(name) in layers]
    return kept


def _insert(places: _Places, kernel: str, form: Form, settings: Settings, seed: int) -> Factors:
    rank = settings.rank_of(kernel)
    most = min(form.inputs, form.outputs)
    if not 1 <= rank <= most:
        raise GraphcError(
            f"the rank {rank} does not fit {layer_of(kernel)!r} ({form.inputs} inputs, {form.outputs} outputs): it is "
            f"from 1 to {most}"
        )
    table = places.module.weights
    wide = kernel in table and table.info(kernel).type.dtype.bits == 64
    kind = np.float64 if wide else np.float32
    rng = np.random.Generator(np.random.Philox(_seed(seed, kernel)))
    shapes = form.factor_shapes(rank)
    if form.kind == "embedding":
        a, b = np.zeros(shapes[0], kind), rng.standard_normal(shapes[1]).astype(kind)
    else:
        limit = 1 / np.sqrt(form.inputs)
        a, b = rng.uniform(-limit, limit, shapes[0]).astype(kind), np.zeros(shapes[1], kind)
    names = factor_names(kernel)
    scaling = settings.scaling(kernel, rank)
    table.add(names[0], a)
    table.add(names[1], b)
    magnitude = None
    if settings.dora:
        magnitude = names[2]
        table.add(magnitude, dora_magnitude(places.array(kernel), a, b, scaling, form))
    found = Factors(kernel, form, names[0], names[1], scaling, magnitude)
    for function, readers in places.readers.items():
        _add_factors(places.parameters, function, readers.get(kernel, ()), found, settings.dropout)
    return found


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")


def dora_magnitude(kernel: Array, a: Array, b: Array, scaling: float, form: Form) -> Array:
    """The magnitudes with which DoRA begins: the norms of the kernel with the adapter."""
    matrix = np.asarray(kernel).astype(a.dtype)
    shape = (form.shape[1], form.shape[0]) if form.transposed else form.shape
    norm = ops.dora_norm(matrix.reshape(shape), a, b, scaling=scaling, transposed=form.transposed)
    return np.asarray(norm).astype(a.dtype)


def _add_factors(
    parameters: WeightParameters, function: Function, readers: Sequence[Value], factors: Factors, dropout: float
) -> None:
    """Let a function that reads the kernel, under whatever name, read it with the adapter."""
    if not readers:
        return
    values = [
        None if name is None else parameters.of(function, name) for name in (factors.a, factors.b, factors.magnitude)
    ]
    a, b, magnitude = values
    assert a is not None and b is not None
    draws = _Keys(function) if dropout else None
    key = None if draws is None else draws.next
    for value in readers:
        adapt(value, AdapterValues(factors.form, a, b, factors.scaling, magnitude, dropout, key), factors.kernel)


class _Keys:
    """Keys for dropout: of the function's own key, which is made if there is none, folded with a mark and a count."""

    def __init__(self, function: Function) -> None:
        found = next((p.value for p in function.parameters if p.role == "key"), None)
        if found is None:
            taken = {p.name for p in function.parameters}
            name = "key" if "key" not in taken else "adapter_key"
            found = function.add_parameter(TensorType.of(u32, (2,)), name, "key")
        self.key = found
        self.count = sum(op.name == "dropout" for op in function.walk())

    def next(self, builder: Builder) -> Value:
        """A key of its own, recorded at the builder."""
        self.count += 1
        with builder:
            return ops.random_fold_in(ops.random_fold_in(self.key, MARK), self.count)


__all__ = ["Factors", "candidates", "dora_magnitude", "factor_names", "insert_adapters", "kept_beside"]
