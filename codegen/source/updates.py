"""Functions that update a weight: what an optimizer does to one is a call, of one function for all it does alike.

The ops below `optimizer/<rule>/<path of the weight>` become the call where they can: where they give new values to
weights and nothing else, and nothing reads the old values afterwards, so that the new ones may take their place at
once. A function gets the weights as they are stored, in whatever order of axes, where its ops are elementwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.items import Hint, UpdateCall
from graphc.codegen.source.members import Layers, Members
from graphc.codegen.source.naming import Names, identifier
from graphc.codegen.source.scopes import Node
from graphc.codegen.source.sharing import Sharing, operands_shared
from graphc.ir.graph import Function, Op, Parameter, Value, operand_values
from graphc.ir.recipes import Permute, Step
from graphc.passes.elementwise import is_elementwise


def unfit(root: Node, function: Function, layers: Layers) -> set[str]:
    """The owners of updates that cannot be calls, among the items of an entry. Linear."""
    nodes = {i: item for i, item in enumerate(root.items) if isinstance(item, Node) and item.is_update}
    if not nodes:
        return set()
    weights = {p.value: layers.table.source(p.weight).name for p in function.parameters if p.weight is not None}
    given = {value for node in nodes.values() for value in node.outputs}
    sharing = Sharing([*weights, *given])
    last: dict[str, int] = {}
    """The last item that reads a weight as it was."""

    def read(value: Value, when: int) -> None:
        last.update((weights[root], when) for root in sharing.of(value) if root in weights)

    for i, item in enumerate(root.items):
        for op in [item] if isinstance(item, Op) else item.ops:
            sharing.add(op)
            for value in operand_values(op):
                read(value, i)
    returned: set[Value] = set()
    for result, value in zip(function.results, function.outputs, strict=True):
        if value not in given or result.updates is None:
            read(value, len(root.items))
        if result.updates is None:
            returned |= sharing.of(value)
    times = Counter(function.outputs)
    updated = _updated(function)

    def fits(i: int, node: Node) -> bool:
        targets = {updated[value].value for value in node.outputs if value in updated and times[value] == 1}
        names = {weights[target] for target in targets if target in weights}
        if not len(node.outputs) == len(targets) == len(names) or not targets or not returned.isdisjoint(node.outputs):
            return False
        if any(last.get(name, i) > i for name in names) or not targets <= set(node.inputs):
            return False
        touching = [value for value in node.inputs if value not in targets]
        touching += [value for op in node.ops for value in operands_shared(op)]
        if any(weights.get(root) in names for value in touching for root in sharing.of(value)):
            return False  # a view of what is overwritten
        return _can_be_passed(node, layers) and not any(
            op.regions or op.definition.call_rule or op.definition.introduces_symbols for op in node.ops
        )

    return {node.owner for i, node in nodes.items() if not fits(i, node)}


def _updated(function: Function) -> dict[Value, Parameter]:
    """New value → the parameter of the weight that takes it."""
    pairs = zip(function.results, function.outputs, strict=True)
    return {value: result.updates for result, value in pairs if result.updates is not None}


@dataclass(frozen=True, slots=True)
class Form:
    """How an update is called."""

    arguments: tuple[Value, ...]
    names: tuple[str, ...]
    """What the function calls them."""
    targets: tuple[tuple[Value, Value], ...]
    """Each new value with the parameter of its weight."""
    steps: tuple[Step, ...] | None
    """How arrays are passed that are passed as the weights are stored; None where all are passed as the IR has them."""
    gradient: Value | None
    weight: str


def form(node: Node, function: Function, layers: Layers) -> Form:
    """The form of an update."""
    updated = _updated(function)
    weight = "/".join(part.name for part in node.scope.parts[2:])
    targets = tuple((value, updated[value].value) for value in node.outputs)
    shape = targets[0][1].type.shape
    gradient = next((v for v in node.inputs if v not in layers.weight_of and v.type.shape == shape and v.ndim), None)
    if gradient is None and not shape:
        gradient = next((v for v in node.inputs if v not in layers.weight_of and v.op is not None), None)
    ranked: list[tuple[int, str, Value]] = []
    for value in node.inputs:
        if value in layers.weight_of:
            path = layers.weight_of[value]
            itself = path == weight
            ranked.append((0 if itself else 2, "parameter" if itself else path.rpartition("/")[2], value))
        elif value is gradient:
            ranked.append((1, "gradient", value))
        else:
            ranked.append((3, value.name if value.name and not value.name.isdigit() else "factor", value))
    ranked.sort(key=lambda each: each[0])
    order = [value for _, _, value in ranked]
    return Form(
        tuple(order),
        tuple(identifier(name) for _, name, _ in ranked),
        tuple(sorted(targets, key=lambda pair: order.index(pair[1]))),
        _common_steps(node, layers),
        gradient,
        weight,
    )


def _common_steps(node: Node, layers: Layers) -> tuple[Step, ...] | None:
    """The steps after which the update's weights are stored, where it may have them so: () if it has no arrays."""
    weights = [value for value in node.inputs if value in layers.weight_of and value.ndim]
    steps = {layers.steps.get(layers.resolved(value), ()) for value in weights}
    shapes = {value.type.shape for value in node.inputs} | {v.type.shape for op in node.ops for v in op.results}
    if len(steps) > 1 or len(shapes - {()}) > 1 or not all(map(is_elementwise, node.ops)):
        return None
    return next(iter(steps), ())


