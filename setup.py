"""Maps the root folders into the import package `graphc`; all else about the package stands in pyproject.toml.

`ir/` is imported as `graphc.ir`, and so on, so that nobody gets a top-level module called `ir` or `tools`. Packages
inside a room are found, not listed: a new folder `codegen/<name>/` with an `__init__.py` is enough.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup

ROOMS = ("ir", "frontends", "passes", "codegen", "runtime", "tools")

# setuptools adds to what an earlier build left in build/lib: a module deleted since would be installed again.
shutil.rmtree(Path(__file__).parent / "build" / "lib", ignore_errors=True)

rooms = [room for room in ROOMS if Path(__file__).with_name(room).is_dir()]
setup(
    package_dir={"graphc": "graphc"} | {f"graphc.{room}": room for room in rooms},
    packages=["graphc"]
    + [f"graphc.{room}" for room in rooms]
    + [f"graphc.{room}.{package}" for room in rooms for package in find_packages(room)],
    package_data={"": ["*"]},  # every file beside a package's modules belongs to it
)
