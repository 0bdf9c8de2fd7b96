"""`Model.quantize`: the model's kernels and tables become integers, in all that is compiled of it from then on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from graphc.frontends import quantizers
from graphc.frontends.layer_paths import layer_paths
from graphc.frontends.lowering import lower_forward
from graphc.frontends.rounding import InputRange, RunningRange, VariableRounding
from graphc.frontends.storage import QUANTIZED, Storage
from graphc.frontends.variable import Variable
from graphc.ir.errors import GraphcError
from graphc.ir.formats import FORMATS, BlockFormat, Format, Int8, parse_format
from graphc.ir.formats.blocks import SMALLEST
from graphc.ir.formats.shapes import columns
from graphc.ir.formats.trained import can_be_trained
from graphc.ir.module import Module
from graphc.ir.suggestions import nearest
from graphc.passes.lora.settings import layer_of
from graphc.passes.quantization.activations import quantize_dynamically
from graphc.passes.quantization.matching import absorb_transposes
from graphc.passes.quantization.shapes import store_as_read, store_in_shapes
from graphc.passes.quantization.targets import channel_axes, chosen_formats
from graphc.passes.quantization.weights import quantize_weights
from graphc.runtime.config import target as active_target
from graphc.runtime.quantization.aware import (
    converted,
    freeze_ranges,
    input_ranges,
    keep_input_range,
    rounded_variables,
    store_activations,
)
from graphc.runtime.quantization.calibration import Method
from graphc.runtime.quantization.layerwise import Found, by_layer, options_of
from graphc.runtime.quantization.processor import wants_reduced_range
from graphc.runtime.quantization.samples import samples

MODES = ("int8", "int4", "nf4", "gptq", "awq")
Filters = str | Sequence[str] | Callable[[Any], bool] | None


class Quantizable:
    """The method of `Model` around quantization. See docs/quantization.md."""

    name: str

    def quantize(
        self,
        mode: str | Mapping[str, str] | None = None,
        config: Any = None,
        filters: Filters = None,
        type_check: bool = True,
    ) -> None:
        """Store the kernels of products and convolutions and the tables of embeddings as integers; they are frozen.

        `mode` is Keras's `"int8"` (a scale for each output; products read their input in int8 as well, a scale for each
        row) or `"int4"` (blocks of 128 inputs with a scale and a zero point; floats go in), or `"nf4"`, or a format as
        text (`"int4{block=32}"`). `"gptq"` and `"awq"` look at the dataset of their configuration, layer by layer; AWQ
        also changes the normalizations that take its factors in. `config` is one of `graphc.quantizers` instead.
        `"trained"` stores what `quantize_aware` had trained with rounding. A dict has a format for each weight, as
        `formats` of `graphc.quantization_plan`; with a `config` of GPTQ or AWQ it is found by that.
        `filters` chooses layers, by regular expressions that are searched for in their names, or by a function. Reading
        a weight gives what it stands for.

        Raises `GraphcError` for a mode or filters that match nothing, and for layers that are quantized already.
        """
        if mode == "trained":
            _store_trained(self)
            return
        config = quantizers.get(config)
        by_data = isinstance(config, (quantizers.GPTQConfig, quantizers.AWQConfig))
        if isinstance(mode, Mapping):
            if filters is not None or not (config is None or by_data):
                raise GraphcError(
                    "formats for each weight go with no filters, and with a GPTQConfig or AWQConfig if any"
                )
            form, rows = mode, False
        else:
            form, rows = _mode(mode, config)
        module, variables, axes = _recorded(self)
        _refuse_rounded(variables)
        if isinstance(form, Mapping):
            forms = chosen_formats(module, form)
        else:
            forms = dict.fromkeys(_chosen(self, list(axes), filters), form)
        chosen = list(forms)
        _refuse_stored({name: variables[name] for name in chosen})
        shapes = {name: module.weights[name].shape for name in chosen}
        formats = {name: _fitting(forms[name], shapes[name], axes[name]) for name in chosen}
        found = Found(formats)
        if by_data:
            options = options_of(config.mode, config.options)
            found = by_layer(module, formats, axes, samples(module.main, config), options, active_target())
        storages: dict[str, Storage] = {}
        for name in chosen:
            array = found.folded.get(name, variables[name].numpy())
            try:
                storages[name] = Storage.of(found.formats[name], array, rows, found.arrays.get(name), shapes[name])
            except GraphcError as error:
                raise error.at(name) from None
        for name, value in found.folded.items():
            variables[name].assign(value)
        for name, storage in storages.items():
            variables[name].store(storage)
            variables[name].freeze(QUANTIZED)
        _forget_programs(self)

    def quantize_aware(
        self,
        format: str = "int4{block=32}",
        filters: Filters = None,
        *,
        activations: Any = None,
        activation_bits: int = 8,
        method: Method = "minmax",
        momentum: float | None = 0.99,
    ) -> None:
        """Round kernels to a format (int8, int4, int3 and theirs with zero points) wherever the model reads them, in
        training and after it; they stay floats that are trained on, and gradients go straight through the rounding.

        With `activations`, examples to calibrate by `method`, what products and convolutions read is rounded to
        `activation_bits` too; beside them int8 is `int8{reduced}` where the processor wants that. In training their
        ranges take in a share of 1 − `momentum` of each batch's, until `freeze_ranges`; with `momentum=None` they stay.
        `filters` chooses layers as in `quantize`. After training `quantize("trained")` stores the kernels as the
        integers that they were rounded to.

        Raises `GraphcError` for filters that match nothing, and for layers that are quantized already.
        """
        form = parse_format(format)
        if not can_be_trained(form):
            raise GraphcError(f"training rounds weights to int8, int4 and int3, not to {form}")
        module, variables, axes = _recorded(self)
        _refuse_rounded(variables)
        chosen = _chosen(self, list(axes), filters)
        _refuse_stored({name: variables[name] for name in chosen})
        ranges: dict[str, InputRange | RunningRange] = {}
        if activations is not None:
            own_axes = {name: axes[name] for name in chosen}
            ranges = input_ranges(module, variables, own_axes, activations, activation_bits, method, momentum)
        if ranges and form == Int8() and wants_reduced_range():
            form = Int8(reduced=True)
        for name in chosen:
            shape = module.weights[name].shape
            own = _fitting(form, shape, axes[name])
            reshaped = None if shape == tuple(variables[name].shape) else shape
            variables[name].rounding = VariableRounding(own, ranges.get(name), reshaped)
        _forget_programs(self)

    def freeze_ranges(self) -> None:
        """Let the ranges of activations, which `quantize_aware` lets go with the batches, stay as they are now: for the
        last epochs, in which kernels settle. Raises `GraphcError` where there are none."""
        if not freeze_ranges(lower_forward(self).variables):  # type: ignore[arg-type]
            raise GraphcError(f"{self.name!r} has no ranges that go with the batches of training")
        _forget_programs(self)

    def _after_recording(self, module: Module, variables: Mapping[str, Variable]) -> None:
        """Store what is quantized as integers in a module that was recorded of the model."""
        kept: dict[str, Storage] = {}
        for name, variable in variables.items():
            if variable.storage is not None and name in module.weights:
                kept[name] = variable.storage.rounded(variable.numpy())
        if any(v.rounding is not None and v.rounding.format is None for v in variables.values()):
            store_activations(module)
        if kept:
            formats = {name: storage.format for name, storage in kept.items()}
            store_in_shapes(module, {name: storage.shape for name, storage in kept.items()})
            stored = quantize_weights(module, formats, {name: storage.arrays for name, storage in kept.items()})
            absorb_transposes(module)
            rows: set[str | None] = {array for name, each in stored.items() if kept[name].rows for array in each.names}
            if rows:
                quantize_dynamically(module, rows)


def _recorded(model: Any) -> tuple[Module, dict[str, Variable], dict[str, int]]:
    """The model's forward with its kernels stored as they are read, the variables, and the axes of channels."""
    lowering = lower_forward(model)
    store_as_read(lowering.module, channel_axes(lowering.module))
    return lowering.module, lowering.variables, channel_axes(lowering.module)


