"""`python -m graphc.tools.bench compile`: what the compiler costs an op, beside torch.fx and onnx-ir."""

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

    installed = [name for name, target in sorted(codegen.targets().items()) if target.available()]
    emitted = installed if targets == "all" else targets.split(",")
    sizes, repeat = (QUICK_SIZES, 2) if quick else (SIZES, 5)
    console = Console() if sys.stdout.isatty() else Console(width=140)
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    records: list[dict[str, Any]] = []
    for name in graphs.split(","):
        for size in sizes:
            with progress.status(f"{name}, {size:,} ops"):
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
