"""Low-rank adapters of variables: what a layer or model keeps for them, and how they get into a function.

A variable may have several adapters by name; one at most is active. Where a function is recorded, the uses of the
variable are rewritten (`ir/adapting.py`) before gradients are taken, and when the recording ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphc.frontends import initializers
from graphc.frontends.recording import Recording
from graphc.frontends.rounding import apply_rounding
from graphc.ir.adapting import AdapterValues, Form, adapt, merged_weight, uses_of
from graphc.ir.builder import Builder
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Value

if TYPE_CHECKING:
    from graphc.frontends.layer import Layer
    from graphc.frontends.variable import Variable

DEFAULT = "default"
"""The name of an adapter that is given none."""


@dataclass(eq=False)
class Adapter:
    """The factors of one variable's adapter and how they are used: `scaling · a·b` is added to the variable.

    With a `magnitude` it is DoRA. `form` says how the factors lie, see `Form`; `dropout` is the rate in training.
    """

    name: str
    a: Variable
    b: Variable
    scaling: float
    form: Form
    dropout: float = 0.0
    magnitude: Variable | None = None

    @property
    def rank(self) -> int:
        return self.a.shape[-1]

    @property
    def variables(self) -> list[Variable]:
        """What is trained."""
        return [self.a, self.b] + ([] if self.magnitude is None else [self.magnitude])

    def merged(self, kernel: Any) -> Any:
        """A kernel with the adapter added to it, as an array in the kernel's dtype."""
        magnitude: Any = None if self.magnitude is None else self.magnitude.numpy()
        a: Any = self.a.numpy()
        b: Any = self.b.numpy()
        return merged_weight(kernel, AdapterValues(self.form, a, b, self.scaling, magnitude))


def attach(
    layer: Layer,
    variable: Variable,
    form: Form,
    rank: int,
    scaling: float,
    *,
    name: str = DEFAULT,
    dropout: float = 0.0,
    a_initializer: Any,
    b_initializer: Any,
    magnitude: Any = None,
    regularizer: Any = None,
) -> Adapter:
    """A new, active adapter of a variable, whose weights the layer holds; the variable itself is frozen.

    The weights are called `lora_kernel_a`, `lora_kernel_b`, `lora_kernel_magnitude` after the variable `kernel`, with
    the adapter's name behind unless it is the default one. `magnitude` is an initial value, for DoRA.
    """
    stem, end = f"lora_{variable.name}", "" if name == DEFAULT else f"_{name}"
    kind = "float64" if str(variable.dtype) == "float64" else "float32"
    shapes = form.factor_shapes(rank)
    made: list[Variable] = []
    try:
        for factor, shape, initializer in zip("ab", shapes, (a_initializer, b_initializer), strict=True):
            wanted = f"{stem}_{factor}{end}"
            made.append(layer.add_weight(shape, initializer, dtype=kind, regularizer=regularizer, name=wanted))
    except BaseException:
        layer._tracker.remove(made)
        raise
    a, b = made
    found = Adapter(name, a, b, scaling, form, dropout)
    if magnitude is not None:
        initializer = initializers.Constant(0.0)
        found.magnitude = layer.add_weight((form.outputs,), initializer, dtype=kind, name=f"{stem}_magnitude{end}")
        found.magnitude.assign(magnitude)
    variable.adapters[name] = found
    variable.adapter = found
    variable.freeze()
    return found


