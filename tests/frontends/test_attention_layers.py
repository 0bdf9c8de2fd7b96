"""Embedding and attention layers: weights as in Keras, values by the formula, masks, dropout in training."""

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import GraphcError, Input, Model, UnsupportedError, layers, ops, random
from graphc.ir.errors import DTypeError, ShapeError

RNG = np.random.default_rng(0)
KEY = np.array([7, 2**31 + 5], np.uint32)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


# --- embedding ----------------------------------------------------------------------------------------------------


def test_embedding_takes_rows() -> None:
    layer = layers.Embedding(5, 3)
    ids = np.array([[0, 4], [9, -1]])
    y = layer(ids)
    table = layer.get_weights()[0]
    assert [w.name for w in layer.weights] == ["embeddings"]
    np.testing.assert_array_equal(y, table[[[0, 4], [4, 0]]])
    np.testing.assert_array_equal(layers.Embedding(5, 3, weights=[table])(ids.astype(np.float32)), y)
    again = layers.Embedding.from_config(layer.get_config())
    assert (again.input_dim, again.output_dim) == (5, 3)
    with pytest.raises(UnsupportedError, match="mask_zero"):
        layers.Embedding(5, 3, mask_zero=True)
    with pytest.raises(GraphcError, match="output_dim is a positive integer, not 0"):
        layers.Embedding(5, 0)


# --- einsum -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shape", "bias_axes"),
    [
        ("abc,cd->abd", (None, 6), "d"),
        ("abc,cde->abde", (None, 3, 2), "de"),
        ("abc,cde->abde", (None, 3, 2), "e"),
        ("abc,bcd->abd", (None, 6), "d"),
        ("abc,bcd->ad", (6,), "d"),
        ("...c,cd->...d", (None, 6), None),
        ("abc,cd->adb", (6, None), "d"),
    ],
)
def test_einsum_dense_is_the_sum_of_its_equation(equation: str, shape: tuple, bias_axes: str | None) -> None:
    layer = layers.EinsumDense(equation, shape, bias_axes=bias_axes, bias_initializer="random_normal")
    x = draw(2, 4, 5)
    y = layer(x)
    kernel, *bias = layer.get_weights()
    wanted = np.einsum(equation, x, kernel) + (bias[0] if bias else 0)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_einsum_dense_explains_mistakes() -> None:
    with pytest.raises(GraphcError, match="equations are like"):
        layers.EinsumDense("abc", (3,)).build((None, 2, 3))
    with pytest.raises(ShapeError, match="does not fit an input of 2 axes"):
        layers.EinsumDense("abc,cd->abd", (None, 3)).build((None, 2))
    with pytest.raises(ShapeError, match="the size of axis 'c'"):
        layers.EinsumDense("abc,cd->abd", (None, 3)).build((None, 2, None))


# --- attention ----------------------------------------------------------------------------------------------------


def by_hand(layer: Any, query: np.ndarray, value: np.ndarray, key: np.ndarray, mask: Any = True) -> np.ndarray:
    wq, bq, wk, bk, wv, bv, wo, bo = layer.get_weights()
    q = np.einsum("btd,dhe->bhte", query, wq) + bq[:, None]
    k = np.einsum("bsd,dhe->bhse", key, wk) + bk[:, None]
    v = np.einsum("bsd,dhe->bhse", value, wv) + bv[:, None]
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat(groups, 1), v.repeat(groups, 1)
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    e = np.where(mask, np.exp(scores), 0)
    return np.einsum("bhte,hed->btd", e / e.sum(-1, keepdims=True) @ v, wo) + bo


def test_multi_head_attention_has_the_weights_of_keras() -> None:
    x = Input((7, 12))
    layer = layers.MultiHeadAttention(4, 5, value_dim=6, name="mha")
    model = Model(x, layer(x, x))
    assert list(graphc.lower(model).weights) == [
        f"mha/{dense}/{weight}"
        for dense in ("query", "key", "value", "attention_output")
        for weight in ("kernel", "bias")
    ]
    assert [w.shape for w in layer.weights] == [
        (12, 4, 5),
        (4, 5),
        (12, 4, 5),
        (4, 5),
        (12, 4, 6),
        (4, 6),
        (4, 6, 12),
        (12,),
    ]
    query, key = layer.weights[0].numpy(), layer.weights[2].numpy()
    assert not np.array_equal(query, key)
    again = layers.MultiHeadAttention.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", ["heads", "groups"])
