"""The text of an emitted file: the helpers and imports that it mentions, laid out by `ruff format`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.codegen.source.dialect import Dialect

IMPORTS = "\n# imports\n"
"""Where imports and helpers go in the text of a file."""

_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
"""A name, but not an attribute's: a layer may be called `F` or `take`."""

_STRING = re.compile(r'""".*?"""|"[^"\n]*"', re.DOTALL)


def with_imports(text: str, dialect: Dialect) -> str:
    """The file with the helpers it mentions and the imports it needs in place of `IMPORTS`."""
    helpers: dict[str, str] = {}
    todo = [text]
    while todo:
        for name in dict.fromkeys(_WORD.findall(_STRING.sub("", todo.pop()))):
            source = dialect.helpers.get(name)
            if source is not None and name not in helpers:
                helpers[name] = source
                todo.append(source)
    pasted = "\n\n".join(helpers[name] for name in dialect.helpers if name in helpers)
    head, _, rest = text.partition(IMPORTS)
    code = f"{pasted}\n\n{rest}" if pasted else rest
    words = set(_WORD.findall(_STRING.sub("", code)))
    imports = [line for name, line in dialect.imports.items() if name in words]
    return f"{head}{import_block(imports)}\n\n{code}"


def import_block(lines: Sequence[str]) -> str:
    """Import statements in the order that `ruff check --select I` wants: standard library first."""
    standard = [line for line in lines if line.split()[1].split(".")[0] in ("functools", "math", "pathlib", "json")]
    others = [line for line in lines if line not in standard]

    def order(line: str) -> tuple[bool, str]:
        return line.startswith("from"), line.split()[1].lower()

    blocks = ["\n".join(sorted(dict.fromkeys(part), key=order)) for part in (standard, others) if part]
    return "\n\n".join(blocks)


@cache
def _ruff() -> str:
    from ruff.__main__ import find_ruff_bin

    return find_ruff_bin()


def formatted(text: str) -> str:
    """The text as `ruff format` lays it out, at the line length of this project."""
    command = [_ruff(), "format", "--isolated", "--line-length", "120", "--target-version", "py311", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(f"the emitted source does not parse:\n{done.stderr}\n{text}")
    return done.stdout
