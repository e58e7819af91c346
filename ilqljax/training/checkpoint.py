"""Checkpoints: the last and the best states of a run, written in the background, complete or not there at all.

    directory/
      400/                       a step (`step_files`)
      650/                       ...
      frozen/3f0a.../            arrays that nothing trains, once for all steps; extra/ says which
      650.orbax-checkpoint-tmp/  a save that was cut off; the next run clears it
      700.damaged/               a step that could not be read, when the run went on from the one before
      trash/                     where old steps go, by one rename, before they are deleted

A step's folder appears by one rename when it is complete and vanishes by one rename, so a process killed at any instant
leaves only complete steps. A new step is synced to the disk, its files and then its name, before an old one vanishes,
so that a loss of power leaves one of them.

Several processes read a step each on its own, without waiting for the others, and then say how it went: what one of
them cannot read none of them uses.
"""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from ilqljax.data.files import is_full, make_folder, remove_tree, save_with_checksum
from ilqljax.errors import UserError, check_known
from ilqljax.models.io.tables import check_names
from ilqljax.training.processes import broadcast_from_leader, gather_texts, is_first_process
from ilqljax.training.step_files import (
    AMENDED,
    FILES,
    DamagedError,
    SyncedPath,
    abstract_leaf,
    check_files,
    compute_checksums,
    is_key,
    name_frozen,
    name_leaves,
    open_manager,
    open_reader,
    read_frozen,
    read_step,
    report_damage,
    split_frozen,
    wrap_key,
)

logger = logging.getLogger(__name__)
R = TypeVar("R")

ROOM_MARGIN = 1.2  # of a step, for what the one before it took on the disk
_TRASH, _FROZEN = "trash", "frozen"
_TEMPORARY = "*.orbax-checkpoint-tmp*"


