"""Text files written whole or not at all."""

import os
from pathlib import Path

from ilqljax.errors import UserError


def save_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file to a temporary sibling and move it into place.

    Raises:
        UserError: the file cannot be written; what stood there before still does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror}). Choose a folder you may write to.") from error
