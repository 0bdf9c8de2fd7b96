"""Every op in every dtype it takes: the inferred type is that of the evaluated array."""

from collections.abc import Callable

import numpy as np
import pytest
from sampling import BATCH, WITHOUT_SAMPLE, all_cases, cases, guards_hold

from graphc.ir.interpreter import evaluate, interpret, widened
from graphc.ir.opdef import OPS

SAMPLED = [name for name, op in OPS.items() if op.samples]


def as_tuple(found: object) -> tuple[object, ...]:
    return found if isinstance(found, tuple) else (found,)


def assert_identical(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(widened(one), widened(other))


def test_ops_without_samples_are_known() -> None:
    assert {name for name, op in OPS.items() if not op.samples} == set(WITHOUT_SAMPLE)


@pytest.mark.parametrize("name", SAMPLED)
def test_inferred_type_is_the_type_of_the_result(name: str) -> None:
    for case in cases(name):
        assert case.dtypes, case.id
        for dtype in case.dtypes:
            rng = np.random.default_rng(case.number)
            arrays = case.arrays(dtype, rng)
            inferred = case.infer(dtype)
            assert not inferred.guards
            module = case.module(dtype)
            module.verify()
            results = as_tuple(interpret(module, *(a for a in arrays if a is not None)))
            for array, type in zip(results, inferred.types, strict=True):
                assert array.shape == type.shape, (case.id, dtype)
                assert array.dtype == type.dtype.numpy, (case.id, dtype)


@pytest.mark.parametrize("name", SAMPLED)
def test_references_of_integers_and_bools_do_not_leave_them(name: str) -> None:
    """Rounding would hide a float where an integer is meant, and lose what a float cannot hold."""
    for case in cases(name):
        for dtype in case.dtypes:
            arrays = case.arrays(dtype, np.random.default_rng(case.number))
            types = case.types(dtype)
            inferred = case.infer(dtype)
            named = dict(zip(case.op.attribute_names, inferred.attributes, strict=True))
            raw = evaluate(case.op, named, arrays, [None if t is None else t.dtype for t in types])
            for array, type in zip(raw, inferred.types, strict=True):
                if type.dtype.is_bool:
                    assert np.asarray(array).dtype == bool, (case.id, dtype)
                elif type.dtype.is_integer:
                    assert np.asarray(array).dtype.kind in "iub" or type.dtype.bits == 4, (case.id, dtype)


@pytest.mark.parametrize("name", SAMPLED)
def test_calling_on_arrays_is_interpreting_the_recorded_op(name: str) -> None:
    for case in cases(name):
        dtype = case.dtypes[0]
        arrays = case.arrays(dtype, np.random.default_rng(case.number))
        at_once = as_tuple(case.op(*arrays, **case.sample.attributes))
        recorded = as_tuple(interpret(case.module(dtype), *(a for a in arrays if a is not None)))
        for one, other in zip(at_once, recorded, strict=True):
            assert_identical(one, other)


@pytest.mark.parametrize("name", SAMPLED)
def test_symbolic_types_are_the_concrete_ones_for_each_size(name: str) -> None:
    for case in cases(name):
        dtype = case.dtypes[0]
        found = case.symbolic_types(dtype)
        if found is None:
            continue
        types, size = found
        inferred = case.op.infer(types, case.attributes)
        assert guards_hold(inferred.guards, size), case.id
        concrete = tuple(type.substitute({BATCH: size}) for type in inferred.types)
        assert concrete == case.infer(dtype).types, case.id
        module = case.symbolic_module(dtype)
        module.verify()
        arrays = case.arrays(dtype, np.random.default_rng(case.number))
        for array, type in zip(
            as_tuple(interpret(module, *(a for a in arrays if a is not None))), concrete, strict=True
        ):
            assert array.shape == type.shape, case.id


def test_coverage_is_counted(announce: Callable[[str], None]) -> None:
    listed = list(all_cases())
    symbolic = sum(case.symbolic_types(case.dtypes[0]) is not None for case in listed)
    in_dtypes = sum(len(case.dtypes) for case in listed)
    announce(
        f"ops: {len(OPS)}, {len(WITHOUT_SAMPLE)} of them without samples; {len(listed)} samples, {in_dtypes} with "
        f"their dtypes, {symbolic} with a symbolic batch size too"
    )
    assert symbolic >= len(listed) // 2
