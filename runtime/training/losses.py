"""`graphc.losses`: Keras's losses. A loss is recorded into the training step, so it is written with `graphc.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.frontends import ops, serialization
from graphc.frontends.naming import automatic_name, snake_case
from graphc.frontends.ops.dispatch import tensor
from graphc.frontends.structures import map_structure
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import nearest
from graphc.runtime.training import loss_functions
from graphc.runtime.training.accumulation import EXAMPLES, SUMMED, Term
from graphc.runtime.training.loss_functions import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    circle,
    cosine_similarity,
    dice,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
    tversky,
)
from graphc.runtime.training.target_shapes import a_class_each, fit_for
from graphc.runtime.training.user_functions import check_returned, check_signature, explained

REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)
MEANS = ("sum_over_batch_size", "mean")


class Loss:
    """`loss(y_true, y_pred, sample_weight)` is a scalar; a subclass's `call` gives the loss of each example.

    `reduction`: "sum_over_batch_size" (or "mean") divides the weighted sum by the number of losses,
    "mean_with_sample_weight" by the sum of the weights, "sum" does not divide, "none" does not sum. Predictions are
    taken in `dtype` (float32), whatever a model computes in.
    """

    def __init__(
        self, name: str | None = None, reduction: str | None = "sum_over_batch_size", dtype: Any = None
    ) -> None:
        if reduction not in REDUCTIONS:
            raise GraphcError(f"a reduction is one of {', '.join(map(repr, REDUCTIONS))}, not {reduction!r}")
        self.name = name or automatic_name(snake_case(type(self).__name__))
        self.reduction = reduction
        self.dtype = str(dtype or "float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each example."""
        raise GraphcError(f"{type(self).__name__} defines no `call`")

    def counted(self, y_true: Any, y_pred: Any) -> Any:
        """Which losses count, as bools; None for all."""
        return None

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return self.term(y_true, y_pred, sample_weight).value

    def term(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Term:
        """The loss, with what it counts for beside those of other batches."""
        y_pred = map_structure(lambda each: ops.cast(each, self.dtype), y_pred)
        what = f"the loss {self.name!r}"
        if fit_for(getattr(self, "fn", None)) is None:
            y_true = map_structure(loss_functions.widened, y_true)
        with explained(what):
            found = self.call(y_true, y_pred)
            check_returned(what, found, "the loss of each example")
            values = ops.cast(tensor(found), self.dtype)
            counted = self.counted(y_true, y_pred)
            return reduced(values, sample_weight, counted, self.reduction)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal loss."""
        config: dict[str, Any] = {"name": self.name, "reduction": self.reduction}
        if self.dtype != "float32":  # which a subclass of one's own may not take
            config["dtype"] = self.dtype
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The loss that `get_config` described."""
        return cls(**config)


def reduced(values: Any, sample_weight: Any, counted: Any, reduction: str | None) -> Term:
    """The weighted losses reduced to one, which counts for what their sum was divided by.

    A loss that is a scalar already, or has no axis of examples left, is taken for a mean over them.
    """
    weights = None if sample_weight is None else ops.cast(sample_weight, values.dtype)
    if counted is not None:
        share = ops.cast(counted, values.dtype)
        weights = share if weights is None else _times(share, weights)
    if weights is not None:
        values = _times(values, weights)
    if reduction == "sum":
        return Term(ops.sum(values) if values.shape else values, SUMMED, even=False)
    if reduction in (None, "none") or not values.shape:
        return Term(values)
    by_weight = reduction == "mean_with_sample_weight" and weights is not None
    if not by_weight and (counted is None or reduction not in MEANS):
        size = ops.size(values)
        return Term(ops.mean(values), EXAMPLES if isinstance(size, int) else ops.cast(size, values.dtype))
    total = ops.sum(values)
    divisor = ops.sum(weights if by_weight else ops.cast(counted, values.dtype))
    return Term(ops.divide_no_nan(total, divisor), divisor, even=False)


def _times(values: Any, weights: Any) -> Any:
    """Their product; weights of the first axes are those of all that is below."""
    values, weights = loss_functions.same_rank(values, weights)
    if len(weights.shape) > len(values.shape):
        wanted = "" if values.shape else "; a loss that is weighed gives a number for each example, not one for all"
        raise ShapeError(
            f"sample weights {tuple(weights.shape)} have more axes than the losses {tuple(values.shape)} they weigh"
            + wanted
        )
    missing = len(values.shape) - len(weights.shape)
    if missing and weights.shape:
        weights = ops.expand_dims(weights, tuple(range(-missing, 0)))
    return values * weights


class LossFunctionWrapper(Loss):
    """A function `fn(y_true, y_pred, **kwargs)` as a loss."""

    def __init__(
        self,
        fn: Callable[..., Any],
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name or getattr(fn, "__name__", None), reduction, dtype)
        self.fn, self._options = fn, kwargs
        check_signature(f"the loss {self.name!r}", fn, kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if not isinstance(y_pred, (dict, list, tuple)) and fit_for(self.fn) is not a_class_each:
            y_true, y_pred = loss_functions.same_rank(tensor(y_true), tensor(y_pred))
        return self.fn(y_true, y_pred, **self._options)

    def get_config(self) -> dict[str, Any]:
        own = type(self) is not LossFunctionWrapper
        return {**super().get_config(), **self._options, **({} if own else {"fn": serialization.serialize(self.fn)})}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**{key: serialization.deserialize_nested(value) for key, value in config.items()})


def _plain(fn: Callable[..., Any], name: str, title: str) -> type[LossFunctionWrapper]:
    """The class of a loss function that takes nothing but targets and predictions."""

    def __init__(self: Any, reduction: str | None = "sum_over_batch_size", name: str = name, dtype: Any = None) -> None:
        LossFunctionWrapper.__init__(self, fn, reduction, name, dtype)

    return type(title, (LossFunctionWrapper,), {"__init__": __init__, "__doc__": fn.__doc__, "__module__": __name__})


MeanSquaredError = _plain(mean_squared_error, "mean_squared_error", "MeanSquaredError")
MeanAbsoluteError = _plain(mean_absolute_error, "mean_absolute_error", "MeanAbsoluteError")
MeanAbsolutePercentageError = _plain(
    mean_absolute_percentage_error, "mean_absolute_percentage_error", "MeanAbsolutePercentageError"
)
MeanSquaredLogarithmicError = _plain(
    mean_squared_logarithmic_error, "mean_squared_logarithmic_error", "MeanSquaredLogarithmicError"
)
LogCosh = _plain(log_cosh, "log_cosh", "LogCosh")
Hinge = _plain(hinge, "hinge", "Hinge")
SquaredHinge = _plain(squared_hinge, "squared_hinge", "SquaredHinge")
CategoricalHinge = _plain(categorical_hinge, "categorical_hinge", "CategoricalHinge")
KLDivergence = _plain(kl_divergence, "kl_divergence", "KLDivergence")
Poisson = _plain(poisson, "poisson", "Poisson")


class CosineSimilarity(LossFunctionWrapper):
    """−1 for vectors of one direction, 1 for opposite ones."""

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "cosine_similarity",
        dtype: Any = None,
    ) -> None:
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)


