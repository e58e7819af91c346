"""Ask the guardrails about paraphrases written by hand: honest ones, which should pass, and damaged ones.

    python -m benchmarks.guardrail_campaign                  both modes, all sets; seconds
    python -m benchmarks.guardrail_campaign --show           names what each wrong verdict is about

`guardrails/honest.jsonl` holds made-up postings with five paraphrases each, `guardrails/damaged.jsonl` one edit each of
such a paraphrase that makes it false, with its kind. The postings of the set "development" were there when the checks
and their word lists were written; those of the "second" and "third" were written afterwards, and tuned on after a first
look.

A damaged text counts as caught only by what its undamaged paraphrase is not refused for.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from ilqljax.data.json_lines import read_json_lines
from ilqljax.hiring.guardrails import MODES, check_rewrite
from ilqljax.hiring.postings.posting import Posting, build_prompt

FOLDER = Path(__file__).parent / "guardrails"
SETS = ("development", "second", "third")


class Case(NamedTuple):
    """Hold a rewrite of a posting, its set, and the text it is a damaged version of ("" for an honest one)."""

    posting: Posting
    text: str
    set: str
    kind: str = "honest"
    undamaged: str = ""


def load_cases() -> list[Case]:
    """Read all honest and damaged paraphrases."""
    rows = {row["id"]: row for _, row in read_json_lines(FOLDER / "honest.jsonl")}
    fields = ("id", "title", "description", "company", "location")
    posting_of = {key: Posting(**{name: row[name] for name in fields}) for key, row in rows.items()}
    cases = [Case(posting_of[key], text, row["set"]) for key, row in rows.items() for text in row["paraphrases"]]
    for where, row in read_json_lines(FOLDER / "damaged.jsonl"):
        paraphrase = rows[row["posting"]]["paraphrases"][row["paraphrase"] - 1]
        if paraphrase.count(row["old"]) != 1:
            raise ValueError(f"{where}: {row['old']!r} must stand once in the paraphrase.")
        text = paraphrase.replace(row["old"], row["new"])
        cases.append(Case(posting_of[row["posting"]], text, rows[row["posting"]]["set"], row["kind"], paraphrase))
    return cases


def list_reasons(case: Case, *, mode: str) -> list[str]:
    """Return why a case is refused: of a damaged text, only what its undamaged paraphrase is not refused for."""
    prompt = build_prompt(case.posting)
    found, before = (
        [f"{failure.check}: {failure.reason}" for failure in check_rewrite(case.posting, text, prompt, mode=mode)]
        for text in (case.text, case.undamaged or case.posting.description)
    )
    return [reason for reason in found if reason not in before]


def main() -> None:
    """Print acceptance and catches by mode and set, and catches by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="name honest texts refused and damaged ones not noticed")
    parser.add_argument("--mode", choices=MODES, help="only this mode")
    args = parser.parse_args()
    cases = load_cases()
    for mode in [args.mode] if args.mode else MODES:
        refused = {case: list_reasons(case, mode=mode) for case in cases}
        print(f"mode {mode!r}")
        for name in SETS:
            honest = [not refused[case] for case in cases if case.set == name and case.kind == "honest"]
            damaged = [bool(refused[case]) for case in cases if case.set == name and case.kind != "honest"]
            shares = [f"{sum(of)} of {len(of)} ({100 * sum(of) / len(of):.1f} %)" for of in (honest, damaged)]
            print(f"  {name}: honest pass {shares[0]}, damaged are caught {shares[1]}")
        kinds = defaultdict(list)
        for case in cases:
            if case.kind != "honest":
                kinds[case.kind].append(bool(refused[case]))
        print("  caught: " + ", ".join(f"{kind} {sum(caught)}/{len(caught)}" for kind, caught in sorted(kinds.items())))
        for case in cases if args.show else ():
            if (case.kind == "honest") == bool(refused[case]):
                print(f"  {case.posting.id} {case.kind}: {case.text}\n    {refused[case]}")


if __name__ == "__main__":
    main()
