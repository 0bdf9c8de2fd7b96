"""What is said about adapters: ranks and factors by patterns, and which weights get one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from numbers import Integral, Real
from typing import Any, Literal, TypeVar

from graphc.ir.adapting import Form
from graphc.ir.errors import GraphcError
from graphc.ir.suggestions import nearest

N = TypeVar("N", int, float)

ALL_LINEAR = "all-linear"
"""The target that stands for the kernels of all linear layers but the one that gives the scores, as in PEFT: the last,
or where a table of tokens gives them, none."""


@dataclass(frozen=True)
class Settings:
    """How adapters are made, under PEFT's names, but that targets are patterns of paths with `/`.

    `r` and `alpha` hold where no pattern of `rank_pattern` and `alpha_pattern` matches the layer. What is added to a
    kernel is `alpha / r` times A·B; with `rslora` alpha / √r. `dora` trains magnitudes besides. `modules_to_save` are
    layers that are trained as they are, and have no adapter where `targets` match them too; `bias` says which biases
    are: none, all, or those of the adapted layers. Raises `GraphcError` for what is none of these.
    """

    r: int = 8
    alpha: float = 8.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    exclude: tuple[str, ...] = ()
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict[str, int])
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])
    modules_to_save: tuple[str, ...] = ()
    bias: Literal["none", "all", "lora_only"] = "none"

    def __post_init__(self) -> None:
        for what in ("targets", "exclude", "modules_to_save", "rank_pattern", "alpha_pattern"):
            for pattern in getattr(self, what):
                if not isinstance(pattern, str) or not pattern:
                    raise GraphcError(f"{what} has patterns of layers' paths, such as '*/query', not {pattern!r}")
        ranks: list[Any] = [self.r, *self.rank_pattern.values()]
        for rank in ranks:
            if isinstance(rank, bool) or not isinstance(rank, Integral) or rank < 1:
                raise GraphcError(f"the rank of an adapter is a positive integer, not {rank!r}")
        for what, alpha in (("alpha", self.alpha), *(("alpha_pattern", each) for each in self.alpha_pattern.values())):
            if not _is_number(alpha) or alpha == 0:
                raise GraphcError(f"{what} is a number other than 0, not {alpha!r}")
        if not self.targets:
            raise GraphcError("targets has no patterns: name the layers to adapt, or leave it out for all linear ones")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise GraphcError(f"the dropout of adapters is a rate from 0 to below 1, not {self.dropout!r}")
        if self.bias not in ("none", "all", "lora_only"):
            raise GraphcError(f"bias is 'none', 'all' or 'lora_only', not {self.bias!r}")
        self._take_numbers()

    def _take_numbers(self) -> None:
        """Let numbers of NumPy be Python's, which files have."""
        object.__setattr__(self, "r", int(self.r))
        object.__setattr__(self, "rank_pattern", {key: int(rank) for key, rank in self.rank_pattern.items()})
        object.__setattr__(self, "alpha", float(self.alpha))
        object.__setattr__(self, "alpha_pattern", {key: float(alpha) for key, alpha in self.alpha_pattern.items()})
        object.__setattr__(self, "dropout", float(self.dropout))

    def rank_of(self, weight: str) -> int:
        """The rank for a weight."""
        return _by_pattern(self.rank_pattern, weight, self.r)

    def alpha_of(self, weight: str) -> float:
        """The alpha for a weight."""
        return _by_pattern(self.alpha_pattern, weight, self.alpha)

    def scaling(self, weight: str, rank: int) -> float:
        """The factor of A·B for a weight whose adapter has this rank."""
        return scaling(self.alpha_of(weight), rank, self.rslora)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def scaling(alpha: float, rank: int, rslora: bool = False) -> float:
    """The factor of A·B. Kalajdzievski, "A Rank Stabilization Scaling Factor", 2023, for `rslora`."""
    return alpha / math.sqrt(rank) if rslora else alpha / rank


def _by_pattern(patterns: Mapping[str, N], weight: str, default: N) -> N:
    for pattern, value in patterns.items():
        if matches(pattern, weight):
            return value
    return default


def matches(pattern: str, weight: str) -> bool:
    """Whether a pattern (`*/q_proj`, `query`, `block_0/*`) is for a weight: of the path of the weight or of its layer,
    or of the last parts of one of these."""
    paths = [f"/{weight}"]
    if "/" in weight:
        paths.append(f"/{weight.rpartition('/')[0]}")
    wanted = pattern.removeprefix("*/") if pattern != "*/" else pattern
    return any(fnmatchcase(path, f"*/{wanted}") for path in paths)


def layer_of(weight: str) -> str:
    """The path of the layer that a weight belongs to; its own where it belongs to none."""
    return weight.rpartition("/")[0] or weight


def choose(settings: Settings, candidates: Mapping[str, Form], others: Iterable[str]) -> list[str]:
    """The weights among the candidates that get an adapter, in order.

    `others` are the weights that cannot have one. Raises `GraphcError` for a pattern that matches nothing, with the
    nearest names, and for one that matches only weights without products.
    """
    linear = [name for name, form in candidates.items() if form.kind == "linear"]
    chosen: set[str] = set()
    unfit = list(others)
    for pattern in settings.targets:
        if pattern == ALL_LINEAR:
            tied = any(form.tied for form in candidates.values())
            found = linear if tied or len(linear) == 1 else linear[:-1]
        else:
            found = [name for name in candidates if matches(pattern, name)]
        if not found:
            raise matches_nothing(pattern, "targets", candidates, unfit)
        chosen.update(found)
    for pattern in settings.exclude:
        found = [name for name in (*candidates, *unfit) if matches(pattern, name)]
        if not found:
            raise matches_nothing(pattern, "exclude", candidates)
        chosen.difference_update(found)
    chosen = {name for name in chosen if not any(matches(pattern, name) for pattern in settings.modules_to_save)}
    if not chosen:
        raise GraphcError("no weight is left to adapt: exclude or modules_to_save take away all that targets match")
    for what, patterns in (("rank_pattern", settings.rank_pattern), ("alpha_pattern", settings.alpha_pattern)):
        for pattern in patterns:
            if not any(matches(pattern, name) for name in chosen):
                raise matches_nothing(pattern, what, dict.fromkeys(chosen))
    return [name for name in candidates if name in chosen]


def matches_nothing(pattern: str, what: str, candidates: Iterable[str], others: Sequence[str] = ()) -> GraphcError:
    """The error for a pattern of `what` that matches none of the candidates, with the nearest names."""
    unfit = [name for name in others if matches(pattern, name)]
    if unfit:
        return GraphcError(
            f"the pattern {pattern!r} of {what} matches only {', '.join(unfit[:3])}: an adapter is for kernels of "
            "products, convolutions and embeddings"
        )
    layers = list(dict.fromkeys(layer_of(name) for name in candidates))
    last = {layer.rpartition("/")[2] for layer in layers}
    if not layers:
        return GraphcError(f"the pattern {pattern!r} of {what} matches nothing: there is no weight to adapt")
    known = last if "/" not in pattern.removeprefix("*/") else layers
    return GraphcError(f"the pattern {pattern!r} of {what} matches nothing{nearest(pattern.removeprefix('*/'), known)}")


__all__ = ["ALL_LINEAR", "Settings", "choose", "layer_of", "matches", "matches_nothing", "scaling"]