class Huber(LossFunctionWrapper):
    """Half the squared error where it is small, linear beyond `delta`."""

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str = "huber_loss",
        dtype: Any = None,
    ) -> None:
        super().__init__(huber, reduction, name, dtype, delta=delta)


class BinaryCrossentropy(LossFunctionWrapper):
    """Cross-entropy of targets of 0 or 1 and probabilities, or logits with `from_logits`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_crossentropy, reduction, name, dtype, **options)


class BinaryFocalCrossentropy(LossFunctionWrapper):
    """Binary cross-entropy in which easy examples count less, by (1 − p of the right side)^gamma."""

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"apply_class_balancing": apply_class_balancing, "alpha": alpha, "gamma": gamma}
        options |= {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(binary_focal_crossentropy, reduction, name, dtype, **options)


class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of one-hot targets in which classes that are sure count less, by alpha · (1 − p)^gamma."""

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"alpha": alpha, "gamma": gamma}
        options |= {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_focal_crossentropy, reduction, name, dtype, **options)


class CategoricalGeneralizedCrossEntropy(LossFunctionWrapper):
    """(1 − p^q) / q for the probability p of the class: between cross-entropy (q → 0) and absolute error (q → 1), for
    labels that are not all right."""

    def __init__(
        self,
        q: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_generalized_cross_entropy",
        dtype: Any = None,
    ) -> None:
        if not 0 < q < 1:
            raise GraphcError(f"CategoricalGeneralizedCrossEntropy: q is a number between 0 and 1, not {q!r}")
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)


