"""Replace a prepared folder whole or not at all, and give up none of its rewards, which may have been paid for.

A folder is made in a hidden temporary sibling, `.NAME.making-*`, and renamed. It starts with the vectors and rewards of
the folder that it replaces. Its process locks the sibling, so one that nobody locks was left by a process that failed
or was killed. In a sibling, `new` is what was being made and `old` what was moved out of the way:

| left in a sibling                 | what the next call does                                              |
|-----------------------------------|----------------------------------------------------------------------|
| `old`, and no folder in its place | moves it back: its process was killed between the two renames        |
| rewards                           | adds them to the folder's, or where there is none to the next `new`  |
| anything else                     | deletes it                                                           |
"""

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from ilqljax.data.files import lock_path, sync, sync_tree
from ilqljax.errors import UserError
from ilqljax.hiring.data.prepared import CANDIDATES, JOBS, OFFLINE, REWARDS, SPLITS, SUMMARY, VECTORS, load_summary
from ilqljax.hiring.reward.cache import RewardCache, name_aside

logger = logging.getLogger(__name__)

OWN_NAMES = (JOBS, CANDIDATES, SPLITS, OFFLINE, SUMMARY, f"{REWARDS}*", VECTORS.format("*"))
ADVICE = "Choose a folder you may write to."


def check_target(out_dir: Path) -> None:
    """Raise a `UserError` if a target is a file, or a folder with something in it that is not prepared data.

    Prepared data has a summary; where that is damaged or lost, it is told by its rewards and by having no other files.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file. Give a folder for the prepared data.")
    names = sorted(file.name for file in out_dir.iterdir()) if out_dir.is_dir() else []
    with suppress(UserError):
        if not names or load_summary(out_dir) is not None:
            return
    others = [name for name in names if not any(fnmatch(name, own) for own in OWN_NAMES)]
    if others or REWARDS not in names:
        raise UserError(
            f"{out_dir}: holds files that prepare_data did not make, or lost its {SUMMARY} and {REWARDS}: "
            f"{', '.join((others or names)[:5])}. Give a new or empty folder, or move these files elsewhere."
        )


@contextmanager
def replace_folder(out_dir: Path) -> Iterator[Path]:
    """Yield a folder to fill, and move it to `out_dir` when the block succeeds.

    Raises:
        UserError: the folder cannot be made or replaced, or its rewards cannot be read.
    """
    try:
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_name_siblings(out_dir), dir=out_dir.parent))
    except OSError as error:
        raise UserError(f"{out_dir}: cannot be created ({error.strerror}). {ADVICE}") from error
    with lock_path(temporary, wait=True):
        try:
            new = temporary / "new"
            new.mkdir()
            _inherit(out_dir, new)
            yield new
            sync_tree(new)
            _move_into_place(new, out_dir, old=temporary / "old")
        finally:
            _clear(temporary, home=out_dir)


def recover_folder(out_dir: Path) -> None:
    """Put right what failed and killed processes left beside `out_dir` (module docstring)."""
    for sibling in _list_abandoned(out_dir):
        with suppress(OSError):  # another process moves one back too
            if (sibling / "old").is_dir() and not out_dir.exists():
                os.replace(sibling / "old", out_dir)
        _clear(sibling, home=out_dir)


def inherit_rewards(old: Path, new: Path) -> None:
    """Give a new folder, made if it is missing, the vectors and rewards of another: each says itself what it is of."""
    new.mkdir(exist_ok=True)
    for file in sorted(old.glob(VECTORS.format("*"))):
        shutil.copy2(file, new / file.name)
    cache = RewardCache(new / REWARDS)
    if (old / REWARDS).is_file():
        cache.take_over(old / REWARDS)


def _inherit(out_dir: Path, new: Path) -> None:
    inherit_rewards(out_dir, new)
    for sibling in _list_abandoned(out_dir):
        _clear(sibling, home=new)


def _clear(temporary: Path, *, home: Path) -> None:
    """Delete a temporary folder, but not rewards that `home`, for want of a cache or of space, does not take over."""
    for part in temporary.iterdir():
        try:
            is_done = _hand_over(part, home)
        except (UserError, OSError) as error:
            logger.warning("%s What was scored stays in %s for the next call.", error, part)
            is_done = False
        if is_done:
            shutil.rmtree(part, ignore_errors=True)
        else:
            for file in part.iterdir():
                if not file.name.startswith(REWARDS):  # SQLite may have files beside it
                    file.unlink()
    with suppress(OSError):  # it is not empty
        temporary.rmdir()


def _hand_over(part: Path, home: Path) -> bool:
    """Add a folder's rewards to the cache in `home`, if there is one; return whether what is left has no worth."""
    scored, cache = part / REWARDS, home / REWARDS
    is_scored = scored.is_file() and bool(RewardCache(scored).load_all())
    damaged = list(part.glob(f"{REWARDS}.damaged-*"))
    if not is_scored and not damaged:
        return True
    if not cache.is_file():
        return False
    if is_scored:
        RewardCache(cache).take_over(scored)
    for file in damaged:
        os.replace(file, name_aside(cache))
    return True


def _move_into_place(new: Path, out_dir: Path, *, old: Path) -> None:
    """Move `new` to `out_dir` and what stands there to `old`, though other processes may do the same; the last wins."""
    for _ in range(10):
        check_target(out_dir)
        if old.exists():
            _hand_over(old, new)
            shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):  # there is none, or another process has moved it
            os.replace(out_dir, old)
        try:
            os.replace(new, out_dir)
            sync(out_dir.parent)
            return
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process has put its own there
                continue
            if old.exists():
                os.replace(old, out_dir)
            raise UserError(f"{out_dir}: cannot be replaced ({error.strerror}). {ADVICE}") from error
    raise UserError(f"{out_dir}: other processes keep replacing it. Wait until they have ended, and start again.")


def _name_siblings(out_dir: Path) -> str:
    return f".{out_dir.name}.making-"


def _list_abandoned(out_dir: Path) -> Iterator[Path]:
    """Yield, locked, each temporary sibling of `out_dir` in which no process is at work."""
    with suppress(OSError):  # no such parent, or another process clears it too
        for sibling in out_dir.parent.iterdir():
            if sibling.name.startswith(_name_siblings(out_dir)):
                with lock_path(sibling) as lock:
                    # A living process locks its folder before it puts anything there.
                    if lock == "held" and any(sibling.iterdir()):
                        yield sibling
