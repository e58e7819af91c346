"""Two processes read one store: damage that one of them meets, and folders that they do not share.

`python tests/test_checkpoint_processes.py` is one of the two.
"""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from two_processes import TIMEOUT_S, finish_two, start_two

from ilqljax.errors import UserError
from ilqljax.training import processes, runs
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.mesh import MeshConfig, make_mesh


def find_array_file(step: Path) -> Path:
    """Find the largest file of a step: the parts of arrays that one process wrote."""
    return max((step / "state").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def flip_bit(step: Path) -> None:
    path = find_array_file(step)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(step: Path) -> None:
    path = find_array_file(step)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def keep_half(step: Path) -> None:
    shutil.rmtree(step / "state")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip_bit,
    "a truncated file": truncate,
    "a missing file": lambda step: find_array_file(step).unlink(),
    "a missing checksum": lambda step: (step / "files.json").unlink(),
    "half a folder": keep_half,
    "an empty folder": lambda step: (shutil.rmtree(step), step.mkdir()),
}


def run_as_one_of_two(folder: Path) -> None:
    """Save, let process 0 damage the newest step, and say what `restore` makes of it, a line of JSON a case."""
    processes.start_processes()
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("ilqljax").addHandler(handler)
    mesh = make_mesh(MeshConfig(data=1, fsdp=2))
    halves, whole = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("fsdp", None))
    random = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    make = jax.jit(lambda x: {"w": x * random, "b": x * jnp.ones(3)}, out_shardings={"w": halves, "b": whole})
    find_same = jax.jit(lambda a, b: (a["w"] == b["w"]).all() & (a["b"] == b["b"]).all())
    template = {
        "w": jax.ShapeDtypeStruct((4096,), jnp.float32, sharding=halves),
        "b": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=whole),
    }

    def save(directory: Path, *steps: int) -> None:
        with CheckpointStore(directory, metric_name="loss") as store:
            for step in steps:
                store.save(step, make(float(step)), {"loader": step})
                store.amend(step, {}, metric=1.0)
        processes.broadcast_from_leader(lambda: None)

    def tell(case: str, directory: Path, *, then_save: bool = True) -> None:
        warnings.clear()
        try:
            with CheckpointStore(directory, metric_name="loss") as store:
                state, extra, step = store.restore(template)
                same = find_same(state, make(float(step)))
                if then_save:
                    store.check_metrics()
                    store.save(step + 1, make(9.0), {})
            said = {"step": step, "loader": extra["loader"], "same": bool(same)}
        except UserError as error:
            said = {"error": str(error)}
        sys.stdout.write(json.dumps({"case": case, "warnings": list(warnings)} | said) + "\n")

    def change(directory: Path, damage: Callable[[Path], object]) -> None:
        processes.broadcast_from_leader(lambda: damage(directory) and None)

    for case, damage in DAMAGES.items():
        save(folder / case, 1, 2)
        change(folder / case / "2", damage)
        tell(case, folder / case)

    case = "all are damaged"
    save(folder / case, 1, 2)
    for step in "12":
        change(folder / case / step, truncate)
    tell(case, folder / case)

    for case, damage in (("one alone meets the damage", keep_half), ("one sees no step", keep_half)):
        mine, other = folder / case, folder / f"{case}, from afar"
        save(mine, 1, 2)
        change(mine, lambda _, mine=mine, other=other: shutil.copytree(mine, other))
        change(other / "2", damage)
        if case == "one sees no step":
            change(other, shutil.rmtree)
        tell(case, (mine, other)[jax.process_index()], then_save=False)

    runs.LONGEST_LAG_S = 1.0
    agree = runs.broadcast_from_leader

    def mount(make: Callable[[], object]) -> object:  # in process 1 the run's path is another disk's
        said = agree(make)
        return said.replace("/run", "/mounted elsewhere") if isinstance(said, str) else said

    if jax.process_index() == 1:
        runs.broadcast_from_leader = mount
    config = ConfigDict({"run_dir": str(folder / "run"), "resume": ""})
    try:
        with runs.claim_run_dir(folder / "run", config, overrides={}):
            said = {}
    except UserError as error:
        said = {"error": str(error)}
    sys.stdout.write(json.dumps({"case": "another disk", "warnings": []} | said) + "\n")
    processes.leave_together(longest_ms=1000 * TIMEOUT_S)  # jax waits for a short time, and a busy machine takes longer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def told(folder):
    """By case, what each of the two processes made of it."""
    outputs = finish_two(start_two(__file__, folder))
    lines = [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in outputs]
    return {first["case"]: (first, second) for first, second in zip(*lines, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("case", [*DAMAGES, "one alone meets the damage"])
def test_both_go_on_from_the_step_before_the_damaged_one_and_the_first_says_so(told, folder, case):
    first, second = told[case]
    expected = {"case": case, "step": 1, "loader": 1, "same": True}
    assert first == expected | {"warnings": first["warnings"]} and second == expected | {"warnings": []}
    (warning,) = first["warnings"]
    assert "/2 is damaged or cannot be read" in warning and "Going on from step 1" in warning
    assert warning.startswith("Process 1: ") == (case == "one alone meets the damage")
    if case in DAMAGES:
        assert {"1", "2", "2.damaged"} == {path.name for path in (folder / case).iterdir()}


@pytest.mark.slow
def test_where_nothing_is_whole_both_are_refused(told):
    for one in told["all are damaged"]:
        assert "/2 is damaged or cannot be read" in one["error"]


@pytest.mark.slow
def test_a_step_that_one_does_not_see_is_refused_by_both(told):
    for one in told["one sees no step"]:
        assert "Process 1 does not see the checkpoint" in one["error"] and "shared" in one["error"]


@pytest.mark.slow
def test_a_run_folder_that_one_does_not_see_is_refused_by_both(told):
    for one in told["another disk"]:
        assert "1 of the 2 processes see another folder" in one["error"]


if __name__ == "__main__":
    run_as_one_of_two(Path(sys.argv[1]))
