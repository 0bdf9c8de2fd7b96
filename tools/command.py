"""The `graphc` command. Exit status: 0 done, 1 a check did not hold, 2 a mistake of the user's, said on stderr.

Only typer is imported up here (30 ms of the 200 that `--help` may take beside Python's own start); each command imports
what it needs when it runs. Typer's rich formatting is off because it imports rich for every help text.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from graphc.ir.module import Module
    from graphc.passes.registry import Observer

CHECK_FAILED = 1
USERS_MISTAKE = 2


class Commands(TyperGroup):
    """Turns what graphc explains, and files that cannot be read or written, into a line or two on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            typer.echo(f"graphc: {where}{error.strerror or error}", err=True)
        except Exception as error:
            # Looked up, not imported, as it brings NumPy and help texts come this way too: where it is not loaded,
            # nothing can have raised it.
            errors = sys.modules.get("graphc.ir.errors")
            if errors is None or not isinstance(error, errors.GraphcError):
                raise
            typer.echo(f"graphc: {error}", err=True)
        raise typer.Exit(USERS_MISTAKE)


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


def print_version(wanted: bool) -> None:
    """Answer `--version` before a command is asked for."""
    if wanted:
        from graphc import __version__

        typer.echo(f"graphc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Compiles models: to readable NumPy, PyTorch and JAX code, and to native graphs."""


Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A .py that defines `model`, or a model file.")]
EntryName = Annotated[str | None, typer.Option("--entry", metavar="NAME", help="What a .py defines, if not `model`.")]
Passes = Annotated[str | None, typer.Option(metavar="LIST", help="Passes to run in place of the usual ones.")]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable results.")]


class Format(StrEnum):
    """How `inspect` shows a module."""

    text = "text"
    summary = "summary"
    json = "json"


@app.command("compile")
def compile_(
    source: Source,
    target: Annotated[str | None, typer.Option(metavar="T", help="The target (see `graphc targets`).")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="FOLDER")] = None,
    entry: EntryName = None,
    passes: Passes = None,
    memory_budget: Annotated[str | None, typer.Option(metavar="SIZE", help="Such as 512MiB.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the artifact with the reference.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Interpret before and after every pass.")] = False,
    dump_ir: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the IR after every pass.")] = None,
    json: Json = False,
) -> None:
    """Write a model as code or as a native graph.

    The folder holds the code or graph, the weights and a manifest, and runs without graphc.
    """
    from graphc import codegen
    from graphc.codegen.compiler import write_artifact
    from graphc.runtime import config
    from graphc.runtime.compilation import planned_budget
    from graphc.runtime.sources import module_of

    name = codegen.target(target or config.target()).name
    folder = output if output is not None else Path(f"{Path(source).stem}-{name}")
    with progress(f"compiling {source} for {name}"):
        module = module_of(source, entry)
        limit = planned_budget(module, passes, memory_budget)
        manifest = write_artifact(module, name, folder, passes, check, dumper(dump_ir, module), limit)
    report = None
    if verify:
        from graphc.tools.verification import verify_artifact

        with progress(f"verifying {folder}"):
            report = verify_artifact(module, folder, name, passes=passes)
    if json:
        found = {"folder": str(folder), "manifest": manifest.to_json()}
        print_json(found if report is None else found | {"report": report.to_json()})
    else:
        typer.echo(f"wrote {folder} for {name}: {', '.join(manifest.files)}")
        if report is not None:
            typer.echo(f"\n{report}")
    if report is not None and not report.ok:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def inspect(
    source: Source,
    after: Annotated[str | None, typer.Option(metavar="PASS", help="Run a pass, or several, first.")] = None,
    format: Annotated[Format, typer.Option(help="The IR itself, tables, or the tables as JSON.")] = Format.text,
    entry: EntryName = None,
    size: Annotated[list[str] | None, typer.Option(metavar="NAME=N", help="A symbol's size, for the summary.")] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Show the planned peak, and what is live there.")] = False,
    training: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Take the steps that `train` compiles for such data.")
    ] = None,
    target: Annotated[str | None, typer.Option(metavar="T", help="Plan the memory as it runs there.")] = None,
    json: Json = False,
) -> None:
    """Show the IR, or what it costs.

    A summary lists functions, ops, parameters, floating-point operations, bytes moved and memory. With --memory it is
    for each entry the peak of live bytes at the sizes given, the op that reaches it, and the values live there.
    """
    from graphc.ir.errors import GraphcError
    from graphc.passes import run_passes
    from graphc.runtime.sources import module_of

    sizes = read_sizes(size or [])
    with progress(f"reading {source}"):
        if training is None:
            module = module_of(source, entry)
        else:
            from graphc.tools.memory import training_module

            module = training_module(source, entry, training)
        if after is not None:
            module = run_passes(module, after)
    if target is not None and not memory:
        raise GraphcError("--target is for --memory: the IR and the summary are of no target yet")
    if memory:
        from graphc.tools.memory import describe, tables

        found = describe(module, sizes, target)
        if json or format is Format.json:
            print_json(found)
        else:
            print_tables(*tables(found))
        return
    if json:
        format = Format.json
    if format is Format.text:
        typer.echo(str(module), nl=False)
        return
    from graphc.tools import inspection

    if format is Format.json:
        print_json(inspection.describe(module, sizes))
    else:
        print_tables(*inspection.summary(module, sizes))