def _store_trained(model: Any) -> None:
    """Store what was trained with rounding as the integers that it was rounded to."""
    found = rounded_variables(lower_forward(model).variables)
    if not found:
        raise GraphcError(f"{model.name!r} was not trained with rounding: quantize_aware comes before training")
    for variable in found.values():
        storage = converted(variable)
        keep_input_range(variable)
        variable.store(storage)
        variable.freeze(QUANTIZED)
    _forget_programs(model)


def _refuse_rounded(variables: Mapping[str, Variable]) -> None:
    again = rounded_variables(variables)
    if again:
        raise GraphcError(f"{next(iter(again))!r} is trained with rounding already: quantize('trained') ends that")


def _refuse_stored(variables: Mapping[str, Variable]) -> None:
    for name, variable in variables.items():
        if variable.storage is not None:
            raise GraphcError(f"{name!r} is quantized already, as {variable.storage.format}")


def _forget_programs(model: Any) -> None:
    """Let what was compiled of the model be compiled again."""
    object.__setattr__(model, "_forward", None)
    compiled = model.__dict__.get("_compiled")
    if compiled is not None:
        compiled.programs.clear()
        compiled.steps.clear()


def _mode(mode: str | None, config: Any) -> tuple[Format, bool]:
    """The format, and whether products read integers."""
    if config is not None:
        if mode is not None and mode != config.mode:
            raise GraphcError(f"the mode {mode!r} is not that of the config, {config.mode!r}: give one of them")
        mode = config.mode
    if not isinstance(mode, str):
        what = f"quantize takes a mode ({', '.join(MODES)}), a format, or a config of graphc.quantizers"
        raise GraphcError(what if mode is None else f"{what}, not {mode!r}")
    if mode in ("gptq", "awq"):
        if config is None:
            name = "GPTQConfig" if mode == "gptq" else "AWQConfig"
            raise GraphcError(f"{mode} looks at examples: give config=graphc.quantizers.{name}(dataset, tokenizer)")
        return parse_format(config.format), False
    if mode == "int8":
        chosen = quantizers.Int8QuantizationConfig() if config is None else config
        weights = chosen.weight_quantizer
        reduced = weights is not None and weights.value_range == (-63, 63)
        return parse_format("int8{reduced}" if reduced else "int8"), chosen.activation_quantizer is not None
    if mode == "int4":
        return parse_format((config or quantizers.Int4QuantizationConfig()).format), False
    if mode.partition("{")[0].strip() not in FORMATS:
        raise GraphcError(f"there is no quantization {mode!r}{nearest(mode, dict.fromkeys((*MODES, *FORMATS)))}")
    return parse_format(mode), False


