"""Cost and liveness: hand-made cases, and liveness against a machine that allocates and frees buffers as it runs."""

import math
import random

import pytest

from graphc.ir import ops
from graphc.ir.analysis.cost import Cost, function_cost, op_cost
from graphc.ir.analysis.liveness import VIEWS, live_bytes
from graphc.ir.binding import bind_symbols
from graphc.ir.builder import Builder
from graphc.ir.dims import evaluate, symbol
from graphc.ir.errors import ShapeError
from graphc.ir.graph import Result
from graphc.ir.module import Module
from graphc.ir.types import TensorType

F32 = "f32"


def traced(fn, *shapes, module=None, name="f", dtype=F32):
    """The function of `fn` over inputs of these shapes."""
    module = module or Module()
    function = module.add_function(name, public=name == "f")
    values = [function.add_parameter(TensorType.of(dtype, shape)) for shape in shapes]
    with Builder(function.block) as builder:
        found = fn(*values)
        builder.finish(found if isinstance(found, tuple) else (found,))
    return function


# --- liveness, by hand --------------------------------------------------------------------------------------------


def test_a_chain_holds_an_operand_and_a_result():
    function = traced(lambda x: ops.neg(ops.neg(ops.neg(x))), (10,))
    held = live_bytes(function)
    assert held.profile == [40, 80, 80, 40]
    assert (held.peak, held.inputs, held.weights, held.total) == (80, 40, 0, 120)
    first, second, *_ = function.block
    assert held.at is second
    assert held.live == [first.result, second.result]


def test_a_value_is_held_to_its_last_use():
    def fn(x):
        a = ops.neg(x)
        b = ops.exp(a)
        c = ops.neg(b)
        return c + a

    assert live_bytes(traced(fn, (1,))).profile == [4, 8, 12, 12, 4]


def test_a_result_without_use_is_held_by_its_op_alone():
    def fn(x):
        ops.concat(x, x, x, axis=0)
        return ops.neg(x)

    assert live_bytes(traced(fn, (2,))).profile == [24, 8, 8]


def test_views_share_the_buffer_and_prolong_it():
    def fn(x):
        a = ops.neg(x)
        b = ops.reshape(a, shape=(2, 5))
        c = ops.name(ops.exp(a), tag="c")
        return ops.reshape(b, shape=(10,)) + c

    assert live_bytes(traced(fn, (10,))).profile == [40, 40, 80, 80, 80, 120, 40]


def test_a_view_of_a_parameter_is_the_callers():
    assert live_bytes(traced(lambda x: ops.reshape(x, shape=(2, 5)), (10,))).profile == [0, 0]


def test_bytes_are_those_of_the_dtype():
    for dtype, size in (("f64", 24), ("bf16", 6), ("bool", 3), ("i4", 2), ("c64", 24)):
        function = traced(lambda x: ops.transpose(x, permutation=(0,)), (3,), dtype=dtype)
        assert live_bytes(function).peak == size


def test_weights_count_apart_and_tied_ones_once():
    module = Module()
    function = traced(lambda x: ops.neg(x), (4,), module=module)
    weights = module.weights
    for name in ("w", "v"):
        weights.add(name, ops.full((6,), 1.0, F32))
    weights.tie("u", "w")
    for name in ("w", "u", "v"):
        function.add_parameter(TensorType.of(F32, (6,)), name, "param", name)
    held = live_bytes(function)
    assert (held.peak, held.inputs, held.weights) == (16, 16, 48)


def test_an_update_is_a_second_buffer_to_the_end():
    module = Module()
    function = module.add_function("step")
    module.weights.add("w", ops.full((10,), 1.0, F32))
    w = function.add_parameter(TensorType.of(F32, (10,)), "w", "param", "w")
    with Builder(function.block) as builder:
        new = w - w * 0.1
        builder.finish((new, ops.exp(w)))
    function.results = [Result("w", function.parameters[0]), Result("y")]
    held = live_bytes(function)
    assert held.weights == 40
    assert held.profile[-1] == 80
    assert held.peak == 80


def test_symbols_take_their_values():
    b = symbol("B")
    function = traced(lambda x: ops.concat(x, x, axis=0), (b, 3))
    assert live_bytes(function, {"B": 5}).peak == 120
    with pytest.raises(ShapeError, match="the symbol B has no value"):
        live_bytes(function)


