"""Random modules, the same for the same seed, that mean something: they verify, and run on the inputs drawn with them.

`random_graph(seed)` draws one. They hold every dtype, symbolic sizes, regions, calls, ops of several results, optional
operands, weights, and inputs with NaN, infinities and −0; `RandomGraph.held` says what one holds, so that a test can
count. They repeat themselves, undo what they did and use neutral constants, as passes look for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir import ops
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, Size, evaluate, symbol, symbols
from graphc.ir.dtypes import DTYPES, DType, bool_, f32, i32
from graphc.ir.errors import GraphcError
from graphc.ir.graph import Block, Function, Op, Result, Value
from graphc.ir.interpreter import round_to
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.rewriter import Rewriter
from graphc.ir.types import TensorType

UNARY = (
    *("neg", "abs", "sign", "exp", "tanh", "sigmoid", "floor", "sqrt", "rsqrt", "log", "erf"),
    *("relu", "silu", "softplus", "conj", "not", "is_nan"),
)
SPECIALS = (np.nan, np.inf, -np.inf, -0.0)
SIZES = {"B": 3, "N": 4}

SIZE_KINDS: tuple[Size, ...] = (1, 2, 3, symbol("B"), symbol("B"), symbol("N"), symbol("B") + 1)


@dataclass
class RandomGraph:
    """A module, inputs for its main entry by position, and what both hold: dtype names, `symbolic size`, `region`,
    `cond`, `while`, `scan`, `call`, `several results`, `optional operand`, `weight`, `NaN`, `infinity`, `-0`."""

    module: Module
    inputs: list[np.ndarray[Any, Any]]
    held: frozenset[str]


def random_graph(seed: int) -> RandomGraph:
    """The graph of a seed."""
    return Generator(seed).graph()


class Generator:
    """Draws the graph of a seed. Subclasses draw of less."""

    block_dtype = f32
    specials = 0.5
    """How often an input has some of `SPECIALS`."""
    bound: int | None = None
    """How often a loop may run at most; None: loops say nothing about it."""

    def __init__(self, seed: int) -> None:
        self.block_name = "block"
        self.random = random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.module = Module()
        # A few dtypes a graph, so that operands meet; which ones is up to the seed, so that all have their turn.
        self.dtypes = [DTYPES[seed % len(DTYPES)], self.random.choice(DTYPES), f32]
        self.function = Function("none")
        self.depth = 0

    # --- the module ---------------------------------------------------------------------------------------------

    def graph(self) -> RandomGraph:
        main = self.module.add_function("main")
        if self.random.random() < 0.3:
            self.private_function()
        self.function = main
        for symbolic in SIZES:  # each symbol that may occur is bound by an input
            main.add_parameter(TensorType.of(self.random.choice(self.dtypes), (symbol(symbolic), 2)), f"of_{symbolic}")
        for i in range(self.random.randint(1, 3)):
            main.add_parameter(TensorType.of(self.random.choice(self.dtypes), self.shape()), f"x{i}")
        if self.random.random() < 0.4:
            self.weight(main)
        with Builder(main.block) as builder:
            values = self.body(builder, list(main.block.parameters), self.random.randint(4, 24), depth=0)
            made = [v for v in values if v.op is not None] or values
            ends = [v for v in made if not v.uses] or made
            outputs = self.random.sample(ends, min(len(ends), self.random.randint(1, 12)))
            builder.finish([outputs[0] if self.random.random() < 0.2 else v for v in outputs])
        main.results = [Result(f"y{i}" if self.random.random() < 0.5 else None) for i in range(len(outputs))]
        for value in values:
            if value.name is None and self.random.random() < 0.2:
                value.name = self.random.choice(("hidden", "x", "y"))
        inputs = [self.array(p.type) for p in main.inputs]
        return RandomGraph(self.module, inputs, frozenset(self.held(inputs)))

    def weight(self, function: Function) -> None:
        shape = tuple(self.random.choice((1, 2, 3)) for _ in range(self.random.randint(1, 2)))
        array = self.array(TensorType.of(self.random.choice(self.dtypes), shape))
        weight = self.module.weights.add("layer/kernel", array, trainable=self.random.random() < 0.8)
        function.add_parameter(weight.type, "layer_kernel", "param", weight.name)

    def private_function(self) -> None:
        """A function with formal symbols, called by others."""
        function = self.module.add_function(self.block_name, public=False)
        self.function = function
        rows = symbol("R")
        function.add_parameter(TensorType.of(self.block_dtype, (rows, 2)), "x")
        with Builder(function.block) as builder:
            values = self.body(builder, list(function.block.parameters), 4, depth=2)
            same = [v for v in values if v.type is values[0].type]
            builder.finish([same[-1], values[-1]])
        function.results = [Result(), Result()]

    def shape(self) -> tuple[Size, ...]:
        return tuple(self.random.choice(SIZE_KINDS) for _ in range(self.random.choice((0, 1, 1, 2, 2, 2, 3))))

    def array(self, type: TensorType) -> np.ndarray[Any, Any]:
        shape = tuple(size if isinstance(size, int) else evaluate(size, SIZES) for size in type.shape)
        kind = type.dtype
        if kind.is_bool:
            return self.numpy.integers(0, 2, shape).astype(bool)
        if kind.is_integer:
            low = 0 if kind.kind == "u" else -(2 ** min(kind.bits - 1, 30))
            return self.numpy.integers(low, 2 ** min(kind.bits - 1, 30), shape).astype(kind.numpy)
        values: Any = self.numpy.normal(size=shape) * 2
        if self.random.random() < self.specials:
            values = np.where(self.numpy.random(shape) < 0.3, self.numpy.choice(SPECIALS, shape), values)
        return round_to(values + 1j * self.numpy.normal(size=shape) if kind.is_complex else values, kind)

    def held(self, inputs: list[np.ndarray[Any, Any]]) -> set[str]:
        found: set[str] = set()
        for function in self.module.functions.values():
            for value in [*function.block.parameters, *(r for op in function.walk() for r in op.results)]:
                found.add(str(value.dtype))
                if any(isinstance(size, Dim) for size in value.shape):
                    found.add("symbolic size")
            for op in function.walk():
                if op.regions:
                    found |= {"region", op.name}
                if op.name == "call":
                    found.add("call")
                if len(op.results) > 1:
                    found.add("several results")
                if None in op.operands:
                    found.add("optional operand")
        if len(self.module.weights):
            found.add("weight")
        for array in inputs:
            if array.dtype.kind in "fc" or array.dtype.kind == "V":
                wide = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64).real
                found |= {"NaN"} if np.isnan(wide).any() else set()
                found |= {"infinity"} if np.isinf(wide).any() else set()
                found |= {"-0"} if ((wide == 0) & np.signbit(wide)).any() else set()
        return found

    # --- ops ----------------------------------------------------------------------------------------------------

    def body(self, builder: Builder, values: list[Value], count: int, depth: int) -> list[Value]:
        """Record about `count` ops on `values`, which grows; deeper bodies hold fewer regions."""
        steps: list[Callable[[list[Value]], Any]] = [
            self.unary, self.unary, self.binary, self.binary, self.binary, self.neutral, self.undone, self.undone,
            self.repeated, self.constants, self.converted, self.reduced, self.moved, self.moved, self.joined,
            self.chosen, self.normalized, self.contracted, self.several,
        ]  # fmt: skip
        if depth < 2:
            steps += [self.branched, self.looped, self.scanned]
        if depth == 0 and self.block_name in self.module.functions:
            steps.append(self.called)
        self.depth = depth
        scopes = ["", "a", "a/b", "c"]
        for _ in range(count):
            step = self.random.choice(steps)
            scope = self.random.choice(scopes)
            last = builder.block.last
            guards = len(self.function.guards)
            try:
                with builder.scope(scope) if scope else nullcontext():
                    found = step(values)
                self.check_guards(guards)
            except GraphcError:  # these operands do not go with that op
                self.undo(builder.block, last, guards)
                continue
            finally:
                self.depth = depth
            values.extend(found if isinstance(found, (tuple, list)) else [] if found is None else [found])
        return values

    def check_guards(self, known: int) -> None:
        """Raise `GraphcError` when a new guard does not hold for the inputs that will be drawn."""
        for guard in list(self.function.guards)[known:]:
            bound = {*symbols(guard.left), *symbols(guard.right)}
            if any(s.name not in SIZES for s in bound) or not guard.check(SIZES):
                raise GraphcError(f"{guard} does not hold")

    def undo(self, block: Block, last: Op | None, guards: int) -> None:
        """Take back what was recorded after `last`, and the guards after the first ones."""
        rewriter = Rewriter()
        while block.last is not last and block.last is not None:
            rewriter.erase(block.last)
        for guard in list(self.function.guards)[guards:]:
            del self.function.guards[guard]

    def pick(self, values: list[Value], fits: Callable[[Value], bool] = lambda v: True) -> Value:
        found = [v for v in values if fits(v)]
        if not found:
            raise GraphcError("nothing fits")
        return self.random.choice(found[-8:])

    def constant(self, kind: DType) -> Value:
        choices: tuple[Any, ...] = (True, False) if kind.is_bool else (0, 1, 2, 3)
        if kind.is_float:
            choices = (0.0, -0.0, 1.0, 2.0, 0.5, float("nan"), float("-inf"))
        builder = Builder.current()
        assert builder is not None
        return builder.scalar(self.random.choice(choices), kind)

    def unary(self, values: list[Value]) -> Any:
        return OPS[self.random.choice(UNARY)](self.pick(values))

    def binary(self, values: list[Value]) -> Any:
        names = ["add", "sub", "mul", "maximum", "minimum", "eq", "ne", "lt", "ge", "and", "or", "xor", "atan2"]
        x = self.pick(values)
        y = self.pick(values, lambda v: v.dtype is x.dtype)
        if self.random.random() < 0.3:
            x, y = self.constant(x.dtype), x
        return OPS[self.random.choice(names)](x, y)

    def neutral(self, values: list[Value]) -> Any:
        x = self.pick(values)
        c = self.constant(x.dtype)
        if x.dtype.is_integer:  # division by zero is unspecified
            return self.random.choice((ops.add, ops.mul, ops.sub, ops.xor))(x, c)
        op = self.random.choice((ops.add, ops.mul, ops.sub, ops.div, ops.or_, ops.and_))
        return op(c, x) if self.random.random() < 0.3 else op(x, c)

    def undone(self, values: list[Value]) -> Any:
        x = self.pick(values)
        y = self.pick(values, lambda v: v.dtype is x.dtype)
        which = self.random.randrange(9)
        if which == 0:
            return ops.neg(ops.neg(x))
        if which == 1:
            order = self.random.sample(range(x.ndim), x.ndim)
            return ops.transpose(ops.transpose(x, permutation=order), permutation=np.argsort(order).tolist())
        if which == 2:
            return ops.reverse(ops.reverse(x, axes=range(x.ndim)), axes=range(x.ndim))
        if which == 3:
            return ops.reshape(ops.reshape(x, shape=(-1,)), shape=x.shape)
        if which == 4:
            return self.random.choice((ops.add, ops.sub, ops.mul, ops.div))(ops.neg(x), ops.neg(y))
        if which == 5:
            compared = ops.not_(self.random.choice((ops.eq, ops.lt, ops.ge))(x, y))
            return [compared, ops.select(ops.not_(compared), x, y)]
        if which == 6:
            pairs = [(self.random.randint(0, 1), 1) for _ in range(x.ndim)]
            return ops.pad(ops.pad(x, padding=pairs), padding=pairs[::-1])
        if which == 7 and x.ndim:
            parts = ops.split(x, sizes=(1, x.shape[0] - 1))
            starts = [ops.slice(x, starts=[0] * x.ndim, limits=[1, *x.shape[1:]])]
            starts += [ops.slice(x, starts=[1] + [0] * (x.ndim - 1), limits=x.shape)]
            return [ops.concat(*starts, axis=0), ops.concat(*parts, axis=0)]
        return ops.add(ops.broadcast(x, shape=(2, *x.shape)), y)

    def constants(self, values: list[Value]) -> Any:
        """An op on constants only."""
        kind = self.random.choice(self.dtypes)
        name = self.random.choice(("add", "mul", "sub", "maximum", "eq", "and", "div"))
        if name == "div" and kind.is_integer:
            raise GraphcError("division by zero is unspecified")
        found = OPS[name](self.constant(kind), self.constant(kind))
        return [found, ops.broadcast(found, shape=(2, 3))]

    def repeated(self, values: list[Value]) -> Any:
        """An op that is there already, once more."""
        op = self.pick(values, lambda v: v.op is not None and not v.op.regions).op
        assert op is not None
        builder = Builder.current()
        assert builder is not None
        if op.definition.name == "call":
            raise GraphcError("calls are built in another way")
        return list(op.definition.build(builder, op.operands, op.attributes).results)

    def converted(self, values: list[Value]) -> Any:
        x = ops.convert(self.pick(values), dtype=self.random.choice(DTYPES))
        return [x, ops.convert(x, dtype=self.random.choice(self.dtypes))]

    def reduced(self, values: list[Value]) -> Any:
        x = self.pick(values, lambda v: v.ndim > 0)
        names = ["reduce_sum", "reduce_max", "reduce_min", "reduce_mean", "reduce_any", "reduce_all", "variance"]
        axes = self.random.sample(range(x.ndim), self.random.randint(0, x.ndim))
        if self.random.random() < 0.2:
            return ops.argmax(x, axis=self.random.randrange(x.ndim))
        return OPS[self.random.choice(names)](x, axes=sorted(axes), keepdims=self.random.random() < 0.5)

    def moved(self, values: list[Value]) -> Any:
        x = self.pick(values, lambda v: v.ndim > 0)
        axes = range(x.ndim)
        which = self.random.randrange(6)
        if which == 0:
            return ops.transpose(x, permutation=self.random.sample(axes, x.ndim))
        if which == 1:
            return ops.reshape(x, shape=self.random.choice(((-1,), (*x.shape[1:], x.shape[0]), (1, *x.shape))))
        if which == 2:
            return ops.broadcast(x, shape=(2, *x.shape))
        if which == 3:
            first = [self.random.randint(0, 1) if size == 2 or size == 3 else 0 for size in x.shape]
            return ops.slice(x, starts=first, limits=x.shape, strides=self.random.choice((None, [2] * x.ndim)))
        if which == 4:
            pairs = [(self.random.randint(0, 1), self.random.randint(0, 1)) for _ in axes]
            return ops.pad(x, padding=pairs, value=self.random.choice((0.0, 1.0)))
        return ops.reverse(x, axes=self.random.sample(axes, self.random.randint(0, x.ndim)))

    def joined(self, values: list[Value]) -> Any:
        x = self.pick(values, lambda v: v.ndim > 0)
        axis = self.random.randrange(x.ndim)
        joined = ops.concat(x, self.pick(values, lambda v: v.dtype is x.dtype and v.ndim == x.ndim), x, axis=axis)
        limits = [x.shape[i] if i == axis else size for i, size in enumerate(joined.shape)]
        return [joined, ops.slice(joined, starts=[0] * x.ndim, limits=limits)]

    def chosen(self, values: list[Value]) -> Any:
        x = self.pick(values)
        if self.random.random() < 0.5:
            condition = self.pick(values, lambda v: v.dtype is bool_)
        else:
            condition = self.constant(bool_)
        return ops.select(condition, x, self.pick(values, lambda v: v.dtype is x.dtype))

    def normalized(self, values: list[Value]) -> Any:
        x = self.pick(values, lambda v: v.ndim > 0 and v.dtype.is_float)
        which = self.random.randrange(3)
        if which == 0:
            return ops.softmax(x, axis=self.random.randrange(x.ndim))
        vector = ops.reduce_sum(x, axes=range(x.ndim - 1))
        if which == 1:
            return ops.layer_norm(x, None if self.random.random() < 0.5 else vector, vector)
        return ops.batch_norm(x, vector, ops.abs(vector), None, vector)

    def contracted(self, values: list[Value]) -> Any:
        x = self.pick(values, lambda v: v.ndim == 2)
        y = ops.transpose(x, permutation=(1, 0))
        if self.random.random() < 0.5:
            return ops.matmul(x, y)
        return ops.linear(x, y, None)

    def several(self, values: list[Value]) -> Any:
        if self.random.random() < 0.5:
            return ops.barrier(self.pick(values), self.pick(values))
        x = self.pick(values, lambda v: v.ndim > 0)
        return ops.split(x, sizes=(1, x.shape[0] - 1))

    # --- regions and calls ----------------------------------------------------------------------------------------

    def inside(self, values: list[Value], wanted: TensorType) -> Value:
        """A short body on values from outside that ends in one of type `wanted`."""
        builder = Builder.current()
        assert builder is not None
        found = self.body(builder, list(values), self.random.randint(1, 4), self.depth + 1)
        return self.pick(found, lambda v: v.type is wanted)

    def branched(self, values: list[Value]) -> Any:
        seen = [self.pick(values) for _ in range(2)]
        wanted = seen[0].type
        which = self.random.randrange(3)
        if which == 0:
            index: Value = self.constant(self.random.choice((bool_, i32)))
        elif which == 1:
            index = self.pick(values, lambda v: v.dtype is bool_)
            index = ops.reduce_any(index, axes=range(index.ndim))
        else:
            x = self.pick(values, lambda v: v.dtype.is_float)
            index = ops.convert(ops.reduce_sum(x, axes=range(x.ndim)), dtype=i32)
        count = 2 if index.dtype is bool_ else 3
        branches = [lambda: self.inside(seen, wanted) for _ in range(count)]
        depth = self.depth
        out = ops.cond(index, *branches)
        self.depth = depth
        return out

    def looped(self, values: list[Value]) -> Any:
        x, other = self.pick(values), self.pick(values)
        limit = ops.constant(value=self.random.randint(0, 2), dtype=i32)

        def step(i: Value, carry: Value, unread: Value) -> Any:
            return i + 1, self.inside([carry, other], x.type), unread

        start = ops.constant(value=0, dtype=i32)
        found = ops.while_loop(lambda i, *rest: ops.lt(i, limit), step, (start, x, other), self.bound)
        return list(found[1 : 2 + self.random.randrange(2)])

    def scanned(self, values: list[Value]) -> Any:
        xs = self.pick(values, lambda v: v.ndim > 0)
        carry, other = self.pick(values), self.pick(values)

        def step(carries: Any, slices: Any) -> Any:
            return (self.inside([carries[0], other], carry.type),), (self.inside([slices[0]], slices[0].type),)

        last, stacked = ops.scan(step, (carry,), (xs,), reverse=self.random.random() < 0.5)
        return [self.random.choice((last[0], stacked[0]))]

    def called(self, values: list[Value]) -> Any:
        builder = Builder.current()
        assert builder is not None
        callee = self.module.functions[self.block_name]
        x = self.pick(values, lambda v: v.dtype is self.block_dtype and v.ndim == 2 and v.shape[1] == 2)
        return list(ops.call_function(builder, callee, [x]))
