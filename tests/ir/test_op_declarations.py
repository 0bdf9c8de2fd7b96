"""What every declaration must have, and that its rules take what its signature says.

The rules of `ir/ops/` carry no annotations (`def _(x, *, axes)`), so type checkers cannot hold them to the signature.
"""

import inspect
from collections.abc import Callable

import numpy as np
import pytest

from graphc.ir import ops
from graphc.ir.opdef import OPS, OpDef

PYTHON_NAMES = {name: name for name in OPS} | {
    "and": "and_",
    "not": "not_",
    "or": "or_",
    "return": "return_",
    "yield": "yield_",
    "while": "while_loop",
}
"""The name in text → the name in `graphc.ir.ops`."""

FUNCTIONS_INSTEAD = {"cond", "while", "scan"}
"""Ops whose public function takes the bodies of their regions; the declaration has another name."""

WITHOUT_REFERENCE = {
    "call": "the interpreter runs the callee",
    "cond": "the interpreter runs a region",
    "custom_gradient": "the interpreter runs the function",
    "native_gradient": "only torch and jax have one; the pass own_gradients replaces it",
    "return": "it ends a function",
    "scan": "the interpreter runs the region",
    "while": "the interpreter runs the regions",
    "yield": "it ends a region",
}
"""Primitives whose meaning is not a function on arrays, and where it is."""


@pytest.mark.parametrize("name", OPS)
def test_every_op_is_exported_under_its_name(name: str) -> None:
    exported = getattr(ops, PYTHON_NAMES[name])
    assert exported is OPS[name] or name in FUNCTIONS_INSTEAD


@pytest.mark.parametrize("name", OPS)
def test_every_op_says_what_it_is(name: str) -> None:
    doc = OPS[name].__doc__
    assert doc
    assert doc.strip().endswith(".")


def test_ops_without_reference_are_known(announce: Callable[[str], None]) -> None:
    lacking = {name for name, op in OPS.items() if op.reference_rule is None and not op.is_composite}
    assert lacking == set(WITHOUT_REFERENCE)
    primitives = sum(not op.is_composite for op in OPS.values())
    announce(f"ops: {primitives} primitives and {len(OPS) - primitives} composites")


def check(op: OpDef, rule: Callable, before: tuple[str, ...] = ()) -> None:
    """That the rule takes `before`, then the operands, then the attributes by keyword; each may be starred."""
    if isinstance(rule, np.ufunc):
        assert rule.nin == len(op.operands)
        assert not op.attributes
        return
    parameters = list(inspect.signature(rule).parameters.values())
    kinds = inspect.Parameter
    positional = [p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    starred = [p for p in parameters if p.kind is kinds.VAR_POSITIONAL]
    named = [p.name for p in parameters if p.kind is kinds.KEYWORD_ONLY]
    wanted = len(before) + len(op.operands)
    if starred:
        assert len(positional) <= wanted
    else:
        assert not op.variadic
        assert sum(p.default is kinds.empty for p in positional) <= wanted <= len(positional)
    if not any(p.kind is kinds.VAR_KEYWORD for p in parameters):
        assert sorted(named) == sorted(op.attribute_names)
    else:
        assert set(named) <= set(op.attribute_names)


@pytest.mark.parametrize("name", OPS)
def test_rules_take_what_the_signature_says(name: str) -> None:
    op = OPS[name]
    if op.reference_rule is not None:
        check(op, op.reference_rule)
    if op.vjp_rule is not None:
        check(op, op.vjp_rule, before=("dy", "y"))
    if op.flops_rule is not None:
        check(op, op.flops_rule)
    if op.canonical_rule is not None:
        check(op, op.canonical_rule)
