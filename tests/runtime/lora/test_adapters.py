"""Adapters of a model: chosen by patterns, switched, taken away, and what is refused."""

import numpy as np
import pytest
from peft_models import llama

import graphc
from graphc import GraphcError, Input, Sequential, layers

TOKENS = np.random.default_rng(0).integers(0, 32, (2, 6)).astype(np.int32)


def model_of(seed: int = 0):
    graphc.utils.set_random_seed(seed)
    return llama()


def drawn(model) -> None:
    rng = np.random.default_rng(7)
    for variable in model.trainable_weights:
        variable.assign(variable.numpy() + rng.standard_normal(variable.shape).astype(np.float32) * 0.3)


def adapted(model, name="default") -> dict[str, tuple[int, float]]:
    return {w: (a.rank, a.scaling) for w, (_, a) in model.adapters[name].parts.items()}


def test_patterns_choose_layers_ranks_and_alphas() -> None:
    model = model_of()
    model.add_adapter(
        r=4,
        alpha=8,
        targets="*/q_proj,mlp/*",
        exclude="layers_1/mlp/*",
        rank_pattern={"down_proj": 2},
        alpha_pattern={"layers_1/*": 2.0},
    )
    assert adapted(model) == {
        "layers_0/self_attn/q_proj/kernel": (4, 2.0),
        "layers_0/mlp/gate_proj/kernel": (4, 2.0),
        "layers_0/mlp/up_proj/kernel": (4, 2.0),
        "layers_0/mlp/down_proj/kernel": (2, 4.0),
        "layers_1/self_attn/q_proj/kernel": (4, 0.5),
    }
    assert len(model.trainable_weights) == 10


def test_all_linear_leaves_out_the_last_layer_and_tables() -> None:
    model = model_of()
    model.add_adapter(r=2, rslora=True, alpha=4)
    assert len(adapted(model)) == 14 and "lm_head/kernel" not in adapted(model)
    assert set(adapted(model).values()) == {(2, 4 / 2**0.5)}


def test_all_linear_is_all_where_a_table_gives_the_scores(tmp_path) -> None:
    class Tied(layers.Embedding):
        def call(self, inputs, reverse=False):
            return graphc.ops.matmul(inputs, graphc.ops.transpose(self.embeddings)) if reverse else super().call(inputs)

    tokens = Input((6,), dtype="int32")
    table = Tied(32, 8, name="table")
    model = graphc.Model(tokens, table(layers.Dense(8, name="down")(table(tokens)), reverse=True))
    model.add_adapter(r=2)
    assert list(adapted(model)) == ["down/kernel"]
    model.add_adapter("other", r=2, targets="table")
    with pytest.warns(UserWarning, match="'table/embeddings' also gives the model's scores: .* in PEFT for lookups"):
        model.save_adapter(tmp_path)


def test_modules_to_save_have_no_adapter() -> None:
    """As in PEFT."""
    model = model_of()
    model.add_adapter(r=2, targets="*_proj,lm_head", modules_to_save="lm_head,down_proj")
    assert {name.split("/")[-2] for name in adapted(model)} == {f"{x}_proj" for x in ("q", "k", "v", "o", "gate", "up")}
    assert len(model.adapters["default"].trained) == 3


def test_a_model_whose_adapters_are_not_trained_says_why() -> None:
    model = model_of()
    model.add_adapter("french", r=2, targets="q_proj")
    model.compile("sgd", "sparse_categorical_crossentropy", target="numpy")
    model.set_adapter(None)
    with pytest.raises(GraphcError, match="none is active: call set_adapter with one of french"):
        model.fit(TOKENS, TOKENS, verbose=0)
    model.merge_adapter("french")
    with pytest.raises(GraphcError, match=r"'french' is merged into them: call unmerge_adapter\(\)"):
        model.fit(TOKENS, TOKENS, verbose=0)


