"""The adapters of a model: made by patterns, made active one at a time, taken away again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.frontends.adapters import Adapter, attach, check_rank
from graphc.frontends.initializers import RandomInitializer, RandomNormal, VarianceScaling
from graphc.frontends.layer_paths import LayerPaths, layer_paths
from graphc.frontends.lowering import lower_forward
from graphc.frontends.variable import Variable
from graphc.ir.adapting import Form
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest
from graphc.passes.lora.insert import candidates as module_candidates
from graphc.passes.lora.insert import dora_magnitude, kept_beside
from graphc.passes.lora.settings import Settings, choose

Array = np.ndarray[Any, Any]
BASE = "base"
"""The name of the model without any adapter, where adapters are chosen by name."""


@dataclass(eq=False)
class ModelAdapter:
    """One adapter of a model: the settings, and what it has of each weight, by the weight's name in the model.

    `trained` are the weights of `modules_to_save` and biases: those of the model itself while the adapter is active,
    and otherwise the arrays in `values`.
    """

    name: str
    settings: Settings
    parts: dict[str, tuple[Variable, Adapter]] = field(default_factory=dict[str, tuple[Variable, Adapter]])
    trained: dict[str, Variable] = field(default_factory=dict[str, Variable])
    values: dict[str, Array] = field(default_factory=dict[str, Array])
    base: str | None = None
    """The digest of the weights it was made for."""

    @property
    def variables(self) -> list[Variable]:
        """The factors and magnitudes."""
        return [variable for _, adapter in self.parts.values() for variable in adapter.variables]

    def value_of(self, name: str) -> Array:
        """The array of a weight in `trained`, as this adapter has it."""
        return self.values[name] if name in self.values else self.trained[name].numpy()

    def __repr__(self) -> str:
        numbers = sum(int(np.prod(v.shape)) for v in self.variables)
        return f"<adapter {self.name!r} of {len(self.parts)} weights: {numbers:,} numbers>"


@dataclass(eq=False)
class AdapterState:
    """What a model knows of its adapters."""

    adapters: dict[str, ModelAdapter] = field(default_factory=dict[str, ModelAdapter])
    active: str | None = None
    originals: dict[str, Array] = field(default_factory=dict[str, Array])
    """What the weights in `trained` of some adapter were before, by name."""
    merged: Any = None
    """What was merged, see `merging.py`."""


def state_of(model: Any) -> AdapterState:
    """The state of a model's adapters, made when first asked for."""
    if model.__dict__.get("_adapter_state") is None:
        object.__setattr__(model, "_adapter_state", AdapterState())
    return model.__dict__["_adapter_state"]


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """The model as it is without adapters, and without rounding of its kernels, inside."""
    active = [(variable, variable.adapter) for variable in model.weights if variable.adapter is not None]
    rounded = [(variable, variable.rounding) for variable in model.weights if variable.rounding is not None]
    for variable, _ in active:
        variable.adapter = None
    for variable, _ in rounded:
        variable.rounding = None
    try:
        yield
    finally:
        for variable, adapter in active:
            variable.adapter = adapter
        for variable, rounding in rounded:
            variable.rounding = rounding


def candidates(model: Any) -> tuple[dict[str, Form], dict[str, Variable]]:
    """The weights of a model that an adapter can be for, with how it lies, and all weights of the model by name.

    The factors of adapters are not among them.
    """
    require_built(model)
    with without_adapters(model):
        lowering = lower_forward(model)
    factors = {id(v) for weight in model.weights for a in weight.adapters.values() for v in a.variables}
    variables = {name: v for name, v in lowering.variables.items() if id(v) not in factors}
    forms = {name: form for name, form in module_candidates(lowering.module).items() if name in variables}
    return forms, variables


def require_built(model: Any) -> None:
    """Raise `GraphcError` for a model that has no weights yet."""
    if not model.is_functional and model._input_types is None:
        raise GraphcError(f"model {model.name!r} has no weights yet: call it on an input, or `build` it, first")


def add_adapter(model: Any, name: str, settings: Settings, a_initializer: Any, b_initializer: Any) -> ModelAdapter:
    """See `Model.add_adapter`."""
    forms, variables = check_new(model, name)
    chosen = choose(settings, forms, [n for n in variables if n not in forms])
    for weight in chosen:
        check_rank(settings.rank_of(weight), forms[weight], weight)
    plans = {
        weight: Plan(forms[weight], settings.rank_of(weight), settings.scaling(weight, settings.rank_of(weight)))
        for weight in chosen
    }
    kept = kept_beside(settings, chosen, list(variables))
    stored = [weight for weight in kept if variables[weight].storage is not None]
    if stored:
        raise GraphcError(
            f"modules_to_save has {stored[0]!r}, which is quantized and not trained: leave its layer out, "
            "or out of what is quantized"
        )
    return begin(model, attached(model, name, settings, plans, variables, kept, (a_initializer, b_initializer)))


