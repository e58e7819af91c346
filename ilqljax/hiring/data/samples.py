"""Rewrites of a policy as offline data: a JSON Lines file that one run writes and the next one's data may name.

    {"posting_id": "job-0007", "text": "Blue Oak needs a kind nurse.", "source": "bc"}

Operators (`edits.operators`) know what they change; a clone's samples mix their edits, and show the critic what a
policy really writes, damaged texts included. `ilqljax data sample` writes such a file.
"""

from collections.abc import Collection, Iterable
from pathlib import Path

from ilqljax.data.json_lines import read_json_lines, save_json_lines
from ilqljax.errors import UserError
from ilqljax.hiring.edits.operators import ALL_OPERATORS
from ilqljax.hiring.postings.posting import normalize_spaces


def save_samples(path: str | Path, samples: Iterable[tuple[str, str]], *, source: str) -> int:
    """Write (posting id, text) pairs, whole or not at all; empty and repeated texts are left out.

    Returns:
        How many were written.
    """
    distinct = dict.fromkeys((posting_id, normalize_spaces(text)) for posting_id, text in samples)
    rows = [{"posting_id": posting_id, "text": text, "source": source} for posting_id, text in distinct if text]
    save_json_lines(path, rows)
    return len(rows)


def load_samples(path: str | Path, *, train_ids: Collection[str]) -> dict[str, list[tuple[str, str]]]:
    """Read (source, text) pairs by posting id, without repeated texts.

    Raises:
        UserError: a line lacks a field, has an empty text, is named like an operator, or belongs to no training
            posting: data of held-out postings may not be added.
    """
    known = frozenset(train_ids)
    samples: dict[str, dict[str, str]] = {}
    for number, row in read_json_lines(path):
        where = f"{path}:{number}"
        for name in ("posting_id", "text", "source"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise UserError(f"{where}: '{name}' is {row.get(name)!r}. Give a string that is not empty.")
        posting_id, source = row["posting_id"], row["source"]
        if source in ALL_OPERATORS:
            raise UserError(f"{where}: 'source' is {source!r}, the name of an operator. Choose another name.")
        if posting_id not in known:
            raise UserError(
                f"{where}: {posting_id!r} is not in the training split. Sample from a run of the same data, seed and "
                "splits; rewrites of held-out postings may not be trained on."
            )
        samples.setdefault(posting_id, {}).setdefault(normalize_spaces(row["text"]), source)
    return {posting_id: [(s, text) for text, s in found.items()] for posting_id, found in samples.items()}
