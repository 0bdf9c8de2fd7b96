"""`layout`: images with their channels first, or last, in whole regions of the graph.

Convolutions and poolings ask for a layout; what lies between them follows it: elementwise ops, norms, joins,
reductions, padding. A value in such a region gets a *twin*, the same values with the axes in the wanted order, and
transposes remain only where regions of one layout end. Kernels are the same in both layouts; those that a function
updates are stored filters first (`kernels.py`), and are regions of their own.

Which ops follow, and how their attributes change, is in `rules/layout.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Size
from graphc.ir.graph import Block, Function, Op, Value
from graphc.ir.location import ROOT, Location, common_scope
from graphc.ir.module import Module
from graphc.ir.ops.lora import lora_conv
from graphc.ir.ops.movement import broadcast, reshape, transpose
from graphc.ir.rewriter import Rewriter
from graphc.passes.kernels import StoredKernels, store_filters_first
from graphc.passes.permutations import Permutation, compose, inverse, is_identity, moves_only_ones
from graphc.passes.registry import register_pass
from graphc.passes.rules import layout as rules
from graphc.passes.rules.layout import Twin


@register_pass("layout")
def layout(module: Module, channels_first: bool = True) -> None:
    """Give convolutions and poolings one layout, with transposes only where regions of it begin and end."""
    rewriter = Rewriter()
    expand_adapters(module, rewriter)
    kernels = store_filters_first(module, rewriter)
    for function in module.functions.values():
        weights = {p.value for p in function.parameters if p.role == "param"}
        for block in _blocks(function):
            _Region(block, rewriter, channels_first, weights, kernels).run()
    rewriter.flush()
    for value in kernels.twins:
        if not value.uses and value.op is not None:
            rewriter.erase(value.op)


def expand_adapters(module: Module, rewriter: Rewriter) -> None:
    """Write out convolutions with adapters: each of their convolutions has a kernel of its own to store."""
    for op in [op for op in module.walk() if op.definition is lora_conv]:
        rewriter.replace(op, *lora_conv.expand(rewriter.before(op), op))


def _blocks(function: Function) -> list[Block]:
    inner = [region.block for op in function.walk() for region in op.regions]
    return [function.block, *inner]


class _Region:
    """One block while it is rewritten. Implements what `rules/layout.py` needs (`rules.Region`)."""

    def __init__(
        self, block: Block, rewriter: Rewriter, channels_first: bool, weights: set[Value], kernels: StoredKernels
    ) -> None:
        self.block = block
        self.rewriter = rewriter
        self.channels_first = channels_first
        self.weights = weights
        self.kernels = kernels
        self.twins = {
            value: Twin(*twin)
            for value, twin in kernels.twins.items()
            if value.op is not None and value.op.block is block
        }
        self.made: dict[tuple[Value, Permutation, int], Value] = {}
        self.replaced: list[Op] = []
        self.bypassed: dict[Op, None] = {}  # transposes whose operand is read in their stead

    def run(self) -> None:
        for op in self.block:
            if op.next is None:
                break
            found = rules.follow(op, self)
            if found is None:
                continue
            if all(is_identity(twin.permutation) for twin in found):
                self.rewriter.replace(op, *[twin.value for twin in found])
                continue
            self.replaced.append(op)
            for result, twin in zip(op.results, found, strict=True):
                self.twins[result] = twin
        for op in reversed(self.replaced):
            for result in op.results:
                if result.uses:
                    self.restore(result)
                elif self.twins[result].value.name is None:
                    self.twins[result].value.name = result.name
            self.rewriter.erase(op)
        for op in self.bypassed:
            if not op.result.uses:
                self.rewriter.erase(op)

    def restore(self, value: Value) -> None:
        """Let the readers that are left, which know nothing of twins, read the twin transposed back."""
        twin = self.twins[value]
        scope = twin.value.op.location.scope if twin.value.op is not None else ROOT
        for user in value.uses or ():
            scope = common_scope(scope, user.location.scope)
        op = value.op
        assert op is not None
        back = self._transpose(twin.value, inverse(twin.permutation), op, Location.of(scope))
        self.rewriter.replace_value(value, back)

    # --- what rules ask for -------------------------------------------------------------------------------------

    def twin(self, value: Value) -> Twin | None:
        """The twin of a value that lies in a region."""
        return self.twins.get(value)

    def is_free(self, value: Value) -> bool:
        """Whether a value costs nothing to transpose: a weight is stored as it is wanted."""
        return value in self.weights

    def has_stored_order(self, value: Value) -> bool:
        """Whether a kernel's gradient meets weights that are stored filters first."""
        return value in self.kernels.alike

    def permuted(self, value: Value, permutation: Permutation, op: Op) -> Value:
        """`value` with its axes in this order, for `op` to read: its twin, or a transpose of it."""
        twin = self.twins.get(value)
        if twin is not None:
            value, permutation = twin.value, compose(inverse(twin.permutation), permutation)
        elif value.op is not None and value.op.definition is transpose:
            (inner,) = value.op.operands
            assert inner is not None
            self.bypassed[value.op] = None
            value, permutation = inner, compose(value.op.attributes[0], permutation)
        if is_identity(permutation):
            return value
        key = (value, permutation, value.ndim)
        if key not in self.made and self._is_spread(value, permutation):
            self.made[key] = self._broadcast(value, permutation, op)
        if key not in self.made:
            scope = value.op.location.scope if value.op is not None else ROOT
            location = Location.of(common_scope(scope, op.location.scope))
            self.made[key] = self._transpose(value, permutation, op, location)
        return self.made[key]

    def aligned(self, value: Value, permutation: Permutation, op: Op) -> Value:
        """`value`, which may have fewer axes, so that it broadcasts with values in the order `permutation`."""
        if value.ndim == 0:
            return value
        if value in self.twins or (value.ndim == len(permutation) and not self._reshapes(value.shape, permutation)):
            return self.permuted(value, permutation, op)
        key = (value, permutation, len(permutation))
        if key not in self.made:
            self.made[key] = self._spread(value, permutation, op)
        return self.made[key]

    def _spread(self, value: Value, permutation: Permutation, op: Op) -> Value:
        """A value with fewer axes, or with axes of 1 to move: a reshape does it, unless longer axes change places."""
        full: tuple[Size, ...] = (*(1,) * (len(permutation) - value.ndim), *value.shape)
        wanted = tuple(full[axis] for axis in permutation)
        if not self._reshapes(full, permutation):
            spread = value if value.shape == full else self._reshape(value, full, op)
            return self._transpose(spread, permutation, op, op.location)
        lead = 0
        while lead < len(wanted) and isinstance(wanted[lead], int) and wanted[lead] == 1:
            lead += 1
        if value.ndim < len(permutation):
            wanted = wanted[lead:]
        return value if wanted == value.shape else self._reshape(value, wanted, op)

    def _is_spread(self, value: Value, permutation: Permutation) -> bool:
        """Whether the value is a broadcast of something that needs no transpose to be broadcast in another order."""
        if value.op is None or value.op.definition is not broadcast:
            return False
        (inner,) = value.op.operands
        return inner is not None and inner.ndim == value.ndim and self._reshapes(inner.shape, permutation)

    def _broadcast(self, value: Value, permutation: Permutation, op: Op) -> Value:
        assert value.op is not None
        (inner,) = value.op.operands
        assert inner is not None
        attributes = broadcast.make_attributes(shape=tuple(value.shape[axis] for axis in permutation))
        spread = self._spread(inner, permutation, op)
        return broadcast.build(self.rewriter.before(op), (spread,), attributes, location=value.op.location).result

    def _reshapes(self, shape: Sequence[Size], permutation: Permutation) -> bool:
        return not is_identity(permutation) and moves_only_ones(shape, permutation)

    def _reshape(self, value: Value, shape: Sequence[Size], op: Op) -> Value:
        attributes = reshape.make_attributes(shape=shape)
        return reshape.build(self.rewriter.before(op), (value,), attributes).result

    def _transpose(self, value: Value, permutation: Permutation, op: Op, location: Location) -> Value:
        attributes = transpose.make_attributes(permutation=permutation)
        return transpose.build(self.rewriter.before(op), (value,), attributes, location=location).result
