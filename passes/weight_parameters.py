"""Parameters of functions that stand for weights: found by the weight's name, made, and dropped many at once."""

from __future__ import annotations

from collections.abc import Collection

from graphc.ir.graph import Function, Value
from graphc.ir.module import Module
from graphc.ir.rewriter import Rewriter


class WeightParameters:
    """The parameters of a module's functions by weight, looked up once for each function and kept as `of` adds more;
    linear in all, unless others add or drop parameters between calls."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._known: dict[Function, _Known] = {}

    def of(self, function: Function, weight: str) -> Value:
        """The parameter of a function that stands for a weight, made if there is none."""
        known = self._known.get(function)
        if known is None or known.count != len(function.parameters):
            known = self._known[function] = _Known(function)
        found = known.by_weight.get(weight)
        if found is None:
            found = known.by_weight[weight] = self._made(function, weight, known)
        return found

    def _made(self, function: Function, weight: str, known: _Known) -> Value:
        base = "".join(c if c.isalnum() else "_" for c in weight)
        name, number = base, 1
        while name in known.names:
            name, number = f"{base}_{number}", number + 1
        known.names.add(name)
        known.count += 1
        return function.add_parameter(self._module.weights.info(weight).type, name, "param", weight)


class _Known:
    """What a function has while so many parameters are there."""

    def __init__(self, function: Function) -> None:
        self.count = len(function.parameters)
        self.names: set[str | None] = {parameter.name for parameter in function.parameters}
        self.by_weight: dict[str, Value] = {}
        for parameter in function.parameters:
            if parameter.weight is not None:
                self.by_weight.setdefault(parameter.weight, parameter.value)


def forget_weights(module: Module, names: Collection[str]) -> None:
    """Remove weights that nothing reads any more, with their parameters, in place. Linear."""
    for function in module.functions.values():
        gone = [i for i, parameter in enumerate(function.parameters) if parameter.weight in names]
        Rewriter().remove_parameters(function, gone)
    module.weights.remove(*names)


__all__ = ["WeightParameters", "forget_weights"]
