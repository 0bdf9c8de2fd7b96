"""Text that does not parse: the error says what is wrong at which line and column, and is never a Python exception."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.errors import GraphcError, ParseError
from graphc.ir.parser import parse

GOOD = """graphc-ir 1
weight "w" : f32[3] trainable = [1.0, 2.0, 3.0]
weight "tied" : f32[3] trainable tied "w"
weight "made" : bf16[6] from ("q", "k") axis 0 splits [3] permute[0] reshape[6][6] cast[f32, bf16]
func @f<Z >= 0>(
    %x: f32[B, 3] input,
    %w: f32[3] param "w",
    %z: i32[Z, 2*B] state
) -> (y: f32[B, 3], i32[Z, 2*B] updates %z) where B <= 7, 2 divides B {
  // a comment
  %0 = add %x, %w : f32[B, 3] @ "block/dense#1" model.py:3 from "a" "b"
  %n = constant {value = 3, dtype = i32} : i32[]
  %1, %2 = split %0 {sizes = [1, 2], axis = 1} : f32[B, 1], f32[B, 2]
  %3 = concat %1, %2 {axis = 1} : f32[B, 3]
  %4 = scan %3, %z {carried = 1, sliced = 1, length = Z} (%c: f32[B, 3], %r: i32[2*B]) {
    %5 = name %c {tag = "a \\"b\\""} : f32[B, 3]
    yield %5
  } : f32[B, 3]
  %7 = call %4 {callee = @g} : f32[B, 3]
  return %7, %z
}
private func @g(%x: f32[N, 3] input) -> f32[N, 3] {
  return %x
}
"""


def test_the_text_that_is_broken_below_is_right():
    parse(GOOD).verify()


# What is replaced, by what (with a ^ where the error is said to be), and what the error says.
ERRORS = [
    # the module
    ("graphc-ir 1", " ^graphc-ir 2", "this is 'graphc-ir 2'; this release reads 'graphc-ir 1'"),
    ("func @f", "^fun @f", "expected `weight`, `func` or `private func`, found 'fun @f"),
    ("private func @g", "private func @^f", "there is a function @f already"),
    ("private func @g", "^private func g", "expected `weight`, `func` or `private func`, found 'private func g(%x"),
    # weights
    ('"tied" : f32[3]', '"tied" ^f32[3]', "expected `:`, found 'f32[3] trainable tied"),
    ('weight "tied"', 'weight ^"w"', "there is a weight 'w' already"),
    ('tied "w"', 'tied ^"v"', "there is no weight 'v' of type f32[3] above"),
    ('"tied" : f32[3] trainable tied ', '"tied" : f32[4] trainable tied ^', "there is no weight 'w' of type f32[4]"),
    ('"w" : f32[3] ', '"w" : f32[B] ^', "the sizes of a weight are numbers, not f32[B]"),
    ('"w" : f32[3] trainable = ', '"w" : f32[4] trainable = ^', "the values have shape [3], not [4]"),
    ("[1.0, 2.0, 3.0]", "^[1.0, [2.0], 3.0]", "the rows of a nested list have different lengths"),
    ("[1.0, 2.0, 3.0]", "^[1.0, true, 3.0]", "True is not a float32"),
    ("[1.0, 2.0, 3.0]", '^[1.0, "2", 3.0]', "'2' is not a float32"),
    ("[1.0, 2.0, 3.0]", f"[1.0, ^{'9' * 5000}, 3.0]", "a number of 5000 digits is too long"),
    ("[1.0, 2.0, 3.0]", "[1.0, 2.0, 3.0] ^4", "expected the end of the line, found '4'"),
    ("permute[0]", "permute[^a]", "expected an integer, found 'a] reshape"),
    ("cast[f32,", "cast[^f33,", "expected a dtype (bool, "),
    ('from ("q", "k")', "from (^)", "expected a string in double quotes, found ') axis"),
    # heads
    ("Z >= 0", "Z >= ^-1", "expected the least value of the symbol, found '-1>"),
    ("%w: f32[3]", "^%x: f32[3]", "%x is defined twice"),
    ("%w: f32[3]", "%w.x^: f32[3]", "%w.x is neither a number nor a name"),
    ("B, 3] input", "B, 3] ^inputs", "expected a role (input, param, state or key), found 'inputs"),
    ('param "w"', 'param ^"v"', "there is no weight 'v' above"),
    ("(y: f32[B, 3]", "(y: f32[B ^3]", "expected an operator or the end, found '3'"),
    ("(y: f32[B, 3]", "(y: ^f32[B, -3]", "a size cannot be negative: -3"),
    ("(y: f32[B, 3]", "(y: ^f32[B, 4]", "@f returns f32[B, 3] where its head declares f32[B, 4]"),
    ("(y: f32[B, 3], ", "^(", "@f returns 2 values, its head declares 1"),
    ("updates %z", "updates ^%y", "%y is no parameter of @f"),
    ("B <= 7", "^B < 7", "expected '==', '<=' or 'divides' between two sizes"),
    ("2 divides B", "2 divides B +^", "expected a number, a symbol or '(', found the end"),
    ("2 divides B {", "2 divides B ^} {", "expected an operator or the end, found '}'"),
    # ops
    ("= add", "= ^ad", "there is no op 'ad'"),
    ("add %x, %w", "add %x, ^%v", "%v is not defined before"),
    ("concat %1, %2", "concat %1, ^%20", "%20 is not defined before"),
    ("add %x, %w", "^add %x", "add misses the operand y"),
    ("add %x, %w", "^add %x, _", "add misses the operand y"),
    ("add %x, %w", "^add %x, %w, %w", "add takes 2 operands, not 3"),
    ("concat %1, %2", "^concat %1, _", "concat: none of xs may be absent"),
    ("add %x, %w :", "add %x, %w, ^:", "expected an operand, found ': f32"),
    ("add %x, %w", "^add %x, %z", "add needs operands of one dtype, not float32 and int32"),
    ("add %x, %w : f32[B, 3]", "^add %x, %w : f32[B, 4]", "the result of add is f32[B, 3], not f32[B, 4]"),
    ("add %x, %w : f32[B, 3]", "^add %x, %w", "add has 1 result, not 0"),
    ("add %x, %w : f32[B, 3]", "add %x, %w : f32[B, 3 ^@", "expected an operator or the end, found '@'"),
    ("add %x, %w : f32[B, 3]", "add %x, %w : ^g32[B, 3]", "expected a dtype (bool, "),
    ("add %x, %w : f32[B, 3]", "add %x, %w : f32[B^/2, 3]", "expected an operator or the end, found '/'"),
    ("%n = constant", "^%0 = constant", "%0 is defined twice"),
    ("%1, %2 = split", "%1, ^%1 = split", "%1 is defined twice"),
    ("%1, %2 = split", "^%1 = split", "split has 2 results, 1 is named"),
    ("%n = constant", "^constant", "the results of constant have no names"),
    ("%n = constant", "^%n.a = constant", "%n.a is neither a number nor a name"),
    ("%n = constant", "%n ^constant", "expected `=`, found 'constant"),
    ("constant {value = 3, ", "^constant {value = 3.5, ", "3.5 is not a int32"),
    ("constant {value = 3, ", "^constant {value = 3000000000, ", "3000000000 is not a int32"),
    ("constant {value = 3, ", "^constant {", "constant misses the attribute value"),
    ("{value = 3, ", "{value = 3, ^value = 3, ", "the attribute value is given twice"),
    ("{value = 3, ", "{^walue = 3, ", "constant has no attribute 'walue'; it has value, dtype"),
    ("{value = 3, ", "{value ^: 3, ", "expected `=`, found ': 3, dtype"),
    ("{value = 3, ", "{value = ^, ", "expected a number, a symbol or '('"),
    ("{value = 3, dtype = i32}", "{value = [3, dtype ^= i32}", "expected an operator or the end, found '='"),
    ("dtype = i32}", "dtype = ^i33}", "expected a dtype (bool, "),
    ("dtype = i32} : i32[]", "dtype = i32 : i32[]^", "expected `}` here"),
    ("axis = 1} : f32[B, 1]", "axis = ^true} : f32[B, 1]", "expected a value of the kind int for axis"),
    ("split %0 {sizes = [1, 2]", "^split %0 {sizes = [1, 3]", "split"),
    ('tag = "a \\"b\\""', 'tag = ^"a \\q"', "expected a string with valid escapes"),
    ('tag = "a \\"b\\""', 'tag = ^"a', "expected `}`"),
    # locations
    ('"block/dense#1"', '^"block//dense"', "is no path of scopes"),
    ("model.py:3", "^model.py", "expected file:line, found 'model.py from"),
    ('from "a" "b"', 'from "a" ^b', "expected the end of the location, found 'b'"),
    # regions
    ("(%c: f32[B, 3], %r: i32[2*B])", "(%c: f32[B, 3], ^%c: i32[2*B])", "%c is defined twice"),
    ("scan %3, %z {carried = 1, sliced = 1, length = Z}", "^scan %3, %z {carried = 1, sliced = 0, length = Z}",
     "a parameter of the body of scan is i32[2*B], but i32[Z, 2*B] is needed"),
    ("name %c", "name ^%x", "%x is not defined before"),
    ("    yield %5\n  }", "  ^}", "the block ends without `yield`"),
    ("yield %5", "^yield _", "yield: none of values may be absent"),
    ("  } : f32[B, 3]\n", "  } ^f32[B, 3]\n", "expected `: types`, `@ location` or `, (parameters) {`"),
    ("  return %7, %z\n}", "^}", "the block ends without `return`"),
    ("  return %7, %z\n}", "  return %7, %z\n} ^: f32[3]", "expected the end of the line, found ': f32[3]'"),
    # calls
    ("call %4 {callee = @g}", "^call %4 {callee = @h}", "there is no function @h"),
    ("call %4 {callee = @g}", "^call %z {callee = @g}", "@g takes f32[N, 3] for 'x', not i32[Z, 2*B]"),
    ("call %4 {callee = @g}", "^call %4, %4 {callee = @g}", "@g takes 1 argument, 2 were passed"),
    ("call %4 {callee = @g} : f32[B, 3]\n  return %7", "^call %4 {callee = @g} : f32[B, 4]\n  return %4",
     "the result of call @g is f32[B, 3], not f32[B, 4]"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), ERRORS, ids=[new[:40] for _, new, _ in ERRORS])
def test_errors_say_where(old: str, new: str, message: str):
    assert old in GOOD
    marked = GOOD.replace(old, new, 1)
    before = marked[: marked.index("^")]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    with pytest.raises(ParseError) as caught:
        parse(marked.replace("^", ""))
    error = caught.value
    assert message in str(error)
    assert (error.line, error.column) == (line, column), str(error)
    assert str(error).startswith(f"{line}:{column}: ")


def test_text_that_ends_too_soon():
    with pytest.raises(ParseError, match=r"^5:17: the head of the function has no `{`"):
        parse(GOOD[: GOOD.index(" {\n  // a comment")])
    with pytest.raises(ParseError, match="the text ends inside a function; `}` is missing"):
        parse(GOOD[: GOOD.index("  return %7")])
    with pytest.raises(ParseError, match=r"^3:10: return: none of values may be absent|^3:3: return"):
        parse("func @f() -> () {\n\n  return _\n}")


def nested(depth: int) -> str:
    lines = ["func @f(%b: bool[] input) -> bool[] {"]
    for i in range(depth):
        lines.append(
            f"%v{i} = cond {'%b' if not i else f'%p{i - 1}'}, {'%b' if not i else f'%p{i - 1}'} (%p{i}: bool[]) {{"
        )
    for i in reversed(range(depth)):
        inner = f"%v{i + 1}" if i + 1 < depth else f"%p{i}"
        lines += [f"yield {inner}", f"}}, (%q{i}: bool[]) {{", f"yield %q{i}", "} : bool[]"]
    return "\n".join([*lines, "return %v0", "}"])


def test_nesting_is_limited():
    deepest = parse(nested(64))
    deepest.verify()
    assert str(parse(str(deepest))) == str(deepest)
    with pytest.raises(ParseError, match="regions are nested more than 64 deep") as caught:
        parse(nested(2000))
    assert caught.value.line == 66
    lists = "[" * 100_000
    with pytest.raises(ParseError, match="lists nested at most 32 deep"):
        parse(f"func @f() -> f32[] {{\n %0 = constant {{value = {lists}}} : f32[]\n return %0\n}}")
    sizes = "(" * 100_000
    with pytest.raises(ParseError, match="too long"):
        parse(f"func @f(%x: f32[{sizes}] input) -> f32[] {{\n return %0\n}}")


@pytest.mark.parametrize(
    "line",
    [
        "%0 = add " + "%x, " * 50_000,
        "%0 = add %x, %x {a = " + '"\\' * 50_000,
        "%0 = add %x, %x : " + "f32[" * 50_000,
        "%0 = add %x, %x : f32[" + "2, " * 50_000,
        "%0 = add %x, %x @ " + " " * 50_000 + '"',
        "%0" * 50_000,
        " " * 100_000 + "!",
        "%0 = add (" + ") {" * 50_000,
    ],
    ids=lambda line: line[:24],
)
def test_long_lines_take_no_long_time(line: str):
    with pytest.raises(GraphcError):
        parse(f"func @f(%x: f32[] input) -> f32[] {{\n{line}\nreturn %0\n}}")


# Random damage

PIECES = re.findall(r"\w+|[^\w\s]|\s+", GOOD)
VOCABULARY = sorted(
    {*PIECES, "-1", "nan", "1e400", "9" * 30, "\\", "\x00", "é", "²", "\r", "%", "true", "none", "u4", "0"}
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """The good text with pieces removed, doubled, swapped and put in, possibly cut off."""
    pieces = list(PIECES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(pieces) - 1))
        match draw(st.sampled_from(["remove", "double", "replace", "insert", "swap"])):
            case "remove":
                del pieces[at]
            case "double":
                pieces.insert(at, pieces[at])
            case "replace":
                pieces[at] = draw(st.sampled_from(VOCABULARY))
            case "insert":
                pieces.insert(at, draw(st.sampled_from(VOCABULARY)))
            case _:
                other = draw(st.integers(0, len(pieces) - 1))
                pieces[at], pieces[other] = pieces[other], pieces[at]
    text = "".join(pieces)
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 5)) == 0 else text


def check(text: str) -> None:
    """Parsing gives a `ParseError` with a place, or a module whose text parses again."""
    try:
        module = parse(text)
    except ParseError as error:
        lines = text.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        return
    try:
        module.verify()
    except GraphcError:
        return
    assert str(parse(str(module))) == str(module)


@given(damaged())
@settings(max_examples=1000)
def test_damaged_text_is_a_parse_error_or_another_module(text: str):
    check(text)


@given(st.text() | st.lists(st.sampled_from(VOCABULARY)).map(lambda pieces: "func @f() -> () {\n" + "".join(pieces)))
@settings(max_examples=300)
def test_garbage_is_a_parse_error(text: str):
    check(text)


@given(st.integers(0, len(GOOD)))
def test_truncated_text(length: int):
    check(GOOD[:length])
