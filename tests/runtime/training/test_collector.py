"""Recording and differentiation run without the cyclic garbage collector, which is on again afterwards."""

import gc

import graphc
from graphc import Input, Sequential, layers


def test_the_collector_is_paused_while_a_gradient_is_taken() -> None:
    seen: list[bool] = []

    def loss(y: object) -> object:
        seen.append(gc.isenabled())
        return graphc.ops.sum(y)

    graphc.value_and_grad(Sequential([Input((3,)), layers.Dense(1)]), loss)
    assert seen == [False]
    assert gc.isenabled()
