"""Where callbacks write: told before training where that is not possible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphc.frontends.whole_files import check_writable, sync_folder
from graphc.ir.errors import GraphcError


def prepare_place(owner: str, path: Path) -> None:
    """Make the folder of the file to be, as Keras does, and see whether files can be written there.

    A folder right below the root of the file system is not made: a path that begins with `/` by mistake would litter
    it. Raises `GraphcError`.
    """
    make_folder(owner, path.parent)
    try:
        check_writable(path)
    except GraphcError as error:
        raise GraphcError(f"{owner}: {error.message}") from error


def make_folder(owner: str, folder: Path) -> None:
    """Make a folder, and those above it, if it is not there; see `prepare_place`."""
    whole = folder.absolute()
    if whole.is_dir():
        return
    there = next(each for each in whole.parents if each.exists())
    if there == Path(whole.anchor):
        raise GraphcError(
            f"{owner}: there is no folder {str(whole)!r}, and none is made right below {str(there)!r}: make it first, "
            f"or give a path that begins in the working folder"
        )
    try:
        whole.mkdir(parents=True, exist_ok=True)
        sync_folder(whole.parent)
    except OSError as error:
        raise GraphcError(f"{owner}: the folder {str(folder)!r} cannot be made: {error.strerror}") from error


@contextmanager
def writing(owner: str, path: Path) -> Iterator[None]:
    """Raise what goes wrong inside with a file as `GraphcError`."""
    try:
        yield
    except OSError as error:
        missing = "" if path.absolute().parent.is_dir() else f"; there is no folder {str(path.parent)!r}"
        raise GraphcError(f"{owner}: {str(path)!r} cannot be written: {error.strerror}{missing}") from error
