"""A run's folder: where it is, what it holds, and how to open it again.

config.json        the resolved config       overrides.json   what differs from the config file's own values
config-1.json, overrides-1.json: what a run had before it was first resumed with other values; -2 before the next time
tokenizer/         the tokenizer             checkpoints/     one Orbax folder per stage
metrics/           JSONL and TensorBoard     export/          the policy for transformers
evaluation.jsonl   every judged rewrite      results.json     the final table
command.txt        what started the run      report.html      all of this on one page
training.lock      who trains in it, or did  *.sha256         checksums of config.json and evaluation.jsonl
"""

import contextlib
import itertools
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ilqljax.config import resolve_path
from ilqljax.config.files import load_config_json, save_config_json
from ilqljax.data.files import (
    lock_path,
    make_folder,
    read_folder,
    read_json,
    remove_leftovers,
    remove_tree,
    save_text,
    save_whole,
    sync,
)
from ilqljax.data.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from ilqljax.errors import UserError
from ilqljax.training.processes import broadcast_from_leader, gather_texts, is_first_process
from ilqljax.training.run_config import RunConfig, complete_config, find_differing, read_run_config

logger = logging.getLogger(__name__)

LOCK, COMMAND = "training.lock", "command.txt"
LONGEST_LAG_S = 30.0  # until another host sees what one has written to a network's file system
SECONDS_BETWEEN_LOOKS = 0.2
# Sections that a resumed run may change; the rest decides what the saved arrays and batches mean.
CHANGEABLE = (
    "resume", "run_dir", "train", "pretrain", "decode", "evaluator", "wandb", "mesh", "environment", "grace_seconds"
)  # fmt: skip
IDENTITY = ("resume", "run_dir")  # says which run it is, and stays as it was when the run began


def choose_run_dir(config: ConfigDict) -> Path:
    """Choose the folder of a new run, or find that of the run to resume. A new one is not made yet.

    The first of several processes chooses for all. A folder that is taken or cannot be written, and a run that is not
    there, had another model or other data, or is being trained, are a `UserError`.
    """
    return Path(broadcast_from_leader(lambda: str(resume_run_dir(config) if config.resume else new_run_dir(config))))


def new_run_dir(config: ConfigDict) -> Path:
    """Choose the folder of a new run."""
    run_dir = resolve_path(config.run_dir or f"runs/{config.task}-{time.strftime('%Y%m%d-%H%M%S')}")
    if config.run_dir:
        check_free(run_dir)
    existing = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"The run folder {run_dir} cannot be made: {existing} is not a folder that you may write to.")
    return run_dir


def check_free(run_dir: Path) -> None:
    """Raise a `UserError` if the folder of a new run holds one already."""
    if (run_dir / "config.json").exists():
        raise UserError(f"{run_dir} already holds a run. Give --config.resume={run_dir}, or another --config.run_dir.")


@contextlib.contextmanager
def claim_run_dir(run_dir: Path, config: ConfigDict, *, overrides: dict[str, Any], command: str = "") -> Iterator[Path]:
    """Make a new run's folder, or take a resumed run's, and keep other processes from training in it for the block.

    A new folder gets the resolved config, what was overridden, and the command if there was one; a resumed run's are
    left to `record_changes`. The first of several processes does so for all; the others go on when it has. A folder
    that the user did not name gets a number where another run took its name meanwhile; one that the user named and
    another run took is a `UserError`. A new run that is refused in the block before its first step leaves the folder
    as it was, free for the next start.
    """
    before: set[str] = set()
    existed = bool(config.run_dir) and run_dir.exists()
    with contextlib.ExitStack() as held:

        def claim() -> str:
            folder = run_dir if config.run_dir or config.resume else make_numbered(run_dir)
            make_folder(folder)
            before.update(os.listdir(folder))
            held.enter_context(lock_run_dir(folder))
            remove_leftovers(folder)
            if not config.resume:
                check_free(folder)
                save_json(folder / "overrides.json", overrides)
                if command:
                    save_text(folder / COMMAND, command + "\n")
                save_config_json(config, folder / "config.json")
            return str(folder)

        folder = Path(broadcast_from_leader(claim))
        try:
            check_shared(folder)
            yield folder
        except UserError:
            if not config.resume and is_first_process() and not has_begun(folder):
                clear_folder(folder, keep=before)
                if not existed:
                    remove_tree(folder)
                logger.info("%s is free again: no step was done", folder)
            raise


