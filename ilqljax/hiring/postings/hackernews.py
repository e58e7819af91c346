"""Read Hacker News "Who is hiring?" posts: raw JSONL, or the original project's prepared columns.

A raw line holds `id`, `month`, `text`, `locations` (a list of {location, address, country, ...}) and `remote`. The
post's location comes from `locations`, never from the text. Company and title are guessed from the first line where a
short and clear pattern allows it, else they stay empty. Texts may be as the API gives them (HTML) or already decoded.
A post without a word is left out, and how many there were is logged.
"""

import html
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html.entities import html5
from pathlib import Path
from typing import Any

from ilqljax.data.json_lines import read_field, read_fields, read_json_lines, read_objects
from ilqljax.errors import UserError
from ilqljax.hiring.postings.html import strip_html
from ilqljax.hiring.postings.posting import Posting, list_dataset, normalize_spaces, read_rows, require_rows
from ilqljax.hiring.word_files import load_words

logger = logging.getLogger(__name__)

RAW_KEYS = frozenset({"id", "text", "locations", "remote"})
ITEM_KEYS = frozenset({"id", "time", "type"})  # of the API's own items
POST_TYPES = ("comment", "job")
PREPARED_KEYS = frozenset({"q_value", "q_val", "cleaned_text", "technologies", "company"})
MAX_COMPANY_WORDS = 4
MIN_PLACE_POSTS = 3

_WORD = re.compile(r"[^\W_]")
# The API's own tags and characters.
_TAG = r"</?(?:p|pre|i|code)>"
_ENCODED = re.compile(rf"{_TAG}|&(?:#\d{{1,7}};|#[xX][0-9a-fA-F]{{1,6}};|(?P<name>[a-zA-Z][a-zA-Z0-9]{{1,31}};))")
_LINK = re.compile(r'<a href="(?P<address>[^"]*)"[^<>]*>(?P<shown>[^<]*)</a>')
_TYPED = re.compile(rf"(?!{_TAG})<|&(?!#)(?P<name>\w*;)?")

# The name ends before the first of these.
_COMPANY_END = re.compile(
    r"\s*\|\s*|\s+[-–—]+\s+|\s*\(|\s+(?:is|are)\s+(?:hiring|looking|seeking|expanding|growing)\b|,\s|:\s|\s+https?://",
    re.IGNORECASE,
)
_WORDS = {name: "|".join(words) for name, words in load_words("postings/hackernews.ini")["first line"].items()}
_TITLE = re.compile(
    rf"(?<![\w/-])(?:(?:{_WORDS['qualifier']})[ /]+){{0,3}}(?:{_WORDS['qualifier']})[ ]+(?:{_WORDS['role']})(?![\w-])|"
    r"(?<![\w/-])(?:CTO|Sysadmin)(?![\w-])",
    re.IGNORECASE,
)
_NOT_COMPANY = re.compile(rf"\b(?:{_WORDS['role']}|{_WORDS['not company']})\b", re.IGNORECASE)


def guess_company(text: str, *, places: Iterable[str] = ()) -> str:
    """Return the company that a post's first line starts with, or "" unless that is clear.

    The name is what stands before " | ", " - ", " (", ", ", ": ", a link or "is hiring", if it is one to four words,
    starts with a capital, digit or an inner dot, and is neither one of the post's places nor a role, a work form or a
    greeting.

    | first line                                   | company     |
    |----------------------------------------------|-------------|
    | "Factr | New York, NY | Python"              | "Factr"     |
    | "Fog Creek Software (NYC) is hiring"         | "Fog Creek Software" |
    | "San Francisco, CA | Famo.us" (its location) | ""          |
    | "Senior Python Engineers | MarketInvoice"    | ""          |
    """
    first_line = normalize_spaces(text.strip().split("\n", 1)[0])
    match = _COMPANY_END.search(first_line)
    if match is None or match.start() == 0:
        return ""
    name = first_line[: match.start()].strip("*•#-–—\"' ")
    is_short = 1 <= len(name.split()) <= MAX_COMPANY_WORDS and 2 <= len(name) <= 40
    is_name = is_short and (name[0].isupper() or name[0].isdigit() or re.search(r"\w\.\w", name))
    is_sentence = re.search(r"[.!?;] ", name)  # or more than the beginning of one
    is_place = name.casefold() in {place.casefold() for place in places if place}
    # "San Francisco, CA": a comma and a short capital code after the name mean that it is a place.
    has_state = re.match(r",\s*(?:[A-Z]{2}\b|[A-Z][a-z]+\s*[|\-–—])", first_line[match.start() :])
    return name if is_name and not (is_sentence or is_place or has_state or _NOT_COMPANY.search(name)) else ""


def guess_title(text: str) -> str:
    """Return the first common job title of the first line ("Senior Python Engineer"), or ""."""
    match = _TITLE.search(text.strip().split("\n", 1)[0])
    return normalize_spaces(match[0]) if match else ""


