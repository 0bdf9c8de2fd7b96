"""`python jax_worker.py FOLDER`: the task in FOLDER in plain JAX."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax_models
from protocol import Task, serve

Tree = Any
STATISTICS = {"moving_mean": "mean", "moving_variance": "variance"}
LEAVES = {"gamma": "scale", "beta": "offset"}


def main(folder: str) -> None:
    task = Task(folder)
    params, state = trees(task)
    start, update = made_optimizer(task.optimizer)
    clip: float | None = task.optimizer.get("global_clipnorm")

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def train_step(params: Tree, state: Tree, slots: Tree, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
        (loss, state), gradients = jax.value_and_grad(made_loss(task), has_aux=True)(params, state, x, y, key)
        if clip is not None:
            norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(gradients)))
            gradients = jax.tree.map(lambda g: g * (clip / jnp.maximum(norm, clip)), gradients)
        params, slots = update(params, gradients, slots)
        return params, state, slots, loss

    held = [params, state, start(params)]
    x, y = list(jnp.asarray(task.x)), list(jnp.asarray(task.y))
    keys = list(jax.random.split(jax.random.key(0), len(x)))

    def step(i: int) -> float:
        *held[:], loss = train_step(*held, x[i], y[i], keys[i])
        return float(loss)

    serve(len(x), step)


def made_loss(task: Task) -> Callable[..., Any]:
    """(loss, state) of params, state, x, y and key."""
    options = task.options

    def loss(params: Tree, state: Tree, x: jax.Array, y: jax.Array, key: jax.Array) -> Any:
        if task.model == "digits":
            logits, state = jax_models.digits_cnn(params, state, x, key, options["dropout"])
        elif task.model == "resnet18":
            logits, state = jax_models.resnet18(params, state, x)
        elif task.model == "dense":
            logits = x @ params["dense"]["kernel"] + params["dense"]["bias"]
        else:
            logits = jax_models.gpt(params, x, key, options["heads"], options["dropout"])
        return jax_models.cross_entropy(logits, y), state

    return loss


def trees(task: Task) -> tuple[Tree, Tree]:
    """Weights and moving statistics as trees; a layer with one weight is that weight."""
    params: dict[str, Any] = {}
    state: dict[str, Any] = {}
    for path, array in task.weights.items():
        *owner, leaf = path.split("/")
        if leaf in STATISTICS:
            state.setdefault(owner[0], {})[STATISTICS[leaf]] = jnp.asarray(array)
        else:
            group = params
            for name in owner:
                group = group.setdefault(name, {})
            group[LEAVES.get(leaf, leaf)] = jnp.asarray(array)
    if task.model == "gpt":
        blocks = [params.pop(f"block_{i}" if i else "block") for i in range(task.options["layers"])]
        params["blocks"] = [{**block.pop("attention"), **block.pop("mlp"), **block} for block in blocks]
    return collapsed(params), state


def collapsed(tree: Tree) -> Tree:
    if isinstance(tree, list):
        return [collapsed(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1 and not isinstance(only := next(iter(tree.values())), (dict, list)):
        return only
    return {name: collapsed(item) for name, item in tree.items()}


def made_optimizer(settings: dict[str, Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`start(params) -> slots` and `update(params, gradients, slots) -> params, slots`."""
    rate = settings["learning_rate"]
    if settings["name"] == "sgd":
        momentum = settings["momentum"]

        def move(params: Tree, gradients: Tree, slots: Tree) -> tuple[Tree, Tree]:
            slots = jax.tree.map(lambda v, g: momentum * v - rate * g, slots, gradients)
            return jax.tree.map(jnp.add, params, slots), slots

        return lambda params: jax.tree.map(jnp.zeros_like, params), move

    b1, b2, epsilon = settings["beta_1"], settings["beta_2"], settings["epsilon"]
    decay = settings.get("weight_decay", 0.0)

    def decayed(path: Any, p: jax.Array) -> jax.Array:
        """Weight decay applies to kernels, not to vectors and tables."""
        return p * (1 - rate * decay) if decay and p.ndim > 1 and "embedding" not in str(path) else p

    def adam(params: Tree, gradients: Tree, slots: Tree) -> tuple[Tree, Tree]:
        m, v, count = slots
        count = count + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, gradients)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, gradients)
        alpha = rate * jnp.sqrt(1 - b2**count) / (1 - b1**count)
        params = jax.tree_util.tree_map_with_path(decayed, params)
        params = jax.tree.map(lambda p, m, v: p - alpha * m / (jnp.sqrt(v) + epsilon), params, m, v)
        return params, (m, v, count)

    def zeros(params: Tree) -> Tree:
        return jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params), jnp.zeros(())

    return zeros, adam


if __name__ == "__main__":
    main(*sys.argv[1:])
