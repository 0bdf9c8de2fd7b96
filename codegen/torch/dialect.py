"""PyTorch source: `nn.Module`s nested as the model's layers, with native modules and functions."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

import numpy as np

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.dialect import (
    BACKWARD,
    BACKWARD_WITH_UPDATES,
    Code,
    Dialect,
    Layer,
    Path,
    Spelled,
    Spelling,
    Update,
)
from graphc.codegen.source.documentation import class_line, entry_line, module_docstring
from graphc.codegen.source.expressions import POSTFIX, PRODUCT, Expression
from graphc.codegen.source.formatting import IMPORTS
from graphc.codegen.source.functional import indented
from graphc.codegen.source.items import Item
from graphc.codegen.source.members import relative
from graphc.codegen.source.naming import MODULE_MEMBERS, identifier, member, stem
from graphc.codegen.source.regions import write_region_op
from graphc.codegen.source.sharing import operands_shared
from graphc.codegen.source.writer import Definition, ModuleWriter, PrivateFunction
from graphc.codegen.torch import quantization
from graphc.codegen.torch.convolution import without_detours
from graphc.codegen.torch.dtypes import dtype_text
from graphc.codegen.torch.helpers import HELPERS
from graphc.codegen.torch.layers import layer, with_trainable
from graphc.codegen.torch.spelling import SPELLING
from graphc.codegen.torch.unsigned import UNSIGNED
from graphc.ir.dtypes import DType, u32
from graphc.ir.graph import Op, Value
from graphc.ir.module import Weight
from graphc.ir.recipes import Permute, Reshape, Step
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.codegen.source.members import Places

LOAD = '''
def load(folder=None):
    """The model with the weights beside this file, or in `folder`, ready for inference."""
    model = Model()
    load_model(model, Path(folder or Path(__file__).parent) / "model.safetensors")
    return model.eval()
'''

LOAD_WITHOUT_WEIGHTS = '''
def load(folder=None):
    """The model, which has no weights: `folder` does not matter."""
    return Model().eval()
'''

FEWEST_TOGETHER = 4
"""Weights whose new values are copied in by one call: of many small ones each call costs more than its copy."""

IN_PLACE = {"add": ("+", "add_"), "sub": ("-", "sub_"), "mul": ("*", "mul_")}
"""Operators of a weight and something else, with the method that puts the result in the weight's place at once."""


IN_ONE_PASS = {"mul": "addcmul_", "div": "addcdiv_"}
"""What is added or subtracted, with the method that does it in the weight's place as it is computed."""


