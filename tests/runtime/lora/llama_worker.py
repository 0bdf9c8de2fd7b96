"""`python llama_worker.py FOLDER`: gradients of PEFT's adapters of a Llama in float64, in a process of its own.

With a `rate` in the sizes it trains instead, in float32, and writes `curve.npy`, the losses of its steps.

Reads `sizes.json` and `weights.npz` (the base by its names, factors as `<kernel>.a` [r, in] and `.b` [out, r], and the
`tokens`), writes `gradients.npz` and the loss. What transformers computes in float32 whatever the dtype (RMS norm, the
angles of positions) is replaced by what computes in float64.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama


def norm(self, x):
    return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))


def angles(self, x, position_ids):
    size = self.config.hidden_size // self.config.num_attention_heads
    rates = 10000.0 ** (-np.arange(0, size, 2) / size)
    found = position_ids[..., None].double() * torch.from_numpy(rates)
    found = torch.cat([found, found], -1)
    return found.cos().to(x.dtype), found.sin().to(x.dtype)


def curve(model, trained, batches, rate):
    """The losses of training in float32, a step for each batch."""
    optimizer = torch.optim.SGD(trained, rate, momentum=0.9)
    found = []
    for tokens in batches:
        scores = model(tokens[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def main(folder):
    modeling_llama.LlamaRMSNorm.forward = norm
    modeling_llama.LlamaRotaryEmbedding.forward = angles
    sizes = json.loads((folder / "sizes.json").read_text())
    given = np.load(folder / "weights.npz")
    config = LlamaConfig(
        vocab_size=sizes["vocabulary"],
        hidden_size=sizes["width"],
        intermediate_size=sizes["hidden"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["groups"],
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    base = LlamaForCausalLM(config).double()
    base.load_state_dict({name: torch.from_numpy(given[name]) for name in base.state_dict()})
    names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    model = get_peft_model(base, LoraConfig(r=sizes["rank"], lora_alpha=sizes["alpha"], target_modules=names)).double()
    trained = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            stem, factor = name.removeprefix("base_model.model.").split(".lora_")
            trained[f"{stem}.weight.{factor[0].lower()}"] = parameter
    for name, parameter in trained.items():
        parameter.data = torch.from_numpy(given[name]).double()
    tokens = torch.from_numpy(given["tokens"]).long()
    if "rate" in sizes:
        np.save(folder / "curve.npy", curve(model.float(), list(trained.values()), tokens, sizes["rate"]))
        return
    scores = model(tokens[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    found = {name: parameter.grad.numpy() for name, parameter in trained.items()}
    np.savez(folder / "gradients.npz", loss=loss.item(), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
