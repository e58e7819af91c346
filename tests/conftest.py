"""Eight virtual CPU devices, strict ranks, and the places where test data lives."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Tests build many equal programs anew; each is compiled once a session, whichever of pytest-xdist's processes needs it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ilqljax-tests-xla-")
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # programs that run in a test start no new process
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The project's shared folder, which lies beside the checkout; a user does not have it."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"{path} is not there: the project's shared folder is only on developers' machines and in CI")
    return path


@pytest.fixture(params=["cpu", "tpu"])
def each_way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with the tricks for a CPU and again the plain way, which runs here too."""
    from ilqljax.models.cpu import compile_for

    with compile_for(request.param):
        yield request.param
