"""Files written whole or not at all, hashed, locked, fetched, and read without trusting how long a line is.

What was written outlasts a loss of power: it is synced before it gets its name, and its folder after that.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal

import numpy as np

from ilqljax.errors import UserError, check_type

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # only on Windows
    msvcrt = None

ON_WINDOWS = os.name == "nt"  # where no folder is opened, and a file synced only by one who may write to it
LOCKED_BYTE = 1 << 30  # of a file on Windows, where what is locked cannot be read: far behind all that it holds
SECONDS_BETWEEN_TRIES = 0.1  # of a lock that is waited for there
MAX_LINE_BYTES = 16 << 20  # of anything read by line; the longest real posting is a thousandth of it
LEFTOVER = re.compile(r"\.(.+\.)?\d+\.tmp")  # what `save_whole` and `save_files` call what they are writing
FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
CHECKSUM = "ilqljax.sha256"  # of a safetensors file's arrays, in its metadata


def read_bounded_lines(stream: BinaryIO, path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yield `(line_number, line)` of a binary stream; one above `MAX_LINE_BYTES` is never held, but refused."""
    for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE_BYTES + 1), b""), start=1):
        if len(line) > MAX_LINE_BYTES:
            raise UserError(
                f"{path}:{number}: the line is longer than {MAX_LINE_BYTES >> 20} MiB. Each line must be one record: "
                "is the file JSON Lines or CSV, and not one big JSON value? Shorten or remove the line."
            )
        yield number, line


def read_json(path: str | Path, *, advice: str, kind: type = dict) -> Any:
    """Read a JSON file that holds an object (`dict`) or a list; `advice` says what to do where it is damaged.

    A file that is not there or cannot be read is a `UserError`, as is what `parse_json` refuses.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing. {advice}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {advice}") from error
    return parse_json(raw, path, advice=advice, kind=kind)


def parse_json(raw: bytes | str, path: str | Path, *, advice: str, kind: type = dict, line: int = 1) -> Any:
    """Return the JSON object (`dict`) or list that a file holds, all of it or its part from `line` on.

    What is not UTF-8, not JSON, of another kind, or has a name twice in an object is a `UserError` that names the line.
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_join_pairs)
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        raise UserError(f"{path}:{line}: not JSON at column {error.colno} ({error.msg}). {advice}") from error
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise UserError(f"{path}:{line}: byte {error.start} is not UTF-8. {advice}") from error
    except (RecursionError, ValueError) as error:  # brackets or digits by the thousand
        raise UserError(f"{path}:{line}: not JSON that we can read ({error}). {advice}") from error
    if not isinstance(value, kind):
        wanted = {dict: "object", list: "list"}[kind]
        raise UserError(f"{path}:{line}: expected a JSON {wanted}, got {type(value).__name__}. {advice}")
    return value


def _join_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    joined = dict(pairs)
    if len(joined) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r} is twice in one object")
    return joined


class StoredArrays(Mapping[str, np.ndarray]):
    """The arrays of safetensors files, by name; each is read when it is asked for, and not kept.

    Attributes:
        shapes: of the arrays, by name.
    """

    def __init__(self, paths: Sequence[Path], *, advice: str) -> None:
        """Read the files' headers; `advice` says what to do where a file is damaged.

        A file that is missing, damaged, or not what `save_arrays` wrote, and a name in two files, are a `UserError`.
        """
        self._advice = advice
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            with self._open(path) as file:
                expected = (file.metadata() or {}).get(CHECKSUM)
                shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if twice := sorted(shapes.keys() & self.shapes.keys()):
                raise UserError(f"{path}: has {twice[0]}, which is in {self._files[twice[0]]} too. {advice}")
            self.shapes |= shapes
            self._files |= dict.fromkeys(shapes, path)
            if expected is not None and hash_arrays(self, shapes) != expected:
                raise UserError(
                    f"{path}: its arrays are not those that were written (a damaged disk or copy). {advice}"
                )

    def __getitem__(self, name: str) -> np.ndarray:
        with self._open(self._files[name]) as file:  # anew each time: an open file's pages would stay in memory
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    @contextlib.contextmanager
    def _open(self, path: Path) -> Iterator[Any]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                yield file
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing. {self._advice}") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error}). {self._advice}") from error
        except SafetensorError as error:
            raise UserError(f"{path}: is not a complete safetensors file ({error}). {self._advice}") from error


def read_arrays(path: str | Path, *, advice: str) -> dict[str, np.ndarray]:
    """Read a safetensors file whole; errors are those of `StoredArrays`."""
    return dict(StoredArrays([Path(path)], advice=advice))