def _can_be_passed(node: Node, layers: Layers) -> bool:
    """Whether the weights as the IR has them, or as they are stored, are arrays or views that can be written to."""
    if _common_steps(node, layers) is not None:
        return True
    weights = [value for value in node.inputs if value in layers.weight_of]
    steps = [step for value in weights for step in layers.steps.get(layers.resolved(value), ())]
    return all(isinstance(step, Permute) for step in steps)


def hints(calls: Iterable[UpdateCall]) -> dict[Value, Hint]:
    """Names for the gradients that updates read: those of the weights. Those read once are held as they are passed."""
    found: dict[Value, Hint] = {}
    for call in calls:
        gradient = call.form.gradient
        if gradient is not None and gradient.op is not None:
            name = f"{identifier(call.form.weight.replace('/', '_'))}_gradient"
            found[gradient] = Hint(name, call.form.steps or ())
    return found


def function_text(node: Node, form: Form, members: Members, names: Names) -> str:
    """The function of an update, with `NAME` and `OWNERS` where its name and its weights stand."""
    dialect = members.dialect
    ops = [item for item in node.items if isinstance(item, Op)]
    body = BodyWriter(dialect, members, ops, [value for value, _ in form.targets], names, indent=4)
    parameters = [names.take(name) for name in form.names]
    called = dict(zip(form.arguments, parameters, strict=True))
    for value, name in called.items():
        body.bind(value, name)
    for new, old in form.targets:
        _succeed(body, node, new, old, called[old])
    body.write_items()
    if dialect.writes_in_place:
        body.write_late()
    else:
        body.write_return()
    return dialect.update_function(parameters, body.lines)


def _succeed(body: BodyWriter, node: Node, new: Value, old: Value, name: str) -> None:
    """Let new values take the name of the old one: the last, and before it those that it is a step from."""
    body.successors[new] = name
    body.holders[name] = [old]
    if not body.dialect.writes_in_place:
        return
    body.kept.add(old)
    inside = set(node.ops)
    value = new
    while (op := value.op) is not None and op in inside and op.name in ("add", "sub", "mul"):
        first = op.operands[0]
        if first is None or first is old or first.op not in inside or body.uses.get(first) != 1 or not first.ndim:
            break
        value = first
        if not _leads_to(value, old, inside):
            break
        body.successors[value] = name


def _leads_to(value: Value, old: Value, inside: set[Op]) -> bool:
    """Whether first operands of arithmetic lead from a value to `old`."""
    while (op := value.op) is not None and op in inside and op.name in ("add", "sub", "mul"):
        first = op.operands[0]
        if first is old:
            return True
        if first is None:
            return False
        value = first
    return False


__all__ = ["Form", "form", "function_text", "hints", "unfit"]