def test_cond_holds_the_larger_branch():
    def fn(x):
        a = ops.neg(x)
        return (
            ops.cond(ops.reduce_sum(a, axes=(0,)) > 0, lambda: ops.neg(ops.exp(a)), lambda: ops.concat(a, axis=0)) + a
        )

    function = traced(fn, (10,))
    held = live_bytes(function)
    position = next(i for i, op in enumerate(function.block) if op.regions)
    assert held.profile[position] == 40 + 1 + 80
    assert held.at.name == "neg" and held.at.block is not function.block
    assert sum(evaluate(v.type.shape[0] if v.type.shape else 1, {}) for v in held.live) == 31


@pytest.mark.parametrize("length, inner", [(0, 4), (1, 12), (5, 12)])
def test_scan_holds_stacks_and_from_the_second_step_its_carries(length, inner):
    def fn(x):
        first = ops.full((1,), 0.0, F32)

        def body(carries, slices):
            (carry,), (row,) = carries, slices
            total = carry + ops.reshape(row, shape=(1,))
            return (total,), (ops.neg(row),)

        (carry,), (stack,) = ops.scan(body, (first,), (x,))
        return carry, stack

    function = traced(fn, (length,))
    position = next(i for i, op in enumerate(function.block) if op.regions)
    # The initial carry, the stack, and beside them the result, or in a step: a slice, the sum and its operand.
    assert live_bytes(function).profile[position] == 4 + 4 * length + inner


def test_a_called_function_holds_what_it_makes_under_its_own_symbols():
    module = Module()
    s = symbol("S")
    twice = traced(lambda x: ops.neg(ops.neg(x)), (s,), module=module, name="twice")

    def fn(x, y):
        builder = Builder.current()
        (a,) = ops.call_function(builder, twice, (x,))
        (b,) = ops.call_function(builder, twice, (y,))
        return a, b

    assert live_bytes(traced(fn, (3,), (100,), module=module)).profile == [24, 812, 412]


# --- liveness, by a machine -----------------------------------------------------------------------------------------


