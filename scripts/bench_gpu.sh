#!/usr/bin/env bash
# The GPU's table in one call, on a bare machine with jax, flax, optax and orbax:
#
#     scripts/bench_gpu.sh [OUT.json]
#
# What else the benchmark imports is installed from wheels/*.whl where that folder exists (for machines without a
# network; elsewhere, with the same Python: `pip download --no-deps -d wheels` and the PACKAGES below), from PyPI
# otherwise. Nothing is installed where all of it is there. The torch twin runs too where torch sees the GPU and
# transformers can be imported.
set -euo pipefail
PACKAGES="ml_collections jaxtyping wadler_lindig grain array_record cloudpickle portpicker psutil tokenizers scipy absl-py"
out=$(realpath -m "${1:-bench_gpu.json}")
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

python - <<'PYTHON' || { echo "bench_gpu.sh: found no jax with a GPU. On a CPU: python scripts/bench.py" >&2; exit 2; }
import sys
try:
    import jax
except ImportError as error:
    sys.exit(f"bench_gpu.sh: {error}")
devices = jax.devices()
print(f"jax {jax.__version__}: {devices}")
sys.exit(devices[0].platform != "gpu")
PYTHON

if ! python -c "import benchmarks.speed.ours" 2>/dev/null; then
    if compgen -G "wheels/*.whl" >/dev/null; then
        python -m pip install -q --no-deps wheels/*.whl
    else
        # shellcheck disable=SC2086  # a list of words
        python -m pip install -q $PACKAGES
    fi
    python -c "import benchmarks.speed.ours"
fi

against=""
if python -c "import sys, torch, transformers; sys.exit(not torch.cuda.is_available())" 2>/dev/null; then
    against="torch"
fi
exec python scripts/bench.py --items gpu-train,gpu-act --pairs 2 --against "$against" --out "$out"
