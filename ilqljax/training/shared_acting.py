"""A judgement of several processes: the first one judges, and all write what its policies write.

The first process deals out the compiled calls of a batch of observations. A call is the same rows with the same random
numbers wherever it runs, so that the texts are those of one process.

    acting/3/0            {"name": "ilql", "overrides": {}, "n": 5}    a batch of five calls; "null" at the end
    acting/3/0/1          [prompts, numbers]                           the second call, of process 1 where there are two
    acting/3/0/1/made     the generations, an error's text, or the signal that broke it off
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import numpy as np

from ilqljax.decoding.policy import Generation, TextPolicy
from ilqljax.errors import Interrupted, UserError
from ilqljax.training.processes import get_client, is_first_process, number_message, wait_for_text


@contextlib.contextmanager
def share_acting(make: Callable[..., TextPolicy]) -> Iterator[Callable[..., TextPolicy]]:
    """Let all processes act with the policies that the first one makes in the block; the others enter it after that.

    Yields what the first process makes them with instead of `make`, whose arguments must be JSON values.
    """
    if jax.process_count() == 1:
        yield make
        return
    client, base = get_client(), number_message("acting")
    if not is_first_process():
        _serve(client, base, make)
        yield make
        return
    numbers = itertools.count()

    def make_shared(name: str, **overrides: Any) -> TextPolicy:
        policy = make(name, **overrides)
        header = {"name": name, "overrides": overrides}
        policy.run_calls = partial(_run_shared, client, base, numbers, header, policy.run)
        return policy

    try:
        yield make_shared
    finally:
        client.key_value_set(f"{base}/{next(numbers)}", "null")


def _run_shared(
    client: Any,
    base: str,
    numbers: Iterator[int],
    header: dict[str, Any],
    run: Callable[..., list[list[Generation]]],
    calls: Sequence[tuple[list[np.ndarray], np.ndarray]],
) -> list[list[list[Generation]]]:
    """Run calls, prompts and the numbers of their rows, in all processes; returns what each gave."""
    name, n = f"{base}/{next(numbers)}", jax.process_count()
    others = [j for j in range(len(calls)) if j % n]
    for j in others:
        prompts, of_rows = calls[j]
        client.key_value_set(f"{name}/{j}", json.dumps([[p.tolist() for p in prompts], of_rows.tolist()]))
    client.key_value_set(name, json.dumps(header | {"n": len(calls)}))  # last: nobody waits for a call
    made = {j: run(*calls[j]) for j in range(0, len(calls), n)}
    for j in others:
        found = json.loads(wait_for_text(client, f"{name}/{j}/made"))
        if isinstance(found, str):
            raise UserError(found)
        if isinstance(found, int):
            raise Interrupted(found)
        made[j] = [[Generation(**one) for one in row] for row in found]
    return [made[j] for j in range(len(calls))]


def _serve(client: Any, base: str, make: Callable[..., TextPolicy]) -> None:
    """Run this process's calls until the first process is done."""
    policies: dict[str, TextPolicy] = {}
    for k in itertools.count():
        header = wait_for_text(client, f"{base}/{k}")
        if (asked := json.loads(header)) is None:
            return
        key = json.dumps([asked["name"], asked["overrides"]])
        for j in range(jax.process_index(), asked["n"], jax.process_count()):
            answer = "Another process has ended with an error. See what it says."
            try:
                prompts, numbers = json.loads(wait_for_text(client, f"{base}/{k}/{j}"))
                if key not in policies:
                    policies = {key: make(asked["name"], **asked["overrides"])}
                found = policies[key].run([np.array(p, np.int32) for p in prompts], np.array(numbers))
                answer = [[asdict(one) for one in row] for row in found]
            except UserError as error:
                answer = str(error)
            except Interrupted as error:
                answer = error.number
                raise
            finally:  # whatever it is: the first process waits for it
                client.key_value_set(f"{base}/{k}/{j}/made", json.dumps(answer))
