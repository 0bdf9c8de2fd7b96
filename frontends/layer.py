"""`Layer`: weights and a `call`. `__init__` takes options, `build` makes the weights when shapes are known.

A layer can be called on arrays (computes at once), on symbolic tensors (becomes a node of a functional model) and on
traced values (records ops in its own scope).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from copy import deepcopy
from functools import cache, wraps
from typing import Any

import numpy as np

from graphc.frontends import initializers, regularizers
from graphc.frontends.arguments import constructor_arguments, no_argument
from graphc.frontends.copying import refuse_pickle
from graphc.frontends.dtype_policy import DTypePolicy
from graphc.frontends.input_spec import InputSpec, check_inputs
from graphc.frontends.naming import automatic_name, snake_case
from graphc.frontends.nodes import Node, is_symbolic, record
from graphc.frontends.recording import Recording, current_recording
from graphc.frontends.remat import RematScope, current_remat_scope
from graphc.frontends.scopes import user_line
from graphc.frontends.structures import flatten, map_structure
from graphc.frontends.symbolic import SymbolicTensor, keras_shape, size_of
from graphc.frontends.tracking import Tracker
from graphc.frontends.variable import Variable, autocast_to, outside_traces, reading_adapted
from graphc.frontends.weights import WeightOwner
from graphc.ir.builder import Builder, in_graphc
from graphc.ir.dtypes import DType
from graphc.ir.dtypes import dtype as dtype_of
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Value
from graphc.ir.location import Location
from graphc.ir.ops.cotangents import size_of as size_as_number
from graphc.ir.types import TensorType

_training: ContextVar[bool | None] = ContextVar("graphc_training", default=None)


class NotInitialised(GraphcError, AttributeError):
    """A layer is used whose `__init__` has not called that of `Layer`."""

    __str__ = GraphcError.__str__


class SetByInit:
    """Stands for an attribute until `Layer.__init__` has set it."""

    def __get__(self, layer: Any, cls: type) -> Any:
        if layer is None:
            return self
        raise NotInitialised(f"{cls.__name__}.__init__ must call super().__init__()")


class Layer(WeightOwner):
    """Base class of layers; see the module's docstring. Subclasses define `__init__`, `build`, `call`, `get_config`."""

    inbound_nodes: list[Node]
    """The calls on symbolic tensors, in order."""

    _build_shapes: dict[str, Any] | None = None
    """The shapes that the layer was built for, by argument; None if it was not built by a call."""

    _arguments: dict[str, Any] | None
    """What `__init__` was given, by name, for a `get_config` that a subclass does not write; None if it is unclear."""

    _remat_scope: RematScope | None
    """The `RematScope` that the layer was made in."""

    name: str = SetByInit()  # type: ignore[assignment]
    automatic_prefix: str | None = SetByInit()  # type: ignore[assignment]
    dtype_policy: DTypePolicy = SetByInit()  # type: ignore[assignment]

    _not_copied: tuple[str, ...] = ()
    """Attributes that a copy makes anew."""

    _input_shape: Any = None
    """The `input_shape` option: what a Sequential that begins with this layer takes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if kwargs and in_graphc(cls.__init__.__code__.co_filename):  # type: ignore[misc]
            known = (*constructor_arguments(cls), "input_shape")
            unknown = [name for name in kwargs if name not in known]
            if unknown:
                raise no_argument(cls.__name__, unknown, known)
        self = super().__new__(cls)
        # Set before `__init__`, so that attributes assigned ahead of `super().__init__()` are tracked too.
        for name, value in (("_tracker", Tracker()), ("inbound_nodes", []), ("built", False), ("_trainable", True)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_remat_scope", current_remat_scope())
        object.__setattr__(self, "_arguments", _given_arguments(cls, args, kwargs))
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _marks_built(cls.__dict__["build"])  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        input_shape = kwargs.pop("input_shape", None)
        if kwargs:
            raise no_argument(type(self).__name__, kwargs, constructor_arguments(type(self)))
        if name is not None and (not isinstance(name, str) or not name or "/" in name or "#" in name):
            raise GraphcError(f"a layer's name is a word without '/' and '#', not {name!r}")
        self.automatic_prefix = None if name else snake_case(self._base_name())
        self.name = name or automatic_name(snake_case(self._base_name()))
        self.dtype_policy = DTypePolicy.of(dtype)
        self.autocast = autocast
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.input_spec: Any = None
        self.supports_masking = False
        self._trainable = bool(trainable)
        object.__setattr__(self, "_input_shape", input_shape)

    def _base_name(self) -> str:
        return type(self).__name__

    # --- what subclasses define ------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (None for open sizes)."""
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for these inputs, written with `graphc.ops`, operators and other layers."""
        raise GraphcError(f"{type(self).__name__} has no method `call`")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer. By default those `__init__` was called with, in custom layers."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy.name}
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if hasattr(type(self).get_config, "is_default") and not in_graphc(type(self).__init__.__code__.co_filename):
            if self._arguments is None:
                raise GraphcError(
                    f"{type(self).__name__} takes arguments that get_config cannot repeat; define get_config"
                )
            config.update({k: v for k, v in self._arguments.items() if k not in config})
            accepted = inspect.signature(type(self).__init__).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                config = {key: value for key, value in config.items() if key in accepted}
        return config

    get_config.is_default = True  # type: ignore[attr-defined]  # says what custom layers were made with

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer that `get_config` described."""
        from graphc.frontends.serialization import deserialize_nested

        try:
            return cls(**{key: deserialize_nested(value) for key, value in config.items()})
        except TypeError as error:
            raise GraphcError(f"{cls.__name__} cannot be made from its config {config!r}: {error}") from error

    # --- copies ----------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A layer of the same name with weights of its own, that was not called on symbolic tensors yet."""
        memo[id(self)] = copied = object.__new__(type(self))
        copied.__dict__["inbound_nodes"] = []
        self._copy_into(copied, memo)
        return copied

    def _copy_into(self, copied: Any, memo: dict[int, Any]) -> None:
        """Copy the attributes, `memo` being that of `copy.deepcopy`."""
        left = ("inbound_nodes", *self._not_copied)
        copied.__dict__.update({key: deepcopy(v, memo) for key, v in self.__dict__.items() if key not in left})

    def __copy__(self) -> Any:
        return deepcopy(self)  # weights of two layers are never one array

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise refuse_pickle(self)

    # --- weights ---------------------------------------------------------------------------------------------

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        overwrite_with_gradient: bool = False,
        name: str | None = None,
    ) -> Variable:
        """A new variable of the layer. The initializer is glorot_uniform for floats, zeros for others, unless given."""
        if isinstance(shape, str):
            raise GraphcError(f"add_weight takes a shape first; write add_weight(shape=..., name={shape!r})")
        kind = dtype_of(dtype or self.variable_dtype)
        if initializer is None:
            initializer = "glorot_uniform" if kind.is_float else "zeros"
        variable = Variable(
            initializers.get(initializer), () if shape is None else shape, kind, trainable, autocast, aggregation, name
        )
        variable.path = f"{self.name}/{variable.name}"
        variable.regularizer = regularizers.get(regularizer)
        variable.constraint = constraint
        self._tracker.add(variable)
        return variable

    def add_loss(self, loss: Any) -> None:
        """Add a scalar, or several, to the loss of the training step that is being recorded; to be called in `call`."""
        recording = current_recording()
        for value in flatten(loss):
            if recording is not None and value is not None:
                recording.losses.append((self, value))

    @property
    def losses(self) -> list[Any]:
        """What the layer and those in it add to the loss: the penalties of weights that are trained, then, while a step
        is recorded, what `add_loss` was given so far."""
        return [*self._penalties(), *self._added_losses()]

    def _penalties(self) -> list[Any]:
        """The penalties of weights that are trained, which are the same for every batch."""
        return [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]

    def _added_losses(self) -> list[Any]:
        """What `add_loss` was given so far in the step that is being recorded."""
        recording = current_recording()
        added = [] if recording is None else recording.losses
        if not added:
            return []
        within = {id(layer) for layer in self.all_layers()}
        return [value for layer, value in added if id(layer) in within]

    def all_layers(self) -> Iterator[Layer]:
        """The layer itself, and all layers in it."""
        yield self
        for layer in self._layers:
            yield from layer.all_layers()

    def __setattr__(self, name: str, value: Any) -> None:
        old = self.__dict__.get(name)
        if old is not None and old is not value and (isinstance(old, (Variable, Layer))):
            self._tracker.replace(old, value)
        object.__setattr__(
            self, name, value if isinstance(getattr(type(self), name, None), property) else self._tracker.add(value)
        )

    def __delattr__(self, name: str) -> None:
        self._tracker.remove(self.__dict__.get(name))
        object.__delattr__(self, name)

    # --- dtypes ----------------------------------------------------------------------------------------------

    @property
    def dtype(self) -> DType:
        """The dtype of the weights."""
        return self.dtype_policy.variable_dtype

    @property
    def variable_dtype(self) -> DType:
        return self.dtype_policy.variable_dtype

    @property
    def compute_dtype(self) -> DType:
        return self.dtype_policy.compute_dtype

    # --- calling ---------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _ = self.name  # or the layer is not initialised
        builder = Builder.current()
        if builder is None:
            if is_symbolic(args, kwargs):
                return record(self, args, kwargs, self._run)
            return self._run(*args, **kwargs)
        args, kwargs = map_structure(
            lambda leaf: leaf.__graphc_value__(builder) if isinstance(leaf, SymbolicTensor) else leaf, (args, kwargs)
        )
        recording, outer, lines = current_recording(), builder.location, builder.trace_lines
        scope = outer.scope.child(self.name) if recording is None else recording.layer_scope(self, builder)
        file, line = user_line() if lines else (outer.file, outer.line)
        builder.location = Location.of(scope, file, line)
        builder.trace_lines = not in_graphc(type(self).call.__code__.co_filename)
        try:
            return self._run(*args, **kwargs)
        finally:
            builder.location, builder.trace_lines = outer, lines

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Convert and check the inputs, build the layer if it is not, and call it."""
        try:
            args, kwargs = map_structure(self._converted, (args, kwargs))
            first = args[0] if args else next(iter(kwargs.values()), None)
            check_inputs(self.input_spec, first)
            if not self.built:
                self._build_for(args, kwargs)
            training = self._resolve_training(kwargs)
            token = _training.set(training)
            mixed = self.compute_dtype is not self.variable_dtype
            try:
                with autocast_to(self.compute_dtype if mixed else None):
                    if Builder.current() is None:
                        with reading_adapted():
                            found = self.call(*args, **kwargs)
                    elif self._remat_scope is None:
                        found = self.call(*args, **kwargs)
                    else:
                        found = self._remat_scope.call(self, args, kwargs)
            finally:
                _training.reset(token)
            self.built = True
            if self.activity_regularizer is not None:
                self.add_loss([_per_example(self.activity_regularizer(output), output) for output in flatten(found)])
            recording = current_recording()
            if recording is not None and recording.observed is not None:
                for output in flatten(found):
                    recording.observe(f"the output of {self._place()}", output)
            return found
        except GraphcError as error:
            error.at(self._place())
            raise

    def _place(self) -> str:
        builder = Builder.current()
        if builder is not None:
            return builder.place()
        file, line = user_line()
        return f"layer {self.name!r}" + (f", {file}:{line}" if file else "")

    def _converted(self, leaf: Any) -> Any:
        """Numbers and arrays as arrays; floats in the layer's dtype."""
        if isinstance(leaf, (np.ndarray, np.generic)) or (isinstance(leaf, Variable) and Builder.current() is None):
            array = np.asarray(leaf)
            wanted = self.compute_dtype
            floats = dtype_of(array.dtype).is_float and wanted.is_float and self.autocast
            return array.astype(wanted.numpy, copy=False) if floats else array
        if isinstance(leaf, Value) and self.autocast and leaf.dtype is not self.compute_dtype:
            from graphc.frontends import ops

            if leaf.dtype.is_float and self.compute_dtype.is_float:
                return ops.cast(leaf, self.compute_dtype)
        return leaf

    def _resolve_training(self, kwargs: dict[str, Any]) -> bool | None:
        """What the layer is told about training: what was passed, else what the caller was told."""
        recording = current_recording()
        told = kwargs.get("training") if "training" in _call_parameters(type(self)) else kwargs.pop("training", None)
        if told is None:
            told = _training.get()
        if told is None and recording is not None:
            told = recording.training
        if "training" in _call_parameters(type(self)):
            default = _call_parameters(type(self))["training"].default
            kwargs["training"] = bool(
                told if told is not None else default if default is not inspect.Parameter.empty else False
            )
        return told

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Build for inputs like these: `build` gets the first shape, or each by name (`x_shape`, `y_shape`)."""
        shapes = {name: shape_structure(value) for name, value in _tensor_arguments(type(self), args, kwargs).items()}
        self._build_shapes = shapes
        parameters = dict(list(_signature(type(self).build).parameters.items())[1:])
        names = [name for name in parameters if name not in ("args", "kwargs")]
        with outside_traces():
            if len(names) <= 1:
                self.build(next(iter(shapes.values()), None))
                return
            found = {f"{name}_shape": shape for name, shape in shapes.items()}
            missing = [
                name for name in names if name not in found and parameters[name].default is inspect.Parameter.empty
            ]
            if missing:
                raise GraphcError(
                    f"{type(self).__name__}.build takes {', '.join(names)}; `call` was given {', '.join(shapes)}, "
                    "whose shapes are passed under those names with `_shape` added"
                )
            self.build(**{name: found[name] for name in names if name in found})

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the output for inputs of this shape."""
        return map_structure(lambda spec: keras_shape(spec.shape), self._output_types(input_shape))

    def _output_types(self, input_shape: Any) -> Any:
        recording = Recording()
        with recording.active(), Builder(recording.function.block):
            inputs = map_shapes(
                lambda shape: recording.function.add_parameter(
                    TensorType.of(self.compute_dtype, [size_of(s) for s in shape])
                ),
                input_shape,
            )
            return map_structure(lambda value: value.type, self._run(inputs))

    # --- the functional model around the layer ----------------------------------------------------------------

    @property
    def input(self) -> Any:
        """What the layer was called on, if it was called on symbolic tensors once."""
        node = self._only_node("input")
        return node.args[0] if node.args else next(iter(node.kwargs.values()))

    @property
    def output(self) -> Any:
        """What it returned then."""
        return self._only_node("output").output_structure

    def _only_node(self, what: str) -> Node:
        if len(self.inbound_nodes) != 1:
            raise GraphcError(
                f"layer {self.name!r} was called on {len(self.inbound_nodes)} symbolic inputs, so it has no one {what}"
            )
        return self.inbound_nodes[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


# --- signatures ---------------------------------------------------------------------------------------------------


def _marks_built(build: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(build)
    def built(self: Layer, *args: Any, **kwargs: Any) -> Any:
        found = build(self, *args, **kwargs)
        self.built = True
        return found

    return built


_signature = cache(inspect.signature)


def _given_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments of `__init__` by name, defaults included; None where they cannot be given by name."""
    signature = _signature(cls.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:
        return None
    bound.apply_defaults()
    given: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        value = bound.arguments.get(name)
        if parameter.kind is parameter.VAR_KEYWORD:
            given.update(value or {})
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY):
            if value:
                return None
        else:
            given[name] = value
    return given


@cache
def _call_parameters(cls: type[Layer]) -> dict[str, inspect.Parameter]:
    return dict(list(_signature(cls.call).parameters.items())[1:])


def _tensor_arguments(cls: type[Layer], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `call` that are tensors or structures of them, by name."""
    try:
        bound = _signature(cls.call).bind(None, *args, **kwargs).arguments
    except TypeError as error:
        raise GraphcError(f"{cls.__name__}: {error}") from error
    found: dict[str, Any] = {}
    for name, value in list(bound.items())[1:]:
        parts = flatten(value)
        if parts and all(hasattr(part, "shape") and hasattr(part, "dtype") for part in parts):
            found[name] = (
                value[0] if cls.call.__code__.co_flags & inspect.CO_VARARGS and isinstance(value, tuple) else value
            )
    return found


def _per_example(penalty: Any, output: Any) -> Any:
    """A penalty on a batch of outputs, divided by its size as in Keras."""
    return penalty / size_as_number(output.shape[0], penalty) if output.shape else penalty


def shape_structure(structure: Any) -> Any:
    """The shapes of a structure of tensors, as `build` gets them."""
    return map_structure(lambda tensor: keras_shape(tuple(tensor.shape)), structure)


def map_shapes(function: Callable[[tuple[Any, ...]], Any], shapes: Any) -> Any:
    """`function` on each shape of a structure of shapes, where a shape is a tuple or list of sizes."""
    if isinstance(shapes, dict):
        return {key: map_shapes(function, shape) for key, shape in sorted(shapes.items())}
    if isinstance(shapes, (list, tuple)) and any(isinstance(item, (list, tuple, dict)) for item in shapes):
        return [map_shapes(function, shape) for shape in shapes]
    return function(tuple(shapes))


__all__ = ["InputSpec", "Layer"]