@dataclass(frozen=True)
class Plan:
    """How one weight is to be adapted."""

    form: Form
    rank: int
    scaling: float


def check_new(model: Any, name: Any) -> tuple[dict[str, Form], dict[str, Variable]]:
    """The `candidates` of a model for a new adapter. Raises `GraphcError` where it cannot have one of this name."""
    state = state_of(model)
    require_unmerged(model)
    if not isinstance(name, str) or not name.isidentifier():
        raise GraphcError(f"an adapter's name is a word of letters, digits and '_', not {name!r}")
    if name == BASE:
        raise GraphcError(f"an adapter is not called {BASE!r}: that is the model without any")
    if name in state.adapters:
        raise GraphcError(
            f"model {model.name!r} has an adapter {name!r} already; it has {', '.join(state.adapters)}: give the new "
            "one another name, or delete_adapter the old one"
        )
    forms, variables = candidates(model)
    enabled = [n for n, v in variables.items() if any(v.adapters.get(a) for a in v.adapters if a not in state.adapters)]
    if enabled:
        raise GraphcError(f"{enabled[0]!r} has an adapter of its layer's enable_lora; a model's own do not go with it")
    return forms, variables


def begin(model: Any, found: ModelAdapter) -> ModelAdapter:
    """Let an adapter that was just `attached` begin as the model is, and be active."""
    begin_with(found)
    activate(model, found.name)
    return found


def begin_with(found: ModelAdapter) -> None:
    """Let an adapter that is not active begin with the weights that the model has: as its base, as what it trains
    beside its factors, and for the magnitudes."""
    found.base = base_digest({weight: variable for weight, (variable, _) in found.parts.items()})
    found.values = {weight: variable.numpy().copy() for weight, variable in found.trained.items()}
    for variable, adapter in found.parts.values():
        if adapter.magnitude is not None:
            factors = adapter.a.numpy(), adapter.b.numpy()
            adapter.magnitude.assign(dora_magnitude(variable.numpy(), *factors, adapter.scaling, adapter.form))


def attached(
    model: Any,
    name: str,
    settings: Settings,
    plans: Mapping[str, Plan],
    variables: Mapping[str, Variable],
    kept: Iterable[str],
    initializers: tuple[Any, Any] = (None, None),
) -> ModelAdapter:
    """An adapter of the weights in `plans` that is not active, its magnitudes ones, and nothing in `values`.

    The weights in `kept` are trained too, all others frozen. `initializers` are those of A and B, by default PEFT's.
    """
    active = state_of(model).active
    deactivate(model)
    found = ModelAdapter(name, settings)
    try:
        _attach(model, found, plans, variables, initializers)
    except BaseException:
        _take_off(model, found)
        activate(model, active)
        raise
    found.trained = {weight: variables[weight] for weight in kept}
    state_of(model).adapters[name] = found
    return found


def _attach(
    model: Any,
    found: ModelAdapter,
    plans: Mapping[str, Plan],
    variables: Mapping[str, Variable],
    initializers: tuple[Any, Any],
) -> None:
    owners = _owners(layer_paths(model))
    for variable in variables.values():
        variable.freeze()
    for weight, plan in plans.items():
        variable, defaults = variables[weight], default_initializers(plan.form)
        a, b = (default if each is None else _anew(each) for default, each in zip(defaults, initializers, strict=True))
        adapter = attach(
            owners[id(variable)],
            variable,
            plan.form,
            plan.rank,
            plan.scaling,
            name=found.name,
            dropout=found.settings.dropout,
            a_initializer=a,
            b_initializer=b,
            magnitude=np.ones(plan.form.outputs) if found.settings.dora else None,
        )
        found.parts[weight] = variable, adapter
        variable.adapter = None
        for factor in adapter.variables:
            factor.freeze()


def default_initializers(form: Form) -> tuple[Any, Any]:
    """How PEFT begins A and B: A uniform within 1 / √inputs and B zeros; of embeddings A zeros and B normal."""
    if form.kind == "embedding":
        return "zeros", RandomNormal(stddev=1.0)
    return VarianceScaling(1 / 3, "fan_in", "uniform"), "zeros"


