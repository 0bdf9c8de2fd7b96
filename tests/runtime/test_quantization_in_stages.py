"""Layer by layer in stages: what is kept between them changes nothing, and the work is linear in the depth."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import Input, Model, layers
from graphc.ir import ops
from graphc.runtime.quantization.stages import Stages


def decoder(depth: int) -> Model:
    """Blocks of attention and an MLP."""
    graphc.utils.set_random_seed(0)
    tokens = Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(24, 32, name="table")(tokens)
    for i in range(depth):
        with graphc.name_scope(f"block_{i}"):
            y = layers.RMSNormalization(name="norm")(x)
            x = x + layers.MultiHeadAttention(2, 16, name="attention")(y, y, use_causal_mask=True)
            y = layers.Dense(48, activation="gelu", name="up")(layers.LayerNormalization(name="norm_2")(x))
            x = x + layers.Dense(32, name="down")(y)
    return Model(tokens, layers.Dense(24, name="out")(layers.LayerNormalization(name="last")(x)))


class Tied(layers.Embedding):
    """A table of which the outputs are made too."""

    def call(self, inputs, reverse=False):
        return ops.matmul(inputs, graphc.ops.transpose(self.embeddings)) if reverse else super().call(inputs)


def tied() -> Model:
    """A table at both ends, a layer that is called twice, and two branches off one normalization."""
    graphc.utils.set_random_seed(0)
    tokens = Input((6,), dtype="int32", name="tokens")
    table, shared = Tied(24, 32, name="table"), layers.Dense(32, activation="relu", name="shared")
    x = table(tokens)
    norm, other = layers.RMSNormalization(name="norm")(x), layers.LayerNormalization(name="other")(x)
    left = layers.Dense(32, name="left")(shared(norm))
    x = x + left + layers.Dense(32, name="right")(other) * layers.Dense(32, name="gate")(other)
    return Model(tokens, table(shared(x), reverse=True))


def images() -> Model:
    """Convolutions in two branches, of groups and of channels by themselves."""
    graphc.utils.set_random_seed(0)
    image = Input((8, 8, 4), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
    y = layers.Conv2D(8, 3, padding="same", groups=2, name="grouped")(x)
    x = layers.ReLU()(x + layers.DepthwiseConv2D(3, padding="same", name="deep")(x) + y)
    return Model(image, layers.Dense(3, name="out")(layers.Flatten()(x)))


def examples(model: Model) -> np.ndarray:
    rng = np.random.default_rng(2)
    if len(model.inputs[0].shape) == 2:
        return rng.integers(0, 24, (40, 6)).astype(np.int32)
    return rng.standard_normal((40, 8, 8, 4)).astype(np.float32)


@pytest.mark.parametrize("make", [lambda: decoder(2), tied, images], ids=["decoder", "tied", "images"])
@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_stages_give_what_whole_runs_give(make: Any, method: Any, monkeypatch: Any) -> None:
    found = []
    for whole in (False, True):
        if whole:
            monkeypatch.setattr(Stages, "advance", lambda self, op: None)  # every run begins at the inputs
        model = make()
        module = graphc.quantize(model, "int4{block=16}", method=method, data=examples(model), batch_size=16)
        found.append({name: module.weights[name] for name in module.weights})
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        np.testing.assert_array_equal(array, found[1][name], err_msg=name)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_the_work_is_linear_in_the_depth(method: Any, monkeypatch: Any) -> None:
    """Ops that are run on each batch, all stages together."""
    run: list[int] = []
    piece = Stages._piece

    def counted(self: Stages, values: Any) -> Any:
        found = piece(self, values)
        run.append(len(list(found[0].walk())))
        return found

    monkeypatch.setattr(Stages, "_piece", counted)
    totals = []
    for depth in (1, 2, 3):
        run.clear()
        model = decoder(depth)
        graphc.quantize(model, "int4{block=16}", method=method, data=examples(model))
        totals.append(sum(run))
    assert totals[2] - totals[1] == totals[1] - totals[0]


def test_what_is_not_read_again_is_forgotten() -> None:
    model = decoder(3)
    module = graphc.lower(model)
    stages = Stages(module, [[examples(model)]])
    products = [op for op in module.main.block if op.name == "linear"]
    for op in products:
        stages.advance(op)
        assert 1 <= len(stages._kept) <= 4, op.location  # the residual stream, what the op reads, heads
    last = next(stages.observed({"out": products[-1].result}))["out"]
    np.testing.assert_allclose(last, graphc.interpret(module, examples(model)), rtol=1e-4, atol=1e-5)