class Machine:
    """Runs a function's bookkeeping: allocates what ops make, frees by reference counts, notes the most it held."""

    def __init__(self, module, sizes):
        self.module, self.sizes = module, sizes
        self.now = self.peak = 0
        self.count = {}
        self.bytes = {}

    def allocate(self, value, sizes):
        number = len(self.bytes)
        elements = 1
        for size in value.type.shape:
            elements *= evaluate(size, sizes)
        self.bytes[number] = -(-elements * value.type.dtype.bits // 8)
        self.count[number] = 1
        self.now += self.bytes[number]
        self.peak = max(self.peak, self.now)
        return number

    def keep(self, buffer):
        if buffer is not None:
            self.count[buffer] += 1
        return buffer

    def drop(self, buffer):
        if buffer is not None:
            self.count[buffer] -= 1
            if not self.count[buffer]:
                self.now -= self.bytes[buffer]

    def course(self, function):
        """The most bytes held during each op of the function."""
        course = []
        self.finish(self.run(function.block, [None] * len(function.parameters), self.sizes, course=course))
        assert self.now == 0
        return course

    def run(self, block, buffers, sizes, held=(), course=None):
        """Buffers of what the block hands out. `buffers` are those of its parameters, None for somebody else's; the
        run drops its references to those it reads, except those `held` to the end."""
        environment = dict(zip(block.parameters, buffers, strict=True))
        pending = {value: value.use_count for value in block.parameters}
        for value in block.parameters:
            pending[value] += value in held
        outputs = None
        for op in block:
            if course is not None:
                self.peak = self.now
            if op.next is None:
                outputs = [self.keep(environment[v]) for v in op.operands]
            elif op.name in VIEWS:
                for result, operand in zip(op.results, op.operands, strict=True):
                    environment[result] = self.keep(environment[operand])
            else:
                self.nested(op, sizes)
                for result in op.results:
                    environment[result] = self.allocate(result, sizes)
            if course is not None:
                course.append(self.peak)
            pending.update((result, result.use_count) for result in op.results)
            for value in [*op.operands, *op.results]:
                if value is not None:
                    pending[value] -= value in op.operands and value not in op.results
                    if not pending[value]:
                        pending[value] = -1
                        self.drop(environment[value])
        return outputs

    def finish(self, outputs):
        for buffer in outputs:
            self.drop(buffer)

    def nested(self, op, sizes):
        """Run what is inside an op, to its end and without a trace, beside its operands."""
        theirs = [None] * len(op.operands)
        if op.name == "call":
            callee = self.module.functions[op.callee]
            shapes = [tuple(evaluate(size, sizes) for size in v.type.shape) for v in op.operands]
            inner = {s.name: n for s, n in bind_symbols(callee, shapes).items()}
            self.finish(self.run(callee.block, theirs, inner))
        elif op.name == "cond":
            for region in op.regions:
                self.finish(self.run(region.block, theirs[1:], sizes))
        elif op.name == "while":
            condition, body = (region.block for region in op.regions)
            for step in range(3):
                carries = [None if step == 0 else self.allocate(r, sizes) for r in op.results]
                captures = theirs[op.carried :]
                self.finish(self.run(condition, carries + captures, sizes, condition.parameters[: op.carried]))
                for carry, parameter in zip(carries, body.parameters, strict=False):
                    if not parameter.uses:
                        self.drop(carry)
                self.finish(self.run(body, carries + captures, sizes))
        elif op.name == "scan":
            block = op.regions[0].block
            stacks = [self.allocate(r, sizes) for r in op.results[op.carried :]]
            for step in range(evaluate(op.length, sizes)):
                own = block.parameters[op.carried if step == 0 else 0 : op.carried + op.sliced]
                steps = [self.allocate(v, sizes) if v.uses else None for v in own]
                captures = theirs[op.carried + op.sliced :]
                self.finish(self.run(block, [None] * (op.carried if step == 0 else 0) + steps + captures, sizes))
            self.finish(stacks)


def random_function(rng, module, name="f", depth=0):
    """A function of vectors of S or 2*S elements, with views, several results, regions and calls."""
    s = symbol("S")
    shapes = [(s,) if rng.random() < 0.5 else (2 * s,) for _ in range(rng.randint(1, 3))]
    shapes[0] = (s,)
    return traced(lambda *xs: random_body(rng, module, list(xs), depth), *shapes, module=module, name=name)


def random_body(rng, module, values, depth):
    s = symbol("S")
    for _ in range(rng.randint(1, 8)):
        x = rng.choice(values)
        (size,) = x.type.shape
        choice = rng.choice(["neg", "add", "concat", "half", "view", "barrier", "unused", "region", "region", "call"])
        if choice == "neg":
            values.append(ops.neg(x))
        elif choice == "add":
            values.append(x + rng.choice([v for v in values if v.type is x.type]))
        elif choice == "concat" and size is s:
            values.append(ops.concat(x, x, axis=0))
        elif choice == "half" and size is not s:
            values.extend(ops.split(x, sizes=(s, s)))
        elif choice == "view":
            view = ops.reshape(x, shape=(1, size))
            values.append(ops.reshape(ops.neg(view) if rng.random() < 0.5 else view, shape=(size,)))
        elif choice == "barrier":
            values.extend(ops.barrier(x, rng.choice(values)))
        elif choice == "unused":
            ops.exp(x)
        elif choice == "region" and depth < 2:
            values.extend(random_region(rng, module, values, depth))
        elif choice == "call" and depth == 0:
            callee = random_function(rng, module, f"callee_{len(module.functions)}", 1)
            arguments = [rng.choice([v for v in values if v.type is p.type] or [None]) for p in callee.parameters]
            if None not in arguments:
                values.extend(ops.call_function(Builder.current(), callee, arguments))
    return tuple(rng.choice(values) for _ in range(rng.randint(1, 2)))


def random_region(rng, module, values, depth):
    outer = list(values)
    like = rng.choice(values)
    holds = ops.reduce_sum(like, axes=(0,)) > 0

    def body(*xs):
        """Of values like `like`, with captures of what is outside."""
        found = random_body(rng, module, [*xs, *rng.sample(outer, min(2, len(outer)))], depth + 1)
        return [v if v.type is like.type else like for v in found][:1]

    kind = rng.choice(["cond", "while", "scan"])
    if kind == "cond":
        return ops.cond(holds, lambda: body(like), lambda: body())
    if kind == "while":
        return ops.while_loop(
            lambda x, y: ops.reduce_sum(ops.exp(x), axes=(0,)) > 0,
            lambda x, y: (body(x)[0], x if rng.random() < 0.5 else ops.neg(y)),
            (like, rng.choice([v for v in values if v.type is like.type])),
        )
    rows = ops.reshape(rng.choice([v for v in values if v.type is like.type]), shape=(*like.type.shape, 1))
    carries, stacks = ops.scan(
        lambda carries, slices: ((body(carries[0])[0],), (ops.neg(slices[0]), slices[0])), (like,), (rows,)
    )
    return [*carries, *(ops.reshape(stack, shape=like.type.shape) for stack in stacks)]


def test_liveness_is_what_a_machine_measures():
    seen = dict.fromkeys(("cond", "while", "scan", "call", "nested"), 0)
    for seed in range(300):
        rng = random.Random(seed)
        module = Module()
        function = random_function(rng, module)
        for op in function.walk():
            if op.name in seen:
                seen[op.name] += 1
                seen["nested"] += op.block is not function.block
        for size in (1, 2, 3):
            held = live_bytes(function, {"S": size})
            assert held.profile == Machine(module, {"S": size}).course(function), f"seed {seed}, S = {size}"
            assert held.peak == max(held.profile)
            if all(value.block.function is function for value in held.live):  # not of a called one, with its own S
                types = [value.type.substitute({symbol("S"): size}) for value in held.live]
                assert held.peak == sum(math.prod(type.shape) * int(type.dtype.size) for type in types)
    assert all(count > 20 for count in seen.values()), seen


# --- cost -----------------------------------------------------------------------------------------------------------


def test_an_elementwise_op_is_one_operation_an_element():
    b = symbol("B")
    function = traced(lambda x: ops.exp(x) * x, (b, 3))
    first, second, _ = function.block
    assert op_cost(first) == Cost(3 * b, 24 * b)
    assert op_cost(second) == Cost(3 * b, 36 * b)
    assert function_cost(function) == Cost(6 * b, 60 * b)


def test_an_operand_that_is_read_twice_is_moved_once():
    assert op_cost(traced(lambda x: x * x, (10,)).block.first) == Cost(10, 80)


def test_contractions_and_convolutions():
    b, s = symbol("B"), symbol("S")

    def flops(fn, *shapes):
        return op_cost(traced(fn, *shapes).block.first).flops

    assert flops(ops.matmul, (b, 3, 4), (4, 5)) == 2 * b * 3 * 4 * 5
    assert flops(ops.linear, (b, s, 4), (4, 5), (5,)) == 2 * b * s * 4 * 5 + 5 * b * s
    conv = lambda x, k: ops.conv(x, k, padding="same", groups=2)  # noqa: E731
    assert flops(conv, (b, s, 4), (3, 2, 6)) == 2 * b * s * 6 * 3 * 2
    gradient = lambda dy, k: ops.convolution_input_gradient(dy, k, shape=(b, s + 2, 4))  # noqa: E731
    assert flops(gradient, (b, s, 6), (3, 4, 6)) == 2 * b * s * 6 * 3 * 4
    assert flops(lambda x: ops.max_pool(x, window=(2,)), (b, 8, 3)) == b * 4 * 3 * 2


def test_moving_costs_bytes_and_renaming_nothing():
    function = traced(lambda x: ops.transpose(ops.reshape(x, shape=(2, 5)), permutation=(1, 0)), (10,))
    view, moved, _ = function.block
    assert op_cost(view) == Cost(0, 0)
    assert op_cost(moved) == Cost(0, 80)


def test_a_composite_without_a_rule_costs_its_decomposition_in_flops_but_moves_as_one():
    function = traced(lambda x: ops.layer_norm(x), (symbol("B"), 64))
    cost = function_cost(function)
    assert cost.bytes == 2 * 4 * 64 * symbol("B")
    assert cost.flops == (5 * 64 + 4) * symbol("B")  # 2 sums, 3 maps; 2 divisions, an addition and a root for each row


def test_regions_and_calls():
    module = Module()
    s, b = symbol("S"), symbol("B")
    twice = traced(lambda x: ops.neg(ops.neg(x)), (s,), module=module, name="twice")

    def called(x):
        return ops.call_function(Builder.current(), twice, (x,))

    assert function_cost(traced(called, (3 * b,), module=module)) == Cost(6 * b, 48 * b)

    scanned = traced(
        lambda x: ops.scan(lambda c, rows: ((ops.neg(c[0]),), (ops.exp(rows[0]),)), (x[0],), (x,))[1], (s, 7)
    )
    scan = next(op for op in scanned.block if op.regions)
    assert op_cost(scan) == Cost(14 * s, 112 * s)

    def branches(x):
        return ops.cond(ops.reduce_sum(x, axes=(0,)) > 0, lambda: ops.neg(ops.neg(x)), lambda: ops.exp(x))

    cond = next(op for op in traced(branches, (s,)).block if op.regions)
    assert op_cost(cond) == Cost(2 * s, 16 * s)

    def loop(x):
        return ops.while_loop(lambda v: ops.reduce_sum(v, axes=(0,)) > 0, lambda v: (ops.neg(v),), (x,))

    function = traced(loop, (s,))
    assert not function_cost(function).exact
    assert op_cost(function.block.first).flops == s + 1 + s
