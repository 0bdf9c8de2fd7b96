"""Dialects whose source is functions over a nested dict of weights, with a small class that holds both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.codegen.source.body import BodyWriter
from graphc.codegen.source.dialect import BACKWARD, BACKWARD_WITH_UPDATES, Code, Dialect, Path, Update
from graphc.codegen.source.documentation import entry_line, module_docstring
from graphc.codegen.source.formatting import IMPORTS
from graphc.codegen.source.naming import identifier, member, stem
from graphc.codegen.source.writer import Definition, Method, ModuleWriter, PrivateFunction
from graphc.ir.graph import Value
from graphc.ir.module import Module

if TYPE_CHECKING:
    from graphc.codegen.source.members import Places

LOAD = '''
def load(folder=None):
    """The model with the weights beside this file, or in `folder`."""
    path = Path(folder or Path(__file__).parent) / "model.safetensors"
    return Model(nested(load_file(path)))


def nested(weights):
    """Weights named by paths as nested dicts, with lists where the keys are numbers."""
    tree = {}
    for path, array in weights.items():
        *groups, name = path.split("/")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[name] = array
    return with_lists(tree)


def with_lists(tree):
    if not isinstance(tree, dict):
        return tree
    items = {key: with_lists(item) for key, item in tree.items()}
    if items and all(key.isdigit() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items
'''

LOAD_WITHOUT_WEIGHTS = '''
def load(folder=None):
    """The model, which has no weights: `folder` does not matter."""
    return Model({})
'''


class FunctionalDialect(Dialect):
    """Functions `forward(params, x)`; scopes with layers below them are functions over their part of `params`."""

    framework: str

    def member(self, path: Path) -> str:
        return "params" + "".join(f"[{key}]" if isinstance(key, int) else f'["{key}"]' for key in path)

    def weight_path(self, places: Places, holder: str, weight: str) -> Path:
        below = weight[len(holder) + 1 :] if holder else weight
        first, *rest = below.split("/")
        (name,) = places.put(f"group {holder}/{first}", holder, first)
        return (name, *map(member, rest))

    def stored_name(self, path: Path) -> str:
        return "/".join(map(str, path))

    def call(self, code: Code, path: Path, arguments: Sequence[str]) -> str:
        return f"{code.name}({', '.join([self.member(path), *arguments])})"

    def loop(self, body: BodyWriter, code: Code, path: Path, arguments: Sequence[str], position: int) -> None:
        one = body.names.take(identifier(stem(code.name)) if not body.names.is_free("layer") else "layer")
        body.emit(f"for {one} in {self.member(path)}:")
        body.emit(f"    {arguments[position]} = {code.name}({', '.join([one, *arguments])})")
        body.names.release(one)

    def block_function_name(self, block: Code, backward: bool) -> str:
        return f"{block.name}_backward" if backward else f"{block.name}_with_residuals"

    def block_function(
        self, block: Code, backward: bool, parameters: Sequence[str], lines: Sequence[str], updates: bool
    ) -> str:
        says = BACKWARD_WITH_UPDATES if updates else BACKWARD
        doc = says if backward else f"As `{block.name}`, and the residuals that `{block.name}_backward` takes."
        head = [f"def NAME({', '.join(['params', *parameters])}):", f'    """{doc}"""']
        return "\n".join([*head, *indented(lines)])

    def block_call(self, name: str, block: str, arguments: Sequence[str]) -> str:
        return f"{name}({', '.join([block, *arguments])})"

    # --- the file -------------------------------------------------------------------------------------------

    def definition(self, definition: Definition) -> str:
        (method,) = definition.methods
        head = f"def NAME({', '.join(['params', *method.parameters])}):"
        return "\n".join([head, '    """OWNERS"""', *indented(method.lines)])

    def file(self, writer: ModuleWriter, root: Definition, functions: Sequence[PrivateFunction]) -> str:
        parts = [module_docstring(root.entries(), self.framework, self.usage(root, writer.module)), IMPORTS]
        for name, parameters, lines in functions:
            parts.append("\n".join([f"def {name}({', '.join(parameters)}):", *indented(lines)]))
        parts += [writer.with_name(code) for code in writer.definitions]
        parts += [self.entry(method, writer.module) for method in root.methods]
        parts.append(self.model_class(root, writer.module))
        parts.append(self.loader() if writer.weights else LOAD_WITHOUT_WEIGHTS)
        return "\n\n\n".join(parts)

    def loader(self) -> str:
        """The source of `load`."""
        return LOAD

    def usage(self, root: Definition, module: Module) -> list[str]:
        method = root.methods[0]
        return ["model = load()", f"outputs = model({', '.join(method.parameters)})"]

    def entry(self, method: Method, module: Module) -> str:
        assert method.entry is not None
        head = f"def {method.name}({', '.join(['params', *method.parameters])}):"
        return "\n".join([head, f'    """{entry_line(method.entry, method.parameters)}"""', *indented(method.lines)])

    def model_class(self, root: Definition, module: Module) -> str:
        lines = ["class Model:", '    """The entries with the weights they read."""', ""]
        lines += ["    def __init__(self, params):", "        self.params = params"]
        for method in root.methods:
            assert method.entry is not None
            name = "__call__" if method.entry is module.main else method.name
            lines += ["", f"    def {name}({', '.join(['self', *method.parameters])}):"]
            lines += [f"        {line}" for line in self.method_lines(method)]
        return "\n".join(lines)

    def method_lines(self, method: Method) -> list[str]:
        """The body of a method of `Model`, which passes the weights to the entry's function."""
        return [f"return {method.name}({', '.join(['self.params', *method.parameters])})"]

    def update_function(self, parameters: Sequence[str], lines: Sequence[str]) -> str:
        return "\n".join([f"def NAME({', '.join(parameters)}):", '    """The update of OWNERS"""', *indented(lines)])

    def updated(self, body: BodyWriter, updates: Sequence[Update], outputs: Sequence[Value]) -> None:
        """New arrays take the old ones' places in `params`; what is returned was read before."""
        for value in outputs:
            if value not in body.known:
                text = body.operand(value).text
                freed = body.release(body.consume([value]))
                body.emit(f"{body.name_result(value, freed)} = {text}")
        places = [self.member(path) for path, _, _ in updates]
        if places:
            body.emit(f"{', '.join(places)} = {body.returned([value for _, value, _ in updates])}")
        body.emit(self.returned(body, outputs))

    def returned(self, body: BodyWriter, outputs: Sequence[Value]) -> str:
        """The return of an entry that updates weights."""
        return f"return {body.returned(outputs)}" if outputs else "return None"


def indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
