"""Draw the README's two pictures.

    python -m ilqljax.train --config configs/workable.py --config.run_dir=runs/pictures
    ilqljax audit --sample --out report
    python scripts/make_pictures.py --run runs/pictures --audit report

gains.svg: each policy's gain over echo with its 95 % interval, guarded and not, of a run's results.json.
audit.png: impact ratios with their 95 % intervals beside what chance gives, of an audit's audit.json.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.figure import Figure

from ilqljax.data.drawings import ALARM, BLUE, FAINT, ORANGE, STYLE
from ilqljax.data.files import read_json

ADVICE = "Give the folder that the command wrote."
TITLES = {"shortlisting": "Shortlisted", "selection": "Selected", "scoring": "Scored above the median"}
CHANCE = "#d5d9de"
PLAIN = {
    "svg.hashsalt": "ilqljax",  # equal bytes for equal numbers
    "font.size": 11,
    "legend.fontsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.left": False,
}


def draw_gains(results: list[dict[str, Any]]) -> Figure:
    """Draw the gains over echo of a run's policies, a row each."""
    rows = [row for row in results if row["policy"] != "echo"]
    figure = Figure(figsize=(7.2, 0.55 * len(rows) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    kinds = {"difference": ("gain", "o", BLUE), "guarded_difference": ("guarded gain", "D", ORANGE)}
    for shift, (name, (label, marker, colour)) in zip((-0.15, 0.15), kinds.items(), strict=True):
        values = [row[name] for row in rows]
        errors = [[row[name] - row[f"{name}_low"] for row in rows], [row[f"{name}_high"] - row[name] for row in rows]]
        y = [i + shift for i in range(len(rows))]
        axes.errorbar(values, y, xerr=errors, fmt=marker, color=colour, capsize=4, label=label)
    axes.axvline(0.0, color=FAINT, linewidth=1)
    axes.set_yticks(range(len(rows)), [row["policy"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"gain in the score over echo, {rows[0]['n_postings']} held-out postings, 95 % intervals")
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def draw_ratios(audit: dict[str, Any]) -> Figure:
    """Draw the impact ratios of every attribute that is audited by itself, a panel a rate."""
    sections = [section for section in audit["attributes"] if len(section["columns"]) == 1]
    measures = list(sections[0]["rates"][audit["phases"][0]])
    n_rows = sum(len(section["parts"]) for section in sections)
    figure = Figure(figsize=(9.6, 0.36 * n_rows + 1.5), layout="constrained", dpi=120)
    for axes, measure in zip(figure.subplots(1, len(measures), sharey=True, sharex=True), measures, strict=True):
        rows = [row for s in sections for row in s["rates"][audit["phases"][0]][measure]["rows"]]
        for y, row in enumerate(rows):
            ratio, low, high = (row[name] for name in ("impact_ratio", "ratio_low", "ratio_high"))
            if ratio is None:
                continue
            axes.barh(y, row["null_ratio_high"] - row["null_ratio_low"], 0.7, row["null_ratio_low"], color=CHANCE)
            error = None if low is None else [[ratio - low], [high - ratio]]
            axes.errorbar([ratio], [y], xerr=error, fmt="o", color=BLUE, capsize=4)
        axes.axvline(0.8, color=ALARM, linewidth=1, dashes=(5, 3))
        axes.axvline(1.0, color=FAINT, linewidth=1)
        axes.set_title(TITLES[measure], fontsize=11)
    names = [f"{section['name']}: {category}" for section in sections for category in section["parts"]]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    ends = [row["ratio_low"] for s in sections for t in s["rates"][audit["phases"][0]].values() for row in t["rows"]]
    axes.set_xlim(left=math.floor(10 * min([0.8, *(end for end in ends if end is not None)]) - 0.5) / 10)
    figure.supxlabel(
        "impact ratio: a category's rate over the highest rate, 95 % intervals; grey: by chance; dashed: four fifths",
        fontsize=10,
    )
    return figure


def main() -> None:
    """Draw both pictures into --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="folder of a run of configs/workable.py")
    parser.add_argument("--audit", required=True, help="folder that `ilqljax audit --sample` wrote")
    parser.add_argument("--out", default="docs/img", help="folder for the pictures")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context([*STYLE, PLAIN]):
        gains = draw_gains(read_json(Path(args.run) / "results.json", advice=ADVICE, kind=list))
        gains.savefig(out / "gains.svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        draw_ratios(read_json(Path(args.audit) / "audit.json", advice=ADVICE)).savefig(
            out / "audit.png", metadata={"Software": None}
        )


if __name__ == "__main__":
    main()
