"""Dense layers over several axes."""

from __future__ import annotations

from typing import Any

from graphc.frontends import activations, initializers, ops, regularizers
from graphc.frontends.adapters import Adaptable
from graphc.frontends.layer import Layer
from graphc.frontends.layers.core import described
from graphc.ir import ops as ir
from graphc.ir.dims import product
from graphc.ir.errors import GraphcError, ShapeError
from graphc.ir.suggestions import number_of


class EinsumDense(Adaptable, Layer):
    """`activation(einsum(equation, x, kernel) + bias)`, such as "abc,cde->abde".

    `output_shape` is without the batch, None where the input says the size. The bias has the axes of the result named
    in `bias_axes`. Where the equation is a product of a matrix over the last axes, it is one `linear`.
    """

    def __init__(
        self,
        equation: str,
        output_shape: Any,
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.equation = equation
        self.partial_output_shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        self.bias_axes = bias_axes
        self.activation = activations.get(activation)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = kernel_constraint
        self.bias_constraint = bias_constraint
        self._take_lora_options(lora_rank, lora_alpha)

    def build(self, input_shape: Any) -> None:
        inputs, kernel, outputs = self._labels(len(input_shape))
        sizes: dict[str, Any] = dict(zip(inputs, input_shape, strict=True))
        shape = (None,) * (len(outputs) - len(self.partial_output_shape)) + self.partial_output_shape
        if len(shape) != len(outputs):
            raise ShapeError(f"EinsumDense: output_shape {shape} has more axes than {self.equation!r} gives")
        for label, size in zip(outputs, shape, strict=True):
            if size is not None and sizes.setdefault(label, size) != size and sizes[label] is not None:
                raise ShapeError(f"EinsumDense: axis {label!r} is {sizes[label]} in the input and {size} in the output")
        self.kernel = self.add_weight(
            [self._size(sizes, label) for label in kernel],
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            name="kernel",
        )
        self.bias = None
        if self.bias_axes:
            missing = [label for label in self.bias_axes if label not in outputs]
            if missing:
                raise GraphcError(f"EinsumDense: {missing[0]!r} of bias_axes is no axis that {self.equation!r} gives")
            first = min(map(outputs.index, self.bias_axes))
            self.bias = self.add_weight(
                [self._size(sizes, label) if label in self.bias_axes else 1 for label in outputs[first:]],
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                name="bias",
            )

        self.built = True
        self._enable_lora_if_asked()

    def _labels(self, ndim: int) -> tuple[str, str, str]:
        """The labels of input, kernel and result; "..." is spelled out."""
        left, arrow, right = self.equation.replace(" ", "").partition("->")
        first, comma, second = left.partition(",")
        if not arrow or not comma or "..." in second:
            raise GraphcError(
                f'EinsumDense: equations are like "abc,cd->abd" or "...c,cd->...d", not {self.equation!r}'
            )
        free = [label for label in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if label not in self.equation]
        extra = "".join(free[: max(0, ndim - len(first.replace("...", "")))]) if "..." in first else ""
        first, right = first.replace("...", extra), right.replace("...", extra)
        if len(first) != ndim:
            raise ShapeError(
                f"EinsumDense: the equation {self.equation!r} does not fit an input of "
                f"{number_of(ndim, 'axis', 'axes')}"
            )
        return first, second, right

    def _size(self, sizes: dict[str, Any], label: str) -> int:
        if not isinstance(sizes.get(label), int):
            raise ShapeError(f"EinsumDense: the size of axis {label!r} of {self.equation!r} must be known")
        return sizes[label]

    def call(self, inputs: Any) -> Any:
        labels, kernel, outputs = self._labels(len(inputs.shape))
        summed = [label for label in kernel if label in labels and label not in outputs]
        count, new = len(summed), kernel[len(summed) :]
        plain = labels.endswith(kernel[:count]) and kernel[:count] == "".join(summed) and count > 0
        if plain and outputs == labels[:-count] + new and self.bias_axes in (None, "", new):
            return self.activation(self._linear(inputs, count))
        found = ops.einsum(f"{labels},{kernel}->{outputs}", inputs, self.kernel)
        return self.activation(found if self.bias is None else found + self.bias)

    def _linear(self, x: Any, count: int) -> Any:
        """The product over the last `count` axes as that of a matrix."""
        kernel, lead = self.kernel.shape, tuple(x.shape[: len(x.shape) - count])
        depth, width = product(kernel[:count]), product(kernel[count:])
        if count > 1:
            x = ir.reshape(x, shape=(*lead, depth))
        matrix = (
            self.kernel if len(kernel) == 2 else ir.reshape(ops.convert_to_tensor(self.kernel), shape=(depth, width))
        )
        bias = self.bias
        if bias is not None and len(bias.shape) != 1:
            bias = ir.reshape(ops.convert_to_tensor(bias), shape=(width,))
        y = ir.linear(x, matrix, bias)
        return y if len(kernel) - count == 1 else ir.reshape(y, shape=(*lead, *kernel[count:]))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "equation": self.equation,
            "output_shape": self.partial_output_shape,
            "activation": activations.serialize(self.activation),
            "bias_axes": self.bias_axes,
            **described(self, "kernel", "bias"),
            **self._lora_config(),
        }