def _fitting(form: Format, shape: tuple[int, ...], axis: int) -> Format:
    """The format for a weight: its channels, and blocks no larger than they need be."""
    own = form if axis == len(shape) - 1 else form.of_channels(axis)
    if not isinstance(own, BlockFormat) or own.block is None:
        return own
    width = int(columns(shape, own.channel_axis(len(shape))))
    return replace(own, block=min(own.block, max(SMALLEST, 1 << (width - 1).bit_length())))


def _chosen(model: Any, names: list[str], filters: Filters) -> list[str]:
    if not names:
        raise GraphcError(f"{model.name!r} has no kernel or table to quantize")
    if filters is None:
        return names
    if not callable(filters) and not isinstance(filters, (str, list, tuple)):
        raise GraphcError(f"filters are regular expressions or a function of a layer, not {filters!r}")
    if callable(filters):
        by_path = layer_paths(model).layers
        found = [name for name in names if (layer := by_path.get(layer_of(name))) is not None and filters(layer)]
    else:
        given = [filters] if isinstance(filters, str) else list(filters)
        for each in given:
            try:
                re.compile(each)
            except (re.error, TypeError) as error:
                raise GraphcError(f"the filter {each!r} is no regular expression: {error}") from None
        found = [n for n in names if any(re.search(each, layer_of(n).rpartition("/")[2]) for each in given)]
    if not found:
        layers = ", ".join(dict.fromkeys(layer_of(name) for name in names))
        raise GraphcError(f"the filters match no layer that can be quantized; these can: {layers}")
    return found
