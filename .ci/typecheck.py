"""Runs pyright over the rooms; arguments are passed on to it (`python .ci/typecheck.py --stats`).

pyright cannot follow setup.py's mapping of root folders into `graphc`, so this lays a folder of links,
build/typecheck/graphc, that looks as the installed package does, and checks that: `ir/` and `passes/` strictly, except
`ir/ops/`, whose declarations are checked against their signatures by a test; the rest in pyright's basic mode.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ir", "frontends", "passes", "codegen", "runtime", "tools")
CHECKED = ROOT / "build" / "typecheck"

COMMON = {"pythonVersion": "3.11", "reportMissingTypeStubs": False}
STRICT = ["graphc/ir", "graphc/passes"]
BASIC = ["graphc/ir/ops"]
# Every room is named, because pyright follows no links below an included folder. Two runs, because its own list of
# strict paths knows no exceptions, neither of folders nor of rules.
RUNS = {
    "strict": {"include": STRICT, "exclude": BASIC},
    "basic": {
        "exclude": ["graphc/tools/bench/train/peers"],  # scripts that run where Keras is
        "include": ["graphc/__init__.py", *BASIC, *(f"graphc/{r}" for r in ROOMS if f"graphc/{r}" not in STRICT)],
    },
}


def link_rooms() -> None:
    package = CHECKED / "graphc"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        if not link.exists():
            link.unlink()
    for path in [*(ROOT / "graphc").glob("*.py"), *(ROOT / room for room in ROOMS if (ROOT / room).is_dir())]:
        if not (package / path.name).exists():
            (package / path.name).symlink_to(os.path.relpath(path, package))


def main() -> int:
    link_rooms()
    failed = False
    for mode, files in RUNS.items():
        print(f"pyright, {mode}: {' '.join(files['include'])}", flush=True)
        config = CHECKED / f"{mode}.json"
        config.write_text(json.dumps(COMMON | {"typeCheckingMode": mode} | files, indent=2))
        command = [sys.executable, "-m", "pyright", "--project", str(config), "--pythonpath", sys.executable]
        failed |= subprocess.run([*command, *sys.argv[1:]]).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
