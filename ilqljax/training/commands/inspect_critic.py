"""Show what a run's critic thinks of texts, token by token, and of n-grams.

    ilqljax inspect --run runs/workable-... --out inspected --split test
    ilqljax inspect --run runs/workable-... --out inspected --texts mine.jsonl

Writes values.txt (a table per text), heatmap.html (the same in colours) and ngrams.txt into --out. Values, and the
rewards of the run's own rows, are in the unit that the critic was trained in. Method: `ilqljax.training.inspection`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from ilqljax.cli import add_run
from ilqljax.data.files import check_writable_folder, save_text
from ilqljax.data.json_lines import read_field, read_json_lines
from ilqljax.envs.base import ListDialogue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the run, the texts, and what is shown of them."""
    add = parser.add_argument
    add_run(parser)
    add("--out", required=True, help="folder to write")
    add("--dataset", default="validation_dataset", help="section of the run's config to take rows of")
    add("--split", default="", help="another split of that section's data")
    text = 'JSON Lines of your own texts instead: {"prompt": "...", "text": "...", "reward": -3.0}, reward optional'
    add("--texts", default="", help=text)
    add("--n", type=int, default=200, help="rows that n-grams are counted in")
    add("--n_shown", type=int, default=20, help="rows that are shown token by token")
    add("--longest", type=int, default=3, help="longest n-gram, in tokens")
    least = "least number of times that an n-gram occurs (default: 3; of --texts and of whole utterances 1)"
    add("--min_count", type=int, help=least)


def run(args: argparse.Namespace) -> None:
    """Inspect, and write three files."""
    from ilqljax.data.dataset import ObservationDataset, SelectedRows
    from ilqljax.training import inspection
    from ilqljax.training.compilation import enable_compilation_cache
    from ilqljax.training.evaluation import build_rows, open_run

    check_writable_folder(args.out)  # now, not after the work
    enable_compilation_cache()
    run = open_run(args.run, imports=args.imports)
    trained = run.select_policy()
    if args.texts:
        dataset = ObservationDataset(read_texts(args.texts), run.built.tokenizer)
    else:
        dataset = build_rows(run, args.dataset, split=args.split)
    dataset = SelectedRows(dataset, range(min(args.n, dataset.size())))
    learner, networks = trained.learner, {"params": trained.params, "target": trained.target}
    rows = inspection.inspect_rows(learner.model, dataset, **networks, value_range=learner.value_range)
    shown = rows[: args.n_shown]
    titles = [str(dataset.get_item(i).metadata.get("posting_id", f"text {i + 1}")) for i in range(len(shown))]
    min_count = args.min_count
    if min_count is None:  # own texts are few, and hardly a whole utterance comes twice
        min_count = 1 if args.texts or learner.model.config.level == "utterance" else 3
    ngrams = inspection.format_ngrams(inspection.rank_ngrams(rows, longest=args.longest, min_count=min_count))
    tables = [f"{title}\n{inspection.format_table(row)}" for title, row in zip(titles, shown, strict=True)]
    page = inspection.render_heatmap(shown, titles=titles)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    save_text(out / "values.txt", "\n\n".join(tables) + "\n")
    save_text(out / "heatmap.html", page)
    save_text(out / "ngrams.txt", ngrams + "\n")
    print(ngrams)
    print(f"values.txt, heatmap.html and ngrams.txt are in {out}")


def read_texts(path: str) -> Iterator[ListDialogue]:
    """Read texts of the user's own as dialogues that are over: a prompt, an answer and its reward."""
    for where, line in read_json_lines(path):
        prompt, text = (read_field(line, name, kind=str, where=where) for name in ("prompt", "text"))
        reward = read_field(line, "reward", kind=float, where=where, default=0.0)
        yield ListDialogue([(prompt, None), (text, reward)])
