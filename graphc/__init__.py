"""The public names of graphc, each fetched from the room that defines it when it is first used.

Importing graphc loads none of the rooms and no framework. The two tables say where each name lives; the imports
under `TYPE_CHECKING` tell type checkers and editors the same, and a test keeps the two in step.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_folder = os.path.dirname(__file__)
if not os.path.isdir(os.path.join(_folder, "ir")):
    # In the source tree the rooms stand beside this folder; installed, they are inside it. A script started from the
    # root of the tree (`python -m pytest` is one) finds this folder before the installed package.
    __path__.append(os.path.dirname(_folder))

_NAMES = {
    "DTypeError": "graphc.ir.errors",
    "FormatError": "graphc.ir.errors",
    "GraphcError": "graphc.ir.errors",
    "ParseError": "graphc.ir.errors",
    "ShapeError": "graphc.ir.errors",
    "TargetError": "graphc.ir.errors",
    "UnsupportedError": "graphc.ir.errors",
    "VerifyError": "graphc.ir.errors",
    "custom_gradient": "graphc.frontends.custom_gradient",
    "grad": "graphc.runtime.differentiation",
    "interpret": "graphc.ir",
    "parse": "graphc.ir",
    "Input": "graphc.frontends",
    "KerasTensor": "graphc.frontends.symbolic",
    "Layer": "graphc.frontends",
    "Variable": "graphc.frontends",
    "DTypePolicy": "graphc.frontends.dtype_policy",
    "Initializer": "graphc.frontends.initializers",
    "InputSpec": "graphc.frontends.input_spec",
    "Regularizer": "graphc.frontends.regularizers",
    "RematScope": "graphc.frontends.remat",
    "Spec": "graphc.frontends",
    "load": "graphc.frontends",
    "lower": "graphc.frontends",
    "name_scope": "graphc.frontends",
    "remat": "graphc.frontends.remat",
    "trace": "graphc.frontends",
    "run_passes": "graphc.passes",
    "Model": "graphc.runtime",
    "Sequential": "graphc.runtime",
    "compile": "graphc.runtime",
    "gradients": "graphc.runtime.training.gradients",
    "load_artifact": "graphc.runtime",
    "quantization_plan": "graphc.runtime.quantization.planning",
    "quantize": "graphc.runtime.quantization.quantizing",
    "targets": "graphc.runtime",
    "value_and_grad": "graphc.runtime.differentiation",
    "verify": "graphc.tools.verification",
}
"""Functions and classes: name → the module that has it."""

_MODULES = {
    "activations": "graphc.frontends.activations",
    "callbacks": "graphc.runtime.training.callbacks",
    "config": "graphc.runtime.config",
    "constraints": "graphc.runtime.training.constraints",
    "initializers": "graphc.frontends.initializers",
    "layers": "graphc.frontends.layers",
    "losses": "graphc.runtime.training.losses",
    "metrics": "graphc.runtime.training.metrics",
    "models": "graphc.runtime.models",
    "ops": "graphc.frontends.ops",
    "optimizers": "graphc.runtime.training.optimizers",
    "passes": "graphc.passes",
    "quantizers": "graphc.frontends.quantizers",
    "random": "graphc.frontends.random",
    "regularizers": "graphc.frontends.regularizers",
    "saving": "graphc.runtime.saving",
    "utils": "graphc.runtime.conveniences",
}
"""Modules that are public under a shorter name. `graphc.passes` can also be called."""

_BELOW = {"optimizers.schedules": "graphc.runtime.training.schedules"}
"""Public modules in public modules that are elsewhere."""

__all__ = ["__version__", *_NAMES, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from graphc import passes as passes
    from graphc.frontends import Input as Input
    from graphc.frontends import Layer as Layer
    from graphc.frontends import Spec as Spec
    from graphc.frontends import Variable as Variable
    from graphc.frontends import activations as activations
    from graphc.frontends import initializers as initializers
    from graphc.frontends import layers as layers
    from graphc.frontends import load as load
    from graphc.frontends import lower as lower
    from graphc.frontends import name_scope as name_scope
    from graphc.frontends import ops as ops
    from graphc.frontends import quantizers as quantizers
    from graphc.frontends import random as random
    from graphc.frontends import regularizers as regularizers
    from graphc.frontends import trace as trace
    from graphc.frontends.custom_gradient import custom_gradient as custom_gradient
    from graphc.frontends.dtype_policy import DTypePolicy as DTypePolicy
    from graphc.frontends.initializers import Initializer as Initializer
    from graphc.frontends.input_spec import InputSpec as InputSpec
    from graphc.frontends.regularizers import Regularizer as Regularizer
    from graphc.frontends.remat import RematScope as RematScope
    from graphc.frontends.remat import remat as remat
    from graphc.frontends.symbolic import KerasTensor as KerasTensor
    from graphc.ir import interpret as interpret
    from graphc.ir import parse as parse
    from graphc.ir.errors import DTypeError as DTypeError
    from graphc.ir.errors import FormatError as FormatError
    from graphc.ir.errors import GraphcError as GraphcError
    from graphc.ir.errors import ParseError as ParseError
    from graphc.ir.errors import ShapeError as ShapeError
    from graphc.ir.errors import TargetError as TargetError
    from graphc.ir.errors import UnsupportedError as UnsupportedError
    from graphc.ir.errors import VerifyError as VerifyError
    from graphc.passes import run_passes as run_passes
    from graphc.runtime import Model as Model
    from graphc.runtime import Sequential as Sequential
    from graphc.runtime import compile as compile
    from graphc.runtime import config as config
    from graphc.runtime import conveniences as utils
    from graphc.runtime import load_artifact as load_artifact
    from graphc.runtime import models as models
    from graphc.runtime import saving as saving
    from graphc.runtime import targets as targets
    from graphc.runtime.differentiation import grad as grad
    from graphc.runtime.differentiation import value_and_grad as value_and_grad
    from graphc.runtime.quantization.planning import quantization_plan as quantization_plan
    from graphc.runtime.quantization.quantizing import quantize as quantize
    from graphc.runtime.training import callbacks as callbacks
    from graphc.runtime.training import constraints as constraints
    from graphc.runtime.training import losses as losses
    from graphc.runtime.training import metrics as metrics
    from graphc.runtime.training import optimizers as optimizers
    from graphc.runtime.training.gradients import gradients as gradients
    from graphc.tools.verification import verify as verify


def __getattr__(name: str) -> object:
    """The public `name`, which is kept from then on."""
    if name in _MODULES:
        value = _with_suggestions(import_module(_MODULES[name]), name)
    elif name in _NAMES:
        value = getattr(import_module(_NAMES[name]), name)
    else:
        raise _missing(__name__, name, __all__)
    globals()[name] = value
    return value


def _missing(module: str, name: str, known: list[str]) -> AttributeError:
    """The error for a name that a public module does not have, with what is near."""
    from difflib import get_close_matches

    near = [] if name.startswith("_") else get_close_matches(name, known, n=2, cutoff=0.65)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; dir({module}) lists what there is"
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


def _with_suggestions(module: ModuleType, public: str) -> ModuleType:
    """The public module, which from then on tells of a missing name by its own public name."""

    def missing(name: str) -> object:
        known = [each for each, value in vars(module).items() if each[0] != "_" and not isinstance(value, ModuleType)]
        raise _missing(f"{__name__}.{public}", name, known)

    vars(module).setdefault("__getattr__", missing)
    return module


class _PublicModules:
    """Finds the public modules under their short names: `import graphc.layers`, `from graphc.layers import Dense`.

    They are the modules themselves, each loaded once, and what is in them too.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, short = name.partition(".")
        public, _, below = short.partition(".")
        if package != __name__ or public not in _MODULES:
            return None
        real = _BELOW.get(short) or ".".join(filter(None, (_MODULES[public], below)))
        return None if real == name else ModuleSpec(name, _Alias(real, short))  # type: ignore[arg-type]


class _Alias:
    """Loads a module that has another name."""

    def __init__(self, real: str, public: str) -> None:
        self._real, self._public = real, public

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _with_suggestions(import_module(self._real), self._public)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which the import system has taken for that of the short name


sys.meta_path.insert(0, _PublicModules)  # type: ignore[arg-type]  # before the rooms' folders are searched


def __dir__() -> list[str]:
    return sorted(__all__)
