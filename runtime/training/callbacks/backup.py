"""`BackupAndRestore`: a run of `fit` that is killed goes on where it was when it is started again."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphc.frontends.warning import warn
from graphc.frontends.whole_files import check_writable, remove_leftovers, sync_folder
from graphc.ir.errors import FormatError, GraphcError
from graphc.runtime.training.callbacks.callback import Callback
from graphc.runtime.training.callbacks.places import make_folder
from graphc.runtime.training.checkpoint import Position, Run, restore_run, save_run

LATEST, PREVIOUS = "latest.safetensors", "previous.safetensors"


class BackupAndRestore(Callback):
    """Saves a checkpoint after each epoch, or every `save_freq` batches; `fit`, called again, goes on from it.

    `backup_dir` is a folder, which is made, or a file whose name ends in `.safetensors`. A checkpoint is one file that
    is on the disk whole or not at all, whatever is killed and whenever, and holds all that a run consists of; the
    weights of a run that goes on from it on the same target are those of the undisturbed run, bit for bit. Another
    target can go on from it too.

    With `double_checkpoint` the one before is kept, and is gone back to where the latest is damaged. When `fit` ends
    well the checkpoints are removed, unless `delete_checkpoint` is off.

    `fit` raises `GraphcError` for a checkpoint of another model, or when one cannot be written: then the last good one
    is there still.
    """

    last = True  # what the other callbacks remember of an epoch or batch is saved with it

    def __init__(
        self,
        backup_dir: Any,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ) -> None:
        super().__init__()
        given = os.fspath(backup_dir)
        if not given:
            raise GraphcError("BackupAndRestore: backup_dir is empty; it is a folder, or a file named *.safetensors")
        if save_freq != "epoch" and (type(save_freq) is not int or save_freq < 1):
            raise GraphcError(f"BackupAndRestore: save_freq is 'epoch' or a number of batches, not {save_freq!r}")
        path = Path(given)
        self._own_folder = path.suffix != ".safetensors"
        self.backup_dir = given
        self.save_freq, self.double_checkpoint, self.delete_checkpoint = save_freq, double_checkpoint, delete_checkpoint
        self.path = path / LATEST if self._own_folder else path
        """The file of the latest checkpoint."""
        self.previous_path = self.path.with_name(PREVIOUS if self._own_folder else f"{path.stem}.{PREVIOUS}")
        self._run: Run | None = None
        self._unsaved = 0
        self._restored: Path | None = None

    def set_run(self, run: Run) -> None:
        """Called by `fit` when training has begun: the run, which goes on where the checkpoint is, if there is one."""
        self._run, self._unsaved, self._restored = run, 0, None
        if self._own_folder:
            make_folder("BackupAndRestore", self.path.parent)
        try:
            check_writable(self.path)
        except GraphcError as error:
            raise GraphcError(f"BackupAndRestore: {error.message}") from error
        if self.path.exists() or self.previous_path.exists():
            self._restored = self._restore(run)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        run = self._run
        if run is not None and self._restored is not None:
            # In the middle of an epoch: what callbacks did at its beginning was done before the checkpoint.
            if run.position.step:
                restore_run(self._restored, run)
            self._restored = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.save_freq != "epoch":
            self._unsaved += 1
            if self._run is not None and self._unsaved >= int(self.save_freq):
                self._save(self._run.position)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._run is not None and self.save_freq == "epoch":
            self._save(replace(self._run.position, epoch=epoch + 1, step=0, logs={}))

    def on_train_end(self, logs: Any = None) -> None:
        if not self.delete_checkpoint:
            return
        for path in (self.path, self.previous_path):
            remove_leftovers(path)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:  # the run has ended well nevertheless
                warn(f"{str(path)!r} could not be removed: {error.strerror}")
        if self._own_folder:
            with suppress(OSError):  # somebody else keeps something there
                self.path.parent.rmdir()

    def _save(self, position: Position) -> None:
        assert self._run is not None
        self._unsaved = 0
        if self.double_checkpoint and self.path.exists():
            self._keep_latest()
        stop = bool(getattr(self.model, "stop_training", False))
        save_run(self.path, replace(self._run, position=replace(position, stop=stop)))

    def _keep_latest(self) -> None:
        """Let the latest checkpoint be the previous one too, so that at every moment both names have a whole file."""
        temporary = self.previous_path.with_name(f".{self.previous_path.name}.{os.getpid():08x}.part")
        try:
            temporary.unlink(missing_ok=True)
            try:
                os.link(self.path, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(self.path, temporary)
            os.replace(temporary, self.previous_path)
            temporary.unlink(missing_ok=True)  # renaming one link of a file to another does nothing
            sync_folder(self.previous_path.parent)
        except OSError as error:
            raise GraphcError(f"{str(self.previous_path)!r} could not be written: {error.strerror}") from error

    def _restore(self, run: Run) -> Path:
        try:
            restore_run(self.path, run)
            return self.path
        except FormatError as error:
            if not self.previous_path.exists():
                raise
            warn(f"{error.message}; going on from {self.previous_path.name}")
            restore_run(self.previous_path, run)
            return self.previous_path
