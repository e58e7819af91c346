"""Improve a policy in rounds: it proposes, what passes is scored and becomes data, and the next policy is trained.

Each round trains from the model that the first run started from, on all the data there are by then, as ReST-EM does
(Singh et al. 2023, arXiv 2312.06585), so that no round inherits the last one's drift. A round's folder holds

| name                        | is                                                                             |
|-----------------------------|--------------------------------------------------------------------------------|
| `proposals/rewrites.jsonl`  | the rewrites of the rounds before and of this one: what `data.rewrites_path` reads |
| `proposals/summary.json`    | what became of the samples, and the round's line of the table                  |
| `data`                      | the prepared data; the rewards that are known come along                       |
| `run`                       | the run, of clone and critic                                                   |

`proposals` and the start of `data` appear whole or not at all, and a run resumes at its last checkpoint: what is there
is not done again.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ilqljax.config import resolve_path
from ilqljax.data.files import make_folder, read_json, save_text, save_whole
from ilqljax.data.json_lines import read_json_lines, save_json_lines
from ilqljax.data.pages import clean_text
from ilqljax.decoding.policy import Generation
from ilqljax.errors import UserError
from ilqljax.hiring.data.folders import inherit_rewards
from ilqljax.hiring.data.prepare import choose_some
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.postings.posting import Posting, build_prompt
from ilqljax.hiring.proposals import (
    Counts,
    RoundsConfig,
    Sample,
    count_by_source,
    format_counts,
    list_known,
    share_passing,
    sift_samples,
    to_row,
)
from ilqljax.hiring.task import HiringData
from ilqljax.training.evaluation import RESULTS, open_run
from ilqljax.training.run_config import complete_config
from ilqljax.training.runs import load_saved_config, open_run_config, save_json

SETTINGS, PROPOSALS, REWRITES, SUMMARY = "settings.json", "proposals", "rewrites.jsonl", "summary.json"
START_AGAIN = "Delete the round's folder to do it again."


def run_rounds(
    run_dir: str | Path,
    out: str | Path,
    config: RoundsConfig,
    *,
    train: Callable[..., Path],
    decoding: Mapping[str, Any],
    imports: tuple[str, ...] = (),
) -> list[dict[str, Any]]:
    """Do the rounds that `out` does not have yet, print a table after each, and return its lines.

    Args:
        run_dir: the run whose policy proposes first, and whose config each round trains with.
        out: the folder of the rounds, made where it is missing.
        config: the options.
        train: `ilqljax.train.train`.
        decoding: what differs from the runs' own decoding (`DecodeConfig`).
        imports: as of `open_run`.

    Raises:
        UserError: `out` holds the rounds of another run or of other settings, a policy proposes nothing to keep where
            nothing was kept before, or a run, its data or its training is refused.
    """
    first, _ = open_run_config(run_dir, imports=imports)  # refuses code that nobody vouched for
    saved = complete_config(load_saved_config(first), imports=False)
    out = Path(out).absolute()
    settings = {name: value for name, value in asdict(config).items() if name != "rounds"}
    _claim_folder(out, {"run": str(first.absolute()), **settings, "decoding": dict(decoding)})
    lines, previous = [], first
    for number in range(1, config.rounds + 1):
        folder = out / f"round-{number}"
        make_folder(folder)
        if not (folder / PROPOSALS).is_dir():
            propose_round(previous, folder, number, config, decoding=decoding, imports=imports)
        summary = read_json(folder / PROPOSALS / SUMMARY, advice=START_AGAIN)
        lines.append(summary["line"])
        if not (folder / "run" / RESULTS).is_file():
            train_round(saved, previous, folder, config, train=train, imports=imports)
        print(clean_text(format_rounds(lines)), flush=True)
        previous = folder / "run"
    return lines


def _claim_folder(out: Path, settings: dict[str, Any]) -> None:
    """Record what the rounds are made with, or refuse a folder of others; more rounds may always be asked for."""
    path = out / SETTINGS
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out}: is not an empty folder, nor one of rounds. Choose a new one.")
        make_folder(out)
        save_json(path, settings)
    found = read_json(path, advice="Choose a new folder.")
    if differing := [name for name in settings if found.get(name) != json.loads(json.dumps(settings[name]))]:
        raise UserError(
            f"{out} holds rounds with other values of {', '.join(differing)}. Give the same (see {path}), or another "
            "--out."
        )


def propose_round(
    run_dir: Path,
    folder: Path,
    number: int,
    config: RoundsConfig,
    *,
    decoding: Mapping[str, Any],
    imports: tuple[str, ...],
) -> None:
    """Let the policy of a run propose, and write what is kept into a round's folder, whole or not at all."""
    run = open_run(run_dir, imports=imports)
    data = run.build_section("data")
    seed, name = config.seed + number, run.name_policy(config.policy)
    postings = choose_some(data.prepared.select_postings("train"), config.max_postings, seed=seed)
    options = {**decoding, "n_generations": config.n, "beam_width": 0}
    policy = run.select_policy(name).make_policy(
        run.config.decode, run.built.tokenizer, seed, run.config.acting, **options
    )
    generations = policy.generate_batch([PostingObservation(build_prompt(p), posting=p) for p in postings])
    kept, counts = sift_rounds(postings, generations, data, source=f"{name}-{number}", keep=config.keep)
    earlier = [row for _, row in read_json_lines(data.config.rewrites_path)] if data.config.rewrites_path else []
    if not kept and not earlier:
        raise UserError(
            f"{run_dir}: of {len(postings) * config.n} samples of {name!r} none is to be kept "
            f"({', '.join(f'{fate} {n}' for (_, fate), n in counts.items())}), so there is nothing to add. Sample "
            "more (--n), at another temperature, or train longer first."
        )
    line = describe_round(number, kept, counts, source=f"{name}-{number}", n_rows=len(earlier) + len(kept))

    def write(temporary: Path) -> None:
        temporary.mkdir()
        save_json_lines(temporary / REWRITES, [*earlier, *map(to_row, kept)])
        save_json(temporary / SUMMARY, {"line": line, "sources": count_by_source(counts)})
        save_text(temporary / "counts.txt", format_counts(counts) + "\n")

    save_whole(folder / PROPOSALS, write)