def check_shared(run_dir: Path) -> None:
    """Refuse, in all processes, a claimed folder that one of them does not see as the first does: on another disk."""
    if jax.process_count() == 1:
        return

    def look() -> list[str]:
        lock = run_dir / LOCK
        steps = [path for path in run_dir.glob("checkpoints/*/*") if path.name.isdecimal()]
        return [lock.read_text() if lock.is_file() else "", *sorted(str(path.relative_to(run_dir)) for path in steps)]

    expected, deadline = broadcast_from_leader(look), time.monotonic() + LONGEST_LAG_S
    while (seen := look()) != expected and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    told = gather_texts("" if seen == expected else "another")
    if differing := [str(i) for i, text in enumerate(told) if text]:
        raise UserError(
            f"{len(differing)} of the {len(told)} processes see another folder than the first at {run_dir}: "
            f"{', '.join(differing)}. Put it on a file system that is shared by all of them (config.run_dir)."
        )


def has_begun(run_dir: Path) -> bool:
    """Say whether a run has a checkpoint, or has recorded anything."""
    saved = any(path.name.isdecimal() for path in run_dir.glob("checkpoints/*/*"))
    return saved or any(file.stat().st_size for file in run_dir.glob("metrics/*/metrics.jsonl"))


def clear_folder(folder: Path, *, keep: Collection[str]) -> None:
    """Remove what is in a folder but for the names to keep."""
    for path in list(folder.iterdir()):
        if path.name not in keep:
            remove_tree(path)


def record_changes(run_dir: Path, config: ConfigDict, *, overrides: dict[str, Any]) -> None:
    """Write the config that a resumed run goes on with, where it is another one, and number what the run had before.

    The folder is claimed. A process killed in between leaves the old config, or the new one; the next call does the
    rest.
    """
    n_kept = sum(1 for _ in run_dir.glob("config-*.json"))
    if n_kept and (run_dir / f"config-{n_kept}.json").read_bytes() == (run_dir / "config.json").read_bytes():
        # A process was killed before the new config was there; its overrides may be.
        save_whole(run_dir / "overrides.json", partial(shutil.copy2, run_dir / f"overrides-{n_kept}.json"))
        n_kept -= 1
    saved = complete_config(load_saved_config(run_dir), imports=False)
    changed = config.copy_and_resolve_references()
    changed.update({name: saved[name] for name in IDENTITY})
    if not find_differing(saved, changed):
        return
    for name in ("overrides", "config"):  # the config last: where it is, the pair is whole
        save_whole(run_dir / f"{name}-{n_kept + 1}.json", partial(shutil.copy2, run_dir / f"{name}.json"))
    before = read_json(run_dir / "overrides.json", advice="Restore the file that training wrote.")
    now = {name: before[name] for name in IDENTITY if name in before}
    now |= {name: value for name, value in overrides.items() if name not in IDENTITY}
    save_json(run_dir / "overrides.json", now)
    save_config_json(changed, run_dir / "config.json")


def make_numbered(folder: Path) -> Path:
    """Make a folder that is not there yet: of this name, or of the first free one of NAME-2, NAME-3, ..."""
    for i in itertools.count(1):
        made = folder if i == 1 else folder.with_name(f"{folder.name}-{i}")
        make_folder(made.parent)
        with contextlib.suppress(FileExistsError):
            made.mkdir()
            sync(made.parent)
            return made


