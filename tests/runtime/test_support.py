"""What targets support: every op can be asked about, and the answers agree with compiling."""

import pytest

import graphc
from graphc import codegen
from graphc.ir.builder import Builder
from graphc.ir.dtypes import f32
from graphc.passes.legalize import legalize
from graphc.runtime.support import all_ops, sample_ops, support


def test_every_op_can_be_asked_about():
    assert {name for name, definition in all_ops().items() if not sample_ops(definition)} == set()


@pytest.mark.parametrize("name", sorted(codegen.targets()))
def test_what_is_said_to_be_decomposed_legalises(name):
    target = codegen.targets()[name]
    for definition in all_ops().values():
        level = support(target, definition).get(f32)
        if level == "decomposed" and definition.call_rule is None:
            op = sample_ops(definition)[f32]
            module = graphc.ir.Module()
            function = module.add_function("f")
            values = [None if v is None else function.add_parameter(v.type) for v in op.operands]
            with Builder(function.block) as builder:
                builder.finish(definition.build(builder, values, op.attributes).results)
            legalize(target.prepare(module), target.supports)


def test_targets_tell_what_they_have():
    info = graphc.targets()["numpy"]
    assert info.installed and "numpy" in info.versions
    assert info.ops["add"] == "native" and info.ops["linear"] in ("native", "decomposed")


def test_what_a_target_has_in_another_layout_is_had():
    assert codegen.targets()["torch"].supports(sample_ops(all_ops()["conv"])[f32]) is False
    assert support(codegen.targets()["torch"], all_ops()["conv"])[f32] == "native"
