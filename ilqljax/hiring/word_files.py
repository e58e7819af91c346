"""Read the word lists that lie beside the modules which use them, as `.ini` files."""

from configparser import ConfigParser
from importlib.resources import files


def load_words(file: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return a file's sections: under each name, its words, which commas separate. `file` is relative to this room."""
    parser = ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str  # a name keeps its capitals
    parser.read_string((files("ilqljax.hiring") / file).read_text(encoding="utf-8"), source=file)
    return {
        section: {name: tuple(" ".join(words.split()).split(", ")) for name, words in parser[section].items()}
        for section in parser.sections()
    }
