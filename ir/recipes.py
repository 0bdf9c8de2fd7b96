"""How a weight was made from the source's: steps that can be undone, kept in the manifest and in IR text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.attributes import quoted
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import FormatError, GraphcError

if TYPE_CHECKING:
    from graphc.ir.formats import Format

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Permute:
    """Axes in another order."""

    axes: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        return np.ascontiguousarray(array.transpose(self.axes))

    def invert(self, array: Array) -> Array:
        return np.ascontiguousarray(array.transpose(tuple(int(i) for i in np.argsort(self.axes))))

    def __str__(self) -> str:
        return f"permute{list(self.axes)}"


@dataclass(frozen=True, slots=True)
class Reshape:
    """Another shape over the same elements; `before` is the shape to go back to."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def apply(self, array: Array) -> Array:
        return array.reshape(self.after)

    def invert(self, array: Array) -> Array:
        return array.reshape(self.before)

    def __str__(self) -> str:
        return f"reshape{list(self.before)}{list(self.after)}"


@dataclass(frozen=True, slots=True)
class Cast:
    """Another dtype; going back keeps what the narrower one rounded away lost."""

    before: DType
    after: DType

    def apply(self, array: Array) -> Array:
        return array.astype(self.after.numpy)

    def invert(self, array: Array) -> Array:
        return array.astype(self.before.numpy)

    def __str__(self) -> str:
        return f"cast[{self.before.short}, {self.after.short}]"


@dataclass(frozen=True, slots=True)
class Quantize:
    """Array number `part` of those that a format (`graphc.ir.formats`) makes of a weight of this shape and dtype."""

    format: str
    shape: tuple[int, ...]
    before: DType
    part: int

    def apply(self, array: Array) -> Array:
        return self._format().quantize(array)[self.part]

    def invert(self, array: Array) -> Array:
        raise GraphcError(f"part {self.part} of a weight stored as {self.format} does not give the weight by itself")

    def restored(self, arrays: Sequence[Array]) -> Array:
        """The weight, from all of its arrays."""
        return self._format().dequantize(*arrays, shape=self.shape).astype(self.before.numpy)

    def joined_axes(self, axis: int, splits: Sequence[int]) -> tuple[tuple[int, ...], int] | None:
        """Where the array of a weight that was joined along `axis` at `splits` is split into those of its parts, and
        along which axis; None where it is not so."""
        form = self._format()
        sizes = [limit - start for start, limit in pairwise((0, *splits, self.shape[axis]))]
        shapes = [(*self.shape[:axis], size, *self.shape[axis + 1 :]) for size in sizes]
        axes = form.joined_axes(shapes, axis)
        if axes is None:
            return None
        own = axes[self.part]
        widths = [int(form.parts(shape)[self.part].type.shape[own]) for shape in shapes[:-1]]  # type: ignore[arg-type]
        return tuple(accumulate(widths)), own

    def _format(self) -> Format:
        from graphc.ir.formats import parse_format  # formats are written with ops, which know of weights

        return parse_format(self.format)

    def __str__(self) -> str:
        return f"quantize[{quoted(self.format)}, {list(self.shape)}, {self.before.short}, {self.part}]"


Step = Permute | Reshape | Cast | Quantize


