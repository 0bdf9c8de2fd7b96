"""What quantizing the model of `gpt.py` costs, by held-out modules that neither training nor calibration has seen.

`python examples/gpt_train.py --target torch --save gpt.graphc` trains it, then `python examples/quantize_gpt.py
gpt.graphc --target torch` prints a table: rounding to nearest, AWQ, GPTQ, and formats chosen for each weight within the
bytes of rounding to nearest. All examples for calibration are windows of the training text. Intervals are of 95 %, by
bootstrap over the held-out windows, which are the same for all. The last column is processor time to quantize.
"""

import argparse
import time

import numpy as np
from gpt import gpt
from stdlib_text import all_windows, corpus, windows

import graphc
from graphc.passes.quantization.sizes import bits_a_weight, stored_sizes

CONTEXT = 128
CALIBRATION = 128
"""Windows of training text for calibration."""
DRAWS = 2000
CHOICES = {
    "int4": ("int3", "uint3{block=64}", "int4", "int4{block=64}", "uint4{block=64}", "int4{block=16}", "int8"),
    "int3": ("int3", "int3{block=64}", "uint3{block=64}", "int3{block=16}", "int4", "int4{block=64}"),
}
"""The formats of a mixed plan, by the format whose bytes it may take."""
REFINED = {"sweeps": 4}


def losses(executable, tokens, following, batch=64):
    """Nats per byte of each window."""
    found = []
    for start in range(0, len(tokens), batch):
        scores = executable(tokens[start : start + batch]).astype(np.float64)
        scores -= scores.max(-1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        taken = np.take_along_axis(logs, following[start : start + batch, :, None], -1)
        found.append(-taken[..., 0].mean(1))
    return np.concatenate(found)


def interval(statistic, count, seed=0):
    """The 95 % interval of a statistic of windows, which gets the numbers of those drawn."""
    rng = np.random.default_rng(seed)
    found = [statistic(rng.integers(0, count, count)) for _ in range(DRAWS)]
    return np.percentile(found, [2.5, 97.5])


def variants(model, form, data):
    """The quantized modules, by name."""
    yield "round to nearest", graphc.quantize(model, form)
    yield "AWQ", graphc.quantize(model, form, method="awq", data=data)
    yield "GPTQ", graphc.quantize(model, form, method="gptq", data=data)
    yield "GPTQ, 4 sweeps", graphc.quantize(model, form, method="gptq", data=data, options=REFINED)
    budget = sum(size.bytes for size in quantized_sizes(graphc.quantize(model, form)))
    plan = graphc.quantization_plan(model, data, budget, formats=CHOICES[form])
    yield "mixed plan, GPTQ, 4 sweeps", graphc.quantize(model, plan.formats, method="gptq", data=data, options=REFINED)


def quantized_sizes(module):
    """What the quantized weights take, scales and zero points counted."""
    return [size for size in stored_sizes(module) if not size.form.startswith(("f", "float"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a model that gpt_train.py saved")
    parser.add_argument("--target", default=graphc.config.target(), help="what it runs on (default: %(default)s)")
    parser.add_argument("--formats", nargs="+", default=["int4", "int3"], choices=CHOICES)
    arguments = parser.parse_args()
    graphc.config.set_target(arguments.target)
    text = corpus()
    model = gpt(context=CONTEXT)
    model.load_weights(arguments.weights)
    tokens, following = all_windows(text.held_out, CONTEXT)
    data, _ = windows(text.train, CALIBRATION, CONTEXT, graphc.random.key(1))
    plain = losses(graphc.compile(model), tokens, following)
    print(
        f"{model.count_params():,} parameters, target {arguments.target!r}; {tokens.size:,} held-out bytes in "
        f"{len(tokens):,} windows; calibration: {data.size:,} bytes of training text.\n"
        f"float32: {plain.mean():.4f} nats a byte.\n"
    )
    for form in arguments.formats:
        print(
            f"| {form} | bits a weight | bytes | nats a byte | more than float32 | less than rounding | recovered | s |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        nearest = None
        start = time.process_time()
        for name, module in variants(model, form, data):
            seconds = time.process_time() - start
            found = losses(graphc.compile(module), tokens, following)
            sizes = quantized_sizes(module)
            more = found - plain
            nearest = more if nearest is None else nearest
            better, recovered = "", ""
            if nearest is not more:
                low, high = interval(lambda rows, less=nearest - more: less[rows].mean(), len(more))
                better = f"{(nearest - more).mean():.4f} [{low:.4f}, {high:.4f}]"
                low, high = interval(
                    lambda rows, base=nearest, mine=more: 100 * (1 - mine[rows].mean() / base[rows].mean()), len(more)
                )
                recovered = f"{100 * (1 - more.mean() / nearest.mean()):.0f} % [{low:.0f}, {high:.0f}]"
            print(
                f"| {name} | {bits_a_weight(sizes):.3f} | {sum(size.bytes for size in sizes):,} | {found.mean():.4f} | "
                f"{more.mean():.4f} | {better} | {recovered} | {seconds:.0f} |",
                flush=True,
            )
            start = time.process_time()
        print()


if __name__ == "__main__":
    main()