class CheckpointStore(contextlib.AbstractContextManager):
    """The checkpoints of one run's folder.

    Nothing on disk changes before the first `save`, so that a store may be opened on the folder of a running training.
    Use it as a context manager, or call `close`; a save still under way is finished then.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        metric_name: str = "",
        mode: str = "min",
        keep_last: int = 2,
        keep_best: int = 1,
        keep_every: int = 0,
    ) -> None:
        """Open a folder, which need not exist yet.

        `save` ranks by the metric of that name, "" keeps no best step; its "min" or "max" is best, of equals the later.
        So many of the newest and of the best steps are kept, and multiples of `keep_every`, if it is not 0.
        """
        check_known(("min", "max"), mode=mode)
        self.directory = Path(directory).absolute()
        self._metric_name = metric_name
        self._mode = mode
        self._keep = {"last": keep_last, "best": keep_best, "every": keep_every}
        self._damaged: set[int] = set()
        self._metrics: dict[int, dict[str, Any]] = {}
        self._writer: ocp.CheckpointManager | None = None

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(self, step: int, state: Any, extra: dict[str, Any], *, metric: float | None = None) -> None:
        """Save in the background; returns as soon as the arrays are copied, and they may be donated.

        The step must be above all of the folder. The state is a pytree of arrays and PRNG keys, `extra` what else a
        resumed run needs, as JSON values. "best" compares the metric, a finite value; a step without one cannot be it.
        An error of the background write is raised by the next `save`, `wait` or `close`. A full disk is a `UserError`;
        what was written of the step is gone then, and the steps before it are as they were.
        """
        ranked = self._rank(step, metric)
        # The caller goes on changing its dict while the write is under way; what is not JSON fails here, not there.
        extra = json.loads(json.dumps(extra))
        writer = self._open_writer()
        latest = writer.latest_step()
        if latest is not None and step <= latest:
            raise UserError(
                f"{self.directory} already has step {latest}, so {step} cannot be saved. Resume, or use another folder."
            )
        self.wait()
        self._metrics[step] = ranked
        arrays = jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, state)
        beside = {"values": extra, "metric": ranked}
        beside["checksums"] = sums = compute_checksums(arrays, beside)
        if jax.process_count() > 1:
            beside["files"] = FILES
        arrays, frozen = split_frozen(arrays)
        if frozen:
            beside["frozen"] = name_frozen(sums)
            self._save_frozen(step, beside["frozen"], frozen)
        self._check_room(step, arrays, like=latest)
        items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), extra=ocp.args.JsonSave(beside))
        with self._report_full_disk(step):
            is_saved = writer.save(step, args=items)
        if not is_saved:
            raise RuntimeError(f"Orbax declined to save step {step} in {self.directory}.")

    def amend(self, step: int, extra: dict[str, Any], *, metric: float | None = None) -> None:
        """Change values of a step's `extra`, and give it a metric, when it has been saved without one."""
        self.wait()
        self._metrics[step] = self._rank(step, metric)
        if is_first_process():
            path = self.directory / str(step) / AMENDED
            save_with_checksum(path, json.dumps({"values": extra, "metric": self._metrics[step]}))

    def restore(self, template: Any, *, step: int | str = "last") -> tuple[Any, dict[str, Any], int]:
        """Read a checkpoint, "last", "best" or a number, into a template: the state, the extra values and the step.

        The template has its structure, types and shardings: a state of arrays, or of `jax.ShapeDtypeStruct`s (those
        without a sharding go to the first device); a PRNG key must be a real one, which says its generator. It is not
        changed. A checkpoint that is not there, is damaged or has other arrays is a `UserError`, in all processes where
        it is one in any; "last" is the newest step that is not damaged, and the next `save` puts damaged ones aside.
        """
        # The first process lists the steps for all: a file system may show a process an old list.
        newest, steps = broadcast_from_leader(lambda: self._list_steps(step))
        with self._open_reader() as reader:
            others = [one for one in steps if one < newest] if step == "last" else []
            try:
                return _read_together(lambda: self._restore_step(reader, template, newest))
            except DamagedError as error:
                for one in sorted(others, reverse=True):
                    with contextlib.suppress(DamagedError):
                        found = _read_together(lambda one=one: self._restore_step(reader, template, one))
                        self._damaged = {one for one in steps if one > found[2]}
                        if is_first_process():
                            told = "%s. Going on from step %d, the newest that is whole."
                            logger.warning(told, error.problem, found[2])
                        return found
                raise

    def _restore_step(self, reader: ocp.CheckpointManager, template: Any, step: int) -> tuple[Any, dict[str, Any], int]:
        abstract = jax.tree.map(abstract_leaf, template)
        if not (self.directory / str(step)).is_dir():
            raise UserError(
                f"Process {jax.process_index()} does not see the checkpoint {self.directory / str(step)}, which the "
                "first process sees. Put the run's folder on a file system that is shared by all processes."
            )
        extra = read_step(reader, step)["extra"]
        name = extra.get("frozen")
        with report_damage(reader, step):
            metadata = reader.item_metadata(step)["state"]
            saved = getattr(metadata, "tree", metadata)
            if name:
                saved = saved | {"frozen": read_frozen(self.directory / _FROZEN / name)}
        kept, expected = (
            {name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for name, leaf in name_leaves(tree).items()}
            for tree in (saved, abstract)
        )
        refusal = f"Checkpoint {self.directory / str(step)} is of another model, optimizer or algorithm."
        check_names(expected, kept, refusal=refusal, advice="Use the config that the checkpoint was saved with.")
        frozen = {}
        if name:
            abstract, frozen = abstract._replace(frozen={}), abstract.frozen
            with report_damage(reader, step):
                frozen = {"frozen": read_frozen(self.directory / _FROZEN / name, frozen)}
        if "files" in extra and is_first_process():
            with report_damage(reader, step):
                check_files(self.directory / str(step))
        restored = read_step(reader, step, frozen, state=ocp.args.StandardRestore(abstract))
        return jax.tree.map(wrap_key, restored["state"], template), restored["extra"]["values"], step

    def steps(self) -> list[int]:
        """List the steps in the folder, in order; one whose save is under way counts."""
        with self._open_reader(wait=False) as reader:
            return sorted(reader.all_steps())

    def latest_step(self) -> int | None:
        """Return the newest step, or None; one whose save is under way counts."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Return the step with the best metric, or None if no step has one."""
        return _find_best(self._load_metrics())

    def check_metrics(self) -> None:
        """Refuse now, before there is a state to lose, the damaged or otherwise ranked steps that `save` refuses."""
        if self._writer is not None:
            return
        self._metrics = self._load_metrics()
        for metric in filter(None, self._metrics.values()):
            if self._metric_name and (metric["name"], metric["mode"]) != (self._metric_name, self._mode):
                raise UserError(
                    f"Checkpoints in {self.directory} are ranked by {metric['name']} ({metric['mode']}), not by "
                    f"{self._metric_name} ({self._mode}). Keep the metric and its mode, or use another folder."
                )

    def wait(self) -> None:
        """Wait until the save under way is complete and older steps are gone."""
        if self._writer is not None:
            with self._report_full_disk(max(self._metrics, default=0)):
                self._writer.wait_until_finished()
            self._empty_trash()

    def _load_metrics(self) -> dict[int, dict[str, Any]]:
        """Read each step's metric, or nothing, in the first process for all."""

        def read() -> list[tuple[int, dict[str, Any]]]:
            with self._open_reader() as reader:
                return list(_read_metrics(reader, without=self._damaged).items())

        return dict(broadcast_from_leader(read))

    def clear_leftovers(self) -> None:
        """Remove what a killed process was writing or deleting; no other may save there now."""
        if is_first_process():
            half = [*self.directory.glob(_TEMPORARY), *(self.directory / _FROZEN).glob(_TEMPORARY)]
            for path in (self.directory / _TRASH, *half):
                remove_tree(path)

    def close(self) -> None:
        """Finish the save under way and stop the background threads."""
        if self._writer is not None:
            self.wait()
            self._writer.close()
            self._writer = None

    def _save_frozen(self, step: int, name: str, frozen: Any) -> None:
        """Save the arrays that nothing trains where they are not there yet, before the first step that needs them."""
        folder = self.directory / _FROZEN / name
        if folder.is_dir():
            return
        self._check_room(step, frozen)
        make_folder(folder.parent)
        handler = ocp.StandardCheckpointHandler()
        with (
            self._report_full_disk(step),
            contextlib.closing(ocp.Checkpointer(handler, temporary_path_class=SyncedPath)) as writer,
        ):
            writer.save(folder, args=ocp.args.StandardSave(frozen))

    def _check_room(self, step: int, arrays: Any, *, like: int | None = None) -> None:
        """Refuse a step for which there is no room: that of its arrays, or of the step `like` it where that is less."""

        def measure() -> list[int]:
            sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))]
            if like is not None:  # compressed: parameters a little, zeros to nothing
                files = [path for path in (self.directory / str(like)).rglob("*") if path.is_file()]
                sizes.append(math.ceil(ROOM_MARGIN * sum(path.stat().st_size for path in files)))
            return [min(sizes), shutil.disk_usage(self.directory).free]

        n_bytes, free = broadcast_from_leader(measure)
        if free < n_bytes:
            raise self._describe_full_disk(step, f" ({n_bytes / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free)")

    @contextlib.contextmanager
    def _report_full_disk(self, step: int) -> Iterator[None]:
        """Turn what writing to a full disk raises into one message, and remove what was written of the step."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not is_full(error):
                raise
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError, ValueError):  # it says the same again
                writer.close()
            self.clear_leftovers()
            raise self._describe_full_disk(step) from error

    def _describe_full_disk(self, step: int, sizes: str = "") -> UserError:
        intact = CheckpointStore(self.directory).latest_step()
        kept = "There is no earlier step" if intact is None else f"Step {intact} is intact"
        return UserError(
            f"{self.directory}: the disk is full, and step {step} could not be saved{sizes}. {kept}. Free some space, "
            "or keep fewer steps (keep_last, keep_best, keep_every), and resume the run (--config.resume)."
        )

    def _rank(self, step: int, metric: float | None) -> dict[str, Any]:
        if metric is None:
            return {}
        if not self._metric_name:
            raise ValueError("save was given a metric, but the store has no metric_name.")
        if not math.isfinite(metric):
            raise UserError(f"{self._metric_name}={metric} at step {step} cannot rank a checkpoint: it is not finite.")
        return {"name": self._metric_name, "mode": self._mode, "value": float(metric)}

    def _open_writer(self) -> ocp.CheckpointManager:
        if self._writer is not None:
            return self._writer
        make_folder(self.directory)
        self.check_metrics()
        self._empty_trash()
        broadcast_from_leader(self._put_aside)
        self._damaged = set()
        policies = [ocp.checkpoint_managers.LatestN(self._keep["last"]), _KeepBest(self._metrics, self._keep["best"])]
        if self._keep["every"]:
            policies.append(ocp.checkpoint_managers.EveryNSteps(self._keep["every"]))
        self._writer = open_manager(
            self.directory,
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            todelete_subdir=_TRASH,
            cleanup_tmp_directories=True,
            temporary_path_class=SyncedPath,
        )
        return self._writer

    @contextlib.contextmanager
    def _open_reader(self, *, wait: bool = True) -> Iterator[ocp.CheckpointManager]:
        if self._writer is not None and wait:
            self.wait()
        if self._writer is not None and (jax.process_count() == 1 or not wait):
            yield self._writer
            return
        with contextlib.closing(open_reader(self.directory)) as reader:
            yield reader

    def _list_steps(self, wanted: int | str) -> tuple[int, list[int]]:
        """Return the number of the wanted step, and all steps in order."""
        with self._open_reader() as reader:
            return self._find_step(reader, wanted), sorted(reader.all_steps())

    def _find_step(self, reader: ocp.CheckpointManager, step: int | str) -> int:
        if not self.directory.is_dir():
            raise UserError(f"{self.directory} is not there, so no checkpoint can be read. Give the folder of a run.")
        known = sorted(reader.all_steps())
        if not known:
            raise UserError(f"{self.directory} holds no complete checkpoint. Give the folder of a run that saved one.")
        if step == "last":
            return known[-1]
        if step == "best":
            best = _find_best(_read_metrics(reader, without=self._damaged))
            if best is None:
                raise UserError(f"No checkpoint in {self.directory} has a metric. Use step='last'.")
            return best
        if step not in known:
            listed = ", ".join(map(str, known))
            raise UserError(f"{self.directory} has no complete step {step!r}. Known: {listed}, 'last', 'best'.")
        return step

    def _empty_trash(self) -> None:
        if is_first_process():
            remove_tree(self.directory / _TRASH)

    def _put_aside(self) -> None:
        for step in self._damaged:
            remove_tree(self.directory / f"{step}.damaged")
            os.replace(self.directory / str(step), self.directory / f"{step}.damaged")


class _KeepBest:
    """Orbax preservation policy: the `n` best steps. `metrics` grows as steps are saved."""

    def __init__(self, metrics: dict[int, dict[str, Any]], n: int) -> None:
        self._metrics, self._n = metrics, n

    def should_preserve(
        self, checkpoints: Sequence[ocp.checkpoint_managers.PolicyCheckpointInfo], **_: object
    ) -> list[bool]:
        steps = [info.step for info in checkpoints]
        ranked = _rank_steps({step: self._metrics[step] for step in steps})
        return [step in ranked[: self._n] for step in steps]


def _read_together(read: Callable[[], R]) -> R:
    """Read in every process, and return what each read; where one meets damage or a `UserError`, all raise it."""
    if jax.process_count() == 1:
        return read()
    own = ""
    try:
        found = read()
    except UserError as error:
        own = json.dumps([getattr(error, "problem", ""), str(error)])
    said = gather_texts(own)
    for i, text in enumerate(said):
        if text:
            problem, message = json.loads(text)
            if problem:
                raise DamagedError(problem if all(said) else f"Process {i}: {problem}")
            raise UserError(message)
    return found


def _read_metrics(manager: ocp.CheckpointManager, *, without: Collection[int] = ()) -> dict[int, dict[str, Any]]:
    """Read each step's metric: name, mode and value, or nothing."""
    steps = [step for step in manager.all_steps() if step not in without]
    return {step: read_step(manager, step)["extra"]["metric"] for step in steps}


def _find_best(metrics: dict[int, dict[str, Any]]) -> int | None:
    return next(iter(_rank_steps(metrics)), None)


def _rank_steps(metrics: dict[int, dict[str, Any]]) -> list[int]:
    """List the steps that have a metric, the best first; of equals the later."""
    ranks = {s: m["value"] if m["mode"] == "max" else -m["value"] for s, m in metrics.items() if m}
    return sorted(ranks, key=lambda step: (ranks[step], step), reverse=True)
