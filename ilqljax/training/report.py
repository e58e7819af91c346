"""Write `report.html`, one page that shows a run and how it was judged, and that loads nothing.

It is made of the run folder's files, of the judgement's table, and of what the task's evaluator adds
(`evaluation.Judge`). Which metrics and options it shows is said in `templates/report.html.j2`.
"""

import json
import os
import platform
import shlex
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from ilqljax.config.files import diff_overrides, load_config_json
from ilqljax.data.drawings import draw_curves
from ilqljax.data.files import read_json, save_text
from ilqljax.data.json_lines import LARGEST_FLOAT32
from ilqljax.data.pages import render_page
from ilqljax.training.run_config import RunConfig
from ilqljax.training.runs import COMMAND

PACKAGES = ("ilqljax", "jax", "jaxlib", "flax", "optax", "numpy", "transformers")


def save_report(
    out_dir: Path, config: RunConfig, *, run_dir: Path, policies: Mapping[str, bool], table: str, sections: Markup
) -> None:
    """Write the page of a judgement beside its results, whole or not at all.

    The `policies` of the run say whether they have a critic; `sections` are what the task's evaluator adds.
    """
    overrides, command = run_dir / "overrides.json", run_dir / COMMAND
    advice = "Restore the file that training wrote."
    page = render_page(
        __package__,
        "report.html.j2",
        config=config,
        saved=diff_overrides({}, load_config_json(run_dir / "config.json")),
        overrides=read_json(overrides, advice=advice) if overrides.is_file() else {},
        command=command.read_text(encoding="utf-8") if command.is_file() else "",
        versions={"Python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        machine=f"{platform.platform()}, {os.cpu_count()} cores",
        run_dir=run_dir,
        out_dir=out_dir,
        elsewhere=out_dir.resolve() != run_dir.resolve(),
        curves={name: read_curves(run_dir / "metrics" / name / "metrics.jsonl") for name in policies},
        draw=draw_curves,
        has_critic=any(policies.values()),
        table=table,
        sections=sections,
        link=lambda path: quote(Path(os.path.relpath(path, out_dir)).as_posix()),
        quote=lambda word: shlex.quote(str(word)),
    )
    save_text(out_dir / "report.html", page)


def read_curves(file: Path) -> dict[str, dict[int, float]]:
    """Return a stage's metrics by name and step, those that are finite; lines that are no record are left out."""
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # cut off, when the run was killed
            continue
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            continue
        for name in record.keys() - {"step"}:
            if type(record[name]) in (int, float) and abs(record[name]) <= LARGEST_FLOAT32:
                curves[name][record["step"]] = record[name]
    return curves
