"""Runs an artifact on given inputs in a process of its own: `python -m graphc.tools.verification_worker FOLDER`.

Frameworks can upset each other in one process (TensorFlow and Triton abort it), and one that crashes takes the process
with it. `FOLDER` holds the request, which `verification` pickled for its own use, and gets the reply.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A module as text and weights, or the artifact it was compiled to, and the calls to make.

    A call is an entry, its inputs, and how often it is made in a row on fresh weights.
    """

    target: str
    text: str
    weights: dict[str, Array]
    passes: str | None
    artifact: Path | None
    calls: list[tuple[str, list[Array], int]]


@dataclass(frozen=True, slots=True)
class Reply:
    """The outputs of the last of each call's repetitions; or what went wrong: `error`, of the class `kind`."""

    outputs: list[list[Array]] = field(default_factory=list[list[Array]])
    error: str = ""
    kind: str = ""


def answer(request: Request, folder: Path) -> Reply:
    """Compile, load and call."""
    from graphc.codegen import target
    from graphc.codegen.compiler import write_artifact
    from graphc.ir.errors import GraphcError
    from graphc.ir.parser import parse

    try:
        artifact = request.artifact
        if artifact is None:
            artifact = folder / "artifact"
            write_artifact(parse(request.text, request.weights), request.target, artifact, request.passes)
        loader = target(request.target)
        loaded = loader.load(artifact).entries
        outputs: list[list[Array]] = []
        for entry, inputs, count in request.calls:
            if count > 1:  # calls before this one may have updated weights
                loaded = loader.load(artifact).entries
            results: tuple[Array, ...] = ()
            for _ in range(count):
                results = loaded[entry](*inputs)
            outputs.append([np.asarray(array) for array in results])
        return Reply(outputs)
    except GraphcError as error:
        return Reply(error=str(error), kind=type(error).__name__)
    except Exception as error:
        return Reply(error=f"{type(error).__name__}: {error}\n{traceback.format_exc()}", kind="crash")


def main() -> None:
    folder = Path(sys.argv[1])
    with open(folder / "request", "rb") as file:
        request = pickle.load(file)
    reply = answer(request, folder)
    with open(folder / "reply", "wb") as file:
        pickle.dump(reply, file, protocol=5)


if __name__ == "__main__":
    # The classes must be those of the importable module, not of `__main__`: they are pickled by name.
    from graphc.tools.verification_worker import main as run

    run()
