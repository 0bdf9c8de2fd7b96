"""Op declarations: one decorated function states an op's signature, meaning and rules.

    @primitive
    def reduce_sum(x: Tensor, *, axes: Axes, keepdims: bool = False) -> TensorType: ...

Positional parameters are operands (`| None = None` optional, `*xs` variadic), keyword-only ones are attributes. The
body of a primitive gets types in place of operands and returns the result type; the body of a composite is its
decomposition, written with other ops, and so is its type rule. The decorated function becomes an `OpDef`: calling it
records an op at the ambient insertion point (`Builder.current`), or with none evaluates at once on arrays.

Operands annotated `Tensor` are brought to one dtype by the promotion lattice; `IndexTensor` operands are integers and
`BoolTensor` operands are bool, `AnyTensor` operands are what they are, and none of these takes part.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, TypeAlias, TypeVar, cast, overload

from graphc.ir import attributes as attribute_kinds
from graphc.ir.attributes import Attributes
from graphc.ir.dims import Guard
from graphc.ir.dtypes import ALL, BOOL, INTEGERS, DType
from graphc.ir.errors import DTypeError, GraphcError, ShapeError
from graphc.ir.graph import Op, Value
from graphc.ir.location import Location
from graphc.ir.suggestions import number_of
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.builder import Builder
    from graphc.ir.graph import Function, Region

P = ParamSpec("P")
R = TypeVar("R")
Rule = TypeVar("Rule", bound=Callable[..., Any])

# A caller may pass a value, an array, a Python number, a list, a symbolic tensor or a variable, and what the body
# of a primitive gets is a `TensorType`: no static type says that.
Tensor: TypeAlias = Any
"""In signatures: an operand that takes part in dtype promotion."""
IndexTensor: TypeAlias = Any
"""In signatures: an operand of any integer dtype, kept as it is."""
BoolTensor: TypeAlias = Any
"""In signatures: a bool operand."""
AnyTensor: TypeAlias = Any
"""In signatures: an operand of any dtype, kept as it is."""

ambient: ContextVar[Builder | None] = ContextVar("graphc_builder", default=None)
"""The builder that calls record into; set by `with builder:`."""

recorded_guards: ContextVar[list[Guard] | None] = ContextVar("graphc_guards", default=None)
"""Where type rules leave what they could not decide; see `inference.require_equal`."""

OPS: dict[str, OpDef[..., Any]] = {}
"""Every declared op by name."""


KINDS = ("Tensor", "IndexTensor", "BoolTensor", "AnyTensor")


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand of a signature. `kind` is one of `KINDS`."""

    name: str
    kind: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a signature; `default` is `REQUIRED` where there is none."""

    name: str
    annotation: str
    default: Any
    convert: Callable[[Any], Any]


REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Inferred:
    """What a type rule found: canonical attributes, result types, and the guards it needs."""

    attributes: Attributes
    types: tuple[TensorType, ...]
    guards: tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One drawn call of an op for its generated tests: what to pass for each operand, and the attributes.

    An operand is a shape (drawn in the dtype under test), a `Draw`, an array (passed as it is) or None.
    """

    operands: tuple[Any, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draw:
    """An operand to draw: uniform in [low, high); of `dtype`, or of the dtype under test where that is None."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: DType | None = None


class OpDef(Generic[P, R]):
    """An op: its signature, and the rules attached to it by decorators.

    `name` is the op's name in text, `operands` and `attributes` its signature, `dtypes` what its `Tensor` operands
    may be. `reference(*arrays, **attributes)` is the meaning in NumPy (floats arrive as float64), `vjp(dy, y,
    *operands, **attributes)` gives a cotangent for each operand (None: no gradient). An op that does not `widen` gets
    its operands in their own dtypes in the reference: its meaning depends on them. An op that names functions has a
    `call_rule(functions, types, attributes)` for its types; its first attribute is the function that it runs.
    """

    is_composite: ClassVar[bool] = False

    def __init__(self, function: Callable[P, Any], dtypes: frozenset[DType], name: str | None = None) -> None:
        self.name = name or function.__name__.rstrip("_")
        self.function: Callable[..., Any] = function
        self.dtypes = dtypes
        self.__doc__ = function.__doc__
        self.__name__ = self.name
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self.operands, self.attributes = _signature(function)
        self.attribute_names = tuple(a.name for a in self.attributes)
        self.arity = len(self.operands)
        self.optional = sum(o.optional for o in self.operands)
        self.variadic = any(o.variadic for o in self.operands)
        self._by_bits = [a.annotation.removesuffix(" | None") in attribute_kinds.BY_BITS for a in self.attributes]
        self.by_bits = any(self._by_bits)
        self._interned: dict[Any, Attributes] = {}
        self.defaults: Attributes | None = None
        if all(a.default is not REQUIRED for a in self.attributes):
            self.defaults = self.intern(tuple(a.default for a in self.attributes))
        self.reference_rule: Callable[..., Any] | None = None
        self.vjp_rule: Callable[..., Any] | None = None
        self.region_rule: Callable[..., tuple[TensorType, ...]] | None = None
        self.call_rule: Callable[[Mapping[str, Function], tuple[TensorType, ...], Attributes], Inferred] | None = None
        self.flops_rule: Callable[..., Any] | None = None
        self.canonical_rule: Callable[..., dict[str, Any]] | None = None
        self.widens = True
        self.samples: list[Sample] = []
        self.introduces_symbols = False
        self.has_effect = False
        self.op_class = _op_class(self)
        self._inferred: dict[Any, Inferred] = {}
        self._bound: dict[Any, Attributes] = {}
        if self.name in OPS:
            raise GraphcError(f"op {self.name!r} is declared twice")
        OPS[self.name] = self

    # --- rules, attached after the declaration; decorators return the rule, which several ops may share ---------

    def reference(self, rule: Rule) -> Rule:
        """Decorator: the meaning, on NumPy arrays with floats in float64, before rounding to the result's dtype."""
        self.reference_rule = rule
        return rule

    def vjp(self, rule: Rule) -> Rule:
        """Decorator: the cotangents of the operands, written with ops."""
        self.vjp_rule = rule
        return rule

    def flops(self, rule: Rule) -> Rule:
        """Decorator: floating-point operations as a size, from operand types and attributes."""
        self.flops_rule = rule
        return rule

    def canonical(self, rule: Rule) -> Rule:
        """Decorator: attributes in the form that ops carry, as a dict of those that change, from operand types and
        attributes. For a default that depends on the operands, such as a stride of 1 along each of their axes."""
        self.canonical_rule = rule
        return rule

    def sample(self, *operands: Any, **attributes: Any) -> None:
        """Add a call for the generated tests; see `Sample`."""
        self.samples.append(Sample(operands, attributes))

    # --- calling --------------------------------------------------------------------------------------------

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        builder = ambient.get()
        if builder is None:
            return self._without_builder(args, kwargs)
        operands: Any = args
        if kwargs or len(args) != self.arity or self.defaults is None:
            operands, attributes = self.bind(args, kwargs)
        else:
            attributes = self.defaults
        try:
            key = (id(attributes), *[v if v is None else v.type for v in operands])
        except AttributeError:
            operands = self._coerced(builder, operands)
            key = (id(attributes), *[v if v is None else v.type for v in operands])
        inferred = self._inferred.get(key)
        if inferred is None:
            try:
                operands, inferred = self._promoted(builder, operands, attributes)
            except GraphcError as error:
                raise error.at(builder.place()) from error
        op = builder.insert(self.op_class, operands, inferred)
        results: Any = op.results
        return results[0] if len(results) == 1 else results

    def build(
        self,
        builder: Builder,
        operands: Sequence[Value | None],
        attributes: Attributes | None = None,
        regions: tuple[Region, ...] = (),
        location: Location | None = None,
    ) -> Op:
        """Record the op with values and canonical attributes, without promotion: for the parser and for passes."""
        values = tuple(operands)
        given = self.defaults if attributes is None else attributes
        if given is None:
            raise GraphcError(f"{self.name} needs attributes {', '.join(self.attribute_names)}")
        inferred = self.infer(tuple([v if v is None else v.type for v in values]), given, regions)
        return builder.insert(self.op_class, values, inferred, regions, location)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Attributes]:
        """Split a call into operands and canonical, interned attributes. Raises TypeError like a Python call."""
        key: Any = tuple(kwargs.items())
        if self.by_bits:
            key = key, repr(key)
        try:
            attributes = self._bound.get(key)
        except TypeError:  # something unhashable, such as a list of axes
            key = attributes = None
        if attributes is not None:
            missing = self.arity - len(args)
            if not missing or self.variadic:
                return args, attributes
            if 0 < missing <= self.optional:
                return (*args, *(None,) * missing), attributes
        operands, named = self._bind_operands(args, kwargs)
        attributes = self.make_attributes(**named)
        if key is not None and named.keys() == kwargs.keys():
            self._bound[key] = attributes
        return operands, attributes

    def make_attributes(self, **named: Any) -> Attributes:
        """These attributes interned, defaults filled in. Raises `GraphcError` for one that does not fit."""
        values: list[Any] = []
        for attribute in self.attributes:
            value = named.pop(attribute.name, attribute.default)
            if value is REQUIRED:
                raise TypeError(f"{self.name}() misses the attribute {attribute.name!r}")
            try:
                values.append(attribute.convert(value))
            except (TypeError, ValueError, OverflowError):
                raise GraphcError(
                    f"{self.name}: {attribute.name} = {value!r} is not of the kind {attribute.annotation}"
                ) from None
        if named:
            known = ", ".join(self.attribute_names) or "none"
            raise TypeError(f"{self.name}() has no attribute {next(iter(named))!r}; it has {known}")
        return self.intern(tuple(values))

    def intern(self, attributes: Attributes) -> Attributes:
        """The one tuple equal to `attributes` among those of this op, where equal means the same types and bits."""
        # Within one op a place holds one Python type, save by annotations in BY_BITS; between ops (1,) meets (True,).
        if not self.by_bits:
            return self._interned.setdefault(attributes, attributes)
        # By their text, numbers are told apart as by their bits, and a nan is itself, which it is not by `==`.
        key = tuple([repr(value) if bits else value for value, bits in zip(attributes, self._by_bits, strict=True)])
        return self._interned.setdefault(key, attributes)

    def _bind_operands(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.variadic and not any(o.name in kwargs for o in self.operands):
            return args, kwargs
        named = dict(kwargs)
        values = list(args)
        if len(values) > self.arity:
            raise TypeError(f"{self.name}() takes {self.arity} operands, {len(values)} were given")
        for operand in self.operands[len(values) :]:
            if operand.name in named:
                values.append(named.pop(operand.name))
            elif operand.optional:
                values.append(None)
            else:
                raise TypeError(f"{self.name}() misses the operand {operand.name!r}")
        return tuple(values), named

    def kind_of(self, index: int) -> str:
        """The kind, one of `KINDS`, of the operand at `index`."""
        return self.operands[min(index, self.arity - 1)].kind

    # --- inference ------------------------------------------------------------------------------------------

    def infer(
        self, types: tuple[TensorType | None, ...], attributes: Attributes, regions: tuple[Region, ...] = ()
    ) -> Inferred:
        """Result types and canonical attributes. Memoised; raises `ShapeError`, `DTypeError`."""
        if regions or self.introduces_symbols:
            return self._infer(types, attributes, regions)
        key = (id(attributes), *types)
        found = self._inferred.get(key)
        if found is None:
            found = self._inferred[key] = self._infer(types, attributes, regions)
        return found

    def _infer(
        self, types: tuple[TensorType | None, ...], attributes: Attributes, regions: tuple[Region, ...]
    ) -> Inferred:
        raise NotImplementedError

    def check_operands(self, types: tuple[TensorType | None, ...]) -> None:
        """Raise `GraphcError` where an operand that is not optional is missing, or there are too many."""
        if self.variadic:
            if any(type is None for type in types[self.arity - 1 :]):
                raise GraphcError(f"{self.name}: none of {self.operands[-1].name} may be absent")
        elif len(types) > self.arity:
            raise GraphcError(f"{self.name} takes {self.arity} operands, not {len(types)}")
        for i, operand in enumerate(self.operands):
            if not (operand.optional or operand.variadic) and (i >= len(types) or types[i] is None):
                raise GraphcError(f"{self.name} misses the operand {operand.name}")

    def _check_dtypes(self, types: tuple[TensorType | None, ...]) -> None:
        self.check_operands(types)
        common: DType | None = None
        for i, type in enumerate(types):
            if type is None:
                continue
            kind = self.kind_of(i) if self.operands else "Tensor"
            if kind == "AnyTensor":
                continue
            allowed = INTEGERS if kind == "IndexTensor" else BOOL if kind == "BoolTensor" else self.dtypes
            if type.dtype not in allowed:
                listed = ", ".join(sorted(allowed, key=str))
                raise DTypeError(
                    f"{self.name} does not take {type.dtype} for {self._operand_name(i)}; it takes {listed}"
                )
            if kind == "Tensor":
                if common is not None and type.dtype is not common:
                    raise DTypeError(
                        f"{self.name} needs operands of one dtype, not {common} and {type.dtype}; convert one of them"
                    )
                common = type.dtype

    def _canonical(self, attributes: Attributes, types: tuple[TensorType | None, ...]) -> Attributes:
        """The attributes with the declaration's own canonical form applied."""
        if self.canonical_rule is None:
            return attributes
        named = dict(zip(self.attribute_names, attributes, strict=True))
        named |= self.canonical_rule(*types, **named)
        return self.intern(tuple(named.values()))

    def _operand_name(self, index: int) -> str:
        return self.operands[min(index, self.arity - 1)].name

    def _coerced(self, builder: Builder, operands: tuple[Any, ...]) -> tuple[Value | None, ...]:
        return builder.values(operands, [self.kind_of(i) for i in range(len(operands))], self)

    def _promoted(
        self, builder: Builder, operands: tuple[Any, ...], attributes: Attributes
    ) -> tuple[tuple[Any, ...], Inferred]:
        kinds = [self.kind_of(i) for i in range(len(operands))]
        operands = builder.promoted(operands, kinds)
        return operands, self.infer(tuple([v if v is None else v.type for v in operands]), attributes)

    def _without_builder(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for value in (*args, *kwargs.values()):
            record = getattr(value, "__graphc_record__", None)
            if record is not None:
                return record(self, args, kwargs)
        from graphc.ir.interpreter import call_on_arrays

        return call_on_arrays(self, args, kwargs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class Primitive(OpDef[P, R]):
    """An op whose declared body is its type rule, from operand types to result types."""

    def _infer(
        self, types: tuple[TensorType | None, ...], attributes: Attributes, regions: tuple[Region, ...]
    ) -> Inferred:
        self._check_dtypes(types)
        guards: list[Guard] = []
        token = recorded_guards.set(guards)
        try:
            attributes = self._canonical(attributes, types)
            named = dict(zip(self.attribute_names, attributes, strict=True))
            if self.region_rule is not None:
                found: Any = self.region_rule(types, regions, **named)
            else:
                found = self.function(*types, **named)
        except ShapeError as error:
            shown = ", ".join("_" if t is None else str(t) for t in types)
            raise error.at(f"{self.name}({shown})") from None
        finally:
            recorded_guards.reset(token)
        return Inferred(attributes, _as_tuple(found), tuple(dict.fromkeys(guards)))

    def _canonical(self, attributes: Attributes, types: tuple[TensorType | None, ...]) -> Attributes:
        """Axes counted from the end are counted from the front, so that equal ops have equal attributes."""
        attributes = super()._canonical(attributes, types)
        first = types[0] if types else None
        if first is None:
            return attributes
        values = list(attributes)
        for i, attribute in enumerate(self.attributes):
            if attribute.annotation == "Axis":
                values[i] = self._axis(values[i], first)
            elif attribute.annotation == "Axes":
                values[i] = tuple(self._axis(axis, first) for axis in values[i])
                if len(set(values[i])) != len(values[i]):
                    raise ShapeError(f"{self.name}: {attribute.name} = {list(values[i])} names an axis twice")
        return self.intern(tuple(values))

    def _axis(self, axis: int, type: TensorType) -> int:
        if not -type.ndim <= axis < type.ndim:
            has = number_of(type.ndim, "axis", "axes")
            raise ShapeError(f"{self.name}: axis {axis} is out of range for {type}, which has {has}")
        return axis % type.ndim


class Composite(OpDef[P, R]):
    """An op whose declared body is its decomposition into other ops."""

    is_composite: ClassVar[bool] = True

    def __init__(self, function: Callable[P, Any], dtypes: frozenset[DType], name: str | None = None) -> None:
        super().__init__(function, dtypes, name)
        self._decompositions: dict[Any, tuple[Function, Inferred]] = {}

    def decomposition(self, types: tuple[TensorType | None, ...], attributes: Attributes) -> Function:
        """The body on operands of these types, as a function with a parameter for each operand present. Memoised."""
        return self._decomposed(types, attributes)[0]

    def expand(self, builder: Builder, op: Op) -> tuple[Value, ...]:
        """Record the body at `builder` on the operands of `op`; returns what replaces its results."""
        named = op.attribute_dict
        with builder:
            found = self.function(*op.operands, **named)
        return _as_tuple(found)

    def _infer(
        self, types: tuple[TensorType | None, ...], attributes: Attributes, regions: tuple[Region, ...]
    ) -> Inferred:
        return self._decomposed(types, attributes)[1]

    def _decomposed(self, types: tuple[TensorType | None, ...], attributes: Attributes) -> tuple[Function, Inferred]:
        key = (id(attributes), *types)
        found = self._decompositions.get(key)
        if found is not None:
            return found
        from graphc.ir.builder import Builder
        from graphc.ir.graph import Function

        self._check_dtypes(types)
        canonical = self._canonical(attributes, types)
        if canonical is not attributes:
            found = self._decompositions[key] = self._decomposed(types, canonical)
            return found
        function = Function(self.name, public=False)
        values = [
            None if type is None else function.add_parameter(type, self._parameter_name(i))
            for i, type in enumerate(types)
        ]
        try:
            with Builder(function.block) as builder:
                out = self.function(*values, **dict(zip(self.attribute_names, attributes, strict=True)))
                results = builder.values(_as_tuple(out), None, self)
                builder.finish(results)
        except GraphcError as error:
            shown = ", ".join("_" if t is None else str(t) for t in types)
            error.places.clear()
            raise error.at(f"{self.name}({shown})") from None
        inferred = Inferred(attributes, function.result_types, tuple(function.guards))
        self._decompositions[key] = function, inferred
        return function, inferred

    def _parameter_name(self, index: int) -> str:
        last = self.arity - 1
        name = self._operand_name(index)
        return f"{name}{index - last}" if self.variadic and index >= last else name


# --- declaring --------------------------------------------------------------------------------------------------


@overload
def primitive(function: Callable[P, TensorType], /) -> Primitive[P, Value]: ...
@overload
def primitive(function: Callable[P, tuple[TensorType, ...]], /) -> Primitive[P, tuple[Value, ...]]: ...
@overload
def primitive(
    *, dtypes: frozenset[DType] = ..., name: str | None = ...
) -> Callable[[Callable[P, Any]], Primitive[P, Any]]: ...
def primitive(function: Any = None, /, *, dtypes: frozenset[DType] = ALL, name: str | None = None) -> Any:
    """Declare a primitive; see the module's docstring. `dtypes`: what its `Tensor` operands may be."""
    if function is not None:
        declared: Primitive[..., Any] = Primitive(function, ALL)
        return declared

    def declare(function: Callable[P, Any]) -> Primitive[P, Any]:
        return Primitive(function, dtypes, name)

    return declare


@overload
def composite(function: Callable[P, R], /) -> Composite[P, R]: ...
@overload
def composite(
    *, dtypes: frozenset[DType] = ..., name: str | None = ...
) -> Callable[[Callable[P, R]], Composite[P, R]]: ...
def composite(function: Any = None, /, *, dtypes: frozenset[DType] = ALL, name: str | None = None) -> Any:
    """Declare a composite; see the module's docstring. `dtypes`: what its `Tensor` operands may be."""
    if function is not None:
        declared: Composite[..., Any] = Composite(function, ALL)
        return declared

    def declare(function: Callable[P, R]) -> Composite[P, R]:
        return Composite(function, dtypes, name)

    return declare


def _as_tuple(found: object) -> tuple[Any, ...]:
    return cast("tuple[Any, ...]", found) if isinstance(found, tuple) else (found,)


def _signature(function: Callable[..., Any]) -> tuple[tuple[Operand, ...], tuple[Attribute, ...]]:
    operands: list[Operand] = []
    attributes: list[Attribute] = []
    for parameter in inspect.signature(function).parameters.values():
        annotation = str(parameter.annotation)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            convert = attribute_kinds.converter(annotation)
            default = parameter.default
            if default is not REQUIRED:
                default = convert(default)
            attributes.append(Attribute(parameter.name, annotation, default, convert))
        else:
            kind = annotation.removesuffix("| None").strip()
            if kind not in KINDS:
                raise TypeError(f"{function.__name__}: operand {parameter.name!r} is annotated {annotation!r}")
            variadic = parameter.kind is inspect.Parameter.VAR_POSITIONAL
            operands.append(Operand(parameter.name, kind, parameter.default is None, variadic))
    return tuple(operands), tuple(attributes)


def _op_class(definition: OpDef[..., Any]) -> type[Op]:
    """The subclass of `Op` whose properties read this op's operands and attributes by name."""
    members: dict[str, Any] = {"__slots__": (), "definition": definition, "__doc__": definition.__doc__}
    names = [o.name for o in definition.operands] + list(definition.attribute_names)
    for name in names:
        if hasattr(Op, name) or name in Op.__slots__:
            raise TypeError(f"{definition.name}: the name {name!r} shadows a property of Op")
    for i, operand in enumerate(definition.operands):
        if operand.variadic:
            members[operand.name] = property(lambda op, i=i: op.operands[i:])
        else:
            members[operand.name] = property(lambda op, i=i: op.operands[i])
    for i, name in enumerate(definition.attribute_names):
        members[name] = property(lambda op, i=i: op.attributes[i])
    return type(f"{definition.name.title().replace('_', '')}Op", (Op,), members)