class Dice(LossFunctionWrapper):
    """1 − the share of what targets and predictions have in common, over `axis` (all of the batch without)."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dice",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(dice, reduction, name, dtype, axis=axis)


class Tversky(LossFunctionWrapper):
    """`Dice` with weights: `alpha` for what is true and not predicted, `beta` for what is predicted and not true."""

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tversky",
        axis: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)


class Circle(LossFunctionWrapper):
    """The circle loss of embeddings of length 1 [examples, size] and their labels [examples]. Examples whose loss is 0
    do not count, in the mean either."""

    def __init__(
        self,
        gamma: float = 80.0,
        margin: float = 0.4,
        remove_diagonal: bool = True,
        reduction: str | None = "sum_over_batch_size",
        name: str = "circle",
        dtype: Any = None,
    ) -> None:
        options = {"gamma": gamma, "margin": margin, "remove_diagonal": remove_diagonal}
        super().__init__(circle, reduction, name, dtype, **options)

    def counted(self, y_true: Any, y_pred: Any) -> Any:
        return ops.greater(ops.stop_gradient(self.call(y_true, y_pred)), 0.0)


class CategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of targets that are probabilities of classes and predicted ones, or logits with `from_logits`."""

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "label_smoothing": label_smoothing, "axis": axis}
        super().__init__(categorical_crossentropy, reduction, name, dtype, **options)


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of classes and predicted probabilities, or logits with `from_logits`. Targets of `ignore_class` do
    not count, in the mean either."""

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        options = {"from_logits": from_logits, "ignore_class": ignore_class, "axis": axis}
        super().__init__(sparse_categorical_crossentropy, reduction, name, dtype, **options)
        self.ignore_class, self.axis = ignore_class, axis

    def counted(self, y_true: Any, y_pred: Any) -> Any:
        if self.ignore_class is None:
            return None
        return ops.not_equal(loss_functions.class_labels(y_true, y_pred, self.axis), self.ignore_class)


# --- names --------------------------------------------------------------------------------------------------------

CLASSES: dict[str, type[Loss]] = {
    cls.__name__: cls
    for cls in (
        BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, CategoricalFocalCrossentropy,
        CategoricalGeneralizedCrossEntropy, CategoricalHinge, Circle, CosineSimilarity, Dice, Hinge, Huber,
        KLDivergence, LogCosh, MeanAbsoluteError, MeanAbsolutePercentageError, MeanSquaredError,
        MeanSquaredLogarithmicError, Poisson, SparseCategoricalCrossentropy, SquaredHinge, Tversky,
    )
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Any]] = {
    fn.__name__: fn
    for fn in (
        binary_crossentropy, binary_focal_crossentropy, categorical_crossentropy, categorical_focal_crossentropy,
        categorical_generalized_cross_entropy, categorical_hinge, circle, cosine_similarity, dice, hinge, huber,
        kl_divergence, log_cosh, mean_absolute_error, mean_absolute_percentage_error, mean_squared_error,
        mean_squared_logarithmic_error, poisson, sparse_categorical_crossentropy, squared_hinge, tversky,
    )
} | {
    "bce": binary_crossentropy, "BCE": binary_crossentropy, "kld": kl_divergence, "KLD": kl_divergence,
    "mae": mean_absolute_error, "MAE": mean_absolute_error, "mape": mean_absolute_percentage_error,
    "MAPE": mean_absolute_percentage_error, "mse": mean_squared_error, "MSE": mean_squared_error,
    "msle": mean_squared_logarithmic_error, "MSLE": mean_squared_logarithmic_error,
}  # fmt: skip


def get(identifier: Any) -> Any:
    """The loss of a name (a function), class, config or object; None stays None."""
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        found = FUNCTIONS.get(identifier) or CLASSES.get(identifier) or serialization.registered_object(identifier)
        if found is None:
            raise GraphcError(f"no loss is called {identifier!r}{nearest(identifier, [*FUNCTIONS, *CLASSES])}")
        identifier = found
    if isinstance(identifier, type):
        return identifier()
    if callable(identifier):
        return identifier
    raise GraphcError(f"a loss is a name, a function or a Loss, not {identifier!r}")


def serialize(loss: Any) -> Any:
    """The loss's class and config, or the name of a function, which `deserialize` takes."""
    return serialization.serialize(loss)


def deserialize(name: Any, custom_objects: Any = None) -> Any:
    """The loss of a config or name."""
    with serialization.custom_object_scope(custom_objects or {}):
        if not isinstance(name, dict):
            return get(name)
        if name.get("class_name") == "function" and name.get("config") in FUNCTIONS:
            return FUNCTIONS[name["config"]]
        found = CLASSES.get(str(name.get("class_name")))
        return found.from_config(name.get("config", {})) if found else serialization.deserialize(name)


def __dir__() -> list[str]:
    functions = {fn.__name__ for fn in FUNCTIONS.values()}
    return sorted({"Loss", "LossFunctionWrapper", "deserialize", "get", "serialize", *CLASSES, *functions})
