"""A run of several processes: how they find each other, and what only the first of them does.

All processes run the same program. Training steps, losses and checkpoints are computations that all of them take part
in. What concerns the run's folder, what a policy does in training and how it is judged is the first process's alone: it
tells the others what came of it, and they wait; in a judgement they act with it (`shared_acting`). Data are prepared by
the first process before the others look at them.
"""

import contextlib
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost  # its client has the store of keys and values, which jax does not export

from ilqljax.errors import Interrupted, UserError
from ilqljax.rl.steps import TrainState

ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# Waiting ends with the process that is waited for, however it ends: jax stops every process when one is lost.
LONGEST_WAIT_MS = 30 * 24 * 3600 * 1000
CALL_MS = 500  # of one call that waits
# After one is killed, or leaves with an error while the others wait for it: less than a scheduler's 30 s from SIGTERM.
TIMEOUTS = {"heartbeat_timeout_seconds": 20, "shutdown_timeout_seconds": 10}

# What the first process says is numbered; all processes count alike.
_numbers = itertools.count()


def start_processes() -> None:
    """Join the other processes of this run; to be called before anything touches a device.

    The environment says who they are: JAX_COORDINATOR_ADDRESS (the first process's host:port), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID (from 0 on). Without the last two jax asks the cluster: Slurm, Open MPI, Kubernetes, a TPU pod.
    """
    # It would take SIGTERM from us in all phases, and agrees on a step in training only (`ilqljax.training.ending`).
    jax.config.update("jax_enable_preemption_service", False)
    given = {name: os.environ[name] for name in (ADDRESS, COUNT, INDEX) if os.environ.get(name)}
    if COUNT not in given and INDEX not in given:
        try:
            jax.distributed.initialize(**TIMEOUTS)
        except ValueError as error:
            raise UserError(
                f"--distributed: no cluster was found ({error}). Start each process with {ADDRESS}=HOST:PORT of the "
                f"first one, {COUNT} and its own {INDEX} (0, 1, ...), or leave --distributed out."
            ) from error
        return
    if missing := ", ".join(name for name in (ADDRESS, COUNT, INDEX) if name not in given):
        raise UserError(f"--distributed: {', '.join(given)} without {missing} says too little. Set all three.")
    for name in (COUNT, INDEX):
        if not given[name].isdecimal():
            raise UserError(f"--distributed: {name}={given[name]!r} is not a whole number. Give one from 0 on.")
    address, count, index = given[ADDRESS], int(given[COUNT]), int(given[INDEX])
    if not address.rpartition(":")[0] or not address.rpartition(":")[2].isdecimal():
        raise UserError(f"--distributed: {ADDRESS}={address!r} is not HOST:PORT. Give that of the first process.")
    if index >= count:
        raise UserError(f"--distributed: {INDEX}={index} is not below {COUNT}={count}. Number the processes from 0 on.")
    jax.distributed.initialize(address, count, index, **TIMEOUTS)


def is_first_process() -> bool:
    """Return whether this process is the one that writes files and speaks; the only one is."""
    return jax.process_index() == 0


def get_client() -> Any:
    """Return what the processes tell each other keys and values with."""
    return multihost.get_jax_distributed_client()


def wait_for_text(client: Any, key: str) -> str:
    """Wait for what another process says under a key, in short calls: between them Python hears of signals."""
    while True:
        try:
            return client.blocking_key_value_get(key, CALL_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def number_message(kind: str) -> str:
    """Return a new key for what the processes tell each other, the same in all, which must get here in one order."""
    return f"ilqljax/{kind}/{next(_numbers)}"


def check_same(text: str, *, what: str) -> None:
    """Raise a `UserError` in all processes where one has another text than the first; `what` names the text."""
    sums = gather_texts(str(zlib.crc32(text.encode())))
    if differing := [str(i) for i, other in enumerate(sums) if other != sums[0]]:
        raise UserError(
            f"Not all of the {len(sums)} processes have the same {what}: {', '.join(differing)} differ from "
            "the first, 0. Start all with the same command, on the same code and files."
        )


def broadcast_from_leader(make: Callable[[], Any]) -> Any:
    """Call a function in the first process alone, and return there and everywhere else the JSON value it returned.

    All processes must get here in the same order. The function may not compute on devices of other processes. Errors
    are those of `first_process_first`.
    """
    with first_process_first() as said:
        if is_first_process():
            said["value"] = make()
    return said["value"]


def gather_texts(text: str) -> list[str]:
    """Return every process's text, in their order, in all processes, which must get here in the same order."""
    if jax.process_count() == 1:
        return [text]
    client, name = get_client(), number_message("texts")
    client.key_value_set(f"{name}/{jax.process_index()}", json.dumps(text))
    return [json.loads(wait_for_text(client, f"{name}/{i}")) for i in range(jax.process_count())]


def leave_together(*, longest_ms: int = LONGEST_WAIT_MS) -> None:
    """Wait at the end of a program until all processes are there, for so long at most.

    jax waits a short time only, and ends them all with a stack trace then: whoever leaves with an error leaves alone.
    """
    if jax.process_count() > 1:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            get_client().wait_at_barrier("ilqljax/end", longest_ms)


@contextlib.contextmanager
def first_process_first() -> Iterator[dict[str, Any]]:
    """Run a block in the first process and, when it is done there, in the others: it finds what the first one built.

    Yields the JSON values that the first process leaves there for the others; where its block fails, they raise a
    `UserError`, and where it is broken off, the same `Interrupted`.
    """
    if jax.process_count() == 1:
        yield {}
        return
    client, name = get_client(), number_message("first_process")
    if is_first_process():
        said, answer = {}, None
        try:
            yield said
            answer = said
        except Interrupted as error:
            answer = error.number
            raise
        finally:
            client.key_value_set(name, json.dumps(answer))
        return
    answer = json.loads(wait_for_text(client, name))
    if answer is None:
        raise UserError("The first process has ended with an error. See what it says, and start all processes again.")
    if isinstance(answer, int):
        raise Interrupted(answer)
    yield answer


def gather_networks(state: TrainState) -> TrainState:
    """Return a state whose networks this process holds whole on its first device, to act with or to export.

    Its optimizer keeps its own arrays. With one process it is returned as it is. All processes must take part.
    """
    if jax.process_count() == 1:
        return state

    def gather(x: jax.Array) -> jax.Array:
        whole = x.addressable_data(0) if x.is_fully_replicated else multihost_utils.process_allgather(x, tiled=True)
        # A copy: the global array may be donated. On no device by name: it may be given to any mesh.
        return jnp.asarray(np.array(whole))

    params, frozen, target = jax.tree.map(gather, (state.params, state.frozen, state.target))
    return state._replace(params=params, frozen=frozen, target=target)
