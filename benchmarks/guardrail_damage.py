"""Ask the guardrails about real posts damaged in one place, kind by kind: what share is noticed.

    python -m benchmarks.guardrail_damage POSTS               counts by kind, both modes; five minutes
    python -m benchmarks.guardrail_damage POSTS --show 3      shows what was not noticed, three of each kind
    python -m benchmarks.guardrail_damage POSTS --half b      the half that next to nothing was developed on
    python -m benchmarks.guardrail_damage POSTS --honest      what the operators write, which should pass; ten minutes

POSTS are of Hacker News, in a form that `load_hackernews` reads. A post of its half (by a hash of its text) is damaged
in one place where a kind applies; a text counts as caught where it fails a guardrail that the post itself passes.
"""

import argparse
import calendar
import random
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ilqljax.cli import run_main
from ilqljax.hiring.edits.operators import ALL_OPERATORS, rewrite_posting
from ilqljax.hiring.guardrails import MODES, check_rewrite
from ilqljax.hiring.postings.hackernews import load_hackernews
from ilqljax.hiring.postings.posting import Posting, build_prompt, normalize_spaces

PERSON = r"(?:engineers?|developers?|designers?|scientists?|managers?|analysts?|programmers?|people|candidates?)"
TRAITS = (
    *("young", "old", "mature", "male", "female", "Christian", "Muslim", "white", "black", "American", "German"),
    *("single", "married", "childless", "able-bodied", "healthy", "straight", "handsome", "native English-speaking"),
)
PERKS = (
    r"(?:health|dental|vision|life|medical) insurance|401\(?k\)?(?: match(?:ing)?)?|stock options|pension|equity|PTO"
    r"|unlimited (?:PTO|vacation)|paid (?:time off|vacation|leave)|(?:parental|maternity) leave|gym membership"
    r"|free (?:lunch|food|meals|snacks|coffee|drinks)|catered (?:lunch(?:es)?|meals)|bonus(?:es)?|signing bonus"
    r"|relocation(?: assistance| help| package)?|flexible (?:hours|schedule)|(?:full )?benefits|commuter benefits"
    r"|sabbatical|training budget"
)
DAYS = list(calendar.day_name)
MONTHS = [month for month in calendar.month_name if month not in ("", "May")]
SWAPPED = {
    "degree swapped": {
        r"computer science": "mechanical engineering",
        r"bachelor['’]?s?\b": "master's",
        r"\bPh\.?D\b": "MBA",
        r"\bMaster['’]?s(?: degree)?": "bachelor's degree",
        r"\bBSc?\b": "MSc",
    },
    "weakened": {
        r"\bmust\b": "may",
        r"(?<!not )\brequired\b": "helpful",
        r"(?<!not )\bmandatory\b": "welcome",
        r"\byou (?:will )?need to\b": "you may",
        r"\bare required to\b": "may",
        r"\bat least (?=\d)": "about ",
        r"\bminimum of\b": "around",
    },
    "strengthened": {
        r"\b(?:is |are |would be )?a (?:big |huge |definite |strong )?(?:plus|bonus)\b": "is required",
        r"\bpreferred\b": "required",
        r"\bnice[- ]to[- ]haves?\b": "must have",
        r"\bpreferably\b": "necessarily",
        r"\bideally\b": "necessarily",
        r"\bbonus points (?:for|if)\b": "we require",
    },
    "time changed": {
        r"\bfull[- ]time\b": "part-time",
        r"\bpart[- ]time\b": "full-time",
        r"\bweekly\b": "monthly",
        r"\bmonthly\b": "yearly",
        r"\bdaily\b": "weekly",
        r"\bdays? (?:a|per) week\b": "days a month",
        r"\bevery (?:other )?week\b": "every month",
        r"\bper month\b": "per year",
        r"\bnights?\b(?! life)": "mornings",
        r"\bweekends?\b": "weekdays",
        **{rf"\b{a}s?\b": b for a, b in zip(DAYS, [*DAYS[1:], DAYS[0]], strict=True)},
    },
    "deadline changed": {
        rf"\bby(?= (?:the end of )?(?:{'|'.join(MONTHS)})\b)": "after",
        rf"\bbefore(?= (?:the end of )?(?:{'|'.join(MONTHS)})\b)": "after",
        rf"\bafter(?= (?:{'|'.join(MONTHS)})\b)": "before",
        rf"\buntil(?= (?:the end of )?(?:{'|'.join(MONTHS)})\b)": "after",
        **{rf"\b{a}\b": b for a, b in zip(MONTHS, [*MONTHS[1:], MONTHS[0]], strict=True)},
    },
    "level changed": {
        r"\bsenior\b": "junior",
        r"\bjunior\b": "senior",
        r"\bsr\.?(?= )": "junior",
        r"\bmid[- ]level\b": "senior",
        r"\bentry[- ]level\b": "senior",
        r"\bprincipal(?= engineer| dev)": "junior",
        r"\bintern(?:ship)?s?\b": "full employee",
        r"\blead (?=engineer|developer|designer)": "junior ",
    },
    "role changed": {
        r"\b(?:software )?engineer\b": "salesperson",
        r"\bdeveloper\b": "tester",
        r"\bdesigner\b": "analyst",
        r"\bdata scientist\b": "data clerk",
    },
    "place of work changed": {
        r"\bno remote\b": "remote",
        r"\bremote (?:is )?(?:ok(?:ay)?|possible|friendly|welcome)\b": "on-site only",
        r"\bon-?site(?: only)?\b": "remote",
        r"\bremote only\b": "on-site only",
    },
    "pay called otherwise": {
        r"\bcompetitive(?= (?:salar|pay|compensation|wages?|benefits|equity))": "reasonable",
        r"\b(?:generous|excellent|great)(?= (?:salar|pay|compensation|benefits|equity|perks))": "decent",
        r"\bmarket(?:-rate)? salary\b": "good salary",
        r"\bunlimited(?= (?:PTO|vacation|time off))": "some",
        r"\bfull (?=benefits|health|medical)": "some ",
    },
    "number changed": {
        r"\b\d+\+?(?= years)": "12",
        r"\$ ?\d{2,3}[kK]\b": "$47k",
        r"\b\d+ (?=employees|people|engineers)": "714 ",
    },
}
ENDS = "acme [at] mailbox [dot] io", "jobs (at) mailbox (dot) com", "hello at mailbox dot org"


