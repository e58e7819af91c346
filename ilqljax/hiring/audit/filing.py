"""Say what an audit is an audit of, for whoever files it: when, with what, of which files, by whom, without whom.

What no file says, such as the employer, is taken from the command line as it is given. Who is left out of which number,
and why, follows from the audit itself.
"""

import argparse
import importlib.metadata
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ilqljax.data.files import hash_file, hash_text
from ilqljax.errors import UserError
from ilqljax.hiring.audit.rates import MIN_PEOPLE, Mark
from ilqljax.hiring.audit.tables import RATE_NAMES, name_rows, say_share

STATED = {  # an option, what the page calls it, and its help
    "employer": ("Employer", "whose decisions these are, as the page shall name it"),
    "tool": ("Tool", "the audited tool, with its version"),
    "auditor": ("Auditor", "who makes this audit"),
    "period": ("Data period", "from when to when the decisions are"),
    "data_source": ("Data source", "where the data are from, and which they are"),
    "left_out": ("Left out before", "who was taken out of the data beforehand, and why"),
}
Exclusion = tuple[str, str, str]  # attribute, who with numbers of people, why


def add_filing_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the page says of the audit and cannot know."""
    for name, (_, text) in STATED.items():
        parser.add_argument(f"--{name}", default="", help=f"for the page: {text}")
    parser.add_argument("--date", default="", help="for the page: the audit's date, as 2026-11-30; today's if left out")


def read_filing(args: argparse.Namespace, paths: Sequence[str]) -> dict[str, Any]:
    """Return what is said of the audit, with the date, the version, and each file or folder's SHA-256.

    A folder's is that of its files' lines "SHA-256  path", sorted by path, as `sha256sum` prints them. A date that is
    none raises a `UserError`.
    """
    try:
        day = date.fromisoformat(args.date) if args.date else datetime.now(UTC).date()
    except ValueError:
        raise UserError(f"--date {args.date}: is no date. Write year, month and day, as 2026-11-30.") from None
    return {
        "date": day.isoformat(),
        "version": read_version(),
        **{name: getattr(args, name) for name in STATED},
        "inputs": [{"path": path, "sha256": hash_input(Path(path))} for path in paths],
    }


def hash_input(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files; "" of what is neither, which its reader refuses."""
    if path.is_dir():
        files = {part.relative_to(path).as_posix(): part for part in path.rglob("*") if part.is_file()}
        return hash_text("".join(f"{hash_file(files[name])}  {name}\n" for name in sorted(files)))
    return hash_file(path) if path.is_file() else ""


def describe_filing(filing: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is said of the audit as names and values; the last one names what nobody said."""
    missing = [name for name in STATED if not filing[name] and name != "left_out"]
    return [
        *((title, filing[name]) for name, (title, _) in STATED.items() if filing[name]),
        *describe_making(filing["date"], filing["version"]),
        *((f"SHA-256 of {of['path']}", of["sha256"]) for of in filing["inputs"]),
        *([("Not stated", ", ".join(STATED[name][0].lower() for name in missing))] if missing else []),
    ]


def describe_making(day: str = "", version: str = "") -> list[tuple[str, str]]:
    """Return when and with which version an audit was made, today and with this one if they are left out."""
    day = day or datetime.now(UTC).date().isoformat()
    return [("Date of the audit", day), ("Made with", f"ilqljax {version or read_version()}")]


def read_version() -> str:
    """Return this package's version."""
    return importlib.metadata.version("ilqljax")


def list_exclusions(audit: Mapping[str, Any]) -> list[Exclusion]:
    """Return who is left out of which number and why, of the first phase: an attribute, who, and the reason."""
    phase, found = audit["phases"][0], []
    for section in audit["attributes"]:
        tables = section["rates"][phase]
        for measure, table in tables.items():
            of = f" ({RATE_NAMES[measure].lower()})" if len(tables) > 1 else ""
            few = [row for row in table["rows"] if row["mark"] == Mark.INSUFFICIENT and row["n_people"] < MIN_PEOPLE]
            small = [row for row in table["rows"] if row["mark"] == Mark.EXCLUDED]
            parts = [(small, f"{say_share(table)}: in no ratio"), (few, f"fewer than {MIN_PEOPLE} people: not judged")]
            if table["unknown"].get("n_people"):
                parts.insert(0, ([{"category": "Unknown", **table["unknown"]}], "no category declared: in no rate"))
            found += [(section["name"], name_rows(rows), f"{why}{of}") for rows, why in parts if rows]
        if section["n_hidden"]:
            found.append((section["name"], f"{section['n_hidden']} categories", "few people: hidden, to protect them"))
    return found
