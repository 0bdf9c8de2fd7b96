"""`python -m graphc.tools.bench.lora.ours FOLDER EXAMPLES OPTIONS [SIZES]`: the same by graphc, in an own process.

OPTIONS are JSON: `passes`, `memory_budget`, and `quantize`, the format of the frozen weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphc.codegen.source.loading import import_model
from graphc.frontends import lower
from graphc.runtime.training import losses, optimizers
from graphc.tools.bench import torch_memory as memory
from graphc.tools.bench.lora.answers import serve
from graphc.tools.bench.lora.task import RATE, Sizes, factors, tokens, weights
from graphc.tools.bench.train.workloads import _program


def adapted_model(examples: Path, sizes: Sizes) -> Any:
    """The example's decoder with the task's weights and adapters."""
    llama = _program(examples / "llama.py")
    model = llama["llama"](
        sizes.depth, sizes.width, sizes.heads, None, sizes.hidden, sizes.vocabulary, context=sizes.places
    )
    llama["load_weights_of"](model, weights(sizes))
    model.add_adapter("default", r=sizes.rank, alpha=sizes.alpha, targets=llama["TARGETS"])
    given = factors(sizes)
    for path, variable in zip(lower(model).weights, model.weights, strict=True):
        layer, _, leaf = path.rpartition("/")
        if not leaf.startswith("lora_"):
            continue
        name = llama["name_in_transformers"](f"{layer}/kernel")
        variable.assign(given[f"{name}.{leaf[-1]}"].T)
    return model


def main(_: str, examples: str, given: str = "{}", size: str = "{}") -> None:
    torch.set_num_threads(1)
    sizes, options = Sizes(**json.loads(size)), json.loads(given)
    model = adapted_model(Path(examples), sizes)
    if "quantize" in options:
        model.quantize(options["quantize"])
    model.compile(
        optimizers.SGD(RATE),
        losses.SparseCategoricalCrossentropy(from_logits=True),
        target="torch",
        passes=options.get("passes"),
        memory_budget=options.get("memory_budget"),
    )
    row = tokens(sizes)
    x, y = row[:, :-1], row[:, 1:]

    def step() -> float:
        return float(model.train_on_batch(x, y))

    def measured() -> dict[str, int]:
        executable = model.executable()
        loaded = import_model(executable.folder).load(executable.folder)
        arguments = [torch.from_numpy(np.ascontiguousarray(a)) for a in (x, y)]
        tensors = [*arguments, torch.tensor(RATE)]
        run = lambda: loaded.train_step(*tensors)  # noqa: E731
        given = [*tensors, *loaded.parameters(), *loaded.buffers()]
        held = memory.live_at_loss(type(loaded).train_step, run, iter(given))
        held_by_model = memory.bytes_of([*loaded.parameters(), *loaded.buffers()])
        return {"saved": held, "peak": memory.peak_of(run), "weights": held_by_model}

    serve(step, measured)


if __name__ == "__main__":
    main(*sys.argv[1:])