class Damage(NamedTuple):
    """Hold a posting and a false rewrite of it; both have what was put at the end for it."""

    posting: Posting
    text: str


def damage_once(kind: str, posting: Posting, chance: random.Random) -> Damage | None:
    """Make one false change of a kind, or None where nothing of the post can be changed so."""
    text = posting.description
    if kind in SWAPPED:
        options = list(SWAPPED[kind].items())
        chance.shuffle(options)
        for pattern, new in options:
            flags = re.IGNORECASE if pattern.strip("\\b") not in (*DAYS, *MONTHS) else 0
            if found := re.search(pattern, text, flags):
                return Damage(posting, text[: found.start()] + match_case(new, found[0]) + text[found.end() :])
        return None
    if kind == "trait added":
        places = list(re.finditer(rf"\b{PERSON}\b", text, re.IGNORECASE))
        if not places:
            return None
        start, trait = chance.choice(places[:5]).start(), chance.choice(TRAITS)
        # "an engineer" would be refused for its article alone.
        head = re.sub(r"\b([Aa])n? $", lambda m: m[1] + ("n " if trait[0].lower() in "aeiou" else " "), text[:start])
        return None if trait.lower() in text.lower() else Damage(posting, f"{head}{trait} {text[start:]}")
    if kind == "perk lost":
        return drop_item(posting, rf"(?:{PERKS})", chance)
    if kind == "requirement dropped":
        sentences = split_sentences(text)
        wanted = [
            i
            for i, part in enumerate(sentences)
            if re.search(r"\b(?:must|required?|degree|years? of|experience (?:with|in)|knowledge of)\b", part, re.I)
            and 20 < len(part) < 200
            # Neither a heading, nor half a sentence, nor a number of years, which may go.
            and not re.search(r":\s*$|\b(?:e\.g|i\.e|etc)\.\s*$|\d\+? years", part)
        ]
        if not wanted:
            return None
        gone = chance.choice(wanted)
        return Damage(posting, "".join(part for i, part in enumerate(sentences) if i != gone))
    if kind == "address changed":
        end = chance.choice(ENDS)
        original = replace(posting, description=f"{text} Write to {end}.")
        return Damage(original, f"{text} Write to {end.replace('mailbox', 'letterbox')}.")
    raise ValueError(kind)


