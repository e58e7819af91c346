"""Tell the language of a text by its commonest words, well enough to notice that a rewrite is in another one.

Each language is known by words that are frequent in it; the language with most of them wins, if it has enough of them
and clearly more than the next. A short or mixed text has no language here, and is then not judged.
"""

from functools import lru_cache

from ilqljax.hiring.guardrails.findings import Failure, blank_links, list_sentences, list_words
from ilqljax.hiring.postings.posting import Posting

MIN_HITS, MIN_SHARE, MIN_LEAD = 3, 0.12, 1.5

_WORDS = {
    "English": "the and of to in is are we you our for with that this have be will on at as your or an from it not by "
    "who what can their they i but if all has about was which",
    "German": "der die das und ist nicht ein eine einen einem einer wir sie für mit von zu den dem des auf im bei als "
    "auch sich oder werden wird sind haben ihre unser unsere unserem unseren über zur zum dich du deine nach",
    "French": "le la les des du un une et est nous vous pour avec dans sur que qui au aux en notre votre nos vos pas "
    "ce cette ces sont être à par plus ou de il elle se",
    "Spanish": "el la los las un una y es en de del que con para por se nuestro nuestra tu su sus al como más o lo son "
    "está estamos somos buscamos equipo",
    "Portuguese": "o a os as um uma e é em de do da dos das que com para por não se nosso nossa você seu sua ao como "
    "mais ou são está estamos somos na no nas nos",
    "Italian": "il lo la i gli le un una e è in di del della dei delle che con per non si nostro nostra tuo al come "
    "più o sono siamo nel nella alla da dal",
    "Dutch": "de het een en van is in op te wij we jij je ons onze voor met dat die niet zijn aan als bij ook of naar "
    "uit worden wordt hebben jouw",
    "Swedish": "och att det som en ett är på av för med vi du den i till har om inte vår våra eller kan ska från din "
    "hos oss",
    "Polish": "i w na z do się że jest nie to dla od oraz przez o jako nasz nasza nasze po lub są być za ze jesteśmy",
}
PROFILES = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_LANGUAGES_OF = {
    word: tuple(language for language, known in PROFILES.items() if word in known)
    for word in frozenset().union(*PROFILES.values())
}


@lru_cache(maxsize=16384)
def detect_language(text: str) -> str:
    """Return a language of `PROFILES`, or "" where the text is too short or too mixed to tell.

    "Wir suchen eine Pflegekraft für unser Team in Bonn." is German; "Python, Java, SQL" is nothing.
    """
    words = list_words(blank_links(text))
    counts = dict.fromkeys(PROFILES, 0)
    for word in words:
        for language in _LANGUAGES_OF.get(word, ()):
            counts[language] += 1
    first, second = sorted(counts, key=counts.__getitem__, reverse=True)[:2]
    if counts[first] < max(MIN_HITS, MIN_SHARE * len(words)) or counts[first] < MIN_LEAD * counts[second]:
        return ""
    if len(PROFILES[first].intersection(words)) < MIN_HITS:  # one letter that marks the items of a list, say
        return ""
    return first


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
