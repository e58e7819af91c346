"""The algorithms by name: the options each has, the rows it trains on, which networks it trains, and its loss.

A new algorithm is one entry here and, where its loss is new, one function in `objectives`; the train loop knows none.

- `bc`: behavioural cloning.
- `filtered_bc`: cloning of the best rows ("%BC", Chen et al. 2021, arXiv 2106.01345).
- `ilql`: implicit language Q-learning, per token (Snell et al. 2022, arXiv 2206.11871).
- `ilql_utterance`: the same with whole utterances as actions; samples of the clone are re-ranked (Snell et al. 2022).
- `mc`: V regresses on the return that followed (`mc_returns` of the original; Monte Carlo in LMRL-Gym, Abdulhai et al.
  2023, arXiv 2311.18232).
- `sarsa`: one step of policy improvement; V is the mean of Q (Brandfonbrener et al. 2021, arXiv 2106.08909).
- `cql`: Q-learning, the best of all tokens in the target, with the conservative term (Kumar et al. 2020, arXiv
  2006.04779).
- `psi`: the value of a policy that pays for leaving the clone (psi-learning, Jaques et al. 2017, arXiv 1611.02796;
  their Psi is beta Q + log prior here).
- `chai`: samples of the clone, which is never trained further, re-ranked by an utterance critic (Verma et al. 2022,
  arXiv 2204.08426). Their maximum over sampled answers is here a high expectile over the answers of the data.
- `decision_transformer`: cloning conditioned on the return to go (Chen et al. 2021).
- `dpo`: preferences between scored answers to one prompt (Rafailov et al. 2023, arXiv 2305.18290).
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from ilqljax.config.sections import Section, from_section, to_plain
from ilqljax.data.transforms import AllRows, BestRows, PreferencePairs, ReturnLabels, Transform
from ilqljax.data.types import UNCLIPPED, Array, LossFn
from ilqljax.errors import UserError, check_known, check_type
from ilqljax.models.lora import split_adapter
from ilqljax.models.value_lm import ValueLM
from ilqljax.rl.objectives import likelihood, values
from ilqljax.rl.steps import TrainState, init_state


class Algorithm(NamedTuple):
    """What makes an algorithm.

    Attributes:
        config_class: its options, of the rows as well as of the loss.
        make_loss: from the model and the options to the loss.
        has_critic: it trains Q and V, besides or instead of a policy.
        level: what its critic's actions are, "token" or "utterance".
        has_reference: its loss reads a frozen copy of the policy that it starts from.
        transform: what it makes of a dataset.
        fixed: the options that make it what it is, and that a config therefore cannot change.
    """

    config_class: type
    make_loss: Callable[[ValueLM, Any], LossFn]
    has_critic: bool = False
    level: str = "token"
    has_reference: bool = False
    transform: type[Transform] = AllRows
    fixed: Mapping[str, Any] = MappingProxyType({})


def make_critic_algorithm(level: str = "token", **fixed: Any) -> Algorithm:
    """Make a relative of ILQL, per token or utterance, from the options that set it apart."""
    config_class = values.ILQLConfig if level == "token" else values.UtteranceILQLConfig
    return Algorithm(config_class, values.make_ilql_loss, has_critic=True, level=level, fixed=fixed)


ALGORITHMS = {
    "bc": Algorithm(likelihood.BCConfig, likelihood.make_bc_loss),
    "filtered_bc": Algorithm(likelihood.FilteredBCConfig, likelihood.make_bc_loss, transform=BestRows),
    "ilql": make_critic_algorithm(),
    "ilql_utterance": make_critic_algorithm("utterance"),
    "mc": make_critic_algorithm(backup="v", mc_returns=True, expectile=0.5),
    "sarsa": make_critic_algorithm(backup="v", mc_returns=False, expectile=0.5),
    "cql": make_critic_algorithm(backup="max", mc_returns=False, expectile=0.5),
    "psi": make_critic_algorithm(backup="soft", mc_returns=False, expectile=0.5),
    "chai": make_critic_algorithm("utterance", awac_weight=0.0),
    "decision_transformer": Algorithm(
        likelihood.DecisionTransformerConfig, likelihood.make_bc_loss, transform=ReturnLabels
    ),
    "dpo": Algorithm(likelihood.DPOConfig, likelihood.make_dpo_loss, has_reference=True, transform=PreferencePairs),
}


class Learner(NamedTuple):
    """An algorithm with its options settled, and the model at the level of its actions."""

    algorithm: Algorithm
    config: Any
    model: ValueLM
    loss_fn: LossFn

    def trains_policy(self) -> bool:
        """Say whether the policy's parameters change."""
        return not self.algorithm.has_critic or self.config.awac_weight > 0

    def reads_frozen_trunk(self) -> bool:
        """Say whether the loss reads tokens only through a trunk, or first layers of one, that nothing trains."""
        frozen = self.algorithm.has_critic and self.model.config.freezes_value
        return frozen and not self.trains_policy() and self.config.backup != "soft"

    @property
    def value_range(self) -> tuple[float, float]:
        """What the critic's target Q is clipped to, in training as in acting."""
        return (self.config.value_min, self.config.value_max) if self.algorithm.has_critic else UNCLIPPED


