"""Where a run is written until it is finished, and how it replaces an earlier run.

A new run is written in its own folder. One that replaces another is written beside it, in a hidden
folder on the same file system, and replaces it when it is finished: whatever kills the process,
the folder holds the old run or the new one.
"""

from __future__ import annotations

import enum
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.heads.run_folder import CHECKPOINT, DONE


class RunState(enum.Enum):
    """What a folder holds. A run is unfinished while it has a checkpoint, whatever figures it has."""

    ABSENT = "absent"
    UNFINISHED = "unfinished"
    FINISHED = "finished"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkFolder:
    """Where a run is written (`path`) and where it will be (`out`); `resumed`: an unfinished one."""

    out: Path
    path: Path
    resumed: bool

    @property
    def replaces(self) -> bool:
        """Whether `out` holds another run until this one is finished."""
        return self.path != self.out

    def begin(self) -> None:
        """Create the folder, empty unless it is resumed, and mark it unfinished."""
        if not self.replaces or not self.resumed:
            shutil.rmtree(_beside(self.out), ignore_errors=True)
        (self.path / CHECKPOINT).mkdir(parents=True, exist_ok=True)

    def finish(self) -> None:
        """The run is complete: remove its checkpoint and replace the old run."""
        shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)
        if self.replaces:
            self.out.rename(_old(self.out))
            self.path.rename(self.out)
            shutil.rmtree(_old(self.out), ignore_errors=True)

    def give_up(self) -> None:
        """The run failed: if it was to replace another, remove what was written."""
        if self.replaces and not self.resumed:
            shutil.rmtree(self.path, ignore_errors=True)


def claim_folder(out: Path, *, overwrite: bool = False, resume: bool = False) -> WorkFolder:
    """Where a training whose run will be `out` is written; creates nothing yet.

    With `resume` an unfinished run is resumed: first a replacement that was begun beside `out`. Raises
    `ConfigError` for a folder in use unless `overwrite` or `resume`, and for one that is no run.
    """
    settle(out)
    beside = _beside(out)
    if resume and run_state(beside) is RunState.UNFINISHED:
        return WorkFolder(out=out, path=beside, resumed=True)
    state = run_state(out)
    if state is RunState.ABSENT:
        return WorkFolder(out=out, path=out, resumed=False)
    if resume and state is RunState.UNFINISHED:
        return WorkFolder(out=out, path=out, resumed=True)
    if not overwrite:
        if state is RunState.UNFINISHED:
            raise ConfigError(
                f"the run {out} holds an unfinished training: --resume resumes it, "
                "--overwrite replaces it"
            )
        raise ConfigError(f"the run {out} exists: choose another name or pass --overwrite")
    if state is RunState.OTHER:
        raise ConfigError(f"{out} is not a run, so it is not overwritten: choose another name")
    return WorkFolder(out=out, path=beside, resumed=False)


def run_state(folder: Path) -> RunState:
    """What a folder holds."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return RunState.ABSENT
    if (folder / CHECKPOINT).is_dir():
        return RunState.UNFINISHED
    if not (folder / "config.json").exists():
        return RunState.OTHER
    return RunState.FINISHED if (folder / DONE).exists() else RunState.UNFINISHED


def is_finished(out: Path) -> bool:
    """Whether a run is finished here and no replacement for it is unfinished."""
    settle(out)
    replaced = run_state(_beside(out)) is RunState.UNFINISHED
    return run_state(out) is RunState.FINISHED and not replaced


def settle(out: Path) -> None:
    """Complete a replacement that died before its two renames, between or after them."""
    old, beside = _old(out), _beside(out)
    if not old.exists():
        if run_state(beside) is not RunState.FINISHED:
            return
        if out.exists():
            out.rename(old)
    if not out.exists():
        # The new run was finished before the old one was moved away.
        (beside if run_state(beside) is RunState.FINISHED else old).rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _beside(out: Path) -> Path:
    return out.with_name(f".{out.name}.next")


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")
