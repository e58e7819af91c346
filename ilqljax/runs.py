"""A run's folder: where it is, what it holds, and how to open it again.

config.json        the resolved config       overrides.json   what differs from the config file's own values
tokenizer/         the tokenizer             checkpoints/     one Orbax folder per stage
metrics/           JSONL and TensorBoard     export/          the policy for transformers
evaluation.jsonl   every judged rewrite      results.json     the final table
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from ilqljax.config import config_to_json, diff_overrides, load_config_json, resolve_path, save_config_json
from ilqljax.data.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from ilqljax.errors import UserError
from ilqljax.files import save_text

# Sections that a resumed run may change; the rest decides what the saved arrays and batches mean.
CHANGEABLE = ("resume", "run_dir", "train", "pretrain", "decode", "evaluator", "wandb", "mesh", "environment")


def choose_run_dir(config: ConfigDict) -> Path:
    """Choose the folder of a new run, or find that of the run to resume. Nothing is written yet.

    Raises:
        UserError: the folder is taken or cannot be written, there is nothing to resume, or the resumed run had another
            model or other data.
    """
    if config.resume:
        return resume_run_dir(config)
    if config.run_dir:
        run_dir = resolve_path(config.run_dir)
        if (run_dir / "config.json").exists():
            raise UserError(
                f"{run_dir} already holds a run. Continue it with --config.resume={config.run_dir}, or choose another "
                "--config.run_dir."
            )
    else:
        run_dir = resolve_path(f"runs/{config.task}-{time.strftime('%Y%m%d-%H%M%S')}")
    existing = next(folder for folder in (run_dir, *run_dir.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"The run folder {run_dir} cannot be made: {existing} is not a folder that you may write to.")
    return run_dir


def create_run_dir(run_dir: Path, config: ConfigDict, *, overrides: dict[str, Any]) -> None:
    """Make a new run's folder and write the resolved config and what was overridden; a resumed run's is left alone."""
    if jax.process_index() != 0 or (run_dir / "config.json").exists():
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    save_json(run_dir / "overrides.json", overrides)
    save_config_json(config, run_dir / "config.json")


def resume_run_dir(config: ConfigDict) -> Path:
    """Find the run to resume ("latest" is the newest of the task) and check that it is the same experiment."""
    if config.resume == "latest":
        # A run writes its config once, when it starts; a name of the user's own need not have a date.
        files = resolve_path("runs").glob(f"{config.task}-*/config.json")
        found = sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.parent.name))
        if not found:
            raise UserError(f"There is no run of {config.task!r} below {resolve_path('runs')} to resume.")
        run_dir = found[-1].parent
    else:
        run_dir = resolve_path(config.resume)
    if not (run_dir / "config.json").is_file():
        raise UserError(f"{run_dir} holds no run: config.json is missing. Give the folder that the run printed.")
    saved = load_config_json(run_dir / "config.json")
    here = json.loads(config_to_json(config))
    differing = [
        name for name in diff_overrides(json.loads(config_to_json(saved)), here) if name.split(".")[0] not in CHANGEABLE
    ]
    if differing:
        raise UserError(
            f"{run_dir} was run with other values of {', '.join(differing)}. Resume with the same, or start a new run."
        )
    return run_dir


def load_run_config(run_dir: str | Path) -> tuple[Path, ConfigDict]:
    """Open a run's folder and its resolved config.

    Raises:
        UserError: the folder holds no run.
    """
    folder = resolve_path(run_dir)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no run: config.json is missing. Give the folder that training printed.")
    return folder, load_config_json(folder / "config.json")


def save_tokenizer(run_dir: Path, tokenizer: Tokenizer) -> None:
    """Keep the tokenizer with the run; a resumed run's must be the one that is there, or its ids would change meaning.

    Raises:
        UserError: it is another one, or cannot be read.
    """
    file = run_dir / "tokenizer" / FILE_NAME
    if not file.exists():
        if jax.process_index() == 0:
            tokenizer.save(file.parent)
    elif load_tokenizer(file).to_json() != tokenizer.to_json():
        raise UserError(
            f"{file} is another tokenizer than today's data gives, so the run cannot go on. Restore the data that it "
            "was started with, or start a new run."
        )


def save_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    save_text(path, json.dumps(value, indent=2) + "\n")
