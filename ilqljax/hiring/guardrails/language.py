"""Tell the language of a text, surely enough to notice that a rewrite is in another one.

`py3langid` (a naive Bayes model over byte n-grams, shipped with the package) judges; a text with few letters, or one
that it is not sure of, has no language here and is not judged. The two limits were set on the 67,191 sentences of the
6,000 real posts, of which 6 pass for another language (5 are Spanish or German, one is a Polish address), and on 128
plain sentences in eight languages, of which 121 are noticed.
"""

from functools import cache, lru_cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from ilqljax.hiring.guardrails.findings import Failure, blank_links, list_sentences
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

MIN_LETTERS, MIN_PROBABILITY = 16, 0.9
# The model knows more, but every language that a posting is never in makes it less sure of the others.
LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hu": "Hungarian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}


@cache
def _load_identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


@lru_cache(maxsize=16384)
def detect_language(text: str) -> str:
    """Return a language of `LANGUAGES`, or "" where the text is too short or too mixed to tell.

    "Wir suchen eine Pflegekraft für unser Team in Bonn." is German; "Python, Java, SQL" is nothing.
    """
    text = normalize_spaces(blank_links(text))
    if sum(map(str.isalpha, text)) < MIN_LETTERS:
        return ""
    code, probability = _load_identifier().classify(text)
    return LANGUAGES[code] if probability >= MIN_PROBABILITY else ""


@lru_cache(maxsize=4096)
def _list_languages(text: str) -> frozenset[str]:
    parts = [text, *(sentence for sentence, _ in list_sentences(text))]
    return frozenset(map(detect_language, parts)) - {""}


def check_language(posting: Posting, text: str, prompt: str) -> list[Failure]:
    """Check that neither the whole nor a sentence is in a language that the original has nowhere."""
    del prompt
    known = _list_languages(posting.description)
    if not known:
        return []
    parts = [("The rewrite", text, (0, len(text))), *(("A sentence", *part) for part in list_sentences(text))]
    for what, part, span in parts:
        language = detect_language(part)
        if language and language not in known:
            reason = f"{what} is in {language}, the original in {' and '.join(sorted(known))}."
            return [Failure("language_kept", reason, span)]
    return []
