"""`python -m graphc.tools.docs [--check]`: writes the pages of `docs/` that declarations and targets determine."""

from __future__ import annotations

import sys
from pathlib import Path

from graphc import codegen
from graphc.tools import reference

FOLDER = Path(__file__).resolve().parent.parent / "docs"

NOTE = "<!-- Written by `python -m graphc.tools.docs`; a test keeps it current. -->"


def support_page() -> str:
    """`docs/support.md`: which target has which op."""
    return f"{NOTE}\n\n# Ops and targets\n\n{reference.LEGEND}\n\n{reference.matrix()}\n"


def ops_page() -> str:
    """`docs/ops.md`: every op with signature, meaning, dtypes and targets, by the file that declares it."""
    files: dict[str, list[str]] = {}
    for name, definition in reference.all_ops().items():
        files.setdefault(definition.__module__.rpartition(".")[2], []).append(name)
    contents = "\n".join(
        f"- {file}: " + ", ".join(f"[{name}](#{name})" for name in names) for file, names in sorted(files.items())
    )
    intro = (
        "Positional parameters are operands, those after `*` attributes. A composite is defined by its decomposition\n"
        "into other ops; a target may have it as one op all the same. [support.md](support.md) is the table of targets."
    )
    pages = "\n\n".join(
        reference.page(reference.find_op(name), "##") for _, names in sorted(files.items()) for name in names
    )
    return f"{NOTE}\n\n# Ops\n\n{intro}\n\n{contents}\n\n{pages}\n"


PAGES = {"support.md": support_page, "ops.md": ops_page}


def outdated() -> list[str]:
    """The pages that are not what they would be written as."""
    return [
        name
        for name, page in PAGES.items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != page()
    ]


def main() -> int:
    """Write the pages; with `--check`, only say which are out of date (status 1).

    What a target has is known where it is installed only: with one missing nothing is written (status 2).
    """
    missing = [target for _, target in sorted(codegen.targets().items()) if not target.available()]
    if missing:
        extras = ",".join(target.extra for target in missing)
        print(f"the pages tell of every target; first: pip install 'graphc[{extras}]'", file=sys.stderr)
        return 2
    if "--check" in sys.argv[1:]:
        stale = outdated()
        for name in stale:
            print(f"docs/{name} is out of date: python -m graphc.tools.docs")
        return int(bool(stale))
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
