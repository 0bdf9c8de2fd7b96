"""The scope tree: which ops become a class (or function) of their own, and in which order a body runs them.

A scope becomes one when weights are owned below it, or by it where the target has no native layer for them. Its ops
must be convex in the graph: contracted to one item they may not lie on a cycle with what surrounds them. Scopes that
do are dissolved, and their ops stand in the parent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from graphc.ir.graph import Function, Op, Value, operand_values
from graphc.ir.location import ROOT, Scope

UPDATES = "optimizer"
"""The scope of what an optimizer does."""


def owner_of(weight: str) -> str:
    """The path of the layer that owns a weight: `stem/kernel` belongs to `stem`, `kernel` to the root."""
    return weight.rpartition("/")[0]


@dataclass(eq=False, slots=True)
class Node:
    """The ops of one call of a scope, as items of a body: ops and the calls of the scopes below."""

    scope: Scope
    owner: str
    ops: list[Op]
    items: list[Op | Node] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    is_update: bool = False
    """Whether it is the update of a weight, whose weights are among its inputs; see `updates.py`."""


@dataclass(slots=True)
class ScopeTree:
    """The nodes of a function; `root` is its whole body, `instances` the calls of each scope by owner."""

    root: Node
    instances: dict[str, list[Node]]
    weights: dict[Value, str]


def scope_tree(
    function: Function,
    is_class: Callable[[str], bool],
    dissolved: set[str],
    resolved: Callable[[Value], str],
) -> ScopeTree:
    """The tree of `function`; `is_class` says of an owner path whether it may become a class.

    Owners of scopes that turn out not to be convex are added to `dissolved`. `resolved` gives the weight that is read
    for a parameter.
    """
    weights = {p.value: resolved(p.value) for p in function.parameters if p.weight is not None}
    ops = [op for op in function.block if op.next is not None]
    for op in ops:
        if op.definition.introduces_symbols:  # its symbol is a variable of one body
            dissolved.update(scope.owner for scope in op.location.scope.parts)
    while True:
        chains = _Chains(lambda owner: owner not in dissolved and is_class(owner), weights, dissolved)
        instances: dict[str, list[Node]] = {}
        root = Node(ROOT, "", ops)
        before = len(dissolved)
        _fill(root, 0, chains, instances, weights, dissolved)
        if len(dissolved) == before:
            root.inputs = [p.value for p in function.inputs]
            root.outputs = list(function.outputs)
            return ScopeTree(root, instances, weights)


def is_update(scope: Scope) -> bool:
    """Whether the scope is that of the update of one weight: `optimizer/<rule>/<path of the weight>`."""
    return scope.depth > 2 and scope.parts[0].name == UPDATES


class _Chains:
    """For each op the scopes, from the root down, that are classes and contain it; of an update, its own alone."""

    def __init__(self, is_class: Callable[[str], bool], weights: dict[Value, str], dissolved: set[str]) -> None:
        self._is_class = is_class
        self._weights = weights
        self._dissolved = dissolved
        self._updates: dict[Scope, bool] = {}
        self._of_scope: dict[Scope, tuple[Scope, ...]] = {ROOT: ()}
        self._of_op: dict[Op, tuple[Scope, ...]] = {}

    def of(self, op: Op) -> tuple[Scope, ...]:
        found = self._of_op.get(op)
        if found is None:
            scope = op.location.scope
            updates = self._updates.get(scope)
            if updates is None:
                updates = self._updates[scope] = is_update(scope) and scope.owner not in self._dissolved
            found = self._of_op[op] = (scope,) if updates else self._scope_chain(self._effective(op))
        return found

    def _effective(self, op: Op) -> Scope:
        """The op's scope, or the nearest one around it that contains all of its weights."""
        scope = op.location.scope
        for value in op.operands:
            if value is not None and value in self._weights:
                owner = owner_of(self._weights[value])
                own = scope.owner
                if owner != own and not (own and owner.startswith(f"{own}/")) and own:
                    scope = _common_with(scope, owner)
        return scope

    def _scope_chain(self, scope: Scope) -> tuple[Scope, ...]:
        found = self._of_scope.get(scope)
        if found is None:
            above = self._scope_chain(scope.parent or ROOT)
            found = (*above, scope) if self._is_class(scope.owner) else above
            self._of_scope[scope] = found
        return found