def sift_rounds(
    postings: Sequence[Posting],
    generations: Sequence[Sequence[Generation]],
    data: HiringData,
    *,
    source: str,
    keep: str,
) -> tuple[list[Rewrite], Counts]:
    """Sift what a policy wrote for postings (`proposals.sift_samples`); "improved" also leaves out what gains nothing.

    `data` has the rewards, the guardrails, and the rewrites that are known.
    """
    known, kept, counts = list_known(data.prepared.rewrites), [], Counts()
    for posting, found in zip(postings, generations, strict=True):
        samples = [Sample(g.text, source, g.finished) for g in found]
        rewrites, fates = sift_samples(
            posting, samples, data.reward, known=known.get(posting.id, ()), guardrails=data.reward.guardrails
        )
        kept += [rewrite for rewrite in rewrites if keep == "passing" or rewrite.gain > 0]
        counts += fates
    return kept, counts


def describe_round(
    number: int, kept: Sequence[Rewrite], counts: Counts, *, source: str, n_rows: int
) -> dict[str, float | None]:
    """Return a round's line of the table; what is undefined is None, as JSON has it.

    "best" and "best_gain" are means over the postings that have a kept rewrite, of the best reward and of what it
    gains over the original's.
    """
    best: dict[str, Rewrite] = {}
    for rewrite in kept:
        if rewrite.posting_id not in best or rewrite.reward > best[rewrite.posting_id].reward:
            best[rewrite.posting_id] = rewrite

    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    share = share_passing(counts, source)
    return {
        "round": number,
        "written": counts[source, "written"],
        "kept": len(kept),
        "rows": n_rows,
        "pass": None if math.isnan(share) else share,
        "postings": len(best),
        "reward": mean([rewrite.reward for rewrite in kept]),
        "best": mean([rewrite.reward for rewrite in best.values()]),
        "best_gain": mean([rewrite.gain for rewrite in best.values()]),
    }


def format_rounds(lines: Sequence[Mapping[str, float | None]]) -> str:
    """Lay out the rounds so far, a line each."""
    names = ("round", "written", "kept", "rows", "pass", "postings", "reward", "best", "best_gain")

    def show(name: str, value: float | None) -> str:
        if value is None:
            return "-"
        return f"{100 * value:.0f} %" if name == "pass" else f"{value:.2f}" if isinstance(value, float) else str(value)

    rows = [names, *([show(name, line[name]) for name in names] for line in lines)]
    return "\n".join("".join(f"{cell:>11}" for cell in row) for row in rows)


def train_round(
    saved: ConfigDict,
    previous: Path,
    folder: Path,
    options: RoundsConfig,
    *,
    train: Callable[..., Path],
    imports: tuple[str, ...],
) -> None:
    """Train a round's clone and critic with the first run's config on the round's data, or go on with it."""
    config, run_dir = saved.copy_and_resolve_references(), folder / "run"
    old_data = resolve_path(load_saved_config(previous).data.folder)
    if not (folder / "data").exists():
        save_whole(folder / "data", partial(inherit_rewards, old_data))
    config.data.update({"folder": str(folder / "data"), "rewrites_path": str(folder / PROPOSALS / REWRITES)})
    steps = {"pretrain.total_steps": options.pretrain_steps, "train.total_steps": options.train_steps}
    overrides = {key: value for key, value in steps.items() if value >= 0}
    config.update_from_flattened_dict(overrides)
    config.imports = imports
    config.run_dir, config.resume = str(run_dir), str(run_dir) if (run_dir / "config.json").is_file() else ""
    train(config, overrides=overrides)
