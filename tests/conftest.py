"""Eight virtual CPU devices, strict ranks, and the places where test data lives."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiling is what most tests spend their time on: with few optimizations (without XLA's fusion emitters and splitting
# programs for many cores it takes 40 % less), and each program once for all test runs.
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilqljax" / "tests"),
)
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # programs that run in a test start no new process
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import jax
import jaxtyping
import pytest
from shapes import find_modules_with_shapes

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).resolve().parents[1]
jaxtyping.install_import_hook(find_modules_with_shapes(ROOT), "shapes.check_shapes")


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