def save_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write a safetensors file with a checksum of its arrays, the same bytes each time; errors as of `save_whole`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}

    def write(temporary: Path) -> None:
        temporary.touch()  # says with an OSError what is wrong with the folder
        mode = temporary.stat().st_mode
        try:
            save_file(arrays, temporary, metadata={**metadata, CHECKSUM: hash_arrays(arrays)})
        except SafetensorError as error:
            raise OSError(errno.EIO, f"{error}; is the disk full?") from error
        _sort_metadata(temporary)
        temporary.chmod(mode)  # safetensors leaves it to its owner alone

    save_whole(path, write)


def _sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in the order of its names: the library writes it in another one each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def hash_arrays(arrays: Mapping[str, np.ndarray], names: Iterable[str] | None = None) -> str:
    """Return the SHA-256 of arrays' names, types, shapes and bytes, whatever their order; of those with `names`."""
    digest = hashlib.sha256()
    for name in sorted(arrays if names is None else names):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(np.asarray(array, order="C").reshape(-1).view(np.uint8))
    return digest.hexdigest()


def save_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file; errors are those of `save_whole`."""
    save_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside its place, and move it there; where it cannot, the old one stays.

    Raises:
        UserError: it cannot be written, or the place is not a file's or folder's (`check_ordinary`).
    """
    path = Path(path)
    check_ordinary(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        sync_tree(temporary)
        if ON_WINDOWS and path.is_dir():  # an empty one is not replaced there
            path.rmdir()
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}). {advise_writing(error)}") from error
    finally:
        remove_tree(temporary)  # nothing is there unless something failed


def check_ordinary(path: Path) -> None:
    """Raise a `UserError` for a device, a pipe or a link to an open file, such as /dev/stdout: it would be replaced."""
    is_stream = path.is_symlink() and os.readlink(path).startswith("/proc/")
    if is_stream or (path.exists() and not (path.is_file() or path.is_dir())):
        raise UserError(f"{path}: is a device or a pipe, and a file would take its place. Give the path of a file.")


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk, or a user's share of it, is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(text in str(error) for text in FULL)  # a library's own


def advise_writing(error: OSError) -> str:
    """Return what to do where something could not be written."""
    return "Free some space on that disk." if is_full(error) else "Choose a folder you may write to."


def sync(path: str | Path) -> None:
    """Wait until a file's content, or a folder's entries, would outlast a loss of power.

    A rename is kept in order by syncing what is renamed before it, and the folder after it. Windows syncs no folders.
    """
    if ON_WINDOWS and os.path.isdir(path):
        return
    descriptor = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: str | Path) -> None:
    """Sync a file, or a folder and all that is in it, what is deepest first."""
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync(os.path.join(folder, name))
        sync(folder)
    if not os.path.isdir(path):
        sync(path)


def make_folder(path: str | Path) -> None:
    """Make a folder, and those that it is in, where they are missing; each outlasts a loss of power."""
    path = Path(path).absolute()
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync(folder.parent)


def remove_tree(path: str | Path) -> None:
    """Remove a file, or a folder and all that is in it, as far as it can be; it need not be there."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what `save_whole` and `save_files` of killed processes left in a folder, which nobody else writes to."""
    for path in list(Path(folder).rglob(".*.tmp")):
        if LEFTOVER.fullmatch(path.name):
            remove_tree(path)


def save_files(folder: str | Path, write: Callable[[Path], object], *, replaced: Iterable[str] = ()) -> None:
    """Let `write` make all files of a folder, and move them there when it has; where it cannot, the old ones stay.

    Other files of the folder, which is made where it is missing, stay too, but for those `replaced` that `write` did
    not make again. What cannot be written is a `UserError`.
    """
    folder = Path(folder)
    temporary = folder / f".{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        sync_tree(temporary)
        made = sorted(path.name for path in temporary.iterdir())
        for name in made:
            os.replace(temporary / name, folder / name)
        for name in set(replaced).difference(made):
            (folder / name).unlink(missing_ok=True)
        sync(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}). {advise_writing(error)}") from error
    finally:
        remove_tree(temporary)


def check_writable(path: str | Path, *, append: bool = False) -> None:
    """Raise a `UserError` unless a file may be saved whole there, or appended to; nothing is touched.

    To replace a file is to change its folder, to append to it is not: a pipe may be appended to.
    """
    if not append:
        check_ordinary(Path(path))
    folder = os.path.dirname(os.path.abspath(path))
    changed = path if append and os.path.exists(path) else folder
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(changed, os.W_OK):
        raise UserError(f"{path}: cannot be written. Choose a file in a folder that exists and that you may write to.")


