"""`python -m graphc.tools.bench.lora.peft_worker FOLDER plain|checkpointing|floor [SIZES]`: transformers' Llama
under PEFT, in a process of its own, or the products with the frozen weights alone.

Answers lines on stdin, see `answers.py`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ.setdefault("USE_TF", "0")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch

from graphc.tools.bench import torch_memory as memory
from graphc.tools.bench.lora.answers import serve
from graphc.tools.bench.lora.task import RATE, Sizes, factors, shapes, tokens, weights


def peft_model(sizes: Sizes, checkpointing: bool) -> Any:
    """The base with its adapters, ready to train."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.hidden,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=sizes.places,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        use_cache=False,
    )
    base = LlamaForCausalLM(config)
    base.set_attn_implementation("sdpa")
    base.load_state_dict({name: torch.from_numpy(array) for name, array in weights(sizes).items()})
    if checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    model = get_peft_model(base, LoraConfig(r=sizes.rank, lora_alpha=sizes.alpha, target_modules=names))
    given = factors(sizes)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                stem, factor = name.removeprefix("base_model.model.").split(".lora_")
                parameter.copy_(torch.from_numpy(given[f"{stem}.weight.{factor[0].lower()}"]))
    return model.train()


def training(sizes: Sizes, checkpointing: bool) -> tuple[Callable[[], float], Callable[[], dict[str, int]]]:
    """A step, and what is measured of its memory."""
    model = peft_model(sizes, checkpointing)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, RATE)
    row = torch.from_numpy(tokens(sizes)).long()
    x, y = row[:, :-1], row[:, 1:]

    def forward() -> Any:
        return torch.nn.functional.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())

    def step() -> float:
        loss = forward()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def measured() -> dict[str, int]:
        given = [x, y, *model.parameters(), *model.buffers()]
        return {
            "saved": memory.saved_by_hooks(forward, iter(given)),
            "peak": memory.peak_of(step),
            "weights": memory.bytes_of([*model.parameters(), *model.buffers()]),
        }

    return step, measured


def floor(sizes: Sizes) -> tuple[Callable[[], float], Callable[[], dict[str, int]]]:
    """The products with the frozen weights: x·W forward, and dy·Wᵀ backward but where nothing before is trained."""
    given = [torch.from_numpy(a) for name, a in weights(sizes).items() if len(a.shape) == 2 and "embed" not in name]
    inputs = {size: torch.randn(sizes.places, size) for size in {n for w in given for n in w.shape}}
    outside = {f"model.layers.0.self_attn.{name}_proj.weight" for name in "qkv"}
    matrices = [name for name, shape in shapes(sizes).items() if len(shape) == 2 and "embed" not in name]

    @torch.no_grad()
    def step() -> float:
        for name, weight in zip(matrices, given, strict=True):
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)
            if name not in outside:
                torch.matmul(inputs[weight.shape[0]], weight)
        return 0.0

    return step, dict


def main(_: str, mode: str, given: str = "{}") -> None:
    torch.set_num_threads(1)
    sizes = Sizes(**json.loads(given))
    step, measured = floor(sizes) if mode == "floor" else training(sizes, mode == "checkpointing")
    serve(step, measured)


if __name__ == "__main__":
    main(*sys.argv[1:])