class Adaptable:
    """What layers with one kernel have to do with adapters, under Keras's names."""

    lora_enabled = False
    lora_rank: int | None = None
    lora_alpha: float | None = None
    _lora_weight = "kernel"
    """The attribute that holds the kernel, and what the adapter's weights are named after."""

    def _take_lora_options(self, rank: int | None, alpha: float | None) -> None:
        """Keep the constructor's arguments, by which `build` enables it."""
        self.lora_rank, self.lora_alpha = rank, rank if alpha is None else alpha

    def _enable_lora_if_asked(self) -> None:
        if self.lora_rank and not self.lora_enabled:
            self.enable_lora(self.lora_rank, self.lora_alpha)

    def _lora_config(self) -> dict[str, Any]:
        return {"lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha} if self.lora_rank else {}

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Train `kernel + lora_alpha / rank · a·b` by two new weights a [..., rank] and b [rank, out]; the kernel is
        frozen, the bias is not. `lora_alpha` is the rank unless given. As in Keras.

        The weights are `lora_kernel_a` and `lora_kernel_b` (of an Embedding `lora_embeddings_a` and `…_b`).
        Raises `GraphcError` for a layer that is not built, has a constraint on its kernel, or has an adapter already,
        and for a rank that is more than the kernel's.
        """
        layer: Any = self
        what = self._lora_weight
        if not layer.built:
            raise GraphcError(f"layer {layer.name!r} is not built yet, so it has no {what}: call it on an input first")
        if getattr(layer, f"{what}_constraint", None) is not None:
            raise GraphcError(
                f"layer {layer.name!r} has a constraint on its {what}, which holds for no adapter: leave out "
                f"{what}_constraint"
            )
        kernel = getattr(layer, what)
        if self.lora_enabled or kernel.adapters:
            raise GraphcError(f"layer {layer.name!r} has an adapter already; enable_lora can be called once")
        form = self._lora_form()
        check_rank(rank, form, layer.name)
        alpha = rank if lora_alpha is None else lora_alpha
        adapter = attach(
            layer,
            kernel,
            form,
            rank,
            alpha / rank,
            a_initializer=a_initializer,
            b_initializer=b_initializer,
            regularizer=getattr(layer, f"{what}_regularizer"),
        )
        setattr(layer, f"lora_{what}_a", adapter.a)
        setattr(layer, f"lora_{what}_b", adapter.b)
        self.lora_enabled, self.lora_rank, self.lora_alpha = True, rank, alpha

    def _lora_form(self) -> Form:
        kernel = getattr(self, self._lora_weight)
        return Form("linear", tuple(kernel.shape))


def check_rank(rank: Any, form: Form, layer: str) -> None:
    """Raise `GraphcError` for what is no rank, or more than a kernel of this form can have."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise GraphcError(f"the rank of an adapter is a positive integer, not {rank!r}")
    most = min(form.inputs, form.outputs)
    if rank > most:
        raise GraphcError(
            f"the rank {rank} is more than {most}, the most that {layer!r} ({form.inputs} inputs, {form.outputs} "
            "outputs) can have: all of its weights would be trained by more numbers than it has"
        )


# --- in a recording -----------------------------------------------------------------------------------------------


def apply_adapters(recording: Recording) -> None:
    """Rewrite what the recording has so far of variables that are rounded or have an active adapter."""
    for variable in list(recording.adapted.values()):
        values = apply_rounding(recording, variable)
        adapter = variable.adapter
        if adapter is not None:
            for kernel in values:
                adapt(kernel, _values(recording, adapter), recording.name_of(variable), recording.past_adapters)


def end_of_forward(recording: Recording) -> None:
    """What was recorded of adapted variables so far stays as it is: the backward part reads the kernel itself."""
    for variable in recording.adapted.values():
        recording.past_adapters.update(use.op for use in uses_of(recording.values[id(variable)]))


def _values(recording: Recording, adapter: Adapter) -> AdapterValues:
    a, b, magnitude = (
        None if variable is None else recording.variable_value(variable)
        for variable in (adapter.a, adapter.b, adapter.magnitude)
    )
    assert a is not None and b is not None

    def key(builder: Builder) -> Value:
        with builder:
            return recording.random_key()

    dropout = adapter.dropout if recording.training else 0.0
    return AdapterValues(adapter.form, a, b, adapter.scaling, magnitude, dropout, key)


__all__ = ["DEFAULT", "Adaptable", "Adapter", "apply_adapters", "attach", "check_rank", "end_of_forward"]
