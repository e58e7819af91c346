"""Files of a model on the Hugging Face hub, fetched once and read from the local cache after that."""

from collections.abc import Sequence
from pathlib import Path

from ilqljax.errors import UserError


def fetch_snapshot(name: str, *, files: Sequence[str]) -> Path:
    """Return the local folder with a hub model's `files`, downloaded where the hub can be reached.

    Raises:
        UserError: the files are neither in the cache nor to be had from the hub.
    """
    from huggingface_hub import snapshot_download  # slow to import, and rarely needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name!r} is neither a directory here nor a model that could be fetched from the hub ({error}). "
            "Download it where there is a network and give its directory."
        ) from error
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise UserError(f"{name!r} on the hub lacks {', '.join(missing)}. Give a model that has them, or a directory.")
    return folder
