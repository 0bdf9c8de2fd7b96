"""Emitted training steps, used as the plain Python they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import layers
from graphc.codegen.compiler import write_artifact
from graphc.codegen.source.loading import import_model
from graphc.ir.module import Module


def classifier(**options) -> Module:
    image = graphc.Input((6,), name="image")
    x = layers.Dense(8, activation="tanh", name="hidden")(image)
    model = graphc.Model(image, layers.Dense(3, name="logits")(x))
    model.compile("adam", graphc.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model.training_module(np.zeros((2, 6), np.float32), np.zeros(2, np.int32), **options)


def test_a_loop_over_steps_in_pytorch_keeps_no_graph(tmp_path: Path) -> None:
    needs("torch")
    import torch

    write_artifact(classifier(), "torch", tmp_path / "step")
    model = import_model(tmp_path / "step").load()
    image, target = torch.ones(4, 6), torch.zeros(4, dtype=torch.int32)
    kept = []
    for _ in range(3):
        kept += model.train_step(image, target, torch.tensor(0.1)) + model.test_step(image, target)
    assert all(not value.requires_grad and value.grad_fn is None for value in kept)
    assert all(value.grad_fn is None for value in model.state_dict(keep_vars=True).values())
    assert kept[0] > kept[-2]


def test_inference_in_pytorch_lets_gradients_through(tmp_path: Path) -> None:
    needs("torch")
    import torch

    write_artifact(classifier(), "torch", tmp_path / "step")
    model = import_model(tmp_path / "step").load()
    model(torch.ones(4, 6)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("donate", [False, True])
def test_a_step_in_jax_leaves_the_weights_it_is_given(tmp_path: Path, donate: bool) -> None:
    needs("jax")
    import jax

    write_artifact(classifier(), "jax", tmp_path / "step")
    module = import_model(tmp_path / "step")
    params = module.load().params
    before = jax.tree.map(np.asarray, params)
    image, target = np.ones((4, 6), np.float32), np.zeros(4, np.int32)
    step = module.train_step if donate else module.train_step.__wrapped__
    outputs, after = step(params, image, target, np.float32(0.1))
    assert len(outputs) == 2 and jax.tree.structure(after) == jax.tree.structure(before)
    assert not np.array_equal(after["logits"]["kernel"], before["logits"]["kernel"])
    if not donate:
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, params, before)))
