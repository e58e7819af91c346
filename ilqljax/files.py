"""Files written whole or not at all, and hashed."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from ilqljax.errors import UserError


def save_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file to a temporary sibling and move it into place.

    Raises:
        UserError: the file cannot be written; what stood there before still does.
    """
    save_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling, and move it into place.

    Raises:
        UserError: the file cannot be written; what stood there before still does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror}). Choose a folder you may write to.") from error


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
