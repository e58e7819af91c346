"""Read the word lists that lie beside the modules which use them, as `.ini` files."""

from configparser import ConfigParser
from importlib.resources import files


def load_words(file: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return a file's sections: under each name, its words, which commas separate. `file` is relative to this room."""
    return parse_words((files("ilqljax.hiring") / file).read_text(encoding="utf-8"), source=file)


def parse_words(text: str, *, source: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the sections of a text as `load_words` does; another form raises a `configparser.Error`."""
    parser = ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # a name keeps its capitals
    parser.read_string(text, source=source)
    return {
        section: {name: tuple(" ".join(words.split()).split(", ")) for name, words in parser[section].items()}
        for section in parser.sections()
    }
