"""Ask PostgreSQL, for where candidates live: full-text rank, or the distance of vectors that pgvector holds.

The table has a row a candidate, with the ids of the candidates' file. With `text_column` a text's words are joined by
"or", and people rank by `ts_rank_cd` (cover density: Clarke, Cormack and Tudhope 2000) of that column; whoever shares
no word with it scores 0. With `vector_column` a function of yours turns texts into vectors, and people rank by
minus the distance that `metric` names; the search is exact, for no index is used.

Equal scores go by the lower row of the candidates' file. Everything is read in one read-only transaction a call, so a
call sees one state of the table, and nothing can be written. Where the server is and who asks follow from libpq's
environment variables (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGSERVICE, ...) and its password file, and from
nowhere else: no config holds an address or a password. Rewards are cached by the config's fields and the candidates; if
the table changes, change `version`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ilqljax.config import register
from ilqljax.errors import UserError, check_known, check_range
from ilqljax.hiring.matching.matcher import CheckedMatcher, Matcher, Matches, hash_texts, join_matches, select_top_k
from ilqljax.hiring.matching.user_supplied import hash_source, load_callable, number_ids
from ilqljax.hiring.postings.posting import Candidate

OPERATORS = {"cosine": "<=>", "dot": "<#>", "l2": "<->"}  # of pgvector: distances, and minus the product
# A lexeme of a tsquery. They are joined by "or", for plainto_tsquery and its like ask for all of them.
QUOTED = "chr(39) || replace(replace(w, chr(92), chr(92) || chr(92)), chr(39), chr(39) || chr(39)) || chr(39)"
ADVICE = "Set PGHOST, PGDATABASE, PGUSER and PGPASSWORD, or PGSERVICE, in the environment."


@register("matcher", "postgres")
@dataclass(frozen=True)
class PostgresSource:
    """Rank by a table of PostgreSQL: its columns, and how they are searched.

    Attributes:
        table: "table" or "schema.table".
        id_column: of the candidates' ids, as text or numbers.
        text_column: of their texts; or
        vector_column: of their vectors (pgvector).
        language: text search configuration for the texts.
        encode: "package.module:function" from texts to rows of numbers, for vectors.
        metric: "cosine", "dot" or "l2", for vectors.
        version: of the table's content; change it when that changes, so that cached rewards are not used.
        timeout_s: longest that one statement may take, and a connection.
    """

    table: str
    id_column: str
    text_column: str = ""
    vector_column: str = ""
    language: str = "english"
    encode: str = ""
    metric: str = "cosine"
    version: str = ""
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if "://" in self.table or re.search(r"\bpass(word|wd)?\s*=", self.table, re.I):
            raise UserError(f"table holds an address or a password, which would be written to a config. {ADVICE}")
        parts = self.table.split(".")
        if not (self.id_column and all(parts) and len(parts) <= 2):
            raise UserError(
                f"table={self.table!r}, id_column={self.id_column!r}: name a table, or schema.table, and its id column."
            )
        if bool(self.text_column) == bool(self.vector_column):
            raise UserError("Give text_column, to rank by words, or vector_column, to rank by vectors: one of the two.")
        if bool(self.vector_column) != bool(self.encode):
            raise UserError("encode=package.module:function turns texts into vectors: give it with vector_column only.")
        if self.encode:
            load_callable(self.encode)
        check_known(tuple(OPERATORS), metric=self.metric)
        check_range(self, "(0, inf)", "timeout_s")

    @property
    def name(self) -> str:
        """The table and what is searched of it."""
        return f"postgres {self.table}.{self.text_column or self.vector_column}"

    @property
    def fingerprint(self) -> str:
        """Of every field but the time limit, and of the files that define `encode`."""
        fields = (self.table, self.id_column, self.text_column, self.vector_column, self.language, self.metric)
        source = f"{self.encode} {hash_source(self.encode)}" if self.encode else ""
        return "postgres " + hash_texts([*fields, source, self.version])[:32]

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Hand the matcher the candidates' ids; the server is not asked yet."""
        return PostgresMatcher(self, [candidate.id for candidate in candidates])


