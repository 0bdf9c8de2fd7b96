"""`lora`: low-rank adapters beside the weights that patterns choose, on a module from anywhere.

The new weights `<layer>/lora_<kernel>_a` and `…_b` are trained, all others frozen; see `passes/lora/`.
"""

from __future__ import annotations

from typing import Literal

from graphc.ir.errors import GraphcError
from graphc.ir.module import Module
from graphc.passes.lora.insert import insert_adapters
from graphc.passes.lora.settings import ALL_LINEAR, Settings
from graphc.passes.registry import register_pass


@register_pass("lora", finite=True)
def lora(
    module: Module,
    r: int = 8,
    alpha: float | None = None,
    targets: str = ALL_LINEAR,
    exclude: str = "",
    dropout: float = 0.0,
    rslora: bool = False,
    dora: bool = False,
    rank_pattern: str = "",
    alpha_pattern: str = "",
    modules_to_save: str = "",
    bias: Literal["none", "all", "lora_only"] = "none",
    seed: int = 0,
) -> None:
    """Add low-rank adapters beside the weights whose layers `targets` match, and freeze all other weights.

    Lists are patterns with commas between: `targets="*/q_proj,*/v_proj"`; those of ranks and alphas name a number each:
    `rank_pattern="*/q_proj:4"`. `alpha` is `r` unless given. With dropout an entry takes a `key`: that is for functions
    that are differentiated afterwards. Raises `GraphcError` for patterns that match nothing, ranks larger than a layer,
    and modules that have adapters.
    """
    insert_adapters(
        module,
        Settings(
            r,
            float(r) if alpha is None else alpha,
            _listed(targets),
            _listed(exclude),
            dropout,
            rslora,
            dora,
            {pattern: int(value) for pattern, value in _numbers("rank_pattern", rank_pattern).items()},
            _numbers("alpha_pattern", alpha_pattern),
            _listed(modules_to_save),
            bias,
        ),
        seed,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(what: str, text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in _listed(text):
        pattern, colon, number = part.rpartition(":")
        try:
            found[pattern.strip()] = float(number)
        except ValueError:
            colon = ""
        if not colon:
            raise GraphcError(f"{what} is a list such as '*/q_proj:4,*/v_proj:8', not {text!r}")
    return found
