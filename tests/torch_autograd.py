"""Gradients that torch's autograd takes of the forward code that the torch target emits."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from graphc.codegen.compiler import write_artifact
from graphc.ir.cloning import clone_function
from graphc.ir.errors import GraphcError
from graphc.ir.module import Module
from graphc.passes.legalize import legalize

Array = np.ndarray[Any, Any]
Loss = tuple[Module, Sequence[Array], Sequence[str]]
"""A module whose main function returns a scalar, its inputs, and the parameters to differentiate by."""

_numbers = count()


def torch_gradients(losses: Sequence[Loss]) -> list[list[Array] | Exception]:
    """The gradients of each loss, or what writing or running it raised. All are entries of one file where that can be.

    Private functions of the modules have names of their own; weights they have none. They are left as they are.
    """
    try:
        loaded = _loaded([module for module, _, _ in losses])
    except (GraphcError, RuntimeError) as error:  # one that the target does not have
        if len(losses) == 1:
            return [error]
        half = len(losses) // 2
        return torch_gradients(losses[:half]) + torch_gradients(losses[half:])
    return [_gradients(function, loss) for function, loss in zip(loaded, losses, strict=True)]


def _loaded(modules: Sequence[Module]) -> list[Any]:
    if len(modules) == 1:
        together = modules[0].clone()
        names = [together.main.name]
    else:
        together, names = Module(), []
        for i, module in enumerate(modules):
            names.append(f"loss_{i}")
            for function in module.functions.values():
                clone_function(function, together, names[-1] if function is module.main else None)
    with tempfile.TemporaryDirectory() as folder:
        # F.batch_norm has no gradient by its mean and variance.
        legalize(together, lambda op: op.name != "batch_norm")
        write_artifact(together, "torch", Path(folder) / "out", passes="dce")
        spec = importlib.util.spec_from_file_location(f"emitted_{next(_numbers)}", Path(folder) / "out" / "model.py")
        assert spec is not None and spec.loader is not None
        program = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(program)
        model = program.load(Path(folder) / "out")
    return [model.forward if i == 0 else getattr(model, name) for i, name in enumerate(names)]


def _gradients(function: Any, loss: Loss) -> list[Array] | Exception:
    import torch

    module, inputs, wrt = loss
    tensors = [torch.from_numpy(np.array(a)) for a in inputs]
    names = [p.name for p in module.main.parameters]
    chosen = [tensors[names.index(name)].requires_grad_() for name in wrt]
    try:
        with torch.enable_grad():
            value = function(*tensors)
        if not value.requires_grad:  # it depends on none of them
            return [np.zeros_like(tensor.detach().numpy()) for tensor in chosen]
        found = torch.autograd.grad(value, chosen, allow_unused=True, materialize_grads=True)
    except (RuntimeError, NotImplementedError, TypeError) as error:  # torch may have no gradient of what it computes
        return error
    return [gradient.numpy() for gradient in found]
