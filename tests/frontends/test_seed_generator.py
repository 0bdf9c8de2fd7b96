"""`random.SeedGenerator`: another key for each call."""

import copy

import numpy as np
import pytest
from artifacts import needs

import graphc
from graphc import Input, Sequential, layers, random


class Noise(layers.Layer):
    def __init__(self, seed_generator=None, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = seed_generator or random.SeedGenerator(1337)

    def call(self, x, training=False):
        if not training:
            return x
        first = random.dropout(x, 0.5, seed=self.seed_generator)
        return first + random.normal((x.shape[-1],), seed=self.seed_generator)


def test_each_call_takes_another_key_and_the_first_that_of_the_seed():
    generator = random.SeedGenerator(42)
    draws = [random.normal((3,), seed=generator) for _ in range(3)]
    np.testing.assert_array_equal(draws[0], random.normal((3,), seed=42))
    assert len({draw.tobytes() for draw in draws}) == 3
    again = random.SeedGenerator(42)
    assert all(np.array_equal(draw, random.normal((3,), seed=again)) for draw in draws)
    np.testing.assert_array_equal(generator.state.numpy(), [3, 42])
    other = random.SeedGenerator(43)
    assert not {tuple(random.SeedGenerator(42).next()) for _ in range(3)} & {tuple(other.next()) for _ in range(3)}


def test_keys_that_are_not_ordered():
    generator = random.SeedGenerator(42)
    first = generator.next(ordered=False)
    np.testing.assert_array_equal(first, [0, 42])
    np.testing.assert_array_equal(generator.next(), [5387, 43 * 5387])


def test_a_generator_without_a_seed_follows_the_global_one():
    graphc.utils.set_random_seed(5)
    first = random.SeedGenerator().next()
    assert not np.array_equal(first, random.SeedGenerator().next())
    graphc.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, random.SeedGenerator().next())


def test_configuration_and_copies():
    generator = random.SeedGenerator(7, name="mine")
    generator.next()
    assert random.SeedGenerator.from_config(generator.get_config()).get_config() == {"seed": 7, "name": "mine"}
    assert random.SeedGenerator().get_config()["seed"] is None
    other = copy.deepcopy(generator)
    np.testing.assert_array_equal(other.next(), generator.next())
    for seed in ("7", 7.0, True):
        with pytest.raises(graphc.GraphcError, match="a seed is an integer"):
            random.SeedGenerator(seed)


@pytest.mark.parametrize("target", ["numpy", "onnx", "torch", "jax"])
def test_steps_differ_and_targets_agree(target):
    needs(target)
    x = np.ones((4, 3), np.float32)

    def losses(where):
        graphc.utils.set_random_seed(1)
        model = Sequential([Input((3,)), Noise(), layers.Dense(1, kernel_initializer="ones")])
        assert len(model.weights) == 2
        model.compile(graphc.optimizers.SGD(0.0), "mse", target=where)
        return model.fit(x, x[:, :1], batch_size=2, epochs=2, verbose=0).history["loss"]

    found = losses(target)
    assert found[0] != found[1]
    np.testing.assert_allclose(found, losses("numpy"), rtol=1e-5)


def test_a_layer_with_a_generator_is_saved(tmp_path):
    model = Sequential([Input((3,)), Noise(random.SeedGenerator(3))])
    model.save(tmp_path / "m.graphc")
    again = graphc.models.load_model(tmp_path / "m.graphc", custom_objects={"Noise": Noise})
    assert again.layers[0].seed_generator.get_config()["seed"] == 3