@dataclass(frozen=True, slots=True)
class Recipe:
    """`sources` are the source weights: one, or several joined along `axis` at the offsets `splits`; then the steps."""

    sources: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    axis: int = 0
    splits: tuple[int, ...] = ()

    def then(self, step: Step) -> Recipe:
        return Recipe(self.sources, (*self.steps, step), self.axis, self.splits)

    @property
    def quantized(self) -> Quantize | None:
        """The step that makes the weight one array of a format, if there is one."""
        return next((step for step in self.steps if isinstance(step, Quantize)), None)

    def apply(self, arrays: dict[str, Array]) -> Array:
        """The weight, from the source's arrays."""
        parts = [arrays[name] for name in self.sources]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts, self.axis)
        for step in self.steps:
            array = step.apply(array)
        return array

    def invert(self, array: Array) -> dict[str, Array]:
        """The source's arrays, from the weight."""
        for step in reversed(self.steps):
            array = step.invert(array)
        if len(self.sources) == 1:
            return {self.sources[0]: array}
        return dict(zip(self.sources, np.split(array, self.splits, self.axis), strict=True))

    def keeping(self, array: Array, stored: Array, names: Collection[str]) -> Array:
        """`array`, with the elements of these sources as they are in `stored`: rounded again, they may be others. Where
        the format mixes the sources, `array` as it is."""
        step = self.steps[0] if self.steps else None
        axes = step.joined_axes(self.axis, self.splits) if isinstance(step, Quantize) else None
        if axes is None or not names:
            return array
        parts: list[list[Array]] = []
        for each in (array, stored):
            for later in reversed(self.steps[1:]):
                each = later.invert(each)
            parts.append(np.split(each, *axes))
        chosen = [old if name in names else new for name, new, old in zip(self.sources, *parts, strict=True)]
        whole = np.concatenate(chosen, axes[1])
        for later in self.steps[1:]:
            whole = later.apply(whole)
        return whole

    @staticmethod
    def invert_together(recipes: Sequence[Recipe], arrays: Sequence[Array]) -> dict[str, Array]:
        """The source's arrays, from all arrays of a format, whose recipes are given in the order of the parts."""
        parts: list[Array] = []
        for recipe, array in zip(recipes, arrays, strict=True):
            after = next(i for i, step in enumerate(recipe.steps) if isinstance(step, Quantize)) + 1
            for step in reversed(recipe.steps[after:]):
                array = step.invert(array)
            parts.append(array)
        first = recipes[0]
        step = first.quantized
        assert step is not None
        earlier = Recipe(first.sources, first.steps[: first.steps.index(step)], first.axis, first.splits)
        return earlier.invert(step.restored(parts))

    def source_types(
        self, shape: tuple[int, ...], kind: np.dtype[Any]
    ) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """The shape and dtype of each source array, from those of the weight."""
        for step in reversed(self.steps):
            match step:
                case Permute(axes):
                    shape = tuple(shape[int(i)] for i in np.argsort(axes))
                case Reshape(before, _):
                    shape = before
                case Cast(before, _):
                    kind = before.numpy
                case Quantize(_, whole, before, _):
                    shape, kind = whole, before.numpy
        if len(self.sources) == 1:
            return {self.sources[0]: (shape, kind)}
        sizes = [limit - start for start, limit in pairwise((0, *self.splits, shape[self.axis]))]
        return {
            name: ((*shape[: self.axis], size, *shape[self.axis + 1 :]), kind)
            for name, size in zip(self.sources, sizes, strict=True)
        }

    def to_json(self) -> dict[str, Any]:
        """As the manifest writes it; `Recipe.from_json` reads it back."""
        out: dict[str, Any] = {"sources": list(self.sources), "steps": [_step_json(step) for step in self.steps]}
        if len(self.sources) > 1:
            out |= {"axis": self.axis, "splits": list(self.splits)}
        return out

    @staticmethod
    def from_json(data: dict[str, Any]) -> Recipe:
        """Raises `FormatError` for what `to_json` does not write."""
        try:
            return Recipe(
                tuple(str(name) for name in data["sources"]),
                tuple(_step_from_json(step) for step in data["steps"]),
                int(data.get("axis", 0)),
                tuple(int(at) for at in data.get("splits", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not a weight recipe: {data!r}") from error


def _step_json(step: Step) -> dict[str, Any]:
    match step:
        case Permute(axes):
            return {"permute": list(axes)}
        case Reshape(before, after):
            return {"reshape": [list(before), list(after)]}
        case Cast(before, after):
            return {"cast": [str(before), str(after)]}
        case Quantize(format, shape, before, part):
            return {"quantize": {"format": format, "shape": list(shape), "dtype": str(before), "part": part}}


def _step_from_json(data: dict[str, Any]) -> Step:
    ((kind, value),) = data.items()
    if kind == "permute":
        return Permute(tuple(int(axis) for axis in value))
    if kind == "reshape":
        before, after = value
        return Reshape(tuple(int(n) for n in before), tuple(int(n) for n in after))
    if kind == "cast":
        before, after = value
        return Cast(dtype_of(before), dtype_of(after))
    if kind == "quantize":
        shape = tuple(int(n) for n in value["shape"])
        return Quantize(str(value["format"]), shape, dtype_of(value["dtype"]), int(value["part"]))
    raise KeyError(kind)
