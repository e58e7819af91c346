"""Checkpoints: what is kept, what comes back, and what a killed process leaves behind."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from raw_checkpoints import restore_raw

from ilqljax.data import files
from ilqljax.errors import UserError
from ilqljax.training import checkpoint, step_files
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.mesh import MeshConfig, make_mesh


class State(NamedTuple):
    step: jax.Array
    params: dict
    frozen: dict
    opt_state: optax.OptState
    key: jax.Array


def make_state(value: float = 1.0) -> State:
    params = {"h": {"kernel": jnp.full((4, 8), value, jnp.float32)}, "scale": jnp.full((3,), value, jnp.bfloat16)}
    return State(jnp.int32(value), params, {}, optax.adamw(1e-3).init(params), jax.random.key(int(value)))


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_restored_state_and_extra_equal_the_saved_ones(tmp_path):
    extra = {"loader": {"position": 17}, "config": {"lr": 1e-4, "names": ["a"]}, "clip": float("-inf")}
    with CheckpointStore(tmp_path) as store:
        store.save(3, make_state(3.0), extra)
    with CheckpointStore(tmp_path) as store:
        state, restored_extra, step = store.restore(make_state(0.0))
    assert step == 3
    assert restored_extra == extra
    assert isinstance(state, State)
    assert jax.tree.structure(state) == jax.tree.structure(make_state())
    assert_same(state, make_state(3.0))


def test_restored_key_draws_the_same_numbers(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, make_state(5.0), {})
        state, _, _ = store.restore(make_state(0.0))
    expected = jax.random.normal(jax.random.key(5), (4,))
    np.testing.assert_array_equal(jax.random.normal(state.key, (4,)), expected)


def test_buffers_may_be_donated_right_after_save(tmp_path):
    overwrite = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    array = jnp.arange(2_000_000, dtype=jnp.float32)
    expected = np.array(array)
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"a": array}, {})
        overwrite(array).block_until_ready()
        state, _, _ = store.restore({"a": jax.ShapeDtypeStruct((2_000_000,), jnp.float32)})
    np.testing.assert_array_equal(state["a"], expected)


def test_extra_is_the_one_at_the_time_of_save(tmp_path):
    extra = {"position": [1]}
    with CheckpointStore(tmp_path) as store:
        store.save(1, make_state(), extra)
        extra["position"].append(2)
        assert store.restore(make_state())[1] == {"position": [1]}


@pytest.mark.parametrize(("mode", "best"), [("min", 2), ("max", 1)])
def test_last_and_best_are_kept(tmp_path, mode, best):
    with CheckpointStore(tmp_path, metric_name="loss", mode=mode, keep_last=1) as store:
        for step, loss in enumerate([0.9, 0.1, 0.4, 0.3], start=1):
            store.save(step, make_state(step), {}, metric=loss)
        store.wait()
        assert store.steps() == [best, 4]
        assert store.best_step() == best
        assert store.latest_step() == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(best), "4"]


def test_best_is_found_without_knowing_the_metric(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss", mode="min") as store:
        for step, loss in enumerate([0.9, 0.1, 0.4], start=1):
            store.save(step, make_state(step), {}, metric=loss)
    state, _, step = CheckpointStore(tmp_path).restore(make_state(), step="best")
    assert step == 2
    assert int(state.step) == 2


def test_a_step_that_vanishes_while_it_is_listed_is_no_error(tmp_path, monkeypatch):
    """A training deletes a step or puts it aside while another process opens the folder."""
    with CheckpointStore(tmp_path) as store:
        for step in (1, 2):
            store.save(step, {"w": jnp.ones(3)}, {})
    vanishing = [tmp_path / "1"]

    def open_late(*words, **options):
        if vanishing:
            shutil.rmtree(vanishing.pop())
            raise FileNotFoundError(tmp_path / "1")
        return open_manager(*words, **options)

    open_manager = step_files.open_manager
    monkeypatch.setattr(step_files, "open_manager", open_late)
    assert CheckpointStore(tmp_path).steps() == [2]


def test_of_equal_metrics_the_later_is_best(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        for step in (1, 2, 3):
            store.save(step, make_state(), {}, metric=0.5)
        assert store.best_step() == 3


def test_step_without_metric_does_not_displace_the_best(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss", keep_last=1) as store:
        store.save(1, make_state(), {}, metric=0.5)
        store.save(2, make_state(), {})
        store.save(3, make_state(), {})
        store.wait()
        assert store.steps() == [1, 3]
        assert store.best_step() == 1


def test_best_of_before_a_resume_is_kept(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss", keep_last=1) as store:
        store.save(1, make_state(), {}, metric=0.1)
        store.save(2, make_state(), {}, metric=0.5)
    with CheckpointStore(tmp_path, metric_name="loss", keep_last=1) as store:
        store.save(3, make_state(), {}, metric=0.4)
        store.wait()
        assert store.steps() == [1, 3]


def test_a_step_that_was_saved_without_a_metric_is_ranked_later(tmp_path):
    for step, loss in ((1, 0.1), (2, 0.5)):
        with CheckpointStore(tmp_path, metric_name="loss") as store:
            store.save(step, make_state(), {"loader": step, "unevaluated": True})
            store.amend(step, {"unevaluated": False}, metric=loss)
    store = CheckpointStore(tmp_path, metric_name="loss")
    assert store.restore(make_state())[1] == {"loader": 2, "unevaluated": False}
    assert store.best_step() == 1


def test_state_saved_on_eight_devices_is_restored_onto_the_templates_sharding(tmp_path):
    eight = NamedSharding(make_mesh(MeshConfig(data=1, fsdp=8)), PartitionSpec(None, "fsdp"))
    four = NamedSharding(make_mesh(MeshConfig(data=1, fsdp=4)), PartitionSpec("fsdp", None))
    values = np.arange(32.0, dtype=np.float32).reshape(4, 8)
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"w": jax.device_put(values, eight)}, {})
        state, _, _ = store.restore({"w": jax.ShapeDtypeStruct((4, 8), jnp.float32, sharding=four)})
    assert state["w"].sharding == four
    np.testing.assert_array_equal(state["w"], values)


def test_sharded_key_comes_back_on_its_mesh(tmp_path):
    sharding = NamedSharding(make_mesh(MeshConfig()), PartitionSpec())
    key = jax.device_put(jax.random.key(7), sharding)
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"key": key}, {})
        state, _, _ = store.restore({"key": key})
    assert state["key"].sharding.device_set == sharding.device_set
    assert_same(state, {"key": jax.random.key(7)})


def test_raw_arrays_are_numpy_under_their_names(tmp_path):
    sharding = NamedSharding(make_mesh(MeshConfig(data=1, fsdp=8)), PartitionSpec(None, "fsdp"))
    state = make_state(2.0)
    params = state.params | {"h": {"kernel": jax.device_put(state.params["h"]["kernel"], sharding)}}
    with CheckpointStore(tmp_path) as store:
        store.save(4, state._replace(params=params), {})
    raw = restore_raw(tmp_path, step=4)
    assert isinstance(raw["params"]["h"]["kernel"], np.ndarray)
    np.testing.assert_array_equal(raw["params"]["h"]["kernel"], np.full((4, 8), 2.0, np.float32))
    assert raw["params"]["scale"].dtype == jnp.bfloat16
    assert raw["opt_state"][0]["count"] == 0


def make_frozen(value: float) -> State:
    base = {"base": {"kernel": jnp.full((64, 64), value, jnp.float32), "scale": jnp.full((3,), value, jnp.bfloat16)}}
    return make_state(value)._replace(frozen=base)


def test_what_nothing_trains_is_written_once_for_all_steps(tmp_path):
    states = {step: make_state(step)._replace(frozen=make_frozen(7.0).frozen) for step in (1, 2)}
    for step, state in states.items():
        with CheckpointStore(tmp_path) as store:
            store.save(step, state, {})
    assert len(list((tmp_path / "frozen").iterdir())) == 1
    for step, state in states.items():
        assert_same(CheckpointStore(tmp_path).restore(make_frozen(0.0), step=step)[0], state)
        metadata = (tmp_path / str(step) / "state" / "_METADATA").read_text()
        assert "scale" in metadata and "base" not in metadata
        np.testing.assert_array_equal(restore_raw(tmp_path, step=step)["frozen"]["base"]["scale"], np.full(3, 7.0))


def test_frozen_arrays_that_are_not_the_saved_ones_are_refused(tmp_path):
    for value, name in ((7.0, "a"), (8.0, "b")):
        with CheckpointStore(tmp_path / name) as store:
            store.save(1, make_frozen(value), {})
    (ours,), (others,) = ((tmp_path / name / "frozen").iterdir() for name in "ab")
    shutil.rmtree(ours)
    with pytest.raises(UserError, match=rf"a/1 is damaged.*{ours.name} is missing"):
        CheckpointStore(tmp_path / "a").restore(make_frozen(0.0))
    shutil.copytree(others, ours)
    with pytest.raises(UserError, match=r"a/1 is damaged.*checksums differ: frozen/base/kernel"):
        CheckpointStore(tmp_path / "a").restore(make_frozen(0.0))


def test_a_checkpoint_that_holds_its_frozen_arrays_itself_is_read(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "split_frozen", lambda state: (state, {}))  # as before
        with CheckpointStore(tmp_path) as store:
            store.save(1, make_frozen(3.0), {})
    with CheckpointStore(tmp_path) as store:
        assert_same(store.restore(make_frozen(0.0))[0], make_frozen(3.0))
        store.save(2, make_frozen(4.0), {})
    assert_same(CheckpointStore(tmp_path).restore(make_frozen(0.0))[0], make_frozen(4.0))


def test_other_frozen_shapes_are_listed(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, make_frozen(3.0), {})
        with pytest.raises(UserError, match=r"of another model.*Unexpected: frozen/base/kernel"):
            store.restore(make_state())


def test_other_shapes_names_and_types_are_listed(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"a": jnp.ones((2, 3)), "b": {"c": jnp.ones(4)}, "e": jnp.ones(1)}, {})
        template = {"a": jnp.ones((2, 5)), "b": {"d": jnp.ones(4)}, "e": jnp.ones(1, jnp.int32)}
        with pytest.raises(UserError) as raised:
            store.restore(template)
    message = str(raised.value)
    assert "Missing: b/d." in message
    assert "Unexpected: b/c." in message
    assert "a: float32[2, 3], not float32[2, 5]" in message
    assert "e: float32[1], not int32[1]" in message


def test_half_written_checkpoint_is_ignored_and_then_cleared(tmp_path):
    with CheckpointStore(tmp_path, keep_last=1) as store:
        store.save(1, make_state(1.0), {})
    half = tmp_path / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    store = CheckpointStore(tmp_path, keep_last=1)
    assert store.latest_step() == 1
    assert store.restore(make_state())[2] == 1
    assert half.exists(), "reading must not touch what another process may be writing"
    with store:
        store.save(2, make_state(2.0), {})
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_so_many_of_the_newest_and_the_best_are_kept_and_multiples_for_good(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss", keep_last=2, keep_best=2, keep_every=5) as store:
        for step, loss in enumerate([0.4, 0.1, 0.3, 0.2, 0.9, 0.8, 0.7, 0.6], start=1):
            store.save(step, {"a": jnp.ones(1)}, {}, metric=loss)
        assert store.steps() == [2, 4, 5, 7, 8]


def test_a_new_step_is_synced_before_an_old_one_vanishes(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(files.os, "fsync", lambda fd: events.append(("sync", os.readlink(f"/proc/self/fd/{fd}"))))
    for name in ("rename", "replace"):
        move = getattr(os, name)

        def note(old, new, *args, move=move, **kwargs):
            events.append(("move", str(new)))
            return move(old, new, *args, **kwargs)

        monkeypatch.setattr(os, name, note)
    with CheckpointStore(tmp_path / "deep" / "bc", keep_last=1) as store:
        assert events == []
        for step in (1, 2):
            store.save(step, make_state(), {})
    folder = tmp_path / "deep" / "bc"
    assert events[:2] == [("sync", str(tmp_path)), ("sync", str(tmp_path / "deep"))]
    kind = [(what, Path(path).relative_to(folder)) for what, path in events if Path(path).is_relative_to(folder)]
    named, gone = kind.index(("move", Path("2"))), kind.index(("move", Path("trash/1")))
    synced = {str(path) for what, path in kind[kind.index(("move", Path("1"))) : named] if what == "sync"}
    half = "2.orbax-checkpoint-tmp"
    assert {half, f"{half}/state", f"{half}/extra/metadata"} <= synced
    assert ("sync", Path(".")) in kind[named:gone]


@pytest.mark.parametrize("part", ["extra", "amended"])
def test_the_step_before_a_damaged_newest_is_restored_and_the_damaged_put_aside(tmp_path, caplog, part):
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        store.save(1, make_state(1.0), {"loader": 1}, metric=0.5)
        store.save(2, make_state(2.0), {"loader": 2})
        store.amend(2, {}, metric=0.1)
    damaged = {"extra": tmp_path / "2" / "extra" / "metadata", "amended": tmp_path / "2" / "amended.json"}[part]
    damaged.write_text("{")
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        state, extra, step = store.restore(make_state(0.0))
        assert (step, extra) == (1, {"loader": 1})
        assert_same(state, make_state(1.0))
        assert f"{tmp_path}/2 is damaged" in caplog.text and "Going on from step 1" in caplog.text
        assert store.best_step() == 1 and (tmp_path / "2").is_dir()  # reading changes nothing
        store.check_metrics()
        store.save(2, make_state(5.0), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "2.damaged"]
    assert_same(CheckpointStore(tmp_path).restore(make_state(0.0))[0], make_state(5.0))


def test_where_all_steps_are_damaged_the_newest_is_named(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for step in (1, 2):
            store.save(step, make_state(), {})
    for step in (1, 2):
        (tmp_path / str(step) / "extra" / "metadata").write_text("{")
    with pytest.raises(UserError, match="/2 is damaged"):
        CheckpointStore(tmp_path).restore(make_state())


class Fails(CheckpointStore):
    """A store that does not look beforehand whether there is room."""

    def _check_room(self, step, arrays, *, like=None):
        pass


FULL = {
    "a system call": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "the array store": ValueError(
        'RESOURCE_EXHAUSTED: Error writing "a/0" [OS error 28: ENOSPC No space left on device]'
    ),
}


@pytest.mark.parametrize("error", FULL)
@pytest.mark.parametrize("intact", [0, 2])
def test_a_disk_that_fills_up_is_one_line_and_leaves_the_step_before(tmp_path, monkeypatch, caplog, error, intact):
    store = Fails(tmp_path, keep_last=1)
    if intact:
        store.save(intact, make_state(2.0), {})
        store.wait()

    def fail(path):
        raise FULL[error]

    with monkeypatch.context() as patch:
        patch.setattr(step_files, "sync_tree", fail)
        expected = "Step 2 is intact" if intact else "There is no earlier step"
        with (
            pytest.raises(
                UserError, match=f"{tmp_path}: the disk is full, and step 3 could not.* {expected}"
            ) as raised,
            store,
        ):
            store.save(3, make_state(3.0), {})
    assert "\n" not in str(raised.value) and caplog.text == ""
    assert [path.name for path in tmp_path.iterdir()] == ([str(intact)] if intact else [])
    with CheckpointStore(tmp_path) as store:
        store.save(3, make_state(3.0), {})


def test_a_step_that_does_not_fit_is_refused_before_it_is_written(tmp_path, monkeypatch):
    n_bytes = sum(x.nbytes for x in jax.tree.leaves(make_state()._replace(key=jax.random.key_data(jax.random.key(0)))))
    for free in (n_bytes, n_bytes - 1):
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        store = CheckpointStore(tmp_path)
        if free == n_bytes:
            store.save(1, make_state(), {})
        else:
            with pytest.raises(UserError, match=r"step 2 could not be saved \(0\.0 MB needed.*Step 1 is intact"):
                store.save(2, make_state(), {})
        store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_step_that_fits_compressed_as_the_one_before_it_is_saved(tmp_path, monkeypatch):
    zeros, free = {"moments": jnp.zeros(1_000_000)}, 10_000_000
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with CheckpointStore(tmp_path) as store:
        store.save(1, zeros, {})
        store.wait()
        size = sum(path.stat().st_size for path in (tmp_path / "1").rglob("*") if path.is_file())
        assert size < 1_000_000
        free = int(1.3 * size)  # a quarter of the arrays' bytes at most
        store.save(2, zeros, {})
        free = int(1.1 * size)
        with pytest.raises(UserError, match="step 3 could not be saved"):
            store.save(3, zeros, {})


def test_leftovers_of_a_killed_process_are_cleared(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(2, make_state(2.0), {})
    for name in ("3.orbax-checkpoint-tmp/state", "trash/1/state"):
        (tmp_path / name).mkdir(parents=True)
    CheckpointStore(tmp_path).clear_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_step_whose_deletion_was_cut_off_is_gone(tmp_path):
    with CheckpointStore(tmp_path, keep_last=1) as store:
        store.save(2, make_state(2.0), {})
    (tmp_path / "trash" / "1" / "state").mkdir(parents=True)
    with CheckpointStore(tmp_path, keep_last=1) as store:
        assert store.steps() == [2]
        store.save(3, make_state(3.0), {})
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


@pytest.mark.slow
def test_process_killed_at_any_instant_leaves_a_complete_last_and_best(tmp_path):
    program = textwrap.dedent(
        f"""
        import jax.numpy as jnp
        from ilqljax.training.checkpoint import CheckpointStore
        store = CheckpointStore({str(tmp_path)!r}, metric_name="loss")
        start = store.latest_step() or 0
        for step in range(start + 1, 10_000):
            store.save(step, {{"a": jnp.full((200_000,), step, jnp.float32)}}, {{"step": step}}, metric=float(step % 7))
            print(step, flush=True)
        """
    )
    rng = np.random.default_rng(0)
    root = Path(__file__).resolve().parents[1]
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True) as process:
            for _ in range(3):
                assert process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
        store = CheckpointStore(tmp_path)
        template = {"a": jax.ShapeDtypeStruct((200_000,), jnp.float32)}
        for which in ("last", "best"):
            state, extra, step = store.restore(template, step=which)
            assert extra == {"step": step}
            assert np.all(state["a"] == step)


def flip_bit(raw: bytes, part: float) -> bytes:
    i = int(part * (len(raw) - 1))
    return raw[:i] + bytes([raw[i] ^ 4]) + raw[i + 1 :]


DAMAGES = {
    "emptied": lambda raw: b"",
    "cut in half": lambda raw: raw[: len(raw) // 2],
    "zeroed": lambda raw: bytes(len(raw)),
    "gone": None,
    **{f"bit flipped at {part}": lambda raw, part=part: flip_bit(raw, part) for part in (0.0, 0.2, 0.5, 0.8, 1.0)},
}


def damage_every_file(folder: Path, damage: str) -> None:
    """Damage one file of a checkpoint after the other, and find that restoring refuses it or gives what was saved."""
    extra = {"loader": {"position": 17}, "text": "x" * 200}
    with CheckpointStore(folder, metric_name="loss") as store:
        store.save(3, make_state(3.0), extra, metric=0.5)
    refused = []
    files = [file for file in sorted((folder / "3").rglob("*")) if file.is_file() and file.stat().st_size]
    for file in files:
        raw = file.read_bytes()
        if DAMAGES[damage] is None:
            file.unlink()
        else:
            file.write_bytes(DAMAGES[damage](raw))
        try:
            state, restored_extra, _ = CheckpointStore(folder).restore(make_state(0.0))
        except UserError as error:
            assert str(folder / "3") in str(error), f"{damage}: {file}"
            refused.append(file)
        else:
            assert restored_extra == extra, f"{damage}: {file}"
            assert_same(state, make_state(3.0))
        file.write_bytes(raw)
    assert_same(CheckpointStore(folder).restore(make_state(0.0))[0], make_state(3.0))
    assert refused, damage


@pytest.mark.slow
def test_damage_to_any_file_is_refused_or_changes_nothing(tmp_path):
    # In a process of its own: after a read that failed, Orbax's other reads report to an event loop that is closed, and
    # what they raise would fail whatever test runs then.
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from test_checkpoint import DAMAGES, damage_every_file
        for damage in DAMAGES:
            damage_every_file(Path({str(tmp_path)!r}) / damage, damage)
        print("done")
        """
    )
    tests = Path(__file__).resolve().parent
    done = subprocess.run([sys.executable, "-c", program], cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr


def test_an_array_that_is_not_the_saved_one_is_named(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(3, make_state(3.0), {})
    extra = next((tmp_path / "3" / "extra").glob("metadata"))
    values = json.loads(extra.read_text())
    values["checksums"]["params/h/kernel"] += 1
    extra.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"damaged.*params/h/kernel.*delete the folder"):
        CheckpointStore(tmp_path).restore(make_state(0.0))


def test_checkpoint_of_before_there_were_checksums_is_read(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(3, make_state(3.0), {"a": 1})
    extra = next((tmp_path / "3" / "extra").glob("metadata"))
    values = json.loads(extra.read_text())
    del values["checksums"]
    extra.write_text(json.dumps(values))
    state, restored, _ = CheckpointStore(tmp_path).restore(make_state(0.0))
    assert restored == {"a": 1}
    assert_same(state, make_state(3.0))


def test_a_damaged_best_step_is_named_before_anything_is_written(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        store.save(1, make_state(1.0), {}, metric=0.1)
        store.save(2, make_state(2.0), {}, metric=0.2)
    (tmp_path / "1" / "extra" / "metadata").write_text("{")
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        assert_same(store.restore(make_state(0.0))[0], make_state(2.0))
        with pytest.raises(UserError, match=r"/1 is damaged.*newest step that is left"):
            store.check_metrics()
        with pytest.raises(UserError, match=r"/1 is damaged"):
            store.save(3, make_state(3.0), {}, metric=0.3)


def test_missing_folder_is_refused(tmp_path):
    store = CheckpointStore(tmp_path / "absent")
    assert store.latest_step() is None
    assert store.best_step() is None
    with pytest.raises(UserError, match="absent is not there"):
        store.restore(make_state())
    assert not (tmp_path / "absent").exists()


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="no complete checkpoint"):
        CheckpointStore(tmp_path).restore(make_state())


def test_unknown_step_is_refused_listing_the_known(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(5, make_state(), {})
        with pytest.raises(UserError, match=r"no complete step 6\. Known: 5"):
            store.restore(make_state(), step=6)


def test_best_without_any_metric_is_refused(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(5, make_state(), {})
        with pytest.raises(UserError, match="has a metric"):
            store.restore(make_state(), step="best")


def test_step_that_is_not_new_is_refused(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(5, make_state(), {})
        with pytest.raises(UserError, match="already has step 5"):
            store.save(5, make_state(), {})


def test_nan_metric_is_refused(tmp_path):
    with CheckpointStore(tmp_path, metric_name="loss") as store, pytest.raises(UserError, match="not finite"):
        store.save(5, make_state(), {}, metric=float("nan"))


@pytest.mark.parametrize("changed", [{"metric_name": "reward", "mode": "max"}, {"metric_name": "loss", "mode": "max"}])
def test_ranking_by_another_metric_in_the_same_folder_is_refused(tmp_path, changed):
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        store.save(1, make_state(), {}, metric=0.5)
    with CheckpointStore(tmp_path, **changed) as store:
        with pytest.raises(UserError, match="ranked by loss"):
            store.check_metrics()
        with pytest.raises(UserError, match="ranked by loss"):
            store.save(2, make_state(), {}, metric=0.4)


def test_extra_that_is_not_json_fails_at_once(tmp_path):
    with CheckpointStore(tmp_path) as store, pytest.raises(TypeError, match="JSON"):
        store.save(1, make_state(), {"path": Path()})


def test_orbax_logs_nothing_in_normal_work(tmp_path, caplog):
    caplog.set_level("DEBUG")
    with CheckpointStore(tmp_path, metric_name="loss") as store:
        store.save(1, make_state(), {})
        store.restore(make_state())
    CheckpointStore(tmp_path).restore(make_state())
    assert [r.getMessage() for r in caplog.records if "orbax" in r.pathname] == []
