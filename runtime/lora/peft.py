"""PEFT's adapter folders: `adapter_config.json` and `adapter_model.safetensors`, read and written.

Keys are `base_model.model.<module>.lora_A.weight` and `lora_B.weight`, of embeddings `lora_embedding_A` and `…_B`, and
`lora_magnitude_vector` for DoRA. Weights of `modules_to_save` and biases have the module's own. See `layouts.py` for
what lies how. graphc's folders have the digest of the base weights besides, in the file's metadata.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from graphc.frontends.tensor_files import tensors_of
from graphc.frontends.variable import Variable
from graphc.frontends.warning import warn
from graphc.frontends.whole_files import ready_folder, write_whole
from graphc.ir.adapting import Form
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import FormatError, GraphcError, ShapeError, UnsupportedError
from graphc.ir.suggestions import nearest
from graphc.passes.lora.settings import Settings, layer_of, scaling
from graphc.runtime.lora.adapters import (
    ModelAdapter,
    Plan,
    attached,
    base_digest,
    begin,
    candidates,
    check_new,
    find_adapter,
    state_of,
)
from graphc.runtime.lora.layouts import (
    LEAVES,
    Names,
    factors_from_torch,
    factors_to_torch,
    flat,
    from_torch,
    magnitude_to_torch,
    module_name,
    named_module,
    tensor_name,
    to_torch,
)

Array = np.ndarray[Any, Any]
CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
DIGEST = "graphc_base_sha256"
COUNTED = ".num_batches_tracked"
"""The end of what BatchNorm counts in PyTorch, which nothing depends on where its momentum is a number."""

IGNORED = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
    }
    | {"inference_mode", "layers_pattern", "layers_to_transform", "megatron_config", "megatron_core", "peft_type"}
    | {"peft_version", "qalora_group_size", "revision", "target_modules", "task_type", "runtime_config"}
)
"""Entries of a config that say nothing about what a trained adapter computes: its tensors say which modules it has."""

READ = frozenset(
    {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save"}
    | {"bias", "init_lora_weights"}
)

PLAIN_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal", "default")
"""Values of `init_lora_weights` that leave the base as it is."""

FACTORS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
}
"""The ends of keys, and what stands under them."""


# --- writing ------------------------------------------------------------------------------------------------------


def save_adapter(
    model: Any, folder: Path, name: str | None = None, names: Names = None, base_name: str | None = None
) -> None:
    """See `Model.save_adapter`."""
    found = find_adapter(model, name)
    tensors: dict[str, Array] = {}
    for weight, (_, adapter) in found.parts.items():
        module = f"{PREFIX}{module_name(names, layer_of(weight))}"
        a, b = factors_to_torch(adapter.a.numpy(), adapter.b.numpy(), adapter.form)
        ends = ("lora_embedding_A", "lora_embedding_B")
        ends = ends if adapter.form.kind == "embedding" else ("lora_A.weight", "lora_B.weight")
        parts = {f"{module}.{ends[0]}": a, f"{module}.{ends[1]}": b}
        if adapter.magnitude is not None:
            parts[f"{module}.lora_magnitude_vector"] = magnitude_to_torch(adapter.magnitude.numpy(), adapter.form)
        for key, array in parts.items():
            if key in tensors:
                raise GraphcError(
                    f"two weights would be written as {key!r}; PEFT adapts one weight of a module: give names that "
                    "tell them apart"
                )
            tensors[key] = array
    forms = _forms(model)
    _say_of_differences(forms, found.parts)
    adapted = {layer_of(weight) for weight in found.parts}
    for weight in found.trained:
        array = to_torch(found.value_of(weight), forms.get(weight))
        key = _kept_key(names, weight, adapted)
        tensors[key] = flat(weight, array)
        if key.endswith(".running_mean"):
            tensors[key.replace(".running_mean", COUNTED)] = np.array(0, np.int64)  # PEFT misses it otherwise
    metadata = {"format": "pt", **({} if found.base is None else {DIGEST: found.base})}
    ready_folder(folder)
    data = save({key: np.ascontiguousarray(array) for key, array in tensors.items()}, metadata)
    write_whole(folder / WEIGHTS, data, overwrite=True)
    config = json.dumps(_config(found, names, base_name), indent=2, sort_keys=True)
    write_whole(folder / CONFIG, config.encode(), overwrite=True)


def _forms(model: Any) -> dict[str, Form]:
    return candidates(model)[0]


def _say_of_differences(forms: Mapping[str, Form], weights: Iterable[str]) -> None:
    """Warn of adapters that compute something else in PEFT, or that it does not take."""
    for weight in weights:
        if forms[weight].groups > 1:
            warn(
                f"{weight!r} is the kernel of a convolution of {forms[weight].groups} groups, beside which PEFT has "
                "factors of other shapes: it does not read this adapter, graphc does"
            )
        if forms[weight].tied:
            warn(
                f"the table {weight!r} also gives the model's scores: its adapter counts there too, but in PEFT for "
                "lookups only, so that outputs differ"
            )


def _kept_key(names: Names, weight: str, adapted: Iterable[str]) -> str:
    """The key of a weight that is trained as it is: a bias beside an adapter is in the module that PEFT wraps."""
    layer = layer_of(weight)
    if layer in adapted and LEAVES.get(weight.rpartition("/")[2], weight.rpartition("/")[2]) == "bias":
        return f"{PREFIX}{module_name(names, layer)}.base_layer.bias"
    return f"{PREFIX}{tensor_name(names, weight)}"


def _config(found: ModelAdapter, names: Names, base_name: str | None) -> dict[str, Any]:
    settings = found.settings
    ranks = {weight: adapter.rank for weight, (_, adapter) in found.parts.items()}
    alphas = {
        weight: adapter.scaling * (math.sqrt(adapter.rank) if settings.rslora else adapter.rank)
        for weight, (_, adapter) in found.parts.items()
    }
    alphas = {weight: round(alpha) if math.isclose(alpha, round(alpha)) else alpha for weight, alpha in alphas.items()}
    r, alpha = (Counter(each.values()).most_common(1)[0][0] for each in (ranks, alphas))
    module_of = {weight: module_name(names, layer_of(weight)) for weight in ranks}
    saved = [weight for weight in found.trained if weight.rpartition("/")[2] not in ("bias", "beta")]
    modules = sorted({module_name(names, layer_of(weight)) for weight in saved})
    return {
        "alpha_pattern": {_exact(module_of[w]): value for w, value in alphas.items() if value != alpha},
        "base_model_name_or_path": base_name,
        "bias": settings.bias,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": settings.dropout,
        "modules_to_save": modules or None,
        "peft_type": "LORA",
        "r": r,
        "rank_pattern": {_exact(module_of[w]): value for w, value in ranks.items() if value != r},
        "target_modules": sorted(set(module_of.values())),
        "task_type": None,
        "use_dora": settings.dora,
        "use_rslora": settings.rslora,
    }


def _exact(module: str) -> str:
    """A pattern of PEFT for one module: it is matched as a regular expression from the start."""
    return f"^{re.escape(module)}"


# --- reading ------------------------------------------------------------------------------------------------------


@dataclass
class AdapterFolder:
    """What a folder has: the factors of modules, by what they are, other tensors, and the configuration."""

    path: Path
    config: dict[str, Any]
    factors: dict[str, dict[str, Array]] = field(default_factory=dict[str, dict[str, Array]])
    others: dict[str, Array] = field(default_factory=dict[str, Array])
    base: str | None = None

    def rank_and_scaling(self, module: str) -> tuple[int, float]:
        """The rank of a module's adapter and the factor of A·B. Raises `FormatError` where tensors say otherwise."""
        rank = int(self.factors[module]["a"].shape[0])
        said = _by_expression(self.config.get("rank_pattern") or {}, module, self.config.get("r"))
        if said != rank:
            raise FormatError(f"{self.path / CONFIG}: the rank of {module!r} is {said}, its tensors have {rank}")
        alpha = _by_expression(self.config.get("alpha_pattern") or {}, module, self.config.get("lora_alpha", rank))
        return rank, scaling(float(alpha), rank, bool(self.config.get("use_rslora")))