def drop_item(posting: Posting, item: str, chance: random.Random) -> Damage | None:
    """Drop one item of an enumeration: ", equity" or "equity, "."""
    text = posting.description
    found = [
        *re.finditer(rf",? and {item}(?=[.;!)\n])", text, re.IGNORECASE),
        *re.finditer(rf", {item}(?=[,.;!)\n])", text, re.IGNORECASE),
        *re.finditer(rf"(?<=[ (]){item}, (?=\w)", text, re.IGNORECASE),
    ]
    if not found:
        return None
    gone = chance.choice(found)
    name = re.search(item, gone[0], re.IGNORECASE)[0]
    if len(re.findall(re.escape(name), text, re.IGNORECASE)) > 1:  # said twice, it may be said once
        return None
    return Damage(posting, text[: gone.start()] + text[gone.end() :])


def split_sentences(text: str) -> list[str]:
    """Split a text after ends of sentences and lines; the parts joined are the text."""
    return re.findall(r".*?(?:[.!?](?=\s)\s+|\n+|$)", text, re.DOTALL)


def match_case(new: str, old: str) -> str:
    """Write a word as the one was written that it replaces."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[0].upper() + new[1:] if old[0].isupper() else new


KINDS = (*SWAPPED, "trait added", "perk lost", "requirement dropped", "address changed")


def list_half(postings: Sequence[Posting], half: str) -> list[Posting]:
    """Return half of the posts, "a" or "b"."""
    return [p for p in postings if (zlib.crc32(p.description.encode()) % 2 == 0) == (half == "a")]


def measure(
    postings: Sequence[Posting], kind: str, mode: str, most: int, on_missed: Callable[[Damage], None]
) -> Iterator[bool]:
    """Damage at most so many posts, and yield whether each is caught."""
    n = 0
    for posting in postings:
        chance = random.Random(f"{kind}{posting.description}")
        damaged = damage_once(kind, posting, chance)
        if damaged is None or normalize_spaces(damaged.text) == normalize_spaces(damaged.posting.description):
            continue
        caught = bool(check_rewrite(damaged.posting, damaged.text, build_prompt(damaged.posting), mode=mode))
        if not caught:
            on_missed(damaged)
        yield caught
        n += 1
        if n == most:
            return


def count_refused(postings: Sequence[Posting]) -> tuple[int, int]:
    """Return how many of all operators' edits fail a guardrail, and how many there are."""
    n_refused = n = 0
    for posting in postings:
        for _, text in rewrite_posting(posting, operators=tuple(ALL_OPERATORS)):
            n_refused += bool(check_rewrite(posting, text, build_prompt(posting)))
            n += 1
    return n_refused, n


def describe(damaged: Damage) -> str:
    """Show the damaged place with its surroundings."""
    old, new = (normalize_spaces(text) for text in (damaged.posting.description, damaged.text))
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return f"    {old[max(0, start - 70) : start + 70]!r}\n -> {new[max(0, start - 70) : start + 70]!r}"


def main() -> None:
    """Print the share caught by kind and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("posts", help="posts of Hacker News")
    parser.add_argument("--half", choices=("a", "b"), default="a", help="which half of the posts")
    parser.add_argument("--most", type=int, default=300, help="damaged texts a kind, at most")
    parser.add_argument("--mode", choices=MODES, help="only this mode")
    parser.add_argument("--kind", choices=KINDS, help="only this kind")
    parser.add_argument("--show", type=int, default=0, help="so many of each kind that are not caught")
    parser.add_argument("--honest", action="store_true", help="count the operators' edits of 2,000 posts instead")
    args = parser.parse_args()
    postings = list_half(load_hackernews(args.posts), args.half)
    if args.honest:
        n_refused, n = count_refused(postings[:2000])
        print(f"half {args.half!r}: {n_refused} of {n} honest edits are refused ({100 * n_refused / n:.2f} %)")
        return
    for mode in [args.mode] if args.mode else MODES:
        print(f"mode {mode!r}, half {args.half!r}")
        for kind in [args.kind] if args.kind else KINDS:
            missed: list[Damage] = []
            caught = list(measure(postings, kind, mode, args.most, missed.append))
            print(
                f"  {kind}: {sum(caught)} of {len(caught)} ({100 * sum(caught) / max(1, len(caught)):.1f} %)",
                flush=True,
            )
            for damaged in missed[: args.show]:
                print(describe(damaged))


if __name__ == "__main__":
    run_main(main)
