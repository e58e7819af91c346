"""Hold the gender-coded word lists that the sample, the rewriting operators and the guardrails share.

The lists follow the idea of Gaucher, Friesen and Kay (2011, "Evidence that gendered wording in job advertisements
exists and sustains gender inequality"): adjectives that readers associate with men or with women although they say
little about the work. Each row is an aligned triple, (masculine-coded, neutral, feminine-coded), so that any word has
a counterpart of each kind in the same grammatical place.
"""

import re

CODES = ("masculine", "neutral", "feminine")

# The adjectives of the built-in sample. They may be exchanged in every direction.
SAMPLE_TRIPLES = (
    ("aggressive", "capable", "supportive"),
    ("competitive", "versatile", "collaborative"),
    ("dominant", "steady", "caring"),
    ("decisive", "careful", "considerate"),
    ("fearless", "skilled", "loyal"),
    ("driven", "focused", "cooperative"),
    ("ambitious", "practical", "thoughtful"),
    ("assertive", "organized", "warm"),
)

# More words of real postings. Their neutral column is too ordinary a word to be a source: it is only ever a result.
REAL_TEXT_TRIPLES = (
    ("aggressively", "actively", "supportively"),
    ("decisively", "promptly", "considerately"),
    ("fearlessly", "calmly", "warmly"),
    ("ambitiously", "steadily", "thoughtfully"),
    ("assertively", "plainly", "cooperatively"),
    ("competitively", "well", "collaboratively"),
    ("adventurous", "curious", "cheerful"),
    ("confident", "calm", "compassionate"),
    ("determined", "diligent", "committed"),
    ("courageous", "thorough", "empathetic"),
    ("ruthless", "rigorous", "gentle"),
    ("outspoken", "direct", "sympathetic"),
    ("superior", "good", "nurturing"),
    ("headstrong", "persistent", "trustworthy"),
)

# What follows or precedes a word and shows that it does not describe a person or a team.
_NOT_BEFORE = {
    "aggressive": r"growth|pricing|timelines?|schedules?",
    "competitive": r"salary|salaries|pay|compensation|comp|benefits?|packages?|equity|wages?|rates?|stock|base|"
    r"market|markets|advantages?|intelligence|analysis|landscape|programming|and|with|bonus|remuneration|options|cash|edge",
    "competitively": r"paid|priced",
    "dominant": r"player|position|market|platform",
    "committed": r"to",
    "confident": r"that|in|you",
    "determined": r"by|to|based|on",
    "driven": r"by|to|development|design|architecture|from|with",
    "focused": r"on|around",
    "organized": r"by|into|around|in",
    "skilled": r"in|with|at",
    "warm": r"up|weather|climate|intro|introductions?|leads?",
    "careful": r"about|with|of",
    "caring": r"about|for",
}
_NOT_AFTER = {
    "driven": ("test", "data", "event", "behavior", "domain", "product", "customer", "mission", "results"),
    "competitive": ("highly", "very"),
}


def make_replacements(code: str) -> dict[str, str]:
    """Map every lower-case source word to its counterpart of one code ("masculine", "neutral" or "feminine")."""
    column = CODES.index(code)
    mapping = {}
    for triples, sources in ((SAMPLE_TRIPLES, (0, 1, 2)), (REAL_TEXT_TRIPLES, (0, 2))):
        for triple in triples:
            for source in sources:
                if source != column:
                    mapping.setdefault(triple[source], triple[column])
    return mapping


def _make_pattern() -> re.Pattern[str]:
    words = [w for triple in SAMPLE_TRIPLES for w in triple] + [t[c] for t in REAL_TEXT_TRIPLES for c in (0, 2)]
    alternatives = []
    for word in dict.fromkeys(words):
        before = "".join(rf"(?<!\b{prefix}[ ])" for prefix in _NOT_AFTER.get(word, ()))
        after = rf"(?!\s+(?:{_NOT_BEFORE[word]})\b)" if word in _NOT_BEFORE else ""
        alternatives.append(f"{before}{word}{after}")
    # A hyphen, an "@", a slash or a dot on either side means a compound, an address or a name, not the plain adjective.
    return re.compile(rf"(?<![\w@/.\-])(?:{'|'.join(alternatives)})(?![\w@/\-])(?!\.\w)", re.IGNORECASE)


CODED_WORD = _make_pattern()
CODE_OF_WORD = {
    **{t[c]: CODES[c] for t in REAL_TEXT_TRIPLES for c in (0, 2)},
    **{t[c]: CODES[c] for t in SAMPLE_TRIPLES for c in (0, 1, 2)},
}
CODED_VOCABULARY = frozenset(w for triple in SAMPLE_TRIPLES + REAL_TEXT_TRIPLES for w in triple)