@contextlib.contextmanager
def lock_run_dir(run_dir: Path) -> Iterator[None]:
    """Keep other processes from training in a run's folder for the block; the lock file that stays locks nothing."""
    file = run_dir / LOCK
    with lock_path(file) as lock:
        if lock == "taken":
            holder = file.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
            raise UserError(
                f"{run_dir} is being trained by another process ({holder}). Stop it, or take another --config.run_dir."
            )
        if lock == "unsupported":
            logger.warning("%s: files cannot be locked here. Let only one process train in this folder.", run_dir)
        file.write_text(f"{os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield


def resume_run_dir(config: ConfigDict) -> Path:
    """Find the run to resume ("latest" is the newest of the task) and check that it is the same experiment."""
    if config.resume == "latest":
        files = resolve_path("runs").glob(f"{config.task}-*/config.json")
        found = sorted(files, key=lambda file: (find_start(file.parent), file.parent.name))
        if not found:
            raise UserError(f"There is no run of {config.task!r} below {resolve_path('runs')} to resume.")
        run_dir = found[-1].parent
    else:
        run_dir = resolve_path(config.resume)
    names = find_differing(complete_config(load_saved_config(run_dir), imports=False), config)
    if differing := [name for name in names if name.split(".")[0] not in CHANGEABLE]:
        raise UserError(
            f"{run_dir} was run with other values of {', '.join(differing)}. Resume with the same, or start a new run."
        )
    with lock_run_dir(run_dir):  # refused here if another process trains it, before any work
        return run_dir


def load_saved_config(run_dir: Path) -> ConfigDict:
    """Read the config that a run's folder holds; errors are those of `load_config_json`."""
    if not (run_dir / "config.json").is_file():
        raise UserError(f"{run_dir} holds no run: config.json is missing. Give the folder that training printed.")
    return load_config_json(run_dir / "config.json")


def find_start(run_dir: Path) -> int:
    """Return when a run began, in ns: its first config was written then; a name of the user's own need have no date."""
    first = run_dir / "config-1.json"
    return (first if first.is_file() else run_dir / "config.json").stat().st_mtime_ns


def open_run_config(run_dir: str | Path, *, imports: tuple[str, ...] = ()) -> tuple[Path, RunConfig]:
    """Open a run's folder and its config, typed, with `imports` in place of `config.imports`, which nobody vouches for.

    A folder without a run, a damaged config, or a task in files without `imports` is a `UserError`.
    """
    folder = resolve_path(read_folder(run_dir))
    config = load_saved_config(folder)
    if "model_type" in config:
        raise UserError(
            f"{folder} is a model, such as `ilqljax export` writes, and no run. Give the folder that training printed, "
            f"or start a run from it with --config.model.path={folder}."
        )
    sections = dict.fromkeys(("model", "pretrain", "train", "decode", "acting"), ConfigDict)
    kinds = {"algorithm": str, "seed": int, **sections}
    if wrong := [name for name, kind in kinds.items() if not isinstance(config.get(name), kind)]:
        raise UserError(
            f"{folder}/config.json: {', '.join(wrong)} missing or of another kind. Restore what training wrote."
        )
    listed = config.get("imports", ())
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{folder}/config.json: imports is no list of names. Restore what training wrote.")
    named = set(listed)
    if named and not imports:
        raise UserError(
            f"{folder} is a run of a task that is not installed: its config imports {', '.join(sorted(named))}. That "
            "is code of whoever trained it. If you trust it, name it: --imports " + ",".join(sorted(named))
        )
    called = {text.partition(":")[0] for text in find_functions(config)}
    if missing := sorted(called - set(imports)):
        raise UserError(
            f"{folder}/config.json calls a function of the module {missing[0]}, code of whoever trained the run. If "
            f"you trust it, name it: --imports {','.join([*imports, *missing])}"
        )
    config.imports = imports
    return folder, read_run_config(config)


def find_functions(section: Any) -> list[str]:
    """Return the Python functions ("package.module:function") that a config names under a key `function`, anywhere."""
    if not isinstance(section, Mapping | ConfigDict):
        return []
    own = section.get("function")
    inner = [text for value in section.values() for text in find_functions(value)]
    return [*([own] if isinstance(own, str) and own else []), *inner]


def save_tokenizer(run_dir: Path, tokenizer: Tokenizer) -> None:
    """Keep the tokenizer with the run, where it is not there yet."""
    if not (run_dir / "tokenizer" / FILE_NAME).exists() and is_first_process():
        tokenizer.save(run_dir / "tokenizer")


def check_tokenizer(run_dir: Path, tokenizer: Tokenizer) -> None:
    """Refuse to resume a run with another tokenizer than it has: its ids would change meaning."""
    file = run_dir / "tokenizer" / FILE_NAME
    if file.exists() and load_tokenizer(file).to_json() != tokenizer.to_json():
        raise UserError(f"{file} is another tokenizer than today's data gives. Restore its data, or start a new run.")


def save_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    save_text(path, json.dumps(value, indent=2) + "\n")
