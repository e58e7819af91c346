"""Which code the words of a text are of, for tests of what is written."""

from ilqljax.hiring.edits.coded_words import BUILT_IN, CODES, REAL_TEXT_TRIPLES, SAMPLE_TRIPLES

CODE_OF_WORD = {
    **{t[c]: CODES[c] for t in REAL_TEXT_TRIPLES for c in (0, 2)},
    **{t[c]: CODES[c] for t in SAMPLE_TRIPLES for c in (0, 1, 2)},
}


def classify_wording(text: str) -> str:
    """Return the code that most coded words of a text have, "mixed" on a tie, "" where there is none."""
    codes = [CODE_OF_WORD[match[0].lower()] for match in BUILT_IN.pattern.finditer(text)]
    counts = {code: codes.count(code) for code in dict.fromkeys(codes)}
    most = [code for code, n in counts.items() if n == max(counts.values())]
    return most[0] if len(most) == 1 else "mixed" if most else ""
