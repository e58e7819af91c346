"""What a judgement of rewrites adds to the page of a run: gains under each matcher, and five rewrites.

The words, and how the five are chosen, stand in `templates/rewrites.html.j2`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from ilqljax.data.drawings import draw_intervals
from ilqljax.data.pages import render_page
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.evaluation.summary import COPIES, Policies, Row, show_interval

GAINS = {"gain": "difference", "guarded gain": "guarded_difference"}  # the page's words for a row's


def render_sections(policies: Policies, rows: Sequence[Row]) -> Markup:
    """Return the sections as HTML; the rows are those of `summarize_evaluations`."""
    held_out = rows[0].get("held_out_matcher", "")
    names = GAINS | ({f"held-out {word}": f"held_out_{name}" for word, name in GAINS.items()} if held_out else {})
    drawn = {
        row["policy"]: {word: (row[name], row[f"{name}_low"], row[f"{name}_high"]) for word, name in names.items()}
        for row in rows
        if row["policy"] != COPIES
    }
    shown = [name for name in policies if " best of " not in name][-1]  # no matcher has chosen its rewrites
    values = {"names": names, "rows": rows, "held_out": held_out, "shown": shown, "rewrites": policies[shown]}
    values |= {"drawing": draw_intervals(drawn, title="Gains over echo"), "chosen": choose_rewrites(policies[shown])}
    values |= {"show_interval": show_interval, "diff_words": diff_words, "count_members": count_members}
    return Markup(render_page(__package__, "rewrites.html.j2", **values))  # every text in it is escaped


def choose_rewrites(rewrites: Sequence[Rewrite]) -> list[tuple[str, Rewrite]]:
    """Choose up to five different rewrites by their gain under the matcher of training, each with the reason why."""
    order = sorted(rewrites, key=lambda rewrite: -rewrite.gain)
    wanted = {
        "Largest gain": order,
        "Median gain": order[len(order) // 2 :],
        "Smallest gain": order[::-1],
        "Fails a guardrail": [rewrite for rewrite in order if rewrite.failed_checks],
        "First of the rest": rewrites,
    }
    chosen: dict[str, tuple[str, Rewrite]] = {}
    for why, among in wanted.items():
        for rewrite in [each for each in among if each.posting_id not in chosen][:1]:
            chosen[rewrite.posting_id] = (why, rewrite)
    return list(chosen.values())


def count_members(rewrite: Rewrite) -> Iterator[tuple[str, str, int, int]]:
    """Yield attribute, category ("" is unknown, and last), and how many shortlisted have it before and after."""
    for name in rewrite.before.attributes:
        before, after = (Counter(shortlist.attributes[name]) for shortlist in (rewrite.before, rewrite.after))
        for category in sorted(before | after, key=lambda category: (not category, category)):
            yield name, category, before[category], after[category]
