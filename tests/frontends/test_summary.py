"""`model.summary()`: the table as a whole, and what its options add."""

from typing import Any

import numpy as np

from graphc import Input, Model, Sequential, layers

CHAIN = """\
Model: "net"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ dense (Dense)                   │ (None, 1000)           │         5,000 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ batch_normalization             │ (None, 1000)           │         4,000 │
│ (BatchNormalization)            │                        │               │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 9,000 (35.16 KB)
 Trainable params: 7,000 (27.34 KB)
 Non-trainable params: 2,000 (7.81 KB)
"""

GRAPH = """\
Model: "graph"
┏━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━┓
┃ Layer (type)        ┃ Output Shape      ┃    Param # ┃ Connected to      ┃
┡━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━┩
│ x (InputLayer)      │ (None, 4)         │          0 │ -                 │
├─────────────────────┼───────────────────┼────────────┼───────────────────┤
│ shared (Dense)      │ (None, 4)         │         20 │ x[0][0],          │
│                     │                   │            │ shared[0][0]      │
├─────────────────────┼───────────────────┼────────────┼───────────────────┤
│ add (Add)           │ (None, 4)         │          0 │ x[0][0],          │
│                     │                   │            │ shared[1][0]      │
└─────────────────────┴───────────────────┴────────────┴───────────────────┘
 Total params: 20 (80.00 B)
 Trainable params: 20 (80.00 B)
 Non-trainable params: 0 (0.00 B)
"""


def summary(model: Model, **options: Any) -> str:
    lines: list[str] = []
    model.summary(line_length=options.pop("line_length", 76), print_fn=lines.append, **options)
    return "\n".join(line.rstrip() for line in "".join(lines).splitlines()) + "\n"


def test_a_chain() -> None:
    model = Sequential([Input((4,)), layers.Dense(1000), layers.BatchNormalization()], name="net")
    assert summary(model) == CHAIN


def test_a_graph_says_what_is_connected_to_what() -> None:
    x = Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    assert summary(Model(x, x + shared(shared(x)), name="graph")) == GRAPH


def test_options() -> None:
    x = Input((4,))
    inner = Sequential([layers.Dense(4), layers.Dense(2)], name="inner")
    model = Model(x, layers.Dense(3)(inner(x)))
    inner.trainable = False
    text = summary(model, expand_nested=True, show_trainable=True)
    assert "inner (Sequential)" in text and "(Functional)" in summary(Model(x, Model(x, inner(x))(x)))
    assert "└ dense (Dense)" in text and "└ dense_1 (Dense)" in text and "Trainable" in text
    assert "│ N" in text and "│ Y" in text
    text = summary(model, layer_range=("inner", "dense_2"))
    assert "inner" in text and "input_layer" not in text


def test_an_unbuilt_model() -> None:
    assert "0 (unbuilt)" in summary(Sequential([layers.Dense(4)]))


def test_layers_of_a_subclassed_model_show_the_shapes_they_were_built_for() -> None:
    class Net(Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = layers.Dense(7)
            self.flat = layers.Flatten()

        def call(self, x: Any) -> Any:
            return self.hidden(self.flat(x))

    model = Net()
    assert summary(model).count("?") == 2
    model.build((None, 2, 3))
    assert "(None, 7)" in summary(model) and "(None, 6)" in summary(model)


def test_what_the_optimizer_keeps_is_counted() -> None:
    """As in Keras, whose rate is a variable too."""
    model = Sequential([Input((4,)), layers.Dense(2)])
    model.compile("adam", "mse")
    assert "Optimizer" not in summary(model)
    model.train_on_batch(np.zeros((2, 4)), np.zeros((2, 2)))
    text = summary(model)
    assert "Total params: 31 (124.00 B)" in text and "Trainable params: 10 (40.00 B)" in text
    assert text.rstrip().endswith("Optimizer params: 21 (84.00 B)")


def test_what_is_quantized_takes_what_its_integers_take() -> None:
    model = Sequential([Input((64,)), layers.Dense(32, use_bias=False)])
    model.quantize("int4{block=32}")
    text = summary(model)
    assert "Total params: 2,048 (1.12 KB)" in text and "Non-trainable params: 2,048 (1.12 KB)" in text