def make_learner(name: str, model: ValueLM, section: Section, *, path: str = "config.train.loss") -> Learner:
    """Look an algorithm up by name and read its options from a config section; errors are `read_options`'s."""
    algorithm, config = read_options(name, section, path=path)
    model = model.at_level(algorithm.level)
    return Learner(algorithm, config, model, algorithm.make_loss(model, config))


def read_options(name: str, section: Section, *, path: str = "config.train.loss") -> tuple[Algorithm, Any]:
    """Look an algorithm up and check its options, before anything is built.

    An unknown name, and an option that the algorithm lacks or fixes otherwise, are a `UserError`.
    """
    check_known(ALGORITHMS, algorithm=name)
    algorithm = ALGORITHMS[name]
    given = to_plain(section)
    check_type(Mapping, f"Give options of {name!r} by name, as a mapping.", **{path: given})
    own = {field.name for field in dataclasses.fields(algorithm.config_class)}
    others = {field.name for a in ALGORITHMS.values() for field in dataclasses.fields(a.config_class)}
    if foreign := sorted((set(given) & others) - own):
        raise UserError(
            f"{path} has {', '.join(foreign)}, which are options of other algorithms than {name!r}. Choose the "
            f"algorithm by the config's argument, as in --config configs/workable.py:{name}, which sets its options."
        )
    for key, value in algorithm.fixed.items():
        if given.get(key, value) != value:
            raise UserError(
                f"{path}.{key}={given[key]!r}, but {key}={value!r} is what makes the algorithm {name!r}. Leave it "
                "out, or choose another algorithm."
            )
    return algorithm, from_section(algorithm.config_class, {**given, **algorithm.fixed}, path=path)


def init_learner_state(
    learner: Learner,
    *,
    optimizer: optax.GradientTransformation,
    key: Array,
    trunk: dict | None = None,
    networks: tuple[dict, dict] | None = None,
) -> TrainState:
    """Create an algorithm's training state; `key` is of its first parameters and, later, of every step's randomness.

    The policy and the value trunk start from `trunk`, a language model (pretrained, or cloned from the data), or from
    random parameters. A critic starts from `networks` (params, target) instead, heads and targets included; without a
    critic these are a `UserError`.
    """
    if networks is not None and not learner.algorithm.has_critic:
        raise UserError("networks were given to an algorithm without a critic. Give its policy as trunk instead.")
    init_key, step_key = jax.random.split(key)
    model = learner.model
    if not learner.algorithm.has_critic:
        policy = model.init_trunk(init_key) if trunk is None else model.adapt_trunk(init_key, trunk)
        frozen = {}
        if model.config.lora_rank:
            frozen["base"], policy = split_adapter(policy)
        if learner.algorithm.has_reference:
            frozen["reference"] = policy
        return init_state({"policy": policy}, target={}, frozen=frozen, optimizer=optimizer, key=step_key)
    if networks is None:
        params = model.init_params(init_key, trunk=trunk)
        target = model.init_target(params)
    else:
        params, target = (dict(tree) for tree in networks)
    kept = ("base", *(() if learner.trains_policy() else ("policy",)))
    frozen = {name: params.pop(name) for name in kept if name in params}
    return init_state(params, target=target, frozen=frozen, optimizer=optimizer, key=step_key)


def select_acting_params(state: TrainState) -> dict:
    """Return the online networks that acting reads."""
    return {name: tree for name, tree in {**state.params, **state.frozen}.items() if name != "reference"}


def find_unreached(learner: Learner, state: TrainState) -> tuple[tuple[str, ...], ...]:
    """List the parameters that the loss never reads (`objectives.values.unreached_paths`)."""
    return values.unreached_paths(learner.model, learner.config, state.params) if learner.algorithm.has_critic else ()