class PostgresMatcher(CheckedMatcher):
    """Rank candidates by what a table of PostgreSQL holds (module docstring)."""

    def __init__(self, config: PostgresSource, candidate_ids: Sequence[str]):
        """Hold the settings and ids; ids that are not unique, and a missing driver, raise a `UserError`."""
        try:
            import psycopg
        except ImportError as error:
            raise UserError("PostgreSQL is asked with psycopg 3: pip install 'ilqljax[postgres]'") from error
        self._driver, self.config = psycopg, config
        self._row_of = number_ids(candidate_ids)
        self.n_candidates = len(self._row_of)
        self.fingerprint = f"postgres-{hash_texts([config.fingerprint, *candidate_ids])[:32]}"
        self._encode: Callable[[list[str]], Any] = load_callable(config.encode) if config.encode else list

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        values = self._encode(list(texts))
        try:
            seconds, statement, found = self.config.timeout_s, self._compose(), []
            with (
                self._driver.connect(connect_timeout=max(2, int(seconds)), autocommit=True) as connection,
                connection.transaction(),
                connection.cursor() as cursor,
            ):
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                limit = [f"{max(1, round(1000 * seconds))}ms"]
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", limit)
                for value in values:
                    cursor.execute(statement, self._list_parameters(value))
                    found.append(select_top_k(self._read_scores(cursor)[None], k))
        except self._driver.OperationalError as error:
            raise UserError(f"PostgreSQL cannot be asked ({_first_line(error)}). {ADVICE}") from error
        except self._driver.Error as error:
            raise UserError(f"{self.config.name}: {_first_line(error)}. Correct the matcher's options.") from error
        return join_matches(found, k)

    def _compose(self) -> Any:
        sql, c = self._driver.sql, self.config
        table, column = sql.Identifier(*c.table.split(".")), sql.Identifier(c.text_column or c.vector_column)
        if c.text_column:
            score = sql.SQL(
                "ts_rank_cd(to_tsvector(%(language)s::regconfig, coalesce({}, '')), (SELECT string_agg("
                + QUOTED
                + ", ' | ') FROM unnest(tsvector_to_array(to_tsvector(%(language)s::regconfig, %(text)s))) AS w)"
                "::tsquery)"
            ).format(column)
        else:
            score = sql.SQL("-({} " + OPERATORS[c.metric] + " %(text)s::vector)").format(column)
        query = "SELECT {}::text, {}::float8 FROM {} WHERE {}::text = ANY(%(ids)s)"
        return sql.SQL(query).format(sql.Identifier(c.id_column), score, table, sql.Identifier(c.id_column))

    def _list_parameters(self, value: Any) -> dict[str, Any]:
        text = value.replace("\0", " ") if self.config.text_column else str([float(x) for x in value])
        return {"text": text, "language": self.config.language, "ids": list(self._row_of)}

    def _read_scores(self, cursor: Any) -> np.ndarray:
        """Return all candidates' scores, in the order of the file; refuse a table that lacks one or has one twice."""
        scores, where = np.full(self.n_candidates, np.nan), self.config.name
        seen = np.zeros(self.n_candidates, bool)
        for one, score in cursor:
            row = self._row_of[one]
            if seen[row]:
                raise UserError(f"{where}: the id {one!r} is twice in the table. Keep one row a candidate.")
            seen[row], scores[row] = True, 0.0 if score is None and self.config.text_column else score
        if np.isnan(scores).any():
            one = list(self._row_of)[int(np.isnan(scores).argmax())]
            what = "has no vector" if seen[self._row_of[one]] else "is not in the table"
            raise UserError(f"{where}: the candidate {one!r} {what}. Every candidate of the file needs a row of it.")
        return scores


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