def _common_with(scope: Scope, owner: str) -> Scope:
    """The innermost scope around `scope` that `owner` lies in, whichever calls they are."""
    while scope is not ROOT and not (owner == scope.owner or owner.startswith(f"{scope.owner}/")):
        scope = scope.parent or ROOT
    return scope


def _fill(
    node: Node,
    depth: int,
    chains: _Chains,
    instances: dict[str, list[Node]],
    weights: dict[Value, str],
    dissolved: set[str],
) -> None:
    """Find the items of `node`, whose ops lie below `depth` class scopes, in an order they can run in."""
    children: dict[Scope, Node] = {}
    items: list[Op | Node] = []
    item_of: dict[Op, Op | Node] = {}
    last: Op | Node | None = None
    interleaved = False
    for op in node.ops:
        if op.name == "constant":
            continue
        chain = chains.of(op)
        item: Op | Node = op
        if len(chain) > depth:
            scope = chain[depth]
            child = children.get(scope)
            if child is None:
                child = children[scope] = Node(scope, scope.owner, [], is_update=is_update(scope))
                items.append(child)
            elif last is not child:
                interleaved = True
            child.ops.append(op)
            item = child
        else:
            items.append(op)
        item_of[op] = item
        last = item
    if interleaved:
        ordered = _ordered(items, item_of, dissolved)
        if ordered is None:
            return
        items = ordered
    node.items = items
    for child in children.values():
        inside = set(child.ops)
        child.inputs = _inputs(child.ops, inside, {} if child.is_update else weights)
        child.outputs = [v for op in child.ops for v in op.results if any(user not in inside for user in v.uses or ())]
        if not child.is_update:
            instances.setdefault(child.owner, []).append(child)
        _fill(child, depth + 1, chains, instances, weights, dissolved)


def _inputs(ops: Iterable[Op], inside: set[Op], weights: dict[Value, str]) -> list[Value]:
    found: dict[Value, None] = {}
    for op in ops:
        for value in operand_values(op):
            producer = value.op
            if value in weights or (producer is not None and (producer in inside or producer.name == "constant")):
                continue
            found[value] = None
    return list(found)


def _ordered(items: Sequence[Op | Node], item_of: dict[Op, Op | Node], dissolved: set[str]) -> list[Op | Node] | None:
    """The items so that operands come first, near the given order; None after dissolving scopes on cycles."""
    number = {id(item): i for i, item in enumerate(items)}
    followers: list[set[int]] = [set() for _ in items]
    for op, item in item_of.items():
        here = number[id(item)]
        for value in operand_values(op):
            producer = value.op
            source = item_of.get(producer) if producer is not None else None
            if source is not None and source is not item:
                followers[number[id(source)]].add(here)
    missing = [0] * len(items)
    for targets in followers:
        for target in targets:
            missing[target] += 1
    ready = [i for i, count in enumerate(missing) if not count]
    heapify(ready)
    order: list[int] = []
    while ready:
        i = heappop(ready)
        order.append(i)
        for target in followers[i]:
            missing[target] -= 1
            if not missing[target]:
                heappush(ready, target)
    if len(order) == len(items):
        return [items[i] for i in order]
    left = {i for i, count in enumerate(missing) if count}
    for i in _on_cycles(left, followers):
        item = items[i]
        if isinstance(item, Node):
            dissolved.add(item.owner)
    return None


def _on_cycles(left: set[int], followers: Sequence[set[int]]) -> set[int]:
    """The members of `left` that lie on a cycle, by Tarjan's strongly connected components without recursion."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: set[int] = set()
    for start in sorted(left):
        if start in index:
            continue
        work = [(start, iter(sorted(followers[start] & left)))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on_stack.add(start)
        while work:
            at, successors = work[-1]
            for target in successors:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(sorted(followers[target] & left))))
                    break
                if target in on_stack:
                    low[at] = min(low[at], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[at])
                if low[at] == index[at]:
                    component: list[int] = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == at:
                            break
                    if len(component) > 1:
                        found.update(component)
    return found


__all__ = ["Node", "ScopeTree", "is_update", "owner_of", "scope_tree"]