class TorchDialect(Dialect):
    """See `spelling.py` for the ops and `layers.py` for the modules."""

    spelling: dict[str, Spelling] = SPELLING | quantization.SPELLING
    helpers = {name: source.strip() for name, source in (HELPERS | quantization.HELPERS).items()}
    imports = {
        "Path": "from pathlib import Path",
        "math": "import math",
        "partial": "from functools import partial",
        "torch": "import torch",
        "F": "import torch.nn.functional as F",
        "load_model": "from safetensors.torch import load_model",
        "nn": "from torch import nn",
    }
    scalars_anywhere = False
    is_eager = True
    has_classes = True
    has_native_gradient = True
    writes_in_place = True
    indent = 8
    reserved = frozenset({"self", "torch", "nn", "F", "load", "Path", "Model", *HELPERS, *quantization.HELPERS})
    taken_members = MODULE_MEMBERS | {"backward", "forward_with_residuals"}
    light = frozenset(
        {"relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "transpose", "reshape", "convert"}
    )

    def spelled(self, op: Op) -> Spelled | None:
        if any(value is not None and value.dtype is u32 for value in (*op.operands, *op.results)):
            found = UNSIGNED.get(op.name)
            return found if found is None or not callable(found) else found(op)
        return super().spelled(op)

    def layer(self, op: Op) -> Layer | None:
        return layer(op)

    # --- values -----------------------------------------------------------------------------------------------

    def dtype(self, dtype: DType) -> str:
        return dtype_text(dtype)

    def non_finite(self, name: str) -> str:
        return f"torch.{name}"

    def array(self, value: str, type: TensorType) -> str:
        return f"torch.tensor({value}, dtype={dtype_text(type.dtype)})"

    def stacked(self, rows: str) -> str:
        return f"torch.stack({rows})"

    def backwards(self, array: str) -> str:
        return f"{array}.flip(0)"

    # --- members ----------------------------------------------------------------------------------------------

    def member(self, path: Path) -> str:
        return "self" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)

    def weight_path(self, places: Places, holder: str, weight: str) -> Path:
        return (places.name(holder, member(relative(weight, holder))),)

    def stored_name(self, path: Path) -> str:
        return ".".join(map(str, path))

    def undone(self, text: str, step: Step) -> str:
        match step:
            case Permute(axes):
                if axes == (1, 0):
                    return f"{text}.T"
                return f"{text}.permute({', '.join(str(int(i)) for i in np.argsort(axes))})"
            case Reshape(before, _):
                return f"{text}.reshape({before})"
            case _:
                raise NotImplementedError(step)

    def applied(self, text: str, step: Step) -> str:
        """The expression `text` with a step of a recipe applied."""
        match step:
            case Permute(axes):
                return f"{text}.T" if axes == (1, 0) else f"{text}.permute({', '.join(map(str, axes))})"
            case Reshape(_, after):
                return f"{text}.reshape({after})"
            case _:
                raise NotImplementedError(step)

    def weight_member(self, path: Path, weight: Weight, shape: tuple[int, ...]) -> str:
        dtype = "" if weight.type.dtype == "float32" else f", dtype={dtype_text(weight.type.dtype)}"
        empty = f"torch.empty({', '.join(map(str, shape)) or '()'}{dtype})"
        floating = weight.type.dtype.is_float or weight.type.dtype.is_complex
        if weight.trainable and floating:
            return f"{self.member(path)} = nn.Parameter({empty})"
        return f'self.register_buffer("{path[0]}", {empty})'

    def with_trainable(self, layer: Layer, trainable: Mapping[str, bool]) -> Layer:
        return with_trainable(layer, trainable)

    def list_member(self, name: str, codes: Sequence[Code]) -> str:
        if len(codes) > 2 and len(set(codes)) == 1:
            return f"self.{name} = nn.ModuleList({codes[0].name}() for _ in range({len(codes)}))"
        return f"self.{name} = nn.ModuleList([{', '.join(f'{code.name}()' for code in codes)}])"

    # --- calls and control flow -----------------------------------------------------------------------------

    def call(self, code: Code, path: Path, arguments: Sequence[str]) -> str:
        return f"{self.member(path)}({', '.join(arguments)})"

    def loop(self, body: BodyWriter, code: Code, path: Path, arguments: Sequence[str], position: int) -> None:
        one = body.names.take(identifier(stem(code.name)))
        body.emit(f"for {one} in {self.member(path)}:")
        body.emit(f"    {arguments[position]} = {one}({', '.join(arguments)})")
        body.names.release(one)

    def region_op(self, body: BodyWriter, op: Op) -> None:
        write_region_op(body, op)

    def update_function(self, parameters: Sequence[str], lines: Sequence[str]) -> str:
        head = [f"def NAME({', '.join(parameters)}):", '    """The update of OWNERS, in place."""']
        return "\n".join([*head, *indented(lines)])

    def update_call(self, call: str, places: Sequence[str]) -> str:
        return call

    def rewritten(self, body: BodyWriter, name: str, value: Value, new: Expression) -> str:
        op = value.op
        first = op.operands[0] if op is not None and op.operands else None
        if op is None or first is None:
            return f"{name}.copy_({new.text})"
        # An operand that is inlined into the text has no name any more: it is not the weight.
        held = body.known.get(first)
        if held is not None and held.text == name and first.type == value.type:
            operator, method = IN_PLACE.get(op.name, ("", ""))
            head = f"{name} {operator} "
            if operator and new.text.startswith(head):
                rest = new.text.removeprefix(head)
                return in_one_pass(name, op, rest) or f"{name}.{method}({rest})"
            head = f"torch.lerp({name}, "
            if op.name == "lerp" and new.text.startswith(head):
                return f"{name}.lerp_({new.text.removeprefix(head)}"
        return f"{name}.copy_({new.text})"

    def updated(self, body: BodyWriter, updates: Sequence[Update], outputs: Sequence[Value]) -> None:
        """Weights are written one after another, so that one new value is held beside them at a time.

        What is returned, and new values that read a weight which is written before them, are computed first; what
        shares memory with a weight is cloned.
        """
        for value in dict.fromkeys(outputs):
            self._computed(body, value)
        here, written = frozenset(body.items), set[Path]()
        for path, value, _ in updates:
            read = weights_read(body, value, here)
            if read is None or read & written or shared_with_weights(body, value):
                self._computed(body, value)
            written.add(path)
        indent = "" if body.records_nothing else "    "
        if updates and indent:
            body.emit("with torch.no_grad():")
        ready = [update for update in updates if update.value in body.known]
        together = ready if len(ready) >= FEWEST_TOGETHER else []
        for path, value, steps in updates:
            if not together or value not in body.known:
                body.emit(f"{indent}{self._write(body, path, value, steps)}")
        if together:
            weights = ", ".join(self.member(path) for path, _, _ in together)
            values = ", ".join(self.stored(body.operand(value), steps).text for _, value, steps in together)
            body.emit(f"{indent}torch._foreach_copy_([{weights}], [{values}])")
        if outputs:
            body.emit(f"return {body.returned(outputs)}")

    def _computed(self, body: BodyWriter, value: Value) -> None:
        """Hold a value under a name, in memory that is no weight's."""
        if shared_with_weights(body, value):
            text = body.operand(value).within(POSTFIX)
            freed = body.release(body.consume([value])) if value in body.pending else []
            body.emit(f"{body.name_result(value, freed)} = {text}.clone()")
        elif value in body.pending:
            body.materialise(value)
        elif value not in body.known:
            text = body.operand(value).text
            body.emit(f"{body.name_result(value)} = {text}")

    def _write(self, body: BodyWriter, path: Path, value: Value, steps: tuple[Step, ...]) -> str:
        """The statement that gives a weight its new value: `w.sub_(…)` for `w - …`, else by a copy."""
        op = value.op
        weight, new = self.member(path), body.operand(value)
        if value in body.pending and op is not None and op.name in IN_PLACE:
            first, second = op.operands
            assert first is not None and second is not None
            operator, method = IN_PLACE[op.name]
            itself = body.members.place_of(first) == path
            head = f"{body.operand(first).text} {operator} " if itself else ""
            fits = not steps or second.type.shape == value.type.shape
            apart = path not in shared_with_weights(body, second)
            if itself and new.text.startswith(head) and fits and apart:
                rest = new.text.removeprefix(head)  # which stands to the right of an operator
                other = Expression(rest, POSTFIX if rest.isidentifier() else PRODUCT)
                return f"{weight}.{method}({self.stored(other, steps).text})"
        return f"{weight}.copy_({self.stored(new, steps).text})"

    def stored(self, value: Expression, steps: tuple[Step, ...]) -> Expression:
        for step in steps:
            value = Expression(self.applied(value.within(POSTFIX), step), POSTFIX)
        return value

    def block_function_name(self, block: Code, backward: bool) -> str:
        return "backward" if backward else "forward_with_residuals"

    def block_function(
        self, block: Code, backward: bool, parameters: Sequence[str], lines: Sequence[str], updates: bool
    ) -> str:
        says = BACKWARD_WITH_UPDATES if updates else BACKWARD
        doc = says if backward else "As `forward`, and the residuals that `backward` takes."
        head = [f"def NAME({', '.join(['self', *parameters])}):", f'    """{doc}"""']
        return "\n".join([*head, *indented(lines)])

    def block_call(self, name: str, block: str, arguments: Sequence[str]) -> str:
        return f"{block}.{name}({', '.join(arguments)})"

    # --- the file -------------------------------------------------------------------------------------------

    def definition(self, definition: Definition) -> str:
        return "\n".join(
            ["class NAME(nn.Module):", '    """OWNERS"""', *self._init(definition), *self._methods(definition)]
        )

    def _init(self, definition: Definition) -> list[str]:
        if not definition.members:
            return []
        lines = ["super().__init__()", *definition.members]
        return ["", "    def __init__(self):", *[f"        {line}" for line in lines]]

    def _methods(self, definition: Definition) -> list[str]:
        out: list[str] = []
        for method in definition.methods:
            out.append("")
            if method.records_nothing:
                out.append("    @torch.no_grad()")
            out.append(f"    def {method.name}({', '.join(['self', *method.parameters])}):")
            if method.entry is not None and len(definition.methods) > 1:
                out.append(f'        """{entry_line(method.entry, method.parameters)}"""')
            out += indented(indented(method.lines))
        return out

    def file(self, writer: ModuleWriter, root: Definition, functions: Sequence[PrivateFunction]) -> str:
        root.members += [f"{self.member(path)} = {self.member(source)}" for path, source in writer.ties()]
        first = root.methods[0]
        assert first.entry is not None
        usage = ["model = load()", f"outputs = model({', '.join(first.parameters)})"]
        parts = [module_docstring(root.entries(), "PyTorch", usage), IMPORTS]
        for name, parameters, lines in functions:
            parts.append("\n".join([f"def {name}({', '.join(parameters)}):", *indented(lines)]))
        parts += [writer.with_name(code) for code in writer.definitions]
        doc = f'    """{class_line(root.entries())}"""'
        parts.append("\n".join(["class Model(nn.Module):", doc, *self._init(root), *self._methods(root)]))
        parts.append(LOAD if writer.weights else LOAD_WITHOUT_WEIGHTS)
        return without_detours("\n\n\n".join(parts))


