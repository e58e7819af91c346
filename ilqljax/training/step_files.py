"""What a step's files are: how they are written, summed, read and found damaged. The store is `checkpoint`.

    400/
      state/                     Orbax arrays
      extra/                     JSON: config, loader position, metric of "best", the checksums of arrays, ...
      amended.json               what was changed of it later
      files.json                 checksums of these files, where several processes wrote them

A CRC-32 of every array and of the JSON tells what a disk did to them: the array store has checksums of its index only,
and a flipped bit would come back as another number. No process of several has all of an array that is split over them:
their files have checksums instead.
"""

import asyncio
import contextlib
import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ilqljax.data.files import check_checksum, hash_text, read_json, sync, sync_tree
from ilqljax.errors import UserError
from ilqljax.training.mesh import path_name

AMENDED = "amended.json"  # in a step's folder: what `CheckpointStore.amend` changed
FILES = "files.json"  # in a step's folder: the checksums of its other files but for these two, by their paths
MOST_LISTINGS = 20
_UNSUMMED = (AMENDED, f"{AMENDED}.sha256", FILES, "_CHECKPOINT_METADATA", "commit_success.txt")  # written later


class DamagedError(UserError):
    """Report a checkpoint that is damaged or cannot be read.

    Attributes:
        problem: the message without what to do.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}. Put a good copy in its place, or delete the folder to go on from the newest step that is left "
            "(without one, from the start)."
        )
        self.problem = problem


class SyncedPath(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """Sync a step's files before it gets its name, and the name before an older step is deleted."""

    async def finalize(self) -> None:
        if jax.process_count() > 1 and self.get_final().name.isdecimal():
            await asyncio.to_thread(_save_sums, Path(self.get()))
        await asyncio.to_thread(sync_tree, self.get())
        await super().finalize()
        await asyncio.to_thread(sync_tree, self.get_final())  # a file says in it that it is complete
        await asyncio.to_thread(sync, self.get_final().parent)


def _drop_chatter(record: logging.LogRecord) -> bool:
    """Drop what Orbax logs but warnings: dozens of INFO lines a save, and the traces of errors that it raises too."""
    return "orbax" not in record.pathname or (record.levelno >= logging.WARNING and not record.exc_info)


def make_lone_options() -> ocp.options.MultiprocessingOptions:
    """Let this process read without waiting for others, of which one that meets damage would not come."""
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


def open_manager(
    directory: Path,
    *,
    processes: ocp.options.MultiprocessingOptions = ocp.options.MultiprocessingOptions(),  # noqa: B008  (immutable)
    **options: Any,
) -> ocp.CheckpointManager:
    logging.getLogger("absl").addFilter(_drop_chatter)
    shared = {"multiprocessing_options": processes}
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(create=False, save_root_metadata=False, **shared, **options),
        item_handlers={"state": ocp.StandardCheckpointHandler(**shared), "extra": ocp.JsonCheckpointHandler(**shared)},
    )


def open_reader(directory: Path) -> ocp.CheckpointManager:
    """Open a folder for this process alone to read; it is listed again where a step vanishes in between."""
    for _ in range(MOST_LISTINGS - 1):
        with contextlib.suppress(FileNotFoundError):
            return open_manager(directory, processes=make_lone_options())
    return open_manager(directory, processes=make_lone_options())


def _sum_files(folder: Path) -> dict[str, int]:
    """Sum the files of a step by their paths in its folder, as they are on the disk."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _UNSUMMED)
    return {path.relative_to(folder).as_posix(): _sum_file(path) for path in paths}


def _sum_file(path: Path) -> int:
    total = 0
    with path.open("rb") as stream:
        while part := stream.read(1 << 24):
            total = zlib.crc32(part, total)
    return total


def _save_sums(folder: Path) -> None:
    (folder / FILES).write_text(json.dumps(_sum_files(folder)))


def check_files(folder: Path) -> None:
    """Raise a `ValueError` unless a step's files are those that were saved."""
    saved, found = json.loads((folder / FILES).read_text()), _sum_files(folder)
    if names := [name for name in saved.keys() | found.keys() if saved.get(name) != found.get(name)]:
        raise ValueError(f"missing, changed or added: {', '.join(sorted(names)[:5])}")