def check_writable_folder(folder: str | Path) -> None:
    """Raise a `UserError` unless files may be saved in a folder, which may yet have to be made; nothing is touched."""
    path = Path(folder).absolute()
    changed = next(one for one in (path, *path.parents) if os.path.lexists(one))
    if not changed.is_dir() or not os.access(changed, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written. Choose a folder that you may write to, or that you may make.")


def fetch_snapshot(name: str, *, files: Sequence[str], optional: Sequence[str] = ()) -> Path:
    """Return the local folder with a Hugging Face hub model's `files`, downloaded once and cached.

    What fits the patterns `optional` comes with them. Files that are in neither the cache nor the hub are a
    `UserError`.
    """
    from huggingface_hub import snapshot_download  # slow to import, and rarely needed
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=[*files, *optional]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name!r} is neither a directory here nor a model that could be fetched from the hub ({error}). "
            "Download it where there is a network and give its directory."
        ) from error
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise UserError(f"{name!r} on the hub lacks {', '.join(missing)}. Give a model that has them, or a directory.")
    return folder


def find_cache(name: str) -> Path:
    """Return the folder of this name among those that may be deleted at any time, `~/.cache/ilqljax`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilqljax" / name


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_with_checksum(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file and, in `sha256sum`'s form, its checksum beside it, which `check_checksum` compares."""
    path, checksum = Path(path), Path(f"{path}.sha256")
    checksum.unlink(missing_ok=True)  # what is stopped from here on leaves a file without one, not with a wrong one
    save_text(path, text)
    save_text(checksum, f"{hash_file(path)}  {path.name}\n")


def check_checksum(path: str | Path) -> None:
    """Raise a `UserError` if a file is not the one that the checksum beside it was made of; without one all is well."""
    checksum = Path(f"{path}.sha256")
    if checksum.is_file() and checksum.read_bytes().split()[:1] != [hash_file(path).encode()]:
        raise UserError(
            f"{path}: is damaged or was changed since it was written ({checksum.name} is of another content). Restore "
            f"it; if you changed it on purpose, delete {checksum}."
        )


def replace_half_characters(value: Any) -> Any:
    """Replace each half of a surrogate pair, which cannot be written, in the texts of a JSON value by U+FFFD."""
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def read_folder(folder: str | os.PathLike) -> Path:
    """Return a folder's path, which need not exist; anything but a path is a `UserError`."""
    check_type((str, os.PathLike), "Give the path of a folder.", folder=folder)
    return Path(folder)


def check_new_folder(folder: str | Path) -> None:
    """Raise a `UserError` unless a folder of this name can be made: it is absent or empty, and its parent exists."""
    folder = read_folder(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is not an empty folder. Choose a new one; what is there is not overwritten.")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder}: there is no folder {folder.absolute().parent}. Create it or choose another one.")


def save_folder(folder: str | Path, contents: Mapping[str, str | bytes]) -> None:
    """Write a new folder of files, all or none, texts as UTF-8; errors as of `check_new_folder` and `save_whole`."""
    check_new_folder(folder)

    def write(temporary: Path) -> None:
        temporary.mkdir()
        for name, content in contents.items():
            (temporary / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    save_whole(Path(folder).absolute(), write)  # an empty folder of that name is replaced


@contextlib.contextmanager
def lock_path(path: str | Path, *, wait: bool = False) -> Iterator[Literal["held", "taken", "unsupported"]]:
    """Try to hold the lock of a folder, or of a file (made where it is missing), for the block.

    The lock ends with the process, however that ends. A process that holds it is waited for if `wait`. Yields "held",
    "taken" (by another process), or "unsupported" (by the system or the file system). On Windows a folder's lock is a
    file of its own among the temporary ones.
    """
    if fcntl is None and msvcrt is None:
        yield "unsupported"
        return
    is_folder = os.path.isdir(path)
    if is_folder and fcntl is None:
        path, is_folder = Path(tempfile.gettempdir(), f"ilqljax-{hash_text(os.path.realpath(path))}.lock"), False
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o666)
    lock = _take_lock(descriptor, wait=wait)
    try:
        yield lock
    finally:
        if fcntl is None and lock == "held":
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)


def _take_lock(descriptor: int, *, wait: bool) -> Literal["held", "taken", "unsupported"]:
    """Try to lock an open file, as `lock_path` says."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return "held"
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return "held"
            except PermissionError:
                if not wait:
                    return "taken"
                time.sleep(SECONDS_BETWEEN_TRIES)
    except OSError as error:
        return "taken" if isinstance(error, BlockingIOError) else "unsupported"