def decode_text(text: str) -> str:
    """Return a text of the API, which is HTML, as plain text; unchanged where nothing is encoded.

    A paragraph becomes a line, and a link, whose text the API cuts, its whole address. Only the API's own tags are read
    as such. A link alone does not make a text encoded: people type it, and the API would have encoded its slashes.

    "R&amp;D<p>Ask <i>us</i>" gives "R&D\\nAsk us".
    """
    if not any(match["name"] is None or match["name"] in html5 for match in _ENCODED.finditer(text)):
        return text
    lines = _TYPED.sub(_escape_typed, _LINK.sub(_write_link, text)).splitlines()
    return strip_html("<br>".join(lines))


def _escape_typed(match: re.Match[str]) -> str:
    # What only looks like a tag or a character stays: "List<T>", "P&L;".
    return match[0] if match["name"] in html5 else html.escape(match[0])


def _write_link(match: re.Match[str]) -> str:
    whole = match["address"].startswith(match["shown"].removesuffix("..."))
    return match["address"] if whole else f"{match['shown']} ({match['address']})"


def load_hackernews(path: str | Path) -> list[Posting]:
    """Load posts: raw JSONL, JSONL with the prepared columns, or a folder holding those as a Hugging Face dataset.

    Raw lines are also the API's own items (`by`, `id`, `kids`, `parent`, `text`, `time`, `type`), which say nothing of
    places; what is no post, deleted or null there is left out and counted.
    The original project's prepared columns are `text` (or `cleaned_text`), `location`, `company`, `title` and
    `technologies`. A row's number is its id. The columns `prompt` and `q_value` (`q_val`) hold the original's prompt
    and score, which are made again here. A `UserError` if there is no post with a word.
    """
    if Path(path).is_dir():
        rows, is_prepared = list_dataset(Path(path)), True
    else:
        rows = read_json_lines(path, take_null=True)
        keys = next((row.keys() for _, row in read_json_lines(path, take_null=True) if row), set())
        if keys >= ITEM_KEYS:
            rows = _select_posts(list(rows), path)
        is_prepared = RAW_KEYS.isdisjoint(keys - {"text"}) and not PREPARED_KEYS.isdisjoint(keys)
    if is_prepared:
        rows = ((where, {**row, "id": str(number)}) for number, (where, row) in enumerate(rows))
    name = "post with a word"
    posts = read_rows(rows, _read_prepared if is_prepared else _read_raw, name=name, path=path)
    postings = require_rows([p for p in posts if _WORD.search(p.description)], name=name, path=path)
    if len(postings) < len(posts):
        logger.warning("%s: %d posts without a word are left out", path, len(posts) - len(postings))
    if is_prepared:
        return postings
    # A post may start with another of its cities than the one that `locations` holds.
    counts = Counter(part.strip().casefold() for p in postings for part in {p.location, p.location.split(",")[0]})
    return [
        replace(p, company="") if p.company and counts[p.company.casefold()] >= MIN_PLACE_POSTS else p for p in postings
    ]


def _select_posts(
    items: Sequence[tuple[str, Mapping[str, Any]]], path: str | Path
) -> list[tuple[str, Mapping[str, Any]]]:
    posts = [
        (where, {"id": row.get("id"), "text": row["text"], "locations": []})
        for where, row in items
        if row.get("type") in POST_TYPES and row.get("text") and not (row.get("deleted") or row.get("dead"))
    ]
    if len(posts) < len(items):
        n = len(items) - len(posts)
        logger.warning("%s: %d items that are null, deleted or no post are left out", path, n)
    return posts


def _read_raw(row: Mapping[str, Any], *, where: str) -> Posting:
    values = read_fields(row, {"text": str, "id": str, "remote": False}, where=where)
    text = decode_text(values["text"])
    places = read_objects(row, "locations", where=where)
    names = [read_field(place, "location", kind=str, where=where, default="") for place in places]
    return Posting(
        id=values["id"],
        title=guess_title(text),
        description=_normalize_lines(text),
        company=guess_company(text, places=names),
        location=names[0] if names else "",
        country_code=read_field(places[0], "country", kind=str, where=where, default="") if places else "",
        remote=values["remote"],
    )


def _read_prepared(row: Mapping[str, Any], *, where: str) -> Posting:
    column = "text" if row.get("text") is not None else "cleaned_text"
    names = {"title": "title", "company": "company", "location": "location", "requirements": "technologies"}
    return Posting(
        id=row["id"],
        description=_normalize_lines(decode_text(read_field(row, column, kind=str, where=where))),
        **{field: decode_text(_join(row.get(name), name=name, where=where)) for field, name in names.items()},
    )


def _join(value: Any, *, name: str, where: str) -> str:
    """Return a column that is text, a list of texts, or absent, as one text."""
    parts = [value or ""] if isinstance(value, str | None) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{where}: the column '{name}' must be text or a list of texts, got {value!r:.60}.")
    return ", ".join(part.strip() for part in parts if part.strip())


def _normalize_lines(text: str) -> str:
    """Normalise the spaces of each line and drop empty lines; line breaks stay, as sentence boundaries."""
    return "\n".join(line for line in map(normalize_spaces, text.splitlines()) if line)
