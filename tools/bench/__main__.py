"""`python -m graphc.tools.bench compile`: what the compiler costs an op, beside torch.fx and onnx-ir.
`python -m graphc.tools.bench train`: what a training step takes, beside plain PyTorch, plain JAX and Keras 3."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (1_000, 10_000)
MOST_GROWTH = 12.0
"""The largest size may take at most this many times the time of the one before, a tenth of it."""

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
"""In a checkout; an installed graphc is told where they are."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def benchmarks() -> None:
    """Benchmarks of graphc."""


@app.command("compile")
def compile_(
    quick: Annotated[bool, typer.Option("--quick", help="Up to 10,000 ops, best of two.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    graphs: Annotated[str, typer.Option(metavar="NAME,NAME")] = "chain,fan,residual",
    targets: Annotated[str, typer.Option(metavar="all|T,T", help="Which targets to emit for.")] = "all",
    peers: Annotated[bool, typer.Option(help="Measure torch.fx and onnx-ir as well.")] = True,
) -> None:
    """Measure each stage of compilation, µs an op, collector frozen, the minimum of five."""
    from rich.console import Console

    from graphc import codegen
    from graphc.tools.bench.ours import measure
    from graphc.tools.bench.peers import measure_peers
    from graphc.tools.bench.timing import heap_frozen

    installed = [name for name, target in sorted(codegen.targets().items()) if target.available()]
    emitted = installed if targets == "all" else targets.split(",")
    sizes, repeat = (QUICK_SIZES, 2) if quick else (SIZES, 5)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    records: list[dict[str, Any]] = []
    for name in graphs.split(","):
        for size in sizes:
            with progress.status(f"{name}, {size:,} ops"), heap_frozen():
                found = {each.name: each for each in measure(name, size, repeat, emitted)}
                others = measure_peers(name, size, repeat) if peers else {}
            records += [
                {
                    "graph": name,
                    "ops": size,
                    "stage": stage,
                    "aim": each.aim,
                    "graphc": each.microseconds,
                    **{peer: times[stage] for peer, times in others.items() if stage in times},
                }
                for stage, each in found.items()
            ]
            if json_file is not None:  # after each size, as the large ones take minutes
                json_file.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        console.print(_table(name, sizes, [record for record in records if record["graph"] == name]))


@app.command()
def train(
    quick: Annotated[bool, typer.Option("--quick", help="Three rounds instead of fifteen.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    workloads: Annotated[str, typer.Option(metavar="all|NAME,NAME", help="digits, gpt, resnet18, dense.")] = "all",
    targets: Annotated[str, typer.Option(metavar="T,T", help="The targets graphc trains on.")] = "torch,jax,onnx,numpy",
    keras_python: Annotated[
        str, typer.Option(metavar="PATH", help="An interpreter that has Keras 3 with PyTorch and JAX.")
    ] = sys.executable,
    examples: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where graphc's examples are: their models are trained.")
    ] = EXAMPLES,
) -> None:
    """Measure a training step, ms: each contestant in a process of its own, on one core, in turns.

    `digits` and `gpt` are measured without and with dropout; `dense` is one small layer, for what a step costs beside
    its arithmetic.
    """
    import shutil

    from rich.console import Console

    from graphc.tools.bench.train.measuring import has_keras
    from graphc.tools.bench.train.report import measure, notes, table
    from graphc.tools.bench.train.workloads import WORKLOADS

    wanted = None if workloads == "all" else workloads.split(",")
    chosen = [name for name in WORKLOADS if wanted is None or name.split(",")[0] in wanted]
    console = Console() if sys.stdout.isatty() else Console(width=170)
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    compiled = any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))
    if not compiled:
        console.print("torch.compile is left out: it needs a C++ compiler, and there is none on the path")
    if not has_keras(keras_python):
        console.print(f"Keras is left out: {keras_python} has no Keras 3; name one that has by --keras-python")
        keras_python = ""
    records: list[dict[str, Any]] = []
    for name in chosen:
        with progress.status(name):
            found = measure(name, targets.split(","), keras_python or None, compiled, 3 if quick else 15, examples)
        records.append(found)
        if json_file is not None:
            json_file.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
        console.print(table(found))
        for line in notes(found):
            console.print(line, highlight=False)


@app.command("remat")
def remat(
    networks: Annotated[str, typer.Option(metavar="NAME,NAME")] = "gpt,resnet18",
    targets: Annotated[str, typer.Option(metavar="T,T")] = "numpy,torch,jax",
) -> None:
    """Plan training steps within six memory budgets, and measure what they hold; Markdown, in megabytes."""
    from graphc.tools.bench.remat import report

    def write(line: str) -> None:
        print(line, flush=True)

    report(networks.split(","), targets.split(","), write)


@app.command("quantize")
def quantize(
    target: Annotated[str, typer.Option(help="The target on which accuracy is measured.")] = "onnx",
    rounds: Annotated[int, typer.Option(help="Rounds of the comparison of speed.")] = 200,
    examples: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where graphc's examples are: their model is quantized.")
    ] = EXAMPLES,
) -> None:
    """Quantize the digits network: accuracy, size and speed, beside ONNX Runtime's own quantizer; Markdown."""
    from graphc.tools.bench.quantization import report

    report(examples, target, rounds, lambda line: print(line, flush=True))


@app.command("lora")
def lora(
    quick: Annotated[bool, typer.Option("--quick", help="Three rounds instead of fifteen.")] = False,
    depth: Annotated[int, typer.Option(metavar="LAYERS")] = 12,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON.")] = None,
    examples: Annotated[Path, typer.Option(metavar="FOLDER", help="Where graphc's examples are.")] = EXAMPLES,
) -> None:
    """Train adapters of a Llama, 512 wide, in graphc and in PEFT: step time and memory; Markdown."""
    from graphc.tools.bench.lora.report import report
    from graphc.tools.bench.lora.task import Sizes

    def write(line: str) -> None:
        print(line, flush=True)

    found = report(examples, Sizes(depth=depth), 3 if quick else 15, write)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _table(name: str, sizes: tuple[int, ...], records: list[dict[str, Any]]) -> Any:
    """µs an op for each stage and size, the aim, how the largest grows, and the peers at the largest."""
    from rich.table import Table

    peers = [peer for peer in ("torch.fx", "onnx-ir") if any(peer in record for record in records)]
    table = Table(title=f"{name}: µs an op", title_justify="left")
    largest = f"{sizes[-1]:,}"
    for column in (
        "stage",
        *(f"{size:,}" for size in sizes),
        "aim",
        "met",
        "growth",
        *(f"{p} ({largest})" for p in peers),
    ):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in dict.fromkeys(record["stage"] for record in records):
        by_size = {record["ops"]: record for record in records if record["stage"] == stage}
        times = [by_size[size]["graphc"] for size in sizes]
        growth = times[-1] / times[-2] * sizes[-1] / sizes[-2]
        last = by_size[sizes[-1]]
        met = times[-1] <= last["aim"] and growth <= MOST_GROWTH
        others = [f"{last[peer]:.2f}" if peer in last else "" for peer in peers]
        table.add_row(
            stage, *(f"{t:.2f}" for t in times), f"{last['aim']:g}", "yes" if met else "NO", f"{growth:.1f}×", *others
        )
    return table


if __name__ == "__main__":
    app(prog_name="python -m graphc.tools.bench")
