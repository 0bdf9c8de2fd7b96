"""Weights as initializers: under their own names, permuted where every reader wants that, shared between entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx import GraphProto, TensorProto

from graphc.codegen.onnx.graph import at_border, raw_data, tensor_proto
from graphc.codegen.onnx.kernels import ELEMENT_TYPES
from graphc.codegen.onnx.spelling.contraction import wanted_permutation
from graphc.ir.dtypes import DType
from graphc.ir.graph import Value
from graphc.ir.module import Module
from graphc.ir.recipes import Permute, Recipe

ALIGNMENT = 4096
"""Arrays begin at multiples of this in the data file, so that they can be mapped into memory."""

INLINE = 1024
"""Arrays of at most so many bytes stay in the model file."""


@dataclass
class StoredWeights:
    """The weights of an artifact. `mutable` ones are updated by an entry; `permutations` says which are stored how.

    Where some are mutable, all are inputs of the graphs, so that optimizer slots or frozen weights can be set as well.
    """

    module: Module
    mutable: frozenset[str]
    permutations: dict[str, tuple[int, ...]]
    data_file: Path | None = None
    recipes: dict[str, Recipe] = field(default_factory=dict[str, Recipe])
    _places: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    @staticmethod
    def of(module: Module) -> StoredWeights:
        """What the entries of `module` want of its weights."""
        functions = list(module.entries.values())
        source = module.weights.source
        mutable = {
            source(result.updates.weight).name
            for function in functions
            for result in function.results
            if result.updates is not None and result.updates.weight is not None
        }
        wanted: dict[str, set[tuple[int, ...] | None]] = {}
        for function in functions:
            for parameter in function.parameters:
                if parameter.weight is not None:
                    wanted.setdefault(source(parameter.weight).name, set()).update(_layouts(parameter.value))
        permutations = {
            name: next(iter(layouts))
            for name, layouts in wanted.items()
            if name not in mutable and len(layouts) == 1 and None not in layouts
        }
        return StoredWeights(module, frozenset(mutable), permutations)  # type: ignore[arg-type]

    def is_input(self, name: str) -> bool:
        """Whether the weight can be given another value than the stored one. The runtime's interface lacks 4 bits."""
        type = self.module.weights.info(name).type
        return bool(self.mutable) and at_border(type) is type

    @property
    def size(self) -> int:
        """Bytes of all weights the entries read."""
        table = self.module.weights
        names = {
            table.source(p.weight).name
            for f in self.module.entries.values()
            for p in f.parameters
            if p.weight is not None
        }
        return sum(int(table.info(name).type.dtype.size * _elements(table.info(name).type.shape)) for name in names)

    def add(self, proto: GraphProto, name: str) -> None:
        """Add a weight to a graph's initializers, under its own name."""
        table = self.module.weights
        dtype = table.info(name).type.dtype
        recipe = Recipe((name,))
        permutation = self.permutations.get(name)
        if permutation is not None:
            recipe = recipe.then(Permute(permutation))
        self.recipes[name] = recipe
        array = table[name] if permutation is None else table[name].transpose(permutation)
        tensor = proto.initializer.add()
        if self.data_file is None or array.nbytes <= INLINE:
            tensor_proto(tensor, name, array, dtype)
        else:
            self._add_outside(tensor, name, array, dtype)

    def _add_outside(self, tensor: TensorProto, name: str, array: Any, dtype: DType) -> None:
        assert self.data_file is not None
        place = self._places.get(name)
        if place is None:
            with open(self.data_file, "ab") as file:
                start = -(-file.tell() // ALIGNMENT) * ALIGNMENT
                file.write(bytes(start - file.tell()))
                place = self._places[name] = start, file.write(raw_data(array, dtype))
        tensor.name = name
        tensor.data_type = ELEMENT_TYPES[dtype]
        tensor.dims.extend(array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.data_file.name), ("offset", place[0]), ("length", place[1])):
            tensor.external_data.add(key=key, value=str(value))


def _layouts(value: Value) -> set[tuple[int, ...] | None]:
    """The permutations in which the readers of a weight want it."""
    return {
        wanted_permutation(op, index)
        for op in value.uses or ()
        for index, operand in enumerate(op.operands)
        if operand is value
    }


def _elements(shape: Any) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