def _anew(initializer: Any) -> Any:
    """An initializer that was given no seed, with one of its own: a second time it would draw the same numbers."""
    is_random = isinstance(initializer, RandomInitializer)
    return initializer.from_config(initializer.get_config()) if is_random else initializer


def _owners(paths: LayerPaths) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for place in paths.places:
        found.setdefault(id(place.variable), place.layer)
    return found


def base_digest(variables: Mapping[str, Variable]) -> str:
    """SHA-256 of the names, shapes and values of adapted weights, by which an adapter knows its base."""
    digest = hashlib.sha256()
    for name in sorted(variables):
        array = np.ascontiguousarray(variables[name].numpy())
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def require_unmerged(model: Any) -> None:
    """Raise `GraphcError` for a model into whose weights an adapter is merged."""
    merged = state_of(model).merged
    if merged is not None:
        raise GraphcError(
            f"the adapter {merged.name!r} is merged into model {model.name!r}: call unmerge_adapter() first"
        )


def find_adapter(model: Any, name: str | None) -> ModelAdapter:
    """The adapter of this name, the active one if None. Raises `GraphcError` if there is none."""
    state = state_of(model)
    if name is None and state.active is None:
        require_unmerged(model)
        raise GraphcError(f"model {model.name!r} has no active adapter; it has {', '.join(state.adapters) or 'none'}")
    wanted = state.active if name is None else name
    if not isinstance(wanted, str) or wanted not in state.adapters:
        raise GraphcError(f"model {model.name!r} has no adapter {wanted!r}{nearest(str(wanted), state.adapters)}")
    return state.adapters[wanted]


def activate(model: Any, name: str | None) -> None:
    """Let the model compute with, and train, this adapter, or none."""
    state = state_of(model)
    require_unmerged(model)
    if name is not None:
        find_adapter(model, name)
    deactivate(model)
    if name is None:
        return
    chosen = state.adapters[name]
    for weight, variable in chosen.trained.items():
        state.originals[weight] = variable.numpy().copy()
        variable.assign(chosen.values.pop(weight))
    mark_active(state, chosen)


def mark_active(state: AdapterState, chosen: ModelAdapter) -> None:
    """Let an adapter be the active one, whose values the model has already."""
    for variable, adapter in chosen.parts.values():
        variable.adapter = adapter
        for factor in adapter.variables:
            factor.unfreeze()
    for variable in chosen.trained.values():
        variable.unfreeze()
    state.active = chosen.name


def deactivate(model: Any) -> None:
    """Let the model be its base, which stays frozen."""
    state = state_of(model)
    if state.active is None:
        return
    chosen = state.adapters[state.active]
    for variable, adapter in chosen.parts.values():
        variable.adapter = None
        for factor in adapter.variables:
            factor.freeze()
    for weight, variable in chosen.trained.items():
        chosen.values[weight] = variable.numpy().copy()
        variable.assign(state.originals.pop(weight))
        variable.freeze()
    state.active = None


def delete_adapter(model: Any, name: str) -> None:
    """Take an adapter away; without any the model is trained as a whole again. What is merged stays so."""
    found = find_adapter(model, name)
    state = state_of(model)
    if state.merged is not None and state.merged.name == name:
        others = [each for each in state.adapters if each != name]
        if others:
            raise GraphcError(
                f"the adapter {name!r} is merged into model {model.name!r}, and {', '.join(others)} are for the "
                "weights without it: delete these first, or call unmerge_adapter()"
            )
        state.merged = None
    if state.active == name:
        deactivate(model)
    del state.adapters[name]
    _take_off(model, found)


def _take_off(model: Any, found: ModelAdapter) -> None:
    """Take the factors of an adapter that is not active away, and let a model that has no other be trained again."""
    owners = _owners(layer_paths(model))
    for variable, adapter in found.parts.values():
        del variable.adapters[found.name]
        for factor in adapter.variables:
            owners[id(factor)]._tracker.remove(factor)
    if not state_of(model).adapters:
        for variable in model.weights:
            variable.unfreeze()


__all__ = [
    "BASE",
    "AdapterState",
    "ModelAdapter",
    "activate",
    "add_adapter",
    "attached",
    "base_digest",
    "begin",
    "begin_with",
    "candidates",
    "deactivate",
    "delete_adapter",
    "find_adapter",
    "mark_active",
    "state_of",
    "without_adapters",
]