def _by_expression(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the module's name or its end, as a regular expression."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def read_folder(folder: Path) -> AdapterFolder:
    """The parts of an adapter folder. Raises `FormatError` for what is missing, broken, or no plain LoRA."""
    path = folder / WEIGHTS
    if not path.is_file():
        if (folder / PICKLED).exists():
            raise FormatError(
                f"{folder / PICKLED} is a pickle file, which runs code when it is read; save the adapter again as "
                f"{WEIGHTS} (PEFT does so by default)"
            )
        raise FormatError(f"{folder} has no {WEIGHTS}: it is no adapter folder")
    try:
        config: Any = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise FormatError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise FormatError(f"{folder / CONFIG} is no object")
    _check_config(folder / CONFIG, config)
    data = path.read_bytes()
    found = AdapterFolder(folder, config, base=_metadata(data).get(DIGEST))
    for key, array in sorted(tensors_of(data, str(path)).items()):
        if key.endswith(COUNTED):
            continue
        if not dtype_of(array.dtype).is_float or not np.isfinite(array.astype(np.float64)).all():
            raise FormatError(f"{path}: {key!r} has {array.dtype} numbers that are no floats, or not finite")
        _sort_in(found, key.removeprefix(PREFIX), array)
    for module, parts in found.factors.items():
        lacking = {"a", "b"} - parts.keys()
        if lacking or (config.get("use_dora") and "magnitude" not in parts):
            raise FormatError(f"{path} lacks a tensor of {module!r}; it has {', '.join(sorted(parts))}")
        if parts["a"].ndim < 2 or parts["b"].ndim < 2:
            raise FormatError(f"{path}: the factors of {module!r} are no matrices")
    if not found.factors:
        raise FormatError(f"{path} has no factors of adapters, keys such as {PREFIX}q_proj.lora_A.weight")
    return found


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except ValueError:
        return {}  # `tensors_of` says what is wrong with the file
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _sort_in(found: AdapterFolder, key: str, array: Array) -> None:
    for end, what in FACTORS.items():
        module = key.removesuffix(f".{end}")
        if module != key or key.removesuffix(f".{end}.weight") != key:
            module = module if module != key else key.removesuffix(f".{end}.weight")
            found.factors.setdefault(module, {})[what] = array
            return
    if "lora_" in key:
        raise FormatError(f"{found.path / WEIGHTS}: {key!r} is no tensor of LoRA or DoRA that graphc knows")
    found.others[key] = array


def _check_config(path: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise FormatError(f"{path}: the adapter is of the type {config.get('peft_type')!r}; graphc reads LORA")
    begin = config.get("init_lora_weights", True)
    if begin not in PLAIN_BEGINNINGS:
        raise FormatError(
            f"{path}: init_lora_weights is {begin!r}, which changes the base weights; save it in PEFT with "
            "path_initial_model_for_weight_conversion, as an adapter of the plain base"
        )
    for key, value in config.items():
        if key not in IGNORED and key not in READ and value not in (None, False, "", [], {}):
            raise FormatError(f"{path}: {key} = {value!r} is not supported")
    if not isinstance(config.get("r"), int) or config["r"] < 1:
        raise FormatError(f"{path}: r is a positive integer, not {config.get('r')!r}")
    for key, default in (("lora_alpha", config["r"]), ("lora_dropout", 0.0)):
        if not _is_number(config.setdefault(key, default)):
            raise FormatError(f"{path}: {key} is a number, not {config[key]!r}")
    for key in ("use_rslora", "use_dora"):
        if config.get(key) not in (None, True, False):
            raise FormatError(f"{path}: {key} is true or false, not {config[key]!r}")
    for key in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict) or not all(map(_is_number, patterns.values())):
            raise FormatError(f"{path}: {key} has a number for each pattern, not {patterns!r}")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise FormatError(f"{path}: {pattern!r} of {key} is no regular expression: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def load_adapter(
    model: Any, folder: Path, name: str = "default", names: Names = None, check_base: bool = True
) -> ModelAdapter:
    """See `Model.load_adapter`."""
    source = read_folder(folder)
    forms, variables = check_new(model, name)
    by_module: dict[str, str] = {}
    for weight in forms:
        module = named_module(names, layer_of(weight))
        if module is not None:
            by_module.setdefault(module, weight)
    plans, arrays = _factors(source, forms, by_module, variables)
    if source.base is None:
        _say_of_differences(forms, plans)
    digest = base_digest({weight: variables[weight] for weight in plans})
    if check_base and source.base is not None and source.base != digest:
        raise GraphcError(
            f"{str(folder)!r} is an adapter of another base: of weights with the SHA-256 {source.base[:16]}…, those of "
            f"model {model.name!r} have {digest[:16]}…; check_base=False takes it nevertheless"
        )
    kept = _kept(source, names, variables, forms)
    config = source.config
    settings = Settings(
        r=config["r"],
        alpha=float(config.get("lora_alpha", config["r"])),
        targets=tuple(layer_of(weight) for weight in plans),
        dropout=float(config.get("lora_dropout") or 0.0),
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        modules_to_save=tuple(dict.fromkeys(layer_of(weight) for weight in kept)),
        bias=config.get("bias", "none"),
    )
    found = begin(model, attached(model, name, settings, plans, variables, kept))
    for weight, parts in arrays.items():
        adapter = found.parts[weight][1]
        adapter.a.assign(parts["a"])
        adapter.b.assign(parts["b"])
        if adapter.magnitude is not None:
            adapter.magnitude.assign(parts["magnitude"])
    for weight, array in kept.items():
        variables[weight].assign(array)
    return found


def _factors(
    source: AdapterFolder, forms: Mapping[str, Form], by_module: Mapping[str, str], variables: Mapping[str, Variable]
) -> tuple[dict[str, Plan], dict[str, dict[str, Array]]]:
    plans: dict[str, Plan] = {}
    arrays: dict[str, dict[str, Array]] = {}
    for module, parts in source.factors.items():
        if module not in by_module:
            raise GraphcError(
                f"the adapter in {str(source.path)!r} is for the module {module!r}, which the model does not have"
                f"{nearest(module, by_module)} (pass `names` where the model calls its layers otherwise)"
            )
        weight = by_module[module]
        form = forms[weight]
        rank, factor = source.rank_and_scaling(module)
        try:
            a, b = factors_from_torch(parts["a"], parts["b"], form)
        except ValueError:
            if form.groups > 1:
                raise UnsupportedError(
                    f"{str(source.path)!r} has A {list(parts['a'].shape)} and B {list(parts['b'].shape)} for "
                    f"{module!r}, a convolution of {form.groups} groups: PEFT's A reads all inputs there and cannot "
                    f"be merged; graphc's factors are {[list(shape) for shape in _in_torch(form, rank)]}"
                ) from None
            raise ShapeError(
                f"{str(source.path)!r} is an adapter of another base: at {module!r} it has A {list(parts['a'].shape)} "
                f"and B {list(parts['b'].shape)}, the model's {weight!r} is {list(variables[weight].shape)}"
            ) from None
        arrays[weight] = {"a": a, "b": b}
        if "magnitude" in parts:
            arrays[weight]["magnitude"] = parts["magnitude"].reshape(-1)
            if arrays[weight]["magnitude"].shape != (form.outputs,):
                raise ShapeError(
                    f"{str(source.path)!r} has {parts['magnitude'].size} magnitudes for {module!r}, which has "
                    f"{form.outputs} outputs"
                )
        plans[weight] = Plan(form, rank, factor)
    return {weight: plans[weight] for weight in forms if weight in plans}, arrays


def _in_torch(form: Form, rank: int) -> list[tuple[int, ...]]:
    """The shapes of A and B as a folder has them."""
    a, b = (np.broadcast_to(np.float32(0), shape) for shape in form.factor_shapes(rank))
    return [factor.shape for factor in factors_to_torch(a, b, form)]


def _kept(
    source: AdapterFolder, names: Names, variables: Mapping[str, Variable], forms: Mapping[str, Form]
) -> dict[str, Array]:
    """The weights that the folder has as they are, but for copies of the base that PEFT puts beside embeddings."""
    named = [weight for weight in variables if named_module(names, layer_of(weight)) is not None]
    by_tensor = {tensor_name(names, weight): weight for weight in named}
    found: dict[str, Array] = {}
    for key, array in source.others.items():
        plain = key.replace(".base_layer.", ".")
        if plain not in by_tensor:
            raise GraphcError(
                f"{str(source.path)!r} has the weight {key!r}, which the model does not have{nearest(plain, by_tensor)}"
            )
        weight = by_tensor[plain]
        variable = variables[weight]
        try:
            value = from_torch(array, forms.get(weight), tuple(variable.shape))
        except ValueError:
            raise ShapeError(
                f"{str(source.path)!r} is an adapter of another base: {key!r} is {list(array.shape)} there, the "
                f"model's {weight!r} is {list(variable.shape)}"
            ) from None
        if key != plain and key.endswith(".weight"):
            if not np.array_equal(value.astype(variable.numpy().dtype), variable.numpy()):
                raise GraphcError(
                    f"{str(source.path)!r} is an adapter of another base: its copy of {plain!r} is not the model's"
                )
            continue
        found[weight] = value
    return found


__all__ = ["AdapterFolder", "load_adapter", "read_folder", "save_adapter", "state_of"]