def split_frozen(state: Any) -> tuple[Any, Any]:
    """Take the arrays that nothing trains out of a state, if it has any and this process all of them."""
    if jax.process_count() > 1 or not jax.tree.leaves(getattr(state, "frozen", {})):
        return state, {}
    return state._replace(frozen={}), state.frozen


def name_frozen(sums: dict[str, int]) -> str:
    """Return the name of frozen arrays: a hash of their checksums."""
    return hash_text(json.dumps({name: sums[name] for name in sorted(sums) if name.startswith("frozen/")}))[:16]


def read_frozen(folder: Path, template: Any = None) -> Any:
    """Read frozen arrays into a template, or what they are; damage is whatever error Orbax meets, or a ValueError."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing")
    shared = {"multiprocessing_options": make_lone_options()}
    with contextlib.closing(ocp.Checkpointer(ocp.StandardCheckpointHandler(**shared), **shared)) as reader:
        if template is not None:
            return reader.restore(folder, args=ocp.args.StandardRestore(template))
        metadata = reader.metadata(folder).item_metadata
        return getattr(metadata, "tree", metadata)


def read_step(
    manager: ocp.CheckpointManager, step: int, others: Mapping[str, Any] = MappingProxyType({}), **items: Any
) -> dict[str, Any]:
    """Read items of a step, its JSON always, and compare them with the checksums they were saved with.

    Others are parts of its state that were read elsewhere.
    """
    with report_damage(manager, step):
        restored = manager.restore(step, args=ocp.args.Composite(extra=ocp.args.JsonRestore(), **items))
        extra = restored["extra"]
        if others:
            restored = {"extra": extra, "state": restored["state"]._replace(**others)}
        beside = {name: extra[name] for name in ("values", "metric")}
        if extra.keys() != beside.keys():  # Checkpoints of before there were checksums have these two alone.
            saved, found = extra["checksums"], compute_checksums(restored.get("state", {}), beside)
            if names := [name for name in found if name in {*saved, "extra"} and found[name] != saved[name]]:
                raise ValueError(f"checksums differ: {', '.join(names[:10])}")
        amended = Path(manager.directory) / str(step) / AMENDED
        if amended.is_file():
            try:
                check_checksum(amended)
                changed = read_json(amended, advice="")
            except UserError as error:
                raise ValueError(str(error)) from error
            extra["values"], extra["metric"] = extra["values"] | changed["values"], changed["metric"]
        _check_extra(extra)
    return restored


def _check_extra(extra: Mapping[str, Any]) -> None:
    """Raise a `ValueError` unless a step's values and metric, of which older ones have no checksum, have their form."""
    metric = extra["metric"]
    is_ranked = isinstance(metric, dict) and metric.keys() == {"name", "mode", "value"}
    is_metric = is_ranked and metric["mode"] in ("min", "max") and type(metric["value"]) in (int, float)
    if (metric != {} and not is_metric) or not isinstance(extra["values"], dict):
        raise ValueError("its values or its metric are not what was saved")


def compute_checksums(state: Any, values: Any) -> dict[str, int]:
    """Sum every array of a pytree under its path, and JSON values under "extra".

    Arrays of which this process holds a part only (several hosts) are left out.
    """
    sums = {}
    for name, leaf in name_leaves(state).items():
        if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
            leaf = leaf.addressable_data(0)  # a copy that the array does not remember: it must remain to be donated
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            sums[name] = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    return sums | {"extra": zlib.crc32(json.dumps(values, sort_keys=True).encode())}


@contextlib.contextmanager
def report_damage(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    """Turn what reading a damaged step raises into one message that says how to go on."""
    try:
        yield
    except (UserError, jax.errors.JaxRuntimeError):  # The latter is a device's, such as memory that ran out.
        raise
    except Exception as error:  # Orbax meets damaged files with anything, assertions too.
        reason = " ".join(str(error).split())[:200]
        folder = Path(manager.directory) / str(step)
        problem = f"Checkpoint {folder} is damaged or cannot be read ({type(error).__name__}: {reason})"
        raise DamagedError(problem) from error


def name_leaves(tree: Any) -> dict[str, Any]:
    """Return a pytree's leaves by their paths."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def wrap_key(leaf: jax.Array, like: Any) -> jax.Array:
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if is_key(like) else leaf


def abstract_leaf(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    data = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=sharding)
