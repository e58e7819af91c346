"""Train every algorithm from one clone of the data, and judge all of them on the same postings.

    python -m benchmarks.compare_algorithms --out runs/family [--config configs/workable.py] [--algorithms ilql,dpo]

Each is the run `python -m ilqljax.train --config CONFIG:ALGORITHM --config.pretrain.total_steps=0` that starts from the
clone (`--config.model.path`) and is checked for fluency by it (`--config.evaluator.fluency`). What is already in --out
is not run again, and a run that was killed goes on.
"""

import argparse
import json
from pathlib import Path
from statistics import median

from ilqljax.cli import run_main
from ilqljax.data.files import save_text
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import EVALUATION_FILE, load_evaluations
from ilqljax.hiring.evaluation.summary import align, distill_evaluations, show_interval
from ilqljax.models.cpu.allocator import restart_with_huge_pages
from ilqljax.rl.algorithms import ALGORITHMS
from ilqljax.train import train
from ilqljax.training.compilation import enable_compilation_cache
from ilqljax.training.run_config import load_run_config


def main() -> None:
    """Train what is missing, then print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the runs, one an algorithm")
    parser.add_argument("--config", default="configs/workable.py", help="a hiring config")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="comma-separated; bc is always there")
    args = parser.parse_args()
    names = list(dict.fromkeys(["bc", *filter(None, (name.strip() for name in args.algorithms.split(",")))]))
    if unknown := [name for name in names if name not in ALGORITHMS]:
        raise UserError(f"--algorithms: {', '.join(unknown)} unknown. Known: {', '.join(ALGORITHMS)}.")
    enable_compilation_cache()
    out = Path(args.out).absolute()
    for name in names:
        run_algorithm(name, config_file=args.config, out=out)
    policies = {}
    for name in names:
        policies |= load_evaluations(out / name / EVALUATION_FILE)
    speeds = {name: read_speed(out / name / "metrics" / name / "metrics.jsonl") for name in names}
    table = format_table(distill_evaluations(policies), speeds)
    save_text(out / "comparison.txt", table + "\n")
    print(table)


def run_algorithm(name: str, *, config_file: str, out: Path) -> None:
    """Train and judge one algorithm, unless that was done."""
    if (out / name / "results.json").is_file():
        return
    config = load_run_config(f"{config_file}:{name}")
    if name != "bc":
        config.pretrain.total_steps = 0
        config.model.path = str(out / "bc" / "export" / "policy")
        config.evaluator.fluency = config.model.path
    started = (out / name / "config.json").is_file()
    config.update({"resume": str(out / name)} if started else {"run_dir": str(out / name)})
    train(config)


def read_speed(path: Path) -> float:
    """Return the median of a run's logged tokens per second; NaN where none was logged."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return median([r["train/tokens_per_second"] for r in records if "train/tokens_per_second" in r] or [float("nan")])


def format_table(rows: list[dict], speeds: dict[str, float]) -> str:
    """Lay out scores, gains over echo and training speed, one line a policy."""
    header = ("policy", "score", "gain over echo [95 %]", "guarded gain [95 %]", "pass", "tokens/s")
    body = [header]
    for row in rows:
        score = f"{row['reward_rewrite']:.2f} +- {row['reward_rewrite_error']:.2f}"
        gains = show_interval(row, "difference"), show_interval(row, "guarded_difference")
        speed = f"{speeds[row['policy']]:,.0f}" if row["policy"] in speeds else ""
        body.append((row["policy"], score, *gains, f"{100 * row['guardrail_pass_rate']:.0f} %", speed))
    return "\n".join(align(body))


if __name__ == "__main__":
    restart_with_huge_pages()
    run_main(main)
