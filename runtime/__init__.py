"""What runs a model: `compile` a source for a target, call the `Executable` it gives, save and load artifacts.

Start at `compilation.py` (from a source to an executable) and `executable.py` (what a call does). `Model` and
`Sequential` are the DSL's with what needs a target: `compile` and `predict`.
"""

from graphc.runtime import config, saving
from graphc.runtime.compilation import compile
from graphc.runtime.executable import Executable, load_artifact
from graphc.runtime.model import Model, Sequential
from graphc.runtime.support import targets

__all__ = ["Executable", "Model", "Sequential", "compile", "config", "load_artifact", "saving", "targets"]