def test_attention_layers_follow_the_formula(kind: str) -> None:
    if kind == "heads":
        layer: Any = layers.MultiHeadAttention(4, 5, bias_initializer="random_normal", output_shape=9)
    else:
        layer = layers.GroupedQueryAttention(5, 4, 2, bias_initializer="random_normal")
    query, value, key = draw(2, 3, 8), draw(2, 6, 7), draw(2, 6, 5)
    y = layer(query, value, key)
    np.testing.assert_allclose(y, by_hand(layer, query, value, key), rtol=1e-4, atol=1e-5)
    again, weights = layer(query, value, key, return_attention_scores=True)
    np.testing.assert_allclose(again, y, rtol=1e-4, atol=1e-5)
    assert weights.shape == (2, 4, 3, 6)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_masks_are_joined() -> None:
    layer = layers.MultiHeadAttention(2, 4)
    x = draw(2, 5, 8)
    both = RNG.random((2, 5, 5)) < 0.7
    both |= np.eye(5, dtype=bool)
    value_mask = np.array([[True] * 5, [True, True, True, True, False]])
    seen = both & value_mask[:, None] & np.tril(np.ones((5, 5), bool))
    seen[1, 4, 0] = both[1, 4, 0] = True
    y = layer(x, x, attention_mask=both, value_mask=value_mask, use_causal_mask=True)
    np.testing.assert_allclose(y, by_hand(layer, x, x, x, seen[:, None]), rtol=1e-4, atol=1e-5)
    hidden = layer(x, x, query_mask=value_mask)
    np.testing.assert_array_equal(hidden[1, 4], layer.output_dense.bias.numpy())


def test_mistakes_are_explained() -> None:
    with pytest.raises(GraphcError, match="3 heads of keys do not divide 4 heads of queries"):
        layers.GroupedQueryAttention(5, 4, 3)
    with pytest.raises(GraphcError, match="heads is a positive integer, not 0"):
        layers.MultiHeadAttention(0, 4)
    with pytest.raises(UnsupportedError, match="not of 4 axes"):
        layers.MultiHeadAttention(2, 4)(draw(1, 2, 3, 4), draw(1, 2, 3, 4))


# --- training -----------------------------------------------------------------------------------------------------


def test_a_function_lowered_for_training_takes_one_key_of_which_each_dropout_has_its_own() -> None:
    x = Input((64,))
    y = layers.Dropout(0.5)(x)
    model = Model(x, [y, layers.Dropout(0.5)(x), layers.GaussianNoise(0.1)(x)])
    assert [p.role for p in graphc.lower(model).main.parameters] == ["input"]
    module = graphc.lower(model, training=True)
    assert [(p.name, p.role, str(p.type)) for p in module.main.inputs][1:] == [("key", "key", "u32[2]")]
    ones = np.ones((3, 64), np.float32)
    first, second, noisy = graphc.interpret(module, ones, KEY)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, random.dropout(ones, 0.5, seed=random.fold_in(KEY, 0)))
    np.testing.assert_array_equal(second, random.dropout(ones, 0.5, seed=random.fold_in(KEY, 1)))
    assert 0.05 < np.std(noisy) < 0.2
    again = graphc.interpret(module, ones, KEY)
    np.testing.assert_array_equal(first, again[0])
    assert not np.array_equal(first, graphc.interpret(module, ones, KEY + 1)[0])


def test_attention_weights_are_dropped_in_training() -> None:
    x = Input((6, 8))
    model = Model(x, layers.MultiHeadAttention(2, 4, dropout=0.5)(x, x))
    array = draw(2, 6, 8)
    plain = graphc.interpret(graphc.lower(model), array)
    trained = graphc.lower(model, training=True)
    assert not np.allclose(graphc.interpret(trained, array, KEY), plain)
    mean = np.mean([graphc.interpret(trained, array, np.uint32([n, 0])) for n in range(200)], 0)
    np.testing.assert_allclose(mean, plain, atol=0.3)


