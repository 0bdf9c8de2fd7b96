"""`graphc.quantize`: a model with weights, and with data activations, as integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from graphc.ir.errors import GraphcError
from graphc.ir.formats import Format, Int8, parse_format
from graphc.ir.module import Module
from graphc.passes import run_passes
from graphc.passes.quantization.activations import Range, points, quantize_activations, quantize_dynamically
from graphc.passes.quantization.batch_norm import fold_batch_norms
from graphc.passes.quantization.matching import absorb_transposes
from graphc.passes.quantization.shapes import store_as_read
from graphc.passes.quantization.targets import channel_axes, chosen_formats, chosen_weights, patterns
from graphc.passes.quantization.weights import quantize_weights
from graphc.runtime import config
from graphc.runtime.quantization.calibration import PERCENTILE, Method, calibrated
from graphc.runtime.quantization.layerwise import Algorithm, Found, by_layer, in_place, options_of
from graphc.runtime.quantization.observing import BATCH, batches
from graphc.runtime.quantization.processor import wants_reduced_range
from graphc.runtime.sources import module_of

Activations = Literal["dynamic", "static"] | None


def quantize(
    source: Any,
    format: str | Mapping[str, str] = "int8",
    *,
    activations: Activations = None,
    data: Any = None,
    method: Method | Algorithm = "minmax",
    percentile: float = PERCENTILE,
    ranges: Mapping[str, Range] | None = None,
    targets: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    reduced: bool | None = None,
    batch_size: int = BATCH,
    options: Mapping[str, Any] | None = None,
) -> Module:
    """A module of `source` whose kernels and tables are stored in `format`; what `graphc.compile` takes.

    `targets` and `exclude` are patterns of weights and layers. `activations="static"` quantizes what products and
    convolutions read and give as well (weights in `int8`), by ranges that `method` finds in `data` (arrays of some
    dozens of examples, or batches), or that are given; `"dynamic"` by the range of each call. Batch normalizations are
    then folded first. `reduced`: weights from −63 to 63, so that the 16-bit sums of processors without VNNI do not
    overflow; None: as this processor wants it, where activations are quantized.

    `format` may also have a format for each weight, by their names, as `graphc.quantization_plan` chooses them. With
    `method="gptq"` or `"awq"` only weights are quantized, to integers that keep what layers give on `data`; `options`
    are those of `runtime/quantization/gptq.py` or `awq.py`. AWQ moves factors into normalizations before a layer, so
    that weights are not the source's any more.

    Raises `GraphcError` for patterns that match nothing, for weights that are quantized already, and for data that is
    empty, misshapen or not finite.
    """
    if activations not in (None, "dynamic", "static"):
        raise GraphcError(f"activations are quantized 'static', 'dynamic' or not at all (None), not {activations!r}")
    if not isinstance(format, (str, Mapping)):
        raise GraphcError(
            "a format is a text such as 'int8' or 'int4{block=32}', or one for each weight by name, as `formats` of a "
            f"plan, not {type(format).__name__}"
        )
    algorithm = method if method in ("gptq", "awq") else None
    if algorithm is not None or not isinstance(format, str):
        if activations is not None or ranges is not None:
            raise GraphcError("gptq, awq and formats for each weight leave activations as they are")
        return _weights(source, format, algorithm, data, patterns(targets), patterns(exclude), batch_size, options)
    if options:
        raise GraphcError(f"options are those of gptq and awq; {method} has none")
    static = activations == "static" or (activations is None and (data is not None or ranges is not None))
    if static and data is None and ranges is None:
        raise GraphcError("static activations need ranges: give `data`, an array of examples, or `ranges`")
    if activations == "dynamic" and (data is not None or ranges is not None):
        raise GraphcError("dynamic activations take the range of each call: leave `data` and `ranges` out")
    form = parse_format(format)
    if (static or activations == "dynamic") and not (isinstance(form, Int8) and form.name == "int8"):
        hint = "; to round weights by what they read on `data`, give method='gptq' or 'awq'" if data is not None else ""
        raise GraphcError(f"beside activations as integers weights are int8, not {form}{hint}")
    module = run_passes(module_of(source), "canonicalize,fold_weights")  # kernels of heads become matrices
    names = chosen_weights(module, patterns(targets), patterns(exclude))
    store_as_read(module, names)
    if static:
        folded = fold_batch_norms(module)
        names = [folded.get(name, name) for name in names]
    if (static or activations == "dynamic") and (wants_reduced_range() if reduced is None else reduced):
        form = parse_format(str(form).replace("int8{", "int8{reduced,") if "{" in str(form) else "int8{reduced}")
    quantize_weights(module, dict.fromkeys(names, form))
    absorb_transposes(module)
    if static:
        found = dict(ranges or {})
        if data is not None:
            calls = batches(module.main, data, batch_size)
            found = calibrated(module, points, calls, cast(Method, method), percentile) | found
        quantize_activations(module, found)
    elif activations == "dynamic":
        quantize_dynamically(module)
    return module


def _weights(
    source: Any,
    format: str | Mapping[str, str],
    algorithm: str | None,
    data: Any,
    targets: Sequence[str],
    exclude: Sequence[str],
    batch_size: int,
    options: Mapping[str, Any] | None,
) -> Module:
    """Weights alone, by an algorithm that looks at data, or in formats of their own."""
    module = run_passes(module_of(source), "inline,canonicalize")
    store_as_read(module, channel_axes(module))
    formats = _formats(module, format, targets, exclude)
    found = Found(formats)
    if algorithm is not None:
        if data is None:
            raise GraphcError(f"{algorithm} looks at what layers read: give `data`, an array of examples or batches")
        calls = batches(module.main, data, batch_size)
        chosen = options_of(algorithm, options or {})
        found = by_layer(module, formats, channel_axes(module), calls, chosen, config.target())
    found.store(module)
    return module


def _formats(
    module: Module, format: str | Mapping[str, str], targets: Sequence[str], exclude: Sequence[str]
) -> dict[str, Format]:
    """The format of each weight, its channels in place."""
    axes = channel_axes(module)
    if isinstance(format, str):
        given = dict.fromkeys(chosen_weights(module, targets, exclude), parse_format(format))
    elif list(targets) != ["*"] or exclude:
        raise GraphcError("formats are given by the names of weights: leave targets and exclude out")
    else:
        given = chosen_formats(module, format)
    return {name: in_place(form, axes[name], module.weights.info(name).type.ndim) for name, form in given.items()}
