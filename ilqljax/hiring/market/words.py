"""Hold the words of the built-in sample, which `words.ini` lists."""

from typing import NamedTuple

from ilqljax.hiring.word_files import load_words


class Occupation(NamedTuple):
    """Name an occupation and list its titles, duties (verb phrases) and skills (nouns)."""

    name: str
    titles: tuple[str, ...]
    duties: tuple[str, ...]
    skills: tuple[str, ...]


_WORDS = load_words("market/words.ini")
OCCUPATIONS = tuple(
    Occupation(section.removeprefix("occupation "), **lists)
    for section, lists in _WORDS.items()
    if section.startswith("occupation ")
)
COMPANY_WORDS = _WORDS["companies"]["words"]
CITIES = {city: country for city, (country,) in _WORDS["cities"].items()}
QUALIFICATIONS = {region: name for region, (name,) in _WORDS["qualifications"].items()}
EXCLUSIONARY_SENTENCES = _WORDS["exclusionary"]["sentences"]
