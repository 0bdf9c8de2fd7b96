"""Files that are there whole or not at all: what is left behind when something fails between open and rename."""

import errno
import os
import stat
import subprocess
import sys
import textwrap

import pytest

from graphc.frontends.whole_files import whole_file, write_whole
from graphc.ir.errors import GraphcError

LEFTOVER = ".data.bin.0123abcd.part"


def names(folder):
    return sorted(os.listdir(folder))


def test_a_file_appears_and_is_replaced(tmp_path):
    path = tmp_path / "data.bin"
    write_whole(path, b"first", overwrite=False)
    write_whole(path, b"second", overwrite=True)
    assert path.read_bytes() == b"second" and names(tmp_path) == ["data.bin"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_overwriting_is_refused(tmp_path):
    write_whole(tmp_path / "data.bin", b"first", overwrite=True)
    with pytest.raises(GraphcError, match="exists already"):
        write_whole(tmp_path / "data.bin", b"second", overwrite=False)


def test_a_missing_folder_and_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(GraphcError, match=r"there is no folder .*missing"):
        write_whole(tmp_path / "missing" / "data.bin", b"", overwrite=True)
    with pytest.raises(GraphcError, match="is a folder"):
        write_whole(tmp_path, b"", overwrite=True)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "data.bin").symlink_to(tmp_path / "far" / "real.bin")
    write_whole(tmp_path / "data.bin", b"content", overwrite=True)
    assert (tmp_path / "data.bin").is_symlink() and (tmp_path / "far" / "real.bin").read_bytes() == b"content"


def test_an_error_in_the_block_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "data.bin"
    write_whole(path, b"first", overwrite=True)
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"sec")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first" and names(tmp_path) == ["data.bin"]


def failing(number):
    def fail(*_arguments, **_named):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number", "message"),
    [
        ("fsync", errno.ENOSPC, r"no room for .*data\.bin.*No space left.*is unchanged; free some space"),
        ("fsync", errno.EIO, r"could not be written: Input/output error; .*is unchanged"),
        ("replace", errno.EDQUOT, r"no room for .*data\.bin.*is unchanged"),
        ("replace", errno.EACCES, r"cannot be written to \(Permission denied\); .*is unchanged"),
    ],
)
def test_what_fails_before_the_rename(tmp_path, monkeypatch, function, number, message):
    path = tmp_path / "data.bin"
    write_whole(path, b"first", overwrite=True)
    monkeypatch.setattr(os, function, failing(number))
    with pytest.raises(GraphcError, match=message):
        write_whole(path, b"second", overwrite=True)
    monkeypatch.undo()
    assert path.read_bytes() == b"first" and names(tmp_path) == ["data.bin"]


def is_folder(descriptor):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: failing(errno.EIO)() if is_folder(fd) else fsync(fd))
    with pytest.raises(GraphcError, match="is written, but a power cut may still lose it"):
        write_whole(tmp_path / "data.bin", b"first", overwrite=True)
    assert (tmp_path / "data.bin").read_bytes() == b"first"


def test_the_folder_is_synced_after_the_rename(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("folder" if is_folder(fd) else "file"), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (order.append("rename"), replace(*names))[1])
    write_whole(tmp_path / "data.bin", b"first", overwrite=True)
    assert order == ["file", "rename", "folder"]


def test_leftovers_of_killed_writers_go(tmp_path):
    for name in (LEFTOVER, ".other.bin.0123abcd.part", ".data.bin.part", ".data.bin.0123abcdef.part", "data.bin.part"):
        (tmp_path / name).write_bytes(b"half")
    write_whole(tmp_path / "data.bin", b"first", overwrite=True)
    assert LEFTOVER not in names(tmp_path) and len(names(tmp_path)) == 5


def test_what_another_writer_is_writing_stays(tmp_path):
    """Two writers at once: neither removes what the other writes, and the later rename wins."""
    path = tmp_path / "data.bin"
    with whole_file(path) as first:
        first.write(b"slow writer")
        write_whole(path, b"fast writer", overwrite=True)
        assert path.read_bytes() == b"fast writer" and len(names(tmp_path)) == 2
    assert path.read_bytes() == b"slow writer" and names(tmp_path) == ["data.bin"]


def test_a_file_that_grows_too_large(tmp_path):
    """A limit on the size of files fails as a full disk does: in the middle of a write."""
    path = tmp_path / "data.bin"
    write_whole(path, b"first", overwrite=True)
    script = f"""
        import resource, signal
        from pathlib import Path
        from graphc.frontends.whole_files import write_whole
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        write_whole(Path({str(path)!r}), bytes(1_000_000), overwrite=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert "GraphcError: the disk has no room for" in done.stderr and "is unchanged" in done.stderr
    assert path.read_bytes() == b"first" and names(tmp_path) == ["data.bin"]