def test_a_new_adapter_changes_nothing_and_starts_as_peft_does() -> None:
    model = model_of()
    before = model.predict(TOKENS, verbose=0)
    model.add_adapter(r=4, targets="q_proj,embed_tokens")
    np.testing.assert_array_equal(model.predict(TOKENS, verbose=0), before)
    parts = {w: a for w, (_, a) in model.adapters["default"].parts.items()}
    q, table = parts["layers_0/self_attn/q_proj/kernel"], parts["embed_tokens/embeddings"]
    assert 0.2 < np.abs(q.a.numpy()).max() <= 1 / 16**0.5 and not q.b.numpy().any()  # 16 inputs
    assert not table.a.numpy().any() and 0.7 < table.b.numpy().std() < 1.4
    other = parts["layers_1/self_attn/q_proj/kernel"]
    assert (q.a.numpy() != other.a.numpy()).all()
    model.add_adapter("three", r=4, targets="q_proj", a_initializer=graphc.initializers.RandomNormal(stddev=0.3))
    first, second = (adapter.a.numpy() for _, adapter in model.adapters["three"].parts.values())
    assert (first != second).all() and 0.2 < first.std() < 0.4
    model.add_adapter("two", r=4, targets="q_proj", dora=True, a_initializer="ones", b_initializer="zeros")
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), before, rtol=1e-5, atol=1e-5)
    kernel, adapter = model.adapters["two"].parts["layers_0/self_attn/q_proj/kernel"]
    assert (adapter.a.numpy() == 1).all()
    np.testing.assert_allclose(adapter.magnitude.numpy(), np.linalg.norm(kernel.numpy(), axis=0), rtol=1e-6)


def test_adapters_are_switched_and_taken_away() -> None:
    model = model_of()
    base = [(v, v.numpy().copy()) for v in model.weights]
    outputs = {None: model.predict(TOKENS, verbose=0)}
    for name, arguments in {
        "one": {"targets": "q_proj,down_proj", "modules_to_save": "norm"},
        "two": {"targets": "v_proj,lm_head", "dora": True, "modules_to_save": ("norm", "layers_0/input_layernorm")},
    }.items():
        model.add_adapter(name, r=2, **arguments)
        drawn(model)
        outputs[name] = model.predict(TOKENS, verbose=0)
    assert list(model.adapters) == ["one", "two"] and model.active_adapter == "two"
    for name in ("one", None, "two", "one", "two", None):
        model.set_adapter(name)
        assert model.active_adapter == name
        np.testing.assert_array_equal(model.predict(TOKENS, verbose=0), outputs[name])
        np.testing.assert_allclose(model(TOKENS), outputs[name], rtol=1e-4, atol=1e-4)  # at once, on arrays
        trained = [v.path for v in model.trainable_weights]
        assert bool(trained) == (name is not None)
        assert all(("lora" in path and path.endswith(str(name))) or "norm" in path for path in trained), trained
    model.set_adapter("one")
    model.delete_adapter("one")
    assert list(model.adapters) == ["two"] and model.active_adapter is None
    np.testing.assert_array_equal(model.predict(TOKENS, verbose=0), outputs[None])
    model.delete_adapter("two")
    assert len(model.trainable_weights) == len(model.weights) == len(base)
    for variable, before in base:
        np.testing.assert_array_equal(variable.numpy(), before)


