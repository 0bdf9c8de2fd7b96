"""The text form of every op: parsing what is printed gives the same graph."""

import numpy as np
import pytest
from sampling import all_cases, cases

from graphc.ir.interpreter import interpret, widened
from graphc.ir.module import Module
from graphc.ir.opdef import OPS
from graphc.ir.parser import parse

SAMPLED = [name for name, op in OPS.items() if op.samples]


def assert_same_graph(one: Module, other: Module) -> None:
    for f, g in zip(one.functions.values(), other.functions.values(), strict=True):
        assert f.name == g.name
        assert [p.type for p in f.parameters] == [p.type for p in g.parameters]
        assert list(f.guards) == list(g.guards)
        for a, b in zip(f.walk(), g.walk(), strict=True):
            assert a.definition is b.definition
            assert a.attributes is b.attributes  # interned: the same types and bits
            assert [r.type for r in a.results] == [r.type for r in b.results]
            places = [[None if v is None else (v.op is None, v.index) for v in op.operands] for op in (a, b)]
            assert places[0] == places[1]


@pytest.mark.parametrize("name", SAMPLED)
def test_text_round_trip(name: str) -> None:
    for case in cases(name):
        for dtype in case.dtypes:
            module = case.module(dtype)
            again = parse(str(module))
            again.verify()
            assert_same_graph(module, again)
            assert str(again) == str(module)
        symbolic = case.symbolic_module(case.dtypes[0])
        if symbolic is not None:
            assert_same_graph(symbolic, parse(str(symbolic)))


def test_parsed_ops_mean_the_same() -> None:
    for case in all_cases():
        dtype = case.dtypes[0]
        arrays = [a for a in case.arrays(dtype, np.random.default_rng(case.number)) if a is not None]
        module = case.module(dtype)
        found, wanted = interpret(parse(str(module)), *arrays), interpret(module, *arrays)
        for one, other in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, wanted)), strict=True):
            np.testing.assert_array_equal(widened(one), widened(other), err_msg=case.id)
