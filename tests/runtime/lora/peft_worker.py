"""What PEFT does with small models, in a process of its own: `python peft_worker.py make|read FOLDER`.

`make` writes the weights of the bases `llama` and `cnn` into the folder, an adapter folder with random factors for each
entry of `adapters.json` (name → base and the arguments of `LoraConfig`), the outputs of the adapted models, and the
losses of some while they are trained further (`trained.json`, on `<base>_batches.npy`). `read`
loads the adapter folders that lie in `from_graphc/<base>/` onto the bases and writes the outputs of these.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 1, "vocab_size": 32, "max_position_embeddings": 16, "tie_word_embeddings": False}


class Cnn(nn.Module):
    """A convolution, a linear layer, and one that is trained as it is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.dense = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x)).mean((2, 3))
        return self.head(torch.relu(self.dense(x)))


def base(name):
    """The base model with its weights from a seed."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)) if name == "llama" else Cnn()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model.eval()


def outputs(name, model, folder):
    """What the model gives for the inputs in the folder."""
    with torch.no_grad():
        found = model(torch.from_numpy(np.load(folder / f"{name}_input.npy")))
    return (found.logits if name == "llama" else found).numpy()


def make(folder):
    generator = np.random.default_rng(0)
    np.save(folder / "llama_input.npy", generator.integers(0, 32, (2, 7)))
    np.save(folder / "cnn_input.npy", generator.standard_normal((4, 2, 5, 5)).astype(np.float32))
    for name in ("llama", "cnn"):
        save_file({key: value.contiguous() for key, value in base(name).state_dict().items()}, folder / f"{name}.st")
        np.save(folder / f"{name}_output.npy", outputs(name, base(name), folder))
    for adapter, (name, arguments) in json.loads((folder / "adapters.json").read_text()).items():
        model = get_peft_model(base(name), LoraConfig(**arguments))
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        model.eval()
        model.save_pretrained(folder / "from_peft" / adapter)
        np.save(folder / "from_peft" / f"{adapter}.npy", outputs(name, model, folder))
    train(folder)


def train(folder):
    """The losses of 20 steps on batches of tokens or images, for the adapters of the file `trained.json`."""
    data = {name: torch.from_numpy(np.load(folder / f"{name}_batches.npy")) for name in ("llama", "cnn")}
    bases = json.loads((folder / "adapters.json").read_text())
    for adapter in json.loads((folder / "trained.json").read_text()):
        name = bases[adapter][0]
        model = PeftModel.from_pretrained(base(name), folder / "from_peft" / adapter, is_trainable=True).eval()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, 0.01, momentum=0.9)
        losses = []
        for batch in data[name]:
            if name == "llama":
                logits = model(batch[:, :-1]).logits
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            else:
                loss = model(batch).square().mean()
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        np.save(folder / f"{adapter}_losses.npy", losses)


def read(folder):
    for path in sorted((folder / "from_graphc").glob("*/*/adapter_config.json")):
        name = path.parent.parent.name
        model = base(name)
        model.load_state_dict(load_file(folder / f"{name}.st"))
        adapted = PeftModel.from_pretrained(model, path.parent).eval()
        np.save(path.parent / "output.npy", outputs(name, adapted, folder))


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](Path(sys.argv[2]))