@app.command()
def run(
    source: Annotated[str, typer.Argument(metavar="SOURCE|FOLDER", help="A model, or an artifact's folder.")],
    inputs: Annotated[Path, typer.Option(metavar="IN.npz", help="Arrays by input name, or as arr_0, arr_1.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT.npz")] = None,
    target: Annotated[str | None, typer.Option(metavar="T", help="The target, for a model.")] = None,
    entry: EntryName = None,
    json: Json = False,
) -> None:
    """Run a model or an artifact on arrays."""
    from graphc.codegen.artifact import MANIFEST
    from graphc.ir.errors import GraphcError
    from graphc.runtime.compilation import compile
    from graphc.runtime.executable import load_artifact
    from graphc.runtime.sources import module_of
    from graphc.tools.arrays import read_inputs, write_outputs

    with progress(f"loading {source}"):
        if (Path(source) / MANIFEST).is_file() or (Path(source).is_dir() and entry is None and target is None):
            executable = load_artifact(source)
            call = executable.entry(entry)
            if target is not None and target != executable.target:
                raise GraphcError(f"{source} is an artifact for {executable.target!r}, not for {target!r}")
        else:
            executable = compile(module_of(source, entry), target)
            call = executable.entry()
    arrays = read_inputs(inputs, call.signature)
    with progress(f"running {call.name}"):
        results = call(**arrays)
    named = dict(zip(call.outputs, results if isinstance(results, tuple) else (results,), strict=True))
    if output is not None:
        write_outputs(output, named)
    if json:
        print_json({name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in named.items()})
    else:
        for name, array in named.items():
            typer.echo(f"{name}: {array.dtype}[{', '.join(map(str, array.shape))}]")
            if output is None:
                typer.echo(str(array))


