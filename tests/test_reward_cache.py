"""The reward cache: shared by processes, and none of it given up that can be read after damage."""

import hashlib
import multiprocessing
import sqlite3
from contextlib import closing

import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.reward import cache as cache_module
from ilqljax.hiring.reward.cache import RewardCache, find_rewards


def test_cache_takes_over_anothers_rewards_and_keeps_its_own(tmp_path):
    cache, other = RewardCache(tmp_path / "r.sqlite"), RewardCache(tmp_path / "other.sqlite")
    cache.save({b"a": -1.0})
    other.save({b"a": -2.0, b"b": -3.0})
    cache.take_over(other.path)
    assert cache.load([b"a", b"b"]) == {b"a": -1.0, b"b": -3.0} and len(cache.load_all()) == 2


def fill_cache(path, worker):
    cache = RewardCache(path)
    for i in range(20):
        cache.save({f"{worker}-{i}".encode(): float(i), b"shared": 1.0})
        cache.load([b"shared"])


def test_processes_share_a_cache(tmp_path):
    path = tmp_path / "r.sqlite"
    workers = [multiprocessing.get_context("spawn").Process(target=fill_cache, args=(path, w)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchone() == (41,)
    connection.close()


def test_more_keys_than_a_query_takes_are_found(tmp_path):
    cache = RewardCache(tmp_path / "r.sqlite")
    rewards = {str(i).encode(): float(i) for i in range(1203)}
    cache.save(rewards)
    assert cache.load(list(rewards)) == rewards


def test_no_sound_row_is_called_damaged(tmp_path, caplog):
    cache = RewardCache(tmp_path / "r.sqlite")
    rewards = {b"a": -0.0, b"b": -200.0, b"c": 5e-324, b"d": -31.5423728138}
    cache.save(rewards)
    assert cache.load(list(rewards)) == rewards
    assert not caplog.text


def change_rows(path, change):
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE scores {change}")
    connection.close()


@pytest.mark.parametrize("damage", ["0.0", "reward + 1e-12", "'abc'", "x'00'", "CAST(x'ff' AS TEXT)"])
def test_a_damaged_row_is_computed_again(tmp_path, damage, caplog):
    cache = RewardCache(tmp_path / "r.sqlite")
    cache.save({b"a": -31.5, b"b": -4.25})
    change_rows(cache.path, f"SET reward = {damage} WHERE key = x'61'")
    assert cache.load([b"a", b"b"]) == {b"b": -4.25}
    assert "1 damaged rewards" in caplog.text
    cache.save({b"a": -31.5})
    assert cache.load([b"a", b"b"]) == {b"a": -31.5, b"b": -4.25}


def make_key(i):
    return hashlib.sha256(str(i).encode()).digest()


def fill_large_cache(path, *, n=2000):
    rewards = {make_key(i): (-0.0, -50.0, 1.0, -31.5423728138, 5e-324, -40000.0)[i % 6] - i % 7 for i in range(n)}
    RewardCache(path).save(rewards)
    return rewards


def overwrite(path, start, end):
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"?" * (min(end, len(data)) - start) + data[end:])


def test_every_reward_is_found_in_the_bytes_of_its_file(tmp_path):
    rewards = fill_large_cache(tmp_path / "r.sqlite")
    assert find_rewards((tmp_path / "r.sqlite").read_bytes()) == rewards
    assert find_rewards(b"\x04L\x07\x04" * 30) == {}


# A page of 4,096 bytes holds up to 90 rewards.
@pytest.mark.parametrize(
    ("damage", "n_lost"),
    [
        (lambda data: b"?" * 16 + data[16:], 0),
        (lambda data: b"?" * 4096 + data[4096:], 0),
        (lambda data: data[:12288] + b"?" * 8192 + data[20480:], 180),
        (lambda data: data[: len(data) // 2], 1200),
    ],
    ids=["header", "first page", "middle", "truncated"],
)
def test_a_damaged_cache_is_kept_aside_and_what_can_be_read_of_it_is_used(tmp_path, caplog, damage, n_lost):
    cache = RewardCache(tmp_path / "r.sqlite")
    rewards = fill_large_cache(cache.path)
    damaged = damage(cache.path.read_bytes())
    cache.path.write_bytes(damaged)
    found = cache.load_all()
    assert found.items() <= rewards.items() and len(found) >= len(rewards) - n_lost
    assert (tmp_path / "r.sqlite.damaged-1").read_bytes() == damaged
    assert f"It is kept as r.sqlite.damaged-1. The {len(found)} rewards that could be read are used" in caplog.text
    cache.save(rewards)
    assert cache.load(list(rewards)) == rewards and len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_a_damaged_cache_is_noticed_in_any_call_and_what_that_call_saves_is_saved(tmp_path):
    cache = RewardCache(tmp_path / "r.sqlite")
    fill_large_cache(cache.path)
    overwrite(cache.path, 0, 100)
    cache.save({b"new": -3.0})
    assert cache.load([b"new"]) == {b"new": -3.0} and len(cache.load_all()) == 2001


def test_rewards_in_the_log_beside_a_damaged_cache_are_used_and_the_log_does_not_meet_the_new_file(tmp_path):
    cache = RewardCache(tmp_path / "r.sqlite")
    cache.save({make_key(0): -1.0})
    with closing(sqlite3.connect(cache.path)) as held:  # while somebody has it open, the log stays
        held.execute("SELECT count(*) FROM scores").fetchone()
        cache.save({make_key(1): -12.5})
        assert make_key(1) not in cache.path.read_bytes()
        overwrite(cache.path, 0, 4096)
        assert cache.load_all() == {make_key(0): -1.0, make_key(1): -12.5}
    assert len(list(tmp_path.glob("*.damaged-*"))) == 2


def test_of_two_processes_that_find_the_same_damage_one_moves_the_file(tmp_path):
    cache = RewardCache(tmp_path / "r.sqlite")
    rewards = fill_large_cache(cache.path)
    overwrite(cache.path, 0, 100)
    found = cache_module._identify(cache.path)
    cache._set_aside(found, reason="noticed by one")
    cache.save({b"new": -3.0})
    cache._set_aside(found, reason="noticed by the other, which is late")
    assert cache.load_all() == rewards | {b"new": -3.0}
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_damaged_rows_are_not_taken_over(tmp_path):
    cache, other = RewardCache(tmp_path / "r.sqlite"), RewardCache(tmp_path / "other.sqlite")
    other.save({b"a": -1.0, b"b": -2.0})
    change_rows(other.path, "SET reward = 0.0 WHERE key = x'61'")
    cache.take_over(other.path)
    assert cache.load_all() == {b"b": -2.0}


def test_a_cache_that_cannot_be_opened_says_what_to_do(tmp_path):
    (tmp_path / "r.sqlite").mkdir()
    with pytest.raises(UserError, match=r"r\.sqlite: the reward cache cannot be used .*Make the file .* writable"):
        RewardCache(tmp_path / "r.sqlite")
