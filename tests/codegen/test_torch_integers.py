"""PyTorch's helpers: rows of 4 bits whatever their width, and products by oneDNN."""

import numpy as np
import pytest
from artifacts import needs

from graphc.codegen.torch.helpers import HELPERS
from graphc.codegen.torch.quantization import HELPERS as ROWS
from graphc.ir.formats import parse_format


def helpers(*sources):
    import torch
    import torch.nn.functional as F

    names = {"torch": torch, "F": F}
    for source in sources:
        exec(source, names)
    return names


@pytest.mark.parametrize("options", ["block=16", "block=none"])
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_rows_of_four_bits_are_the_reference_to_the_bit_at_every_width(name, options):
    needs("torch")
    import torch

    rows = helpers(ROWS["nibbles"], ROWS["int4_rows"])["int4_rows"]
    form = parse_format(f"{name}{{{options}}}")
    for width in (1, 5, 15, 16, 17, 31, 32, 33, 40, 48):
        kernel = np.random.default_rng(width).standard_normal((width, 6)).astype(np.float32)
        arrays = form.quantize(kernel)
        found = rows(*map(torch.from_numpy, arrays), block=16 if "16" in options else width)[:, :width]
        wanted = form.dequantize(*arrays, shape=kernel.shape).astype(np.float32)
        np.testing.assert_array_equal(found.T.numpy(), wanted)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("shapes", [((5,), (5, 3)), ((0, 5), (5, 3)), ((4, 0), (0, 3)), ((2, 3, 5), (5, 1))])
def test_products_are_pytorchs_in_every_layout(shapes, grad):
    needs("torch")
    import torch

    product = helpers(HELPERS["matrix_product"])["matrix_product"]
    x, weight = (torch.from_numpy(np.random.default_rng(0).standard_normal(s).astype(np.float32)) for s in shapes)
    layouts = [weight, weight.T.contiguous().T, torch.cat([weight, weight], 1)[:, : weight.shape[1]]]
    with torch.set_grad_enabled(grad):
        for each in layouts:
            torch.testing.assert_close(product(x, each), x @ each, rtol=1e-5, atol=1e-6)
        assert product(x, weight.clone().requires_grad_()).requires_grad is grad
