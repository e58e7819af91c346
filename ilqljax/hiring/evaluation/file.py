"""Read and write an evaluation file: JSONL, one `record.Rewrite` a line.

Several policies may share a file, and each posting occurs once a policy.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ilqljax.data.files import check_checksum, read_bounded_lines, replace_half_characters, save_with_checksum
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.record import Rewrite

EVALUATION_FILE = "evaluation.jsonl"


def save_evaluations(path: str | Path, policies: Mapping[str, Sequence[Rewrite]]) -> None:
    """Write an evaluation file and its checksum, whole or not at all."""
    lines = [json.dumps(row.to_json(), ensure_ascii=False) for rows in policies.values() for row in rows]
    save_with_checksum(path, "".join(f"{line}\n" for line in lines))


def load_evaluations(path: str | Path) -> dict[str, list[Rewrite]]:
    """Load an evaluation, a file or the folder that holds it: each policy's rewrites, in the order of the file.

    Raises:
        UserError: the file is missing, empty or not the one its checksum is of, a line is malformed, lacks a key, or
        repeats a posting of its policy, or the policies were not judged on the same postings.
    """
    path = Path(path)
    if path.is_dir():
        path /= EVALUATION_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give the folder of a run, or of `ilqljax evaluate --out`.")
    check_checksum(path)
    policies: dict[str, list[Rewrite]] = {}
    places: dict[tuple[str, str], str] = {}
    with path.open("rb") as lines:
        for number, line in read_bounded_lines(lines, path):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            rewrite = Rewrite.from_json(_parse_line(line, where=where), where=where)
            key = (rewrite.policy, rewrite.posting_id)
            if key in places:
                raise UserError(
                    f"{where}: policy '{key[0]}' already has posting '{key[1]}' at {places[key]}. "
                    "Each posting is evaluated once; delete one of the lines."
                )
            places[key] = where
            policies.setdefault(rewrite.policy, []).append(rewrite)
    if not policies:
        raise UserError(f"{path}: holds no evaluation. Write it with `ilqljax evaluate`.")
    (first, whole), *others = ((name, {row.posting_id for row in rows}) for name, rows in policies.items())
    for name, judged in others:
        if judged != whole:
            raise UserError(
                f"{path}: policy '{name}' has {len(judged)} postings and '{first}' has {len(whole)}, which are not the "
                "same ones. Is the file complete? Write it again with `ilqljax evaluate`."
            )
    return policies


def _parse_line(line: bytes, *, where: str) -> Any:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON at column {error.colno} ({error.msg}). Is the file complete?") from error
    except (RecursionError, ValueError) as error:  # brackets or digits by the thousand
        raise UserError(f"{where}: not JSON that we can read ({error}). Is the file complete?") from error
    return replace_half_characters(row) if b"\\ud" in line.lower() else row