def in_one_pass(name: str, op: Op, rest: str) -> str | None:
    """The statement that adds or subtracts `rest`, a product or quotient of tensors, without holding that."""
    second = op.operands[1]
    inner = None if second is None else second.op
    method = None if inner is None else IN_ONE_PASS.get(inner.name)
    if inner is None or method is None or op.name not in ("add", "sub") or op.results[0].dtype.bits < 32:
        return None
    if not op.results[0].dtype.is_float or second is None or second.type != op.results[0].type:
        return None
    if not all(is_tensor(each) for each in inner.operands):
        return None
    tree = ast.parse(rest, mode="eval").body
    if not isinstance(tree, ast.BinOp) or not isinstance(tree.op, (ast.Mult, ast.Div)):
        return None  # it is held under a name
    factors = f"{ast.unparse(tree.left)}, {ast.unparse(tree.right)}"
    return f"{name}.{method}({factors}{', value=-1' if op.name == 'sub' else ''})"


def is_tensor(value: Value | None) -> bool:
    """Whether the value is a tensor in the source, as what is computed of one is; constants and sizes are numbers."""
    if value is None:
        return False
    op = value.op
    return op is None or value.ndim > 0 or any(map(is_tensor, op.operands))


def sharing(value: Value) -> list[Value]:
    """The parameters whose memory the value may share."""
    found: list[Value] = []
    todo = [value]
    while todo:
        value = todo.pop()
        op = value.op
        if op is None:
            found.append(value)
        else:
            todo += operands_shared(op)
    return found


def shared_with_weights(body: BodyWriter, value: Value) -> set[Path]:
    """The places of the weights whose memory the value may share."""
    return {place for root in sharing(value) if (place := body.members.place_of(root)) is not None}


def weights_read(body: BodyWriter, value: Value, here: Set[Item]) -> set[Path] | None:
    """The places of the weights that what is not computed yet of a value reads; None where any may be.

    `here` are the body's items, among them the ops whose operands tell.
    """
    found: set[Path] = set()
    todo = [value]
    while todo:
        value = todo.pop()
        if value in body.known or value.op is None:
            found |= shared_with_weights(body, value)
        elif value.op in here or not value.op.operands:
            todo += [operand for operand in value.op.operands if operand is not None]
        else:  # the call of a scope
            return None
    return found
