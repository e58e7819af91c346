"""The folder of a judgement, and what is kept there of one that was interrupted.

out_dir/
  results.json     when the judgement is done
  judgement.json   what it was made with
  unfinished/      until then: a judgement.json of its own, and what the judge has made so far (`keep_made`)
"""

import itertools
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ilqljax.data.files import check_checksum, make_folder, read_json, remove_tree, save_with_checksum
from ilqljax.training.runs import save_json

logger = logging.getLogger(__name__)

RESULTS, JUDGEMENT, UNFINISHED = "results.json", "judgement.json", "unfinished"
ADVICE = f"Delete the folder {UNFINISHED} to judge from the start."


def begin_judgement(out_dir: Path, made_with: Mapping[str, Any]) -> None:
    """Let a judge keep what it makes in a folder, and go on with what was kept there if it was made in the same way.

    What was made in another way is removed. Damaged files are a `UserError`.
    """
    folder = out_dir / UNFINISHED
    if differing := find_differing(folder, made_with):
        if (folder / JUDGEMENT).is_file():
            told = "%s was made with other values of %s: it is not used, and all is made again"
            logger.info(told, folder, ", ".join(differing))
        remove_tree(folder)
    elif kept := sorted(file.stem for file in folder.glob("*.json") if file.name != JUDGEMENT):
        logger.info("goes on with the judgement that was interrupted: what %s wrote is kept", ", ".join(kept))
    make_folder(folder)
    save_json(folder / JUDGEMENT, made_with)


def find_differing(folder: Path, made_with: Mapping[str, Any]) -> list[str]:
    """Name what an unfinished judgement was made with otherwise; a folder that says nothing differs in everything."""
    if not (folder / JUDGEMENT).is_file():
        return sorted(made_with)
    kept = read_json(folder / JUDGEMENT, advice=ADVICE)
    found, wanted = (_identify(one) for one in (kept, json.loads(json.dumps(made_with))))
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def _identify(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what changes nothing: the time, and the tokenizer's section, for a run has one tokenizer."""
    sections = {name: each for name, each in made_with.get("sections", {}).items() if name != "tokenizer"}
    return {name: each for name, each in made_with.items() if name != "time"} | {"sections": sections}


def choose_folder(run_dir: Path, made_with: Mapping[str, Any]) -> Path:
    """Return where a run's next judgement goes: beside those that there are, never over them.

    One that was interrupted and is made in the same way is gone on with.
    """
    for folder in (run_dir, *sorted((run_dir / "judged").glob("*"))):
        if not (folder / RESULTS).exists() and not find_differing(folder / UNFINISHED, made_with):
            return folder
    folders = itertools.chain([run_dir], (run_dir / "judged" / str(n) for n in itertools.count(2)))
    return next(folder for folder in folders if not any((folder / name).exists() for name in (RESULTS, UNFINISHED)))


def keep_made(out_dir: Path, name: str, make: Callable[[], Any], *, given: Any) -> Any:
    """Return what `make` makes, a JSON value, and keep it under a name until the judgement in the folder is done.

    What an interrupted judgement kept under that name is returned instead, if it was made of the same `given`, a JSON
    value too. Nothing is kept where no judgement has begun (`begin_judgement`). A damaged file is a `UserError`.
    """
    file = out_dir / UNFINISHED / f"{name}.json"
    if file.is_file():
        check_checksum(file)
        kept = read_json(file, advice=ADVICE)
        if kept["given"] == given:
            return kept["made"]
        logger.info("%s is of other data: it is not used", file)
    made = make()
    if file.parent.is_dir():
        save_with_checksum(file, json.dumps({"given": given, "made": made}) + "\n")
    return made