def test_biases_and_modules_are_trained_as_asked() -> None:
    model = Sequential([Input((6,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(3)])

    def trained(**arguments):
        model.add_adapter(r=2, targets="dense", **arguments)
        found = [v.path for v in model.trainable_weights if "lora" not in v.path]
        model.delete_adapter("default")
        return found

    first, norm, last = (layer.name for layer in model.layers)
    assert trained() == []
    assert trained(bias="lora_only") == [f"{first}/bias"]
    assert trained(bias="all") == [f"{first}/bias", f"{norm}/beta", f"{last}/bias"]
    assert trained(modules_to_save="dense_1") == [f"{last}/kernel", f"{last}/bias"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": "*/q_prj"}, "'.*q_prj' of targets matches nothing; did you mean q_proj"),
        ({"targets": "layers_0/attn/q_proj"}, "did you mean layers_0/self_attn/q_proj"),
        ({"targets": "norm"}, "matches only norm/scale: an adapter is for kernels of products"),
        ({"targets": "q_proj", "exclude": "k_prj"}, "'k_prj' of exclude matches nothing; did you mean k_proj"),
        ({"targets": "q_proj", "exclude": "q_proj"}, "no weight is left to adapt"),
        ({"targets": "q_proj", "rank_pattern": {"k_proj": 2}}, "'k_proj' of rank_pattern matches nothing"),
        ({"targets": "q_proj", "modules_to_save": "head"}, "of modules_to_save matches nothing; did you mean lm_head"),
        ({"targets": "q_proj", "modules_to_save": "q_proj"}, "exclude or modules_to_save take away all"),
        ({"targets": None}, "targets is a pattern of layers' paths, .* not None"),
        ({"targets": []}, "targets has no patterns"),
        ({"targets": ["q_proj", 3]}, "targets has patterns of layers' paths, .* not 3"),
        ({"targets": "q_proj", "alpha": "8"}, "alpha is a number other than 0, not '8'"),
        ({"targets": "q_proj", "alpha": float("nan")}, "alpha is a number other than 0, not nan"),
        ({"targets": "q_proj", "alpha_pattern": {"q_proj": 0}}, "alpha_pattern is a number other than 0, not 0"),
        ({"targets": "q_proj", "rank_pattern": {"q_proj": 2.5}}, "positive integer, not 2.5"),
        ({"targets": "q_proj", "rank_pattern": ["q_proj"]}, "rank_pattern is a dict of numbers by patterns"),
        ({"targets": "q_proj", "dropout": "0.1"}, "a rate from 0 to below 1, not '0.1'"),
        (
            {"targets": "q_proj", "r": 17},
            "the rank 17 is more than 16, the most that 'layers_0/self_attn/q_proj/kernel'",
        ),
        ({"targets": "q_proj", "r": 0}, "positive integer, not 0"),
        ({"targets": "q_proj", "dropout": 1.0}, "dropout of adapters is a rate from 0 to below 1"),
        ({"targets": "q_proj", "bias": "some"}, "bias is 'none', 'all' or 'lora_only'"),
        ({"name": "a b", "targets": "q_proj"}, "an adapter's name is a word"),
        ({"name": 3, "targets": "q_proj"}, "an adapter's name is a word .* not 3"),
        ({"name": "base", "targets": "q_proj"}, "not called 'base': that is the model without any"),
        ({"targets": "q_proj", "b_initializer": "zeroes"}, "no initializer is called 'zeroes'"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(arguments, message: str) -> None:
    model = model_of()
    before = [v.path for v in model.trainable_weights]
    with pytest.raises(GraphcError, match=message):
        model.add_adapter(**{"r": 4, **arguments})
    assert [v.path for v in model.trainable_weights] == before and model.adapters == {}


def test_an_adapter_that_cannot_be_made_leaves_the_active_one_active(monkeypatch) -> None:
    model = model_of()
    model.add_adapter("french", r=2, targets="q_proj,v_proj", modules_to_save="norm")
    drawn(model)
    weights, outputs = [v.path for v in model.weights], model.predict(TOKENS, verbose=0)
    trained = [v.path for v in model.trainable_weights]

    real, made = layers.Layer.add_weight, []

    def failing(*args, **kwargs):
        if len(made) == 3:  # B of the second layer
            raise MemoryError("no more")
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(layers.Layer, "add_weight", failing)
    with pytest.raises(MemoryError):
        model.add_adapter("german", r=3, targets="q_proj")
    monkeypatch.undo()
    assert model.active_adapter == "french" and list(model.adapters) == ["french"]
    assert [v.path for v in model.weights] == weights and [v.path for v in model.trainable_weights] == trained
    np.testing.assert_array_equal(model.predict(TOKENS, verbose=0), outputs)
    model.add_adapter("german", r=3, targets="q_proj")


def test_names_of_adapters_are_told() -> None:
    model = model_of()
    for wrong in (
        lambda: model.save_adapter("nowhere"),
        lambda: model.merge_adapter(),
        lambda: model.compile_adapters(),
    ):
        with pytest.raises(GraphcError, match=r"no active adapter|has no adapters"):
            wrong()
    model.add_adapter("french", r=2, targets="q_proj")
    with pytest.raises(GraphcError, match="has an adapter 'french' already"):
        model.add_adapter("french", r=2, targets="q_proj")
    with pytest.raises(GraphcError, match="has no adapter 'frensh'; did you mean french"):
        model.set_adapter("frensh")
    with pytest.raises(GraphcError, match="has no weights yet"):
        graphc.Sequential([layers.Dense(3)]).add_adapter(r=2)


def test_adapters_of_layers_and_of_the_model_do_not_mix() -> None:
    model = model_of()
    model.get_layer("layers_0/self_attn/q_proj").enable_lora(2)
    with pytest.raises(
        GraphcError, match="'layers_0/self_attn/q_proj/kernel' has an adapter of its layer's enable_lora"
    ):
        model.add_adapter(r=2, targets="v_proj")