@app.command()
def verify(
    source: Source,
    targets: Annotated[str, typer.Option(metavar="all|T,T", help="Which targets to compare.")] = "all",
    inputs: Annotated[Path | None, typer.Option(metavar="IN.npz", help="Arrays to run on; drawn if left out.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as a page too.")] = None,
    entry: EntryName = None,
    passes: Passes = None,
    special_values: Annotated[
        bool, typer.Option("--special-values", help="Draw NaN, infinities and −0 as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare targets with the reference.

    Errors are shown beside the error that the model's own dtypes make. The status is 1 when a target is off.
    """
    from graphc.runtime.sources import module_of
    from graphc.tools import verification
    from graphc.tools.arrays import read_inputs

    with progress(f"verifying {source}"):
        module = module_of(source, entry)
        arrays = None if inputs is None else read_inputs(inputs, module.main)
        report = verification.verify(module, targets, arrays, passes=passes, special_values=special_values)
    if html is not None:
        report.to_html(html)
    if json:
        print_json(report.to_json())
    else:
        typer.echo(str(report))
    if not report.ok:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def train(
    source: Annotated[str, typer.Argument(metavar="MODEL", help="A .py that defines `model`, or a .graphc file.")],
    data: Annotated[Path, typer.Option(metavar="FILE.npz", help="Arrays by input name, or x; and y.")],
    target: Annotated[str | None, typer.Option(metavar="T", help="The target (see `graphc targets`).")] = None,
    entry: EntryName = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N")] = 32,
    optimizer: Annotated[str | None, typer.Option(metavar="NAME", help="adam, if left out.")] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="The optimizer's own, if left out.")] = None,
    loss: Annotated[str | None, typer.Option(metavar="auto|NAME", help="auto goes by the output and y.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="NAME,…", help="Such as accuracy.")] = None,
    validation_split: Annotated[float, typer.Option(metavar="X", help="This share of the data, its end.")] = 0.0,
    validation: Annotated[Path | None, typer.Option(metavar="FILE.npz", help="Data to validate with.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order and all random numbers.")] = 0,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE.safetensors", help="Written each epoch.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, which has to be there.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER|FILE.graphc", help="MODEL-trained.graphc, if left out."),
    ] = None,
    json: Json = False,
) -> None:
    """Train a model on arrays, and write it.

    A model that its file compiles keeps its optimizer, loss and metrics.

    -o names a .graphc file (the model with its weights and optimizer, which can be trained on) or a folder (an
    artifact for the target, which runs without graphc). Other endings are refused before training.

    --checkpoint keeps the run after each epoch; started again with --resume, an interrupted one goes on where it was.
    """
    from graphc.tools.train import Plan, train

    plan = Plan(
        source, data, target, entry, epochs, batch_size, optimizer, learning_rate, loss, metrics, validation_split,
        validation, seed, checkpoint, resume, output,
    )  # fmt: skip
    with progress(f"training {source}"):
        done = train(plan, (lambda line: None) if json else typer.echo)
    if json:
        print_json(done.to_json())
    else:
        typer.echo(f"wrote {done.output}, trained on {done.target} with the loss {done.loss}")


@app.command()
def targets(json: Json = False) -> None:
    """List the targets and what installs them."""
    from graphc.runtime.support import targets as all_targets

    found = all_targets()
    if json:
        print_json(
            {
                name: {"installed": info.installed, "extra": info.extra, "versions": dict(info.versions)}
                for name, info in found.items()
            }
        )
        return
    for info in found.values():
        typer.echo(str(info))


@app.command()
def passes(json: Json = False) -> None:
    """List the passes and their options."""
    from graphc.passes import passes as all_passes

    if json:
        print_json(
            {each.name: {"doc": each.doc, "options": {o.name: o.takes for o in each.options}} for each in all_passes()}
        )
        return
    for each in all_passes():
        typer.echo(str(each))


@app.command()
def ops(name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None, json: Json = False) -> None:
    """List the ops, or explain one."""
    from graphc.runtime.support import all_ops
    from graphc.tools import reference

    if name is not None:
        definition = reference.find_op(name)
        if json:
            print_json(reference.describe_op(definition))
        else:
            typer.echo(reference.page(definition))
        return
    found = all_ops()
    if json:
        print_json({each.name: reference.signature_text(each) for each in found.values()})
        return
    width = max(map(len, found))
    for each in found.values():
        typer.echo(f"{each.name:{width}}  {reference.tier(each):9}  {reference.summary_line(each)}")


# --- what commands share ----------------------------------------------------------------------------------------


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Say what is going on, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def print_json(data: object) -> None:
    import json

    typer.echo(json.dumps(data, indent=2))


def print_tables(*tables: Any) -> None:
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=160)  # in a pipe there is no width to keep to
    for table in tables:
        console.print(table)


def read_sizes(given: list[str]) -> dict[str, int]:
    """`B=32` and so on as a dict. Raises `GraphcError` for what is not of this form."""
    from graphc.ir.errors import GraphcError

    sizes: dict[str, int] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not (equals and name.isidentifier() and number.isdigit()):
            raise GraphcError(f"--size takes a symbol and a number, such as B=32, not {text!r}")
        sizes[name] = int(number)
    return sizes


def dumper(folder: Path | None, module: Module) -> Observer | None:
    """What writes the IR into `folder` after every stage, numbered in order; the module as it is comes first."""
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    written = 0

    def write(stage: str, module: Module) -> None:
        nonlocal written
        (folder / f"{written:02d}_{stage}.gir").write_text(str(module), encoding="utf-8")
        written += 1

    write("lowered", module)
    return write


def main() -> None:
    """The console script."""
    app(prog_name="graphc")


if __name__ == "__main__":
    main()
