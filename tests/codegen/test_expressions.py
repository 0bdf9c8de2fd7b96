"""Templates: parentheses exactly where Python's grammar needs them."""

import ast

import numpy as np
import pytest

from graphc.codegen.source.dialect import shortest
from graphc.codegen.source.expressions import Expression, template
from graphc.codegen.source.naming import Names, class_name, identifier, plural, stem


def spelled(text, *operands):
    expressions = [spelled(*o) if isinstance(o, tuple) else Expression(o) for o in operands]
    parsed = template(text)
    return parsed.format(lambda slot: expressions[slot.key].within(slot.precedence))


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        (("{0} * {1}", ("{0} + {1}", "a", "b"), "c"), "(a + b) * c"),
        (("{0} + {1}", ("{0} * {1}", "a", "b"), "c"), "a * b + c"),
        (("{0} - {1}", "a", ("{0} - {1}", "b", "c")), "a - (b - c)"),
        (("{0} - {1}", ("{0} - {1}", "a", "b"), "c"), "a - b - c"),
        (("{0} @ {1}", "x", ("{0} + {1}", "k", "b")), "x @ (k + b)"),
        (("{0}.reshape(-1)", ("{0} + {1}", "a", "b")), "(a + b).reshape(-1)"),
        (("{0}.reshape(-1)", ("-{0}", "a")), "(-a).reshape(-1)"),
        (("F.relu({0})", ("{0} + {1}", "a", "b")), "F.relu(a + b)"),
        (("-{0}", ("{0} ** {1}", "a", "b")), "-(a ** b)"),
        (("{0} ** {1}", ("-{0}", "a"), ("-{0}", "b")), "(-a) ** -b"),
        (("{0} ** {1}", ("{0} ** {1}", "a", "b"), "c"), "(a ** b) ** c"),
        (("{0} & {1}", ("{0} == {1}", "a", "b"), "c"), "(a == b) & c"),
        (("{0} == {1}", ("{0} < {1}", "a", "b"), "c"), "(a < b) == c"),
        (("~{0}", ("{0} | {1}", "a", "b")), "~(a | b)"),
        (("{0}[{1}]", ("{0} + {1}", "a", "b"), ("{0} + {1}", "i", "j")), "(a + b)[i + j]"),
        (("{0} << {1}", ("{0} + {1}", "a", "b"), ("{0} & {1}", "c", "d")), "a + b << (c & d)"),
    ],
)
def test_parentheses_stand_where_they_must(expression, wanted):
    text = spelled(*expression).text
    assert ast.dump(ast.parse(text)) == ast.dump(ast.parse(wanted))
    assert text.count("(") == wanted.count("(") or "-(a" in wanted


def test_a_template_is_parsed_once():
    assert template("{0} + {1}") is template("{0} + {1}")


def test_slots_name_operands_attributes_and_their_items():
    parsed = template("torch.cat(({*},), dim={axis})[{shape.1}:{0:s}]")
    assert [slot.key for slot in parsed.slots] == ["*", "axis", "shape.1", 0]
    assert parsed.has_star and not parsed.repeats
    assert template("{0} * special.expit({0})").repeats


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("Conv2D", "conv2_d"), ("block_conv1", "block_conv1"), ("my layer", "my_layer"), ("lambda", "lambda_")],
)
def test_names_become_identifiers(name, wanted):
    assert identifier(name) == wanted


def test_numbered_siblings_share_a_stem():
    assert {stem(name) for name in ("block", "block_1", "block_12")} == {"block"}
    assert class_name("residual_block_3") == "ResidualBlock"
    assert [plural(name) for name in ("block", "entry", "box", "layer")] == ["blocks", "entries", "boxes", "layers"]


def test_names_are_free_again_once_released():
    names = Names({"params"})
    assert [names.take("x"), names.take("x"), names.take("x")] == ["x", "x_1", "x_2"]
    names.release("x_1")
    assert names.take("x") == "x_1"
    assert names.take("params") == "params_1"


def test_the_shortest_number_is_the_same_in_float32() -> None:
    assert [shortest(value) for value in (0.09999999999999998, 1 - 0.999, 0.3535533905932738)] == [
        0.1,
        0.001,
        0.35355338,
    ]
    draw = np.random.default_rng(0)
    bits = draw.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    values = [*bits[np.isfinite(bits)].astype(np.float64), *draw.normal(size=20_000), -0.0, 1e-45, 3.4028235e38]
    for value in values:
        found = shortest(float(value))
        assert np.float32(found).tobytes() == np.float32(value).tobytes()
        assert len(repr(found)) <= len(repr(float(value)))
