"""Files of one JSON object a line: read with the place of every mistake, written whole."""

import difflib
import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ilqljax.data.files import parse_json, read_bounded_lines, replace_half_characters, save_text
from ilqljax.errors import UserError

ADVICE = 'Each line must be one JSON object such as {"id": ...}, complete and UTF-8 (iconv -t UTF-8 converts a file).'
LARGEST_FLOAT32 = (2.0 - 2.0**-23) * 2.0**127
MISSPELT = 0.85  # how alike (`difflib`) an unknown field's name is to one that the line lacks
NOUNS = {str: "text", bool: "true or false", dict: "an object", list: "a list", int: "a whole number"}


def read_json_lines(path: str | Path, *, take_null: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `("path:line", object)` of a JSONL file, gzipped when its name ends in `.gz`; blank lines are skipped.

    `take_null` takes a line that is `null`, as an API gives it for what is gone, for an object without fields.
    Half of a surrogate pair, which is not a character and cannot be written again, is read as U+FFFD. A file that is
    missing or cut off, and a line that is too long or not a JSON object in UTF-8, are a `UserError`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a .jsonl or .jsonl.gz file of one JSON object a line.")
    number = 0
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, raw in read_bounded_lines(lines, path):
                if take_null and raw.strip() == b"null":
                    yield f"{path}:{number}", {}
                elif raw.strip():
                    row = parse_json(raw.rstrip(), path, line=number, advice=ADVICE)
                    yield f"{path}:{number}", replace_half_characters(row) if b"\\ud" in raw.lower() else row
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path}:{number + 1}: not a complete gzip file ({error}). Copy the file again.") from error


def read_field(row: Mapping[str, Any], name: str, *, kind: type, where: str, default: Any = ...) -> Any:
    """Return `row[name]` if it has the expected type, or `default` (when given) if it is absent or null.

    A required field that is missing, or one of another type, is a `UserError`.
    """
    value = row.get(name)
    if value is None:
        if default is ...:
            raise UserError(f"{where}: the field '{name}' is missing; this line has {sorted(row)}. Add or rename it.")
        return default
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # ids are often numbers
    if kind is float and type(value) in (int, float) and abs(value) <= LARGEST_FLOAT32:
        return float(value)
    if kind is float or not isinstance(value, kind):
        noun = NOUNS.get(kind, "a finite number")
        raise UserError(f"{where}: the field '{name}' must be {noun}, got {json.dumps(value)[:60]}.")
    return value


def read_fields(row: Mapping[str, Any], schema: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the fields of a schema (`read_field`): it gives the type of a required one, and the default of another."""
    fields = {}
    for name, wanted in schema.items():
        kind, default = (wanted, ...) if isinstance(wanted, type) else (type(wanted), wanted)
        fields[name] = read_field(row, name, kind=kind, where=where, default=default)
    return fields


def check_spelling(row: Mapping[str, Any], known: Collection[str], *, where: str) -> None:
    """Refuse a field whose name is all but that of a known one, which the line lacks; other unknown ones are ignored.

    Without it, a line that holds "atributes" would have none, and nobody would be told.
    """
    missing = [name for name in known if name not in row]
    for name in row.keys() - set(known):
        if close := difflib.get_close_matches(name.casefold(), missing, n=1, cutoff=MISSPELT):
            raise UserError(f"{where}: the field '{name}' is unknown. Did you mean '{close[0]}'? Rename or remove it.")


def read_objects(row: Mapping[str, Any], name: str, *, where: str, default: Any = ...) -> list[Mapping[str, Any]]:
    """Return `row[name]` if it is a list of objects, as `read_field` does."""
    values = read_field(row, name, kind=list, where=where, default=default)
    for value in values:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: '{name}' must list objects such as {{\"name\": ...}}, got {value!r:.60}.")
    return values


def save_json_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    save_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
