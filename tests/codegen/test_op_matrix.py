"""What the source targets reach in the matrix of ops, dtypes and edges may grow, not shrink."""

import json

import pytest
from codegen_matrix import FLOOR, floor_of, run_matrix
from sampling import all_cases

from graphc.ir.dtypes import f32

QUICK = ("numpy", "torch")
NATIVE = ("onnx", "openvino")
SLOW = ("jax",)


def check(name, announce):
    outcomes = run_matrix(name)
    reached = floor_of({name: outcomes})
    floor = json.loads(FLOOR.read_text())
    wanted = {(op, column) for op, columns in floor.items() for column, names in columns.items() if name in names}
    agreeing = {(op, column) for op, columns in reached.items() for column in columns}
    problems = {(o.op, o.column): o.problem for o in outcomes}
    lost = [f"{op} {column}: {problems.get((op, column), 'not supported')}" for op, column in sorted(wanted - agreeing)]
    announce(f"{name}: {len(agreeing)} combinations of op and dtype or edge agree with the reference")
    gained = [f"{op} {column}" for op, column in sorted(agreeing - wanted)]
    if gained:
        announce(f"{name}: new since the floor was written: {', '.join(gained)}")
    assert not lost, "\n".join(lost)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", (*QUICK, *NATIVE))
def test_the_floor_holds(name, announce):
    check(name, announce)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SLOW)
def test_the_floor_holds_where_everything_is_compiled(name, announce):
    check(name, announce)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SLOW)
def test_the_floor_holds_in_the_common_dtypes(name):
    outcomes = run_matrix(name, {"f32", "i32"})
    floor = json.loads(FLOOR.read_text())
    lost = [f"{o.op} {o.column}: {o.problem}" for o in outcomes if o.problem and name in floor[o.op].get(o.column, ())]
    assert len(outcomes) > 150 and not lost, "\n".join(lost)


def test_the_source_targets_have_every_op_in_float32():
    floor = json.loads(FLOOR.read_text())
    declared = {case.op.name for case in all_cases() if f32 in case.dtypes}
    for name in (*QUICK, *SLOW):
        reached = {op for op, columns in floor.items() if name in columns.get("f32", ())}
        assert declared <= reached, name
