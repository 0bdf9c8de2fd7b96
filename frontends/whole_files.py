"""Files that are there whole or not at all, whenever the process, the machine or the disk fails.

A file is written under another name in its folder, synced to the disk, and renamed: until the rename the earlier file
stands, from then on the new one does. What writers that were killed have left is removed by the next one.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from graphc.ir.errors import GraphcError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed, which serves as well as a lock
    fcntl = None  # type: ignore[assignment]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def whole_file(path: Path, overwrite: bool = True) -> Iterator[IO[bytes]]:
    """A binary file to write, which takes the place of `path` once the block ends well and vanishes otherwise.

    When the `with` statement is left, the file is on the disk: a power cut afterwards does not lose it. The file that
    stood there is not touched before. A symbolic link stays one, and what it names is replaced.

    Raises `GraphcError` where nothing can be written: a full disk, a folder that is missing or may not be written to, a
    file that stands there with `overwrite=False`.
    """
    path = Path(os.path.realpath(path))
    if not overwrite and path.exists():
        raise GraphcError(f"{str(path)!r} exists already; pass overwrite=True to replace it")
    _check_place(path)
    remove_leftovers(path)
    try:
        with _placed(path) as file:
            yield file
    except OSError as error:
        raise _explained(error, path) from error
    try:
        sync_folder(path.parent)
    except OSError as error:
        raise GraphcError(f"{str(path)!r} is written, but a power cut may still lose it: {error.strerror}") from error


def ready_folder(folder: Path) -> None:
    """Make a folder, and those above it, unless it is there. Raises `GraphcError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphcError(f"the folder {str(folder)!r} cannot be made: {error.strerror}") from error


def check_writable(path: Path) -> None:
    """Raise the `GraphcError` that `whole_file` would raise where a file cannot be written at `path`, before there is
    anything to write. A file that stands there is not touched."""
    path = Path(os.path.realpath(path))
    _check_place(path)
    try:
        file = _create(path)
        with file:
            os.unlink(file.name)
    except OSError as error:
        raise _explained(error, path) from error


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise GraphcError(f"{str(path)!r} is a folder; a file is to be written there")
    if not path.parent.is_dir():
        raise GraphcError(f"there is no folder {str(path.parent)!r}")


@contextmanager
def _placed(path: Path) -> Iterator[IO[bytes]]:
    file = _create(path)
    temporary = Path(file.name)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                os.replace(temporary, path)  # while the lock is held, or another writer might take it for a leftover
        if fcntl is None:
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # what counts is the error that led here
            temporary.unlink(missing_ok=True)
        raise


def _create(path: Path) -> IO[bytes]:
    """A new file beside `path`, locked as long as it is open: that tells it from a leftover."""
    while True:
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        with suppress(FileExistsError):
            file = open(name, "xb")  # noqa: SIM115  (the caller closes it)
            if fcntl is None:
                return file
            with suppress(OSError):  # a file system without locks: leftovers stay there
                fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name), os.fstat(file.fileno())):
                    return file
            file.close()  # another writer took it for a leftover before it was locked


def remove_leftovers(path: Path) -> None:
    """Remove the files that killed writers of `path` have left beside it; those of living writers stay."""
    ours = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.part")
    with suppress(OSError):  # a folder that cannot be listed is the writer's to report
        for entry in os.scandir(path.parent):
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):  # somebody else's, or being written
                    _remove_unlocked(entry.path)


def _remove_unlocked(path: str) -> None:
    if fcntl is None:
        os.unlink(path)
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that a rename or a removal survives a power cut."""
    if os.name == "nt":  # folders cannot be opened there; the file system's journal has to do
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that sync names by themselves
            raise
    finally:
        os.close(descriptor)


def _explained(error: OSError, path: Path) -> GraphcError:
    kept = "the file that was there before is unchanged" if _is_file(path) else "nothing was left behind"
    if error.errno in FULL:
        return GraphcError(f"the disk has no room for {str(path)!r} ({error.strerror}); {kept}; free some space")
    if error.errno in REFUSED:
        return GraphcError(f"{str(path.parent)!r} cannot be written to ({error.strerror}); {kept}")
    return GraphcError(f"{str(path)!r} could not be written: {error.strerror or error}; {kept}")


def _is_file(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.stat(path).st_mode)
    return False


def write_whole(path: Path, data: bytes, overwrite: bool) -> None:
    """Write a file so that another process, or this one after a crash, sees all of it or none."""
    with whole_file(path, overwrite) as file:
        file.write(data)
