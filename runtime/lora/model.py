"""What models have for low-rank adapters: made by patterns, trained, switched, saved, merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal

from graphc.frontends.arguments import suggests_arguments
from graphc.ir.errors import GraphcError
from graphc.passes.lora.settings import ALL_LINEAR, Settings
from graphc.runtime.executable import Executable
from graphc.runtime.lora import adapters, merging, peft, saving, serving
from graphc.runtime.lora.adapters import ModelAdapter
from graphc.runtime.lora.layouts import Names
from graphc.runtime.lora.merging import Certificate


class Adapted:
    """The methods of `Model` around adapters. See docs/lora.md."""

    name: str

    @suggests_arguments
    def add_adapter(
        self,
        name: str = "default",
        *,
        r: int = 8,
        alpha: float | None = None,
        targets: str | Sequence[str] = ALL_LINEAR,
        exclude: str | Sequence[str] = (),
        dropout: float = 0.0,
        rslora: bool = False,
        dora: bool = False,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        modules_to_save: str | Sequence[str] = (),
        bias: Literal["none", "all", "lora_only"] = "none",
        a_initializer: Any = None,
        b_initializer: Any = None,
    ) -> ModelAdapter:
        """Add low-rank adapters to the weights that `targets` match, make them active, and freeze all other weights.

        Patterns are paths of layers with `*`, or their last parts: `"*/q_proj"`, `"query"`, `"block_0/*"`;
        `"all-linear"` stands for all linear layers but the last, or all where a table of tokens gives the scores. What
        is added to a kernel is `alpha / r` times A·B (`alpha / √r` with `rslora`; `alpha` is `r` unless given),
        `rank_pattern` and `alpha_pattern` say otherwise for some layers. `dropout` is of what the adapters read in
        training. `dora` trains the magnitudes of the kernel's columns besides. Layers in `modules_to_save` are trained
        as they are, and have no adapter; biases are trained as `bias` says.

        A starts as PEFT's default and B at zeros, so that the model computes what it did (over "int8", whose
        products read integers, without their rounding). Raises `GraphcError` for patterns that match nothing, for
        ranks larger than a layer, and for a name that is taken.
        """
        settings = Settings(
            r,
            r if alpha is None else alpha,
            _patterns("targets", targets),
            _patterns("exclude", exclude),
            dropout,
            rslora,
            dora,
            _by_pattern("rank_pattern", rank_pattern),
            _by_pattern("alpha_pattern", alpha_pattern),
            _patterns("modules_to_save", modules_to_save),
            bias,
        )
        return adapters.add_adapter(self, name, settings, a_initializer, b_initializer)

    @property
    def adapters(self) -> dict[str, ModelAdapter]:
        """The adapters by name."""
        return dict(adapters.state_of(self).adapters)

    @property
    def active_adapter(self) -> str | None:
        """The name of the adapter that the model computes with, and trains."""
        return adapters.state_of(self).active

    def set_adapter(self, name: str | None) -> None:
        """Compute with, and train, this adapter; with None the model is its base, and nothing is trained."""
        adapters.activate(self, name)

    def delete_adapter(self, name: str) -> None:
        """Take an adapter away. Without any, all weights are trained again that were before.

        One that is merged stays in the weights, for good.
        """
        adapters.delete_adapter(self, name)

    def kept_beside(self) -> tuple[Any, dict[str, Any]]:
        return saving.adapters_config(self)

    def expect_beside(self, config: Any) -> None:
        saving.make_adapters(self, config)

    def restore_beside(self, config: Any, arrays: Mapping[str, Any]) -> None:
        saving.restore_adapters(self, config, arrays)

    def compile_adapters(
        self, names: str | Sequence[str] | None = None, target: str | None = None, passes: str | None = None
    ) -> Executable:
        """An executable of several adapters (by default all) that switches between them from call to call, without
        loading anything: `executable(x, adapter="french")`, or "base" for the model without any.

        The input `adapter` is a number, 0 for the base and then as the names are; `executable.choices` has the names,
        which an artifact keeps. `executable.weights` has the factors by their names.
        """
        return serving.compile_adapters(self, names, target, passes)

    def save_adapter(
        self, folder: Any, name: str | None = None, *, names: Names = None, base_name: str | None = None
    ) -> None:
        """Write an adapter (the active one by default) as a folder that PEFT reads.

        `names` says what PEFT's model calls the modules, by the paths of layers: a function, or a dict in which `*`
        stands for a part (`{"block_*/attention/query": "model.layers.*.self_attn.q_proj"}`); by default the path with
        dots. `base_name` goes into the config as `base_model_name_or_path`.
        """
        peft.save_adapter(self, Path(folder), name, names, base_name)

    def load_adapter(
        self, folder: Any, name: str = "default", *, names: Names = None, check_base: bool = True
    ) -> ModelAdapter:
        """Read an adapter from a folder that PEFT or `save_adapter` wrote, and make it active.

        Raises `FormatError` for what is broken, pickled or no plain LoRA, `ShapeError` and `GraphcError` for an adapter
        of another base. graphc's folders know the digest of their base's weights, which is compared; `check_base=False`
        leaves that out.
        """
        return peft.load_adapter(self, Path(folder), name, names, check_base)

    def merge_adapter(
        self, name: str | None = None, *, inputs: Any = None, certificate: Any = None, lossy: bool = False
    ) -> Certificate:
        """Add an adapter (the active one by default) to the weights themselves.

        The certificate, which is written to the path `certificate` as JSON if one is given, has for each tensor the
        identity used, a bound of what rounding did (see `runtime/lora/bounds.py`), and what was measured of it. With
        `inputs`, as `predict` takes them, it has how far the outputs moved, and the digests of the inputs.
        Weights that `quantize` stored as integers are rounded to these again, which costs most of what an adapter is
        worth: that is done with `lossy=True` only, and is in the bound.
        Raises `GraphcError` where an adapter is merged already, or a merged weight is too large for its dtype.
        """
        return merging.merge_adapter(self, name, inputs, certificate, lossy)

    def unmerge_adapter(self) -> str:
        """Give the weights back what they were before `merge_adapter`, bit for bit; returns the adapter's name.

        Raises `GraphcError` where nothing is merged, or a merged weight was changed since.
        """
        return merging.unmerge_adapter(self)

    def save_merged(
        self, folder: Any, name: str | None = None, *, names: Names = None, dtype: Any = None, config: Any = None
    ) -> Certificate:
        """Write all weights, with an adapter merged into them, as `model.safetensors` with PyTorch's names and layouts,
        as Hugging Face has it, with `merge_certificate.json` beside it; the model stays as it is.

        `names` is as in `save_adapter`; `dtype` (bfloat16 for one) is what floats are cast to; `config`, a dict or a
        path, becomes `config.json`.
        """
        return merging.save_merged(self, Path(folder), name, names, dtype, config)


def _patterns(what: str, given: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(","))
    if not isinstance(given, (Sequence, Set)):
        raise GraphcError(f"{what} is a pattern of layers' paths, such as '*/query', or several, not {given!r}")
    return tuple(given)


def _by_pattern(what: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(given or {}, Mapping):
        raise GraphcError(f"{what} is a dict of numbers by patterns of layers' paths, not {given!r}")
    return dict(given or {})


__all__ = ["Adapted"]
