"""A matcher in PostgreSQL, against a real server on this machine: ranks, ties, what is refused, and no writing."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.matching.postgres import PostgresMatcher, PostgresSource

IDS = ("c3", "c1", "c2", "c4", "5")
TEXTS = ("Cook in a kitchen", "Java developer", "developer of Java and java servers", None, "O'Neill \\ nurse, night's")
OWN = {"table": "people.candidates", "id_column": "the id", "text_column": "text"}


def find_program(name):
    known = [shutil.which(name), *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True))]
    return next(filter(None, known), "")


def test_a_password_or_an_incomplete_table_is_refused():
    for given, message in (
        ({"table": "postgresql://me:secret@host/db"}, "an address or a password.*PGHOST"),
        ({"table": "host=a password=secret"}, "an address or a password"),
        ({"table": "a.b.c"}, "name a table, or schema.table"),
        ({"id_column": ""}, "name a table, or schema.table"),
        ({"text_column": ""}, "one of the two"),
        ({"vector_column": "v"}, "one of the two"),
        ({"encode": "math:sqrt"}, "with vector_column only"),
        ({"metric": "cosin"}, "'cosin'.*cosine"),
        ({"timeout_s": 0.0}, "timeout_s=0.0"),
    ):
        with pytest.raises(UserError, match=message):
            PostgresSource(**(OWN | given))


def test_fingerprint_follows_everything_that_ranks():
    changes = [{}, {"table": "b"}, {"text_column": "x"}, {"language": "german"}, {"version": "2"}, {"id_column": "i"}]
    assert len({PostgresSource(**(OWN | change)).fingerprint for change in changes}) == len(changes)
    assert PostgresSource(**OWN).fingerprint == PostgresSource(**OWN, timeout_s=1.0).fingerprint


@pytest.fixture(scope="module")
def server():
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install 'ilqljax[postgres]'")
    if not (find_program("initdb") and find_program("postgres")):
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    user = {}
    if os.getuid() == 0:  # which the server refuses to run as
        if "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
            pytest.skip("the server does not run as root, and there is no user 'postgres'")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    if user:
        shutil.chown(folder, user["user"])
    options = ["--auth=trust", "--username=tester", "--no-locale", "--encoding=UTF8", "--no-sync"]
    command = [find_program("initdb"), *options, "-D", str(folder / "data")]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **user)
    command = [find_program("postgres"), "-D", str(folder / "data"), "-k", str(folder), "-F", "-c", "listen_addresses="]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user)
    os.environ |= (own := {"PGHOST": str(folder), "PGUSER": "tester", "PGDATABASE": "postgres"})
    try:
        for _ in range(600):
            try:
                connection = psycopg.connect(autocommit=True)
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        with connection:
            connection.execute("CREATE SCHEMA people")
            connection.execute('CREATE TABLE people.candidates ("the id" text, text text)')
            for one in reversed(list(zip(IDS, TEXTS, strict=True))):
                connection.execute("INSERT INTO people.candidates VALUES (%s, %s)", one)
            connection.execute("CREATE TABLE people.other AS SELECT * FROM people.candidates WHERE text IS NOT NULL")
            connection.execute("CREATE TABLE people.twice AS TABLE people.candidates")
            connection.execute("INSERT INTO people.twice TABLE people.candidates")
        yield psycopg
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)
        for name in own:
            os.environ.pop(name, None)


def make(**changes):
    return PostgresMatcher(PostgresSource(**(OWN | changes)), IDS)


@pytest.mark.usefixtures("server")
def test_people_rank_by_the_servers_rank_and_equal_scores_by_the_file(server):
    found = make().top_k(
        ["Java developers wanted", "nothing in common", "nurse", "O'Neill's \\ & | ! <-> kitchen:*"], 5
    )
    with server.connect() as connection:
        query = "SELECT ts_rank_cd(to_tsvector('english', %s), to_tsquery('english', 'java | develop | want'))::float8"
        expected = [connection.execute(query, [TEXTS[row] or ""]).fetchone()[0] for row in range(5)]
    assert found.scores[0].tolist() == pytest.approx(sorted(expected, reverse=True))
    assert found.indices[0].tolist() == [2, 1, 0, 3, 4]
    assert found.indices[1].tolist() == [0, 1, 2, 3, 4] and not found.scores[1].any()
    assert found.indices[2][0] == 4 and set(found.indices[3][:2].tolist()) == {0, 4}
    again = make().top_k(["Java developers wanted"], 5)
    np.testing.assert_array_equal(again.scores[0], found.scores[0])


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "people.nobody"}, 'relation "people.nobody" does not exist'),
        ({"table": 'people.candidates"; DROP TABLE candidates; --'}, "does not exist"),
        ({"text_column": "cv"}, 'column "cv" does not exist'),
        ({"language": "klingon"}, 'text search configuration "klingon" does not exist'),
        ({"table": "people.other"}, "the candidate 'c4' is not in the table"),
        ({"table": "people.twice"}, "is twice in the table"),
    ],
)
def test_what_the_table_lacks_is_said_in_a_line(changes, message):
    with pytest.raises(UserError, match=message) as refused:
        make(**changes).top_k(["nurse"], 1)
    assert "\n" not in str(refused.value)


def test_nothing_can_be_written(server, monkeypatch):
    matcher = make()
    statement = server.sql.SQL("INSERT INTO people.candidates VALUES ('x', %(text)s) RETURNING text, 1.0")
    monkeypatch.setattr(matcher, "_compose", lambda: statement)
    with pytest.raises(UserError, match="cannot execute INSERT in a read-only transaction"):
        matcher.top_k(["nurse"], 1)


@pytest.mark.usefixtures("server")
def test_server_that_is_not_there_is_said_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PGHOST", str(tmp_path))
    with pytest.raises(UserError, match=r"PostgreSQL cannot be asked \(.*\)\. Set PGHOST") as refused:
        make().top_k(["nurse"], 1)
    assert "\n" not in str(refused.value)


def test_vectors_rank_by_distance_where_pgvector_is(server):
    with server.connect(autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
        if not known:
            pytest.skip("needs pgvector in the server: apt-get install postgresql-15-pgvector")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("CREATE TABLE IF NOT EXISTS people.vectors (id text, v vector(2))")
        for i, one in enumerate(IDS):
            connection.execute("INSERT INTO people.vectors VALUES (%s, %s::vector)", [one, f"[{i + 1},1]"])
    options = {"table": "people.vectors", "id_column": "id", "text_column": "", "vector_column": "v"}
    found = make(**options, encode="test_hiring_postgres:encode", metric="l2").top_k(["2.9", "1"], 2)
    assert found.indices.tolist() == [[2, 1], [0, 1]]


def encode(texts):
    return [[float(text), 1.0] for text in texts]
