"""Keep rewards by key in an SQLite file that outlives runs, upgrades, kills and a damaged disk.

A reward may have been paid for, so none is given up that can be read. Every row has a checksum, and one that does not
fit is dropped. A file that SQLite cannot read is moved aside, whole, and the rows that its bytes still hold go into a
new one: a row's checksum shows it wherever it stands in the file.
"""

import itertools
import logging
import os
import re
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from ilqljax.data.files import lock_path
from ilqljax.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")

KEY_BYTES = 32
_SELECT = "SELECT key, reward, checksum FROM scores"
_LOCK_TIMEOUT_S = 60.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# A stored row starts with its header, of four bytes: this length, the key's type, the reward's and the checksum's.
# https://www.sqlite.org/fileformat2.html#record_format
_HEADER = re.compile(rb"(?=\x04%c([\x01-\x09])([\x01-\x09]))" % (2 * KEY_BYTES + 12), re.DOTALL)
_FLOAT, _ZERO, _ONE = 7, 8, 9
_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8, _FLOAT: 8, _ZERO: 0, _ONE: 0}


class MemoryCache(dict[bytes, float]):
    """Keep rewards by key in memory."""

    def load(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return the rewards of those keys that are in the cache."""
        return {key: self[key] for key in keys if key in self}

    save = dict.update


class RewardCache:
    """Keep rewards by key in an SQLite file.

    Every call opens the file, so nothing is held across processes or forks. Write-ahead logging and one transaction a
    call make it safe to share between processes and to kill at any time.
    """

    def __init__(self, path: str | Path):
        """Create the file if need be; raise a `UserError` if it is not a reward cache or cannot be written."""
        self.path = Path(path)
        self._run(lambda connection: connection.execute(f"{_SELECT} LIMIT 1").fetchall())

    def load(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """Return the rewards of those keys that are in the cache, and as they were written."""

        def read(connection: sqlite3.Connection) -> dict[bytes, float]:
            rows = [row for key in keys for row in connection.execute(f"{_SELECT} WHERE key = ?", (key,))]
            rewards = _keep_sound(rows)
            if damaged := [(key,) for key, *_ in rows if key not in rewards]:
                logger.warning("%s: %d damaged rewards are computed again", self.path, len(damaged))
                connection.executemany("DELETE FROM scores WHERE key = ?", damaged)
            return rewards

        return self._run(read)

    def load_all(self) -> dict[bytes, float]:
        """Return every sound reward, once whoever is writing has finished."""

        def read(connection: sqlite3.Connection) -> dict[bytes, float]:
            connection.execute("BEGIN IMMEDIATE")
            return _keep_sound(connection.execute(_SELECT))

        return self._run(read)

    def save(self, rewards: dict[bytes, float]) -> None:
        """Add rewards, all or none; a key that another process added meanwhile keeps its value."""
        self._run(lambda connection: _insert(connection, rewards))

    def take_over(self, path: str | Path) -> None:
        """Add the sound rewards of another cache's file."""
        self.save(RewardCache(path).load_all())

    def _run(self, action: Callable[[sqlite3.Connection], T]) -> T:
        found = _identify(self.path)
        try:
            try:
                return self._open(action)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                    raise
                self._set_aside(found, reason=str(error))
            return self._open(action)
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(
                f"{self.path}: the reward cache cannot be used ({error}). Make the file and its folder, which must "
                "exist, writable, or choose another cache_path."
            ) from error

    def _open(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT_S)) as connection, connection:
            connection.text_factory = bytes  # a damaged row may hold text that is not UTF-8
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS scores "
                "(key BLOB PRIMARY KEY, reward REAL NOT NULL, checksum INTEGER NOT NULL)"
            )
            return action(connection)

    def _set_aside(self, found: int, *, reason: str) -> None:
        """Move the file that was found damaged aside, and start a new one with the rewards that it still holds."""
        with lock_path(self.path.parent, wait=True):
            if _identify(self.path) != found:  # another process has done so
                return
            rewards: dict[bytes, float] = {}
            kept = []
            for ending in ("", "-wal"):
                file = self.path.with_name(self.path.name + ending)
                if file.is_file():
                    rewards |= find_rewards(file.read_bytes())
                    kept.append(name_aside(self.path))
                    os.replace(file, kept[-1])
            self.path.with_name(f"{self.path.name}-shm").unlink(missing_ok=True)
            message = (
                "%s: is damaged or not a reward cache (%s). It is kept as %s. The %d rewards that could be read are "
                "used; others are computed again."
            )
            logger.warning(message, self.path, reason, " and ".join(file.name for file in kept), len(rewards))
            self._open(lambda connection: _insert(connection, rewards))


def name_aside(path: Path) -> Path:
    """Return a name beside a cache that is free for a damaged file of it: "rewards.sqlite.damaged-1", -2, ..."""
    names = (path.with_name(f"{path.name}.damaged-{n}") for n in itertools.count(1))
    return next(name for name in names if not name.exists())


def find_rewards(data: bytes) -> dict[bytes, float]:
    """Find the rows of a cache in the bytes of its file, whatever else of these is damaged.

    | bytes | hold                                                                                |
    |-------|-------------------------------------------------------------------------------------|
    | 4     | the header: 4, 76 (a blob of 32 bytes), the types of the reward and of the checksum |
    | 32    | the key                                                                             |
    | 0 - 8 | the reward, a float or, of a whole number, a shorter integer                        |
    | 0 - 8 | the checksum, an integer                                                            |

    What only looks like a row has another checksum.
    """
    rewards = {}
    for header in _HEADER.finditer(data):
        at = header.start() + 4
        key = data[at : at + KEY_BYTES]
        kind, kind_of_checksum = header[1][0], header[2][0]
        middle = at + KEY_BYTES + _SIZES[kind]
        reward = float(_read_number(data[at + KEY_BYTES : middle], kind))
        if _read_number(data[middle : middle + _SIZES[kind_of_checksum]], kind_of_checksum) == _sum_row(key, reward):
            rewards[key] = reward
    return rewards


def _read_number(data: bytes, kind: int) -> float:
    if kind == _FLOAT:
        return struct.unpack(">d", data.ljust(8, b"\0"))[0]
    return 1 if kind == _ONE else int.from_bytes(data, "big", signed=True)


def _insert(connection: sqlite3.Connection, rewards: dict[bytes, float]) -> None:
    rows = [(key, reward, _sum_row(key, reward)) for key, reward in rewards.items()]
    connection.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", rows)


def _keep_sound(rows: Iterable[tuple]) -> dict[bytes, float]:
    typed = (row for row in rows if isinstance(row[0], bytes) and isinstance(row[1], float))
    return {key: reward for key, reward, checksum in typed if checksum == _sum_row(key, reward)}


def _sum_row(key: bytes, reward: float) -> int:
    return zlib.crc32(key + struct.pack("<d", reward + 0.0))  # SQLite reads -0.0 back as 0.0


def _identify(path: Path) -> int:
    """Return a number that tells a file from another that has taken its name; 0 where there is none."""
    return path.stat().st_ino if path.exists() else 0