def test_dropout_on_arrays_follows_the_global_seed() -> None:
    layer, ones = layers.Dropout(0.5), np.ones((4, 50), np.float32)
    np.testing.assert_array_equal(layer(ones), ones)
    graphc.utils.set_random_seed(3)
    first, second = layer(ones, training=True), layer(ones, training=True)
    assert not np.array_equal(first, second)
    graphc.utils.set_random_seed(3)
    np.testing.assert_array_equal(layer(ones, training=True), first)


def test_random_numbers_inside_a_loop_want_a_key() -> None:
    def body(x: Any) -> Any:
        return ops.cond(x.sum() > 0, lambda: random.dropout(x, 0.5), lambda: x)

    with pytest.raises(UnsupportedError, match="need a key of their own"):
        graphc.trace(body, graphc.Spec((4,)))

    def keyed(x: Any, key: Any) -> Any:
        return ops.cond(x.sum() > 0, lambda: random.dropout(x, 0.5, seed=key), lambda: x)

    module = graphc.trace(keyed, graphc.Spec((4,)), graphc.Spec((2,), "uint32"))
    ones = np.ones(4, np.float32)
    np.testing.assert_array_equal(graphc.interpret(module, ones, KEY), random.dropout(ones, 0.5, seed=KEY))


# --- graphc.random and graphc.ops ---------------------------------------------------------------------------------


def test_random_functions_take_seeds_and_keys() -> None:
    np.testing.assert_array_equal(random.key(2**40 + 3), [2**8, 3])
    np.testing.assert_array_equal(random.uniform((3,), seed=5), random.uniform((3,), seed=random.key(5)))
    drawn = random.normal((2000,), mean=3.0, stddev=2.0, seed=1)
    assert abs(drawn.mean() - 3) < 0.2 and abs(drawn.std() - 2) < 0.2
    x = np.arange(12).reshape(4, 3)
    shuffled = random.shuffle(x, seed=2)
    assert sorted(map(tuple, shuffled.tolist())) == list(map(tuple, x.tolist()))
    assert random.split(KEY, 3).shape == (3, 2)
    assert random.bits((2,), "uint8", seed=KEY).dtype == np.uint8
    assert random.bernoulli((5,), 1.0).all()
    with pytest.raises(DTypeError, match=r"a key is uint32\[2\], not int32\[3\]"):
        random.uniform((2,), seed=np.zeros(3, np.int32))


def test_losses_under_the_names_of_keras() -> None:
    logits, labels = draw(4, 5), np.array([0, 4, 2, 1])
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = -np.log(chances[np.arange(4), labels])
    kinds = ops.sparse_categorical_crossentropy
    np.testing.assert_allclose(kinds(labels, logits, from_logits=True), wanted, rtol=1e-5)
    np.testing.assert_allclose(kinds(labels, chances), wanted, rtol=1e-5)
    np.testing.assert_allclose(kinds(labels[:, None], 3 * chances), wanted, rtol=1e-5)
    np.testing.assert_allclose(kinds(labels, logits.T, from_logits=True, axis=0), wanted, rtol=1e-5)
    hot = ops.one_hot(labels, 5)
    np.testing.assert_allclose(ops.categorical_crossentropy(hot, logits, from_logits=True), wanted, rtol=1e-5)
    np.testing.assert_allclose(ops.categorical_crossentropy(hot, chances), wanted, rtol=1e-5)
    targets, p = RNG.random(6).astype(np.float32), 1 / (1 + np.exp(-draw(6)))
    wanted = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    np.testing.assert_allclose(ops.binary_crossentropy(targets, p), wanted, rtol=1e-5)
    found = ops.binary_crossentropy(targets, np.log(p / (1 - p)), from_logits=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_sorting_and_attention_under_the_names_of_keras() -> None:
    x = np.array([[3, 1, 2], [0, 5, 0]])
    assert ops.sort(x).tolist() == [[1, 2, 3], [0, 0, 5]]
    assert ops.argsort(x, axis=None).tolist() == [3, 5, 1, 2, 0, 4]
    q, k = draw(1, 3, 2, 4), draw(1, 3, 2, 4)
    mask = np.tril(np.ones((3, 3), np.int32))
    wanted = ops.dot_product_attention(q, k, k, is_causal=True)
    np.testing.assert_array_equal(ops.dot_product_attention(q, k, k, mask=mask), wanted)
