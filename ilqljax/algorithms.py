"""The algorithms by name: what options each has, which networks it trains, and its loss.

A new algorithm is one entry here and one loss function in `steps.py`; the train loop knows none of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from ilqljax.config import Section, from_section
from ilqljax.errors import UserError
from ilqljax.models.value_lm import ValueLM
from ilqljax.objectives.likelihood import BCConfig, make_bc_loss
from ilqljax.objectives.values import ILQLConfig, UtteranceILQLConfig, make_ilql_loss, unreached_paths
from ilqljax.state import TrainState, init_state
from ilqljax.types import Array, LossFn


class Algorithm(NamedTuple):
    """An algorithm's options and loss.

    `has_critic` says whether it trains Q and V besides, or instead of, a policy; `level` what their actions are.
    """

    config_class: type
    make_loss: Callable[[ValueLM, Any], LossFn]
    has_critic: bool
    level: str = "token"


ALGORITHMS = {
    "bc": Algorithm(BCConfig, make_bc_loss, has_critic=False),
    "ilql": Algorithm(ILQLConfig, make_ilql_loss, has_critic=True),
    "ilql_utterance": Algorithm(UtteranceILQLConfig, make_ilql_loss, has_critic=True, level="utterance"),
}


class Learner(NamedTuple):
    """An algorithm with its options settled."""

    algorithm: Algorithm
    config: Any
    loss_fn: LossFn

    def trains_policy(self) -> bool:
        """Say whether the policy's parameters change."""
        return not self.algorithm.has_critic or self.config.awac_weight > 0


def make_learner(name: str, model: ValueLM, section: Section, *, path: str = "config.train.loss") -> Learner:
    """Look an algorithm up by name and read its options from a config section; errors are `read_options`'s."""
    algorithm, config = read_options(name, section, path=path)
    return Learner(algorithm, config, algorithm.make_loss(model.at_level(algorithm.level), config))


def read_options(name: str, section: Section, *, path: str = "config.train.loss") -> tuple[Algorithm, Any]:
    """Look an algorithm up and check its options, before anything is built.

    Raises:
        UserError: the name is unknown, or the section has an option that the algorithm lacks.
    """
    if name not in ALGORITHMS:
        raise UserError(f"algorithm={name!r} is unknown. Known: {', '.join(ALGORITHMS)}.")
    algorithm = ALGORITHMS[name]
    return algorithm, from_section(algorithm.config_class, section, path=path)


def init_learner_state(
    learner: Learner,
    model: ValueLM,
    *,
    optimizer: optax.GradientTransformation,
    key: Array,
    trunk: dict | None = None,
) -> TrainState:
    """Create an algorithm's training state.

    Args:
        learner: the algorithm.
        model: the networks.
        optimizer: of the trained parameters.
        key: of the initial parameters and, later, of every step's randomness.
        trunk: a language model (pretrained, or cloned from the data) that the policy and the value trunk start from;
            random where absent.
    """
    init_key, step_key = jax.random.split(key)
    if not learner.algorithm.has_critic:
        policy = model.init_trunk(init_key) if trunk is None else trunk
        return init_state({"policy": policy}, target={}, frozen={}, optimizer=optimizer, key=step_key)
    model = model.at_level(learner.algorithm.level)
    params = model.init_params(init_key, trunk=trunk, policy=trunk)
    target = model.init_target(params)
    frozen = {}
    if "policy" in params and not learner.trains_policy():
        frozen = {"policy": params.pop("policy")}
    return init_state(params, target=target, frozen=frozen, optimizer=optimizer, key=step_key)


def find_unreached(learner: Learner, model: ValueLM, state: TrainState) -> tuple[tuple[str, ...], ...]:
    """List the parameters that the loss never reads (`steps.unreached_paths`)."""
    return unreached_paths(model, learner.config, state.params) if learner.algorithm.has_critic else ()
