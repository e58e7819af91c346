"""Show what a run's critic thinks of texts, token by token, and which n-grams it likes most and least.

    python scripts/inspect_critic.py --run runs/workable-... --out inspected/ [--split test]
    python scripts/inspect_critic.py --run runs/workable-... --out inspected/ --texts mine.jsonl

--texts holds one object a line: {"prompt": "...", "text": "...", "reward": -3.0}; the reward may be left out. Writes
values.txt (a table per text), heatmap.html (the same in colours) and ngrams.txt into --out. Values, and the rewards of
the run's own rows, are in the unit that the critic was trained in. Method: `ilqljax.training.inspection`.
"""

import argparse
from pathlib import Path

from ilqljax.cli import run_main
from ilqljax.data.dataset import ListRLDataset, ObservationDataset, SelectedRows
from ilqljax.data.files import check_writable_folder, save_text
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.postings.posting import read_field, read_json_lines
from ilqljax.training.compilation import enable_compilation_cache
from ilqljax.training.evaluation import OpenRun, build_rows, open_run
from ilqljax.training.inspection.heatmap import format_table, render_heatmap
from ilqljax.training.inspection.ngrams import format_ngrams, rank_ngrams
from ilqljax.training.inspection.values import inspect_rows


def main() -> None:
    """Read the arguments, inspect, and write three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a run with a critic")
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--dataset", default="validation_dataset", help="section of the run's config to take rows of")
    parser.add_argument("--split", default="", help="another split of that section's data")
    parser.add_argument("--texts", default="", help="JSON Lines of your own texts instead")
    parser.add_argument("--n", type=int, default=200, help="rows that n-grams are counted in")
    parser.add_argument("--n_shown", type=int, default=20, help="rows that are shown token by token")
    parser.add_argument("--longest", type=int, default=3, help="longest n-gram, in tokens")
    least = "least number of times that an n-gram occurs; by default 3, or 1 of --texts and of whole utterances"
    parser.add_argument("--min_count", type=int, help=least)
    args = parser.parse_args()
    check_writable_folder(args.out)  # now, not after the work
    enable_compilation_cache()
    run = open_run(args.run)
    trained = run.select_policy()
    dataset = read_texts(args.texts, run) if args.texts else build_rows(run, args.dataset, split=args.split)
    dataset = SelectedRows(dataset, range(min(args.n, dataset.size())))
    learner, networks = trained.learner, {"params": trained.params, "target": trained.target}
    rows = inspect_rows(learner.model, dataset, **networks, value_range=learner.value_range)
    shown = rows[: args.n_shown]
    titles = [str(dataset.get_item(i).metadata.get("posting_id", f"text {i + 1}")) for i in range(len(shown))]
    min_count = args.min_count
    if min_count is None:  # own texts are few, and hardly a whole utterance comes twice
        min_count = 1 if args.texts or learner.model.config.level == "utterance" else 3
    ngrams = format_ngrams(rank_ngrams(rows, longest=args.longest, min_count=min_count))
    tables = [f"{title}\n{format_table(row)}" for title, row in zip(titles, shown, strict=True)]
    page = render_heatmap(shown, titles=titles)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    save_text(out / "values.txt", "\n\n".join(tables) + "\n")
    save_text(out / "heatmap.html", page)
    save_text(out / "ngrams.txt", ngrams + "\n")
    print(ngrams)
    print(f"values.txt, heatmap.html and ngrams.txt are in {out}")


def read_texts(path: str, run: OpenRun) -> ListRLDataset:
    """Read texts of the user's own as rows."""
    observations = []
    for number, line in read_json_lines(Path(path)):
        where = f"{path}:{number}"
        prompt, text = (read_field(line, name, kind=str, where=where) for name in ("prompt", "text"))
        reward = read_field(line, "reward", kind=float, where=where, default=0.0)
        observations.append(PostingObservation(prompt, text, reward))
    return ObservationDataset(observations, run.built.tokenizer)


if __name__ == "__main__":
    run_main(main)
