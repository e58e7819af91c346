"""What a training step of a large model takes on each device and sends, as the compiler counts it.

No weight is allocated.

    python -m benchmarks.memory                          Llama-3.2-1B, -3B and 3.1-8B on 1, 8 and 64 devices
    python -m benchmarks.memory --models 70B --devices 512 --fsdp 64 --steps bc-whole

BC trains adapters of rank 16 of all linear layers, or all weights (`bc-whole`). ILQL trains V and two Q heads of rank
64 on the frozen trunk, whose hidden states come with the rows. Parameters are float32, activations bfloat16, blocks are
recomputed; every device has one row of 1,024 tokens, the last 512 of which are actions. All devices share the
parameters, or groups of `--fsdp` do (`config.mesh.fsdp`), with a copy in each group.
"""

import argparse
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import Exchange, list_exchanges, sum_bytes
from ilqljax.cli import run_main
from ilqljax.data.types import Batch, Transitions
from ilqljax.errors import UserError
from ilqljax.models.cpu import compile_for
from ilqljax.models.llama import Llama, LlamaConfig
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import find_unreached, init_learner_state, make_learner
from ilqljax.rl.optim import OptimConfig, make_optimizer
from ilqljax.rl.steps import TargetConfig, make_train_step
from ilqljax.training.mesh import MeshConfig, batch_sharding, infer_param_shardings, make_mesh, trace_on

LENGTH, N_ACTIONS = 1024, 512
NUMERICS = {"dtype": "bfloat16", "remat": True, "n_positions": LENGTH}
LLAMA3 = {"vocab_size": 128_256 + 6, "n_kv_head": 8, "rope_theta": 5e5, **NUMERICS}  # six control tokens
MODELS = {
    "1B": LlamaConfig(n_embd=2048, n_layer=16, n_head=32, n_inner=8192, **LLAMA3),
    "3B": LlamaConfig(n_embd=3072, n_layer=28, n_head=24, n_inner=8192, **LLAMA3),
    "8B": LlamaConfig(n_embd=4096, n_layer=32, n_head=32, n_inner=14_336, tied=False, **LLAMA3),
    "70B": LlamaConfig(n_embd=8192, n_layer=80, n_head=64, n_inner=28_672, tied=False, **LLAMA3),
}
STEPS = {"bc": "BC, adapters", "bc-whole": "BC, all weights", "ilql": "ILQL, frozen trunk"}


class Memory(NamedTuple):
    """Bytes on each device: the state (parameters, moments, targets) with the batch, and what a step needs besides.

    Attributes:
        exchanges: the collectives of a step.
    """

    held: int
    temporary: int
    exchanges: list[Exchange]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="1B,3B,8B", help=f"of {', '.join(MODELS)}, comma-separated")
    parser.add_argument("--steps", default="bc,ilql", help=f"of {', '.join(STEPS)}, comma-separated")
    parser.add_argument("--devices", default="1,8,64", help="comma-separated")
    parser.add_argument("--fsdp", type=int, default=0, help="devices that share the parameters; 0: all")
    args = parser.parse_args()
    names, steps, devices = args.models.split(","), args.steps.split(","), args.devices.split(",")
    for option, given, known in (("--models", names, MODELS), ("--steps", steps, STEPS)):
        if unknown := [name for name in given if name not in known]:
            raise UserError(f"{option}: {', '.join(unknown)} unknown. Known: {', '.join(known)}.")
    if not all(count.isdecimal() and int(count) for count in devices):
        raise UserError(f"--devices={args.devices} are not numbers of devices. Give some, such as 1,8,64.")
    if args.fsdp < 0 or (args.fsdp and any(int(count) % args.fsdp for count in devices)):
        raise UserError(f"--fsdp={args.fsdp} does not divide --devices={args.devices}. Give a number that does, or 0.")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(map(int, devices)))
    say("| model | step | devices, sharing | held, GB | temporary, GB | together, GB | exchanged, GB |")
    say("|---|---|---|---|---|---|---|")
    for name in names:
        for algorithm in steps:
            for count in map(int, devices):
                n_sharing = args.fsdp or count
                found = measure_step(MODELS[name], algorithm, n_devices=count, n_sharing=n_sharing)
                held, temporary, exchanges = found
                counts = held, temporary, held + temporary, sum_bytes(exchanges)
                cells = [f"{n_bytes / 1e9:.2f}" for n_bytes in counts]
                say(f"| {' | '.join([name, STEPS[algorithm], f'{count}, {n_sharing}', *cells])} |")


def measure_step(
    config: LlamaConfig,
    step: str,
    *,
    n_devices: int,
    n_sharing: int = 0,
    length: int = LENGTH,
    n_actions: int = N_ACTIONS,
) -> Memory:
    """Compile a training step of `STEPS` for so many devices and return the compiler's account of one of them.

    So many share the parameters; 0 is all.
    """
    frozen, rank = step == "ilql", 0 if step == "bc-whole" else 16
    model = ValueLM(Llama(config), ValueLMConfig(lora_rank=rank, frozen_value=frozen, q_head="low_rank"))
    learner, optimizer = make_learner(step.removesuffix("-whole"), model, {}), make_optimizer(OptimConfig())
    with compile_for("tpu"):  # the plain program, without what is done for a CPU alone
        state = jax.eval_shape(lambda key: init_learner_state(learner, optimizer=optimizer, key=key), jax.random.key(0))
        unreached = find_unreached(learner, state)
        train_step = make_train_step(learner.loss_fn, optimizer, target=TargetConfig(), unreached=unreached)
        mesh = make_mesh(MeshConfig(fsdp=n_sharing or n_devices), jax.devices()[:n_devices])
        shardings = infer_param_shardings(state, mesh)
        compiled = (
            jax.jit(
                trace_on(mesh, train_step),
                donate_argnums=0,
                in_shardings=(shardings, batch_sharding(mesh)),
                out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
                keep_unused=True,  # a frozen trunk is held, whether the step reads it or not
            )
            .lower(state, describe_batch(config, n_devices, length, n_actions, hidden=frozen))
            .compile()
        )
    found: Any = compiled.memory_analysis()
    fresh = found.output_size_in_bytes - found.alias_size_in_bytes
    exchanges = list_exchanges(compiled.as_text())
    return Memory(found.argument_size_in_bytes, found.temp_size_in_bytes + fresh, exchanges)


def describe_batch(config: LlamaConfig, n_rows: int, length: int, n_actions: int, *, hidden: bool) -> Batch:
    """Return the shapes of a batch, with hidden states if `hidden`."""

    def shape(*sizes: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((n_rows, *sizes), dtype)

    def transitions(n: int) -> Transitions:
        rewards, terminals = shape(n, dtype=jnp.float32), shape(n + 1, dtype=jnp.float32)
        return Transitions(shape(n + 1), shape(n), rewards, terminals, shape(n, dtype=bool))

    states = shape(length, config.n_embd, dtype=jnp.bfloat16) if hidden else None
    return Batch(shape(length), shape(length, dtype=bool), transitions(n_actions), transitions(1), states)


def say(line: str) -> None:
    """Print a line of the table as soon as it is known."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_main(main)
