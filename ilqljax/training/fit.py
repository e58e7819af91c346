"""Train in memory, from Python: dialogues in, a policy that acts out, kept in a folder and read back."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import jax
import numpy as np

from ilqljax.config import from_section
from ilqljax.data.datapoint import EXCERPT, Dialogue
from ilqljax.data.dataset import ListRLDataset, ObservationDataset, RLDataset, infer_reward_scaling
from ilqljax.data.files import check_checksum, check_new_folder, read_folder, read_json, save_whole, save_with_checksum
from ilqljax.data.step_rewards import StepRewards
from ilqljax.data.tokenizer import Tokenizer, load_tokenizer, train_bpe
from ilqljax.data.types import Array
from ilqljax.decoding.options import DecodeConfig
from ilqljax.decoding.policy import ActingConfig, TextPolicy
from ilqljax.envs.base import LanguageEnvironment, LanguageObservation, ListDialogue
from ilqljax.errors import UserError, check_type, check_whole
from ilqljax.models.builders import BuiltModel, count_parameters
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.networks import Networks, load_networks
from ilqljax.models.value_lm import ValueLM, ValueLMConfig, policy_trunk
from ilqljax.rl.algorithms import make_learner, read_options, select_acting_params
from ilqljax.training.evaluation import Trained, evaluate_rollouts
from ilqljax.training.export import save_model
from ilqljax.training.loop import Start, make_stage, train_stage
from ilqljax.training.mesh import MeshConfig, make_mesh
from ilqljax.training.run_config import TrainConfig
from ilqljax.training.validation import Patience, Returns, describe_shortfall, measure_returns

logger = logging.getLogger(__name__)
FITTED = "fitted.json"  # beside the networks and the tokenizer
BETA = 8.0  # weight of a critic's advantage, where rewards have deviation 1
MOST_TOKENS = 1024  # ids of a tokenizer that is made here, and tokens of a row that no model limits
MANY_TURNS = 3.0  # the agent's utterances a dialogue, on average, from which a dialogue is a game of moves
JUDGING = {"n_generations": 8, "rank_by": "advantage"}  # how a critic of utterances acts
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
Written = Dialogue | tuple[str, str, float]  # the latter a prompt, a text and its reward


@dataclass(frozen=True, eq=False, repr=False)
class Fitted:
    """A trained policy that acts.

    Attributes:
        algorithm: a name in `ilqljax.rl.algorithms.ALGORITHMS`.
        trained: the algorithm's options, the model and its networks.
        tokenizer: of the model.
        decode: how it acts, where nothing else is said.
        seed: of parameters, batches and acting.
        curve: what was recorded on the way: "step", and metrics such as "train/loss" and "validation/loss".
        data_returns: of a clone, what the dialogues that it was cloned from are worth, where that is known.
    """

    algorithm: str
    trained: Trained
    tokenizer: Tokenizer
    decode: DecodeConfig
    seed: int
    curve: list[dict[str, float]]
    data_returns: Returns | None = None

    def __repr__(self) -> str:
        last = {name: value for record in self.curve for name, value in record.items()}
        losses = [f"{name} {last[name]:.3g}" for name in ("train/loss", "validation/loss") if name in last]
        facts = [f"{count_parameters(self.trained.params):,} parameters", f"step {last.get('step', 0):,.0f}", *losses]
        acting = f"beta={self.decode.beta:g}, temperature={self.decode.temperature:g}"
        return f"Fitted({self.algorithm!r}: {', '.join(facts)}; acts with {acting})"

    @property
    def networks(self) -> dict[str, dict]:
        """The networks as keywords of `TextPolicy`: "params", and "target", which is {} without a critic."""
        return {"params": self.trained.params, "target": self.trained.target}

    def policy(self, **overrides: Any) -> TextPolicy:
        """Make a policy; the overrides are options of `DecodeConfig`.

        Raises:
            UserError: one is not, or has a wrong value, or prompts have no room beside `max_new_tokens`.
        """
        return self.trained.make_policy(self.decode, self.tokenizer, self.seed, ActingConfig(), **overrides)

    _policy = cached_property(policy)

    def act(self, said: str | LanguageObservation) -> str:
        """Return an answer to a text, or to a dialogue that is not over; each call draws a new one.

        Raises:
            UserError: it is neither a text nor a dialogue, or is over, or a network gave NaN.
        """
        return self._policy.act(said)

    def evaluate(self, environments: Sequence[LanguageEnvironment] = (), **overrides: Any) -> dict[str, float]:
        """Play every environment once; the overrides are options of `DecodeConfig`.

        Returns "return", the mean over environments of their summed rewards, in the task's unit;
        "return_standard_error"; and "turns", the mean number of utterances. Warns where a clone's return is below its
        data's by more than the standard error.

        Raises:
            UserError: there is no environment, something is none or is there twice, or `policy` refuses an override.
        """
        found = evaluate_rollouts(environments, self.policy(**overrides))
        patience = Patience()
        for record in self.curve:
            patience.count(int(record["step"]), record.get("validation/loss"), maximise=False)
        played = Returns(found["return"], found["return_standard_error"])
        if shortfall := describe_shortfall(played, self.data_returns, patience):
            logger.warning("%s", shortfall)
        return found

    def save(self, folder: str | Path) -> None:
        """Write a new folder, whole or not at all, for `load_fitted` and as a GPT-2 for transformers.

        Raises:
            UserError: the folder is no path or not empty, or cannot be written.
        """
        check_new_folder(folder)
        learner, transform, *networks = self.trained
        named = {"options": learner.config, "transform": transform, "decode": self.decode}
        facts = {name: getattr(self, name) for name in ("algorithm", "seed", "curve", "data_returns")}
        facts |= {name: asdict(each) for name, each in named.items()} | {"dtype": learner.model.backbone.config.dtype}

        def write(temporary: Path) -> None:
            save_model(temporary, Networks(learner.model, *networks), self.tokenizer)
            save_with_checksum(temporary / FITTED, json.dumps(facts, indent=1) + "\n")

        save_whole(Path(folder).absolute(), write)


def load_fitted(folder: str | Path) -> Fitted:
    """Read back what `Fitted.save` wrote.

    Raises:
        UserError: the folder is no path, or a file is missing, damaged, or was changed.
    """
    path, advice = read_folder(folder) / FITTED, "Give a folder that Fitted.save wrote; open_run opens a run's."
    check_checksum(path)
    facts = read_json(path, advice=advice)
    if lacking := {"algorithm", "curve", "decode", "dtype", "options", "seed", "transform"} - facts.keys():
        raise UserError(f"{path} lacks {', '.join(sorted(lacking))}. {advice}")
    model, *networks = load_networks(folder, dtype=facts["dtype"])
    learner = make_learner(facts["algorithm"], model, facts["options"], path=str(path))
    transform = from_section(learner.algorithm.transform, facts["transform"], path=str(path))
    decode = from_section(DecodeConfig, facts["decode"], path=str(path))
    trained = Trained(learner, transform, *networks)
    returns = Returns(*facts["data_returns"]) if facts.get("data_returns") else None
    return Fitted(facts["algorithm"], trained, load_tokenizer(folder), decode, facts["seed"], facts["curve"], returns)


def fit(
    dialogues: Iterable[Written] | RLDataset,
    algorithm: str = "ilql",
    *,
    model: ValueLM | BuiltModel | None = None,
    tokenizer: Tokenizer | None = None,
    settings: TrainConfig | Mapping[str, Any] = NO_OPTIONS,
    decode: DecodeConfig | Mapping[str, Any] = NO_OPTIONS,
    seed: int = 0,
    validation: Iterable[Written] | ListRLDataset | None = None,
    trunk: dict | None = None,
    networks: tuple[dict, dict] | None = None,
    watch: Callable[[int, dict, dict], bool | None] | None = None,
    watch_every: int = 0,
) -> Fitted:
    """Train an algorithm of `ilqljax.rl.algorithms`, which names their papers, on one device; progress goes to stderr.

    For dialogues, what is not given is made: a tokenizer of their texts, a GPT-2 of two layers, settings, and, for an
    algorithm that starts from a policy, a clone, trained first and alike. A critic sees their rewards with deviation 1
    and, where each dialogue has one, mean 0.

    Args:
        dialogues: (prompt, text, reward) each, a `ListDialogue`, or anything with `to_sequence` and `metadata`; or a
            ready dataset, which is trained on as it is and needs `model` and a `TrainConfig`.
        model: the networks' sizes, or a pretrained model (`ilqljax.load_model`) with its tokenizer and weights.
        tokenizer: of the model, where that has none of its own.
        settings: how long and how; `loss` holds the algorithm's options. For dialogues, what a mapping
            or `loss` leaves out is chosen; where the agent speaks `MANY_TURNS` times a dialogue or more that is
            "muon", more steps, and a critic that bootstraps once a turn. `select="best"` returns the networks of the
            lowest validation loss.
        decode: how the result acts; a mapping likewise.
        seed: of the parameters, the batches' order, and acting.
        validation: rows whose loss is evaluated every `settings.eval_every` steps, and by which `settings.stop_after`
            ends the training early.
        trunk: a language model to start from; without a clone or this one, random.
        networks: (params, target) that a critic starts from instead.
        watch: called with the step, the parameters and the targets, at step 0, every `watch_every` steps and the last.
            Where it returns True the training ends.
        watch_every: steps between these calls.

    Raises:
        UserError: an argument is of another type, a dialogue is none, a reward is not finite, an option or the
            algorithm is unknown, a number is out of its range, the tokenizer, `trunk` or `networks` are not the
            model's, a ready dataset lacks what it needs, or the rows do not suit the algorithm.
        NonFiniteError: the loss of a step is NaN or infinite.
    """
    rows: Any = dialogues
    held_out: Any = validation
    ready = isinstance(rows, RLDataset)
    check_arguments(dialogues, model, tokenizer, settings, decode, validation, watch)
    check_whole(seed=seed, watch_every=watch_every)
    pretrained = None  # not yet a clone of the dialogues, as `trunk` is
    if isinstance(model, BuiltModel):
        tokenizer = tokenizer or (None if ready else model.tokenizer)
        pretrained, model = model.pretrained, model.model
    if not ready:
        rows = make_rows(rows, tokenizer, model)
        if held_out is not None and not isinstance(held_out, RLDataset):
            held_out = ObservationDataset(read_dialogues(held_out), rows.tokenizer, **rows.settings)
            if not held_out.size():
                raise UserError("validation has no dialogue. Give some, or leave it out.")
        watched = [rows] if held_out is None else [rows, held_out]
        asked = {**(asdict(settings) if isinstance(settings, TrainConfig) else settings)}
        model, settings, decode = choose_options(algorithm, watched, model, asked, decode)
    elif model is None or tokenizer is not None or not isinstance(settings, TrainConfig):
        raise UserError("A ready dataset has a tokenizer. Give it model= and settings=TrainConfig(...), no tokenizer=.")
    elif not isinstance(decode, DecodeConfig):
        decode = from_section(DecodeConfig, decode, path="decode")
    settings, curve = replace(settings, n_rollouts=0), []
    learner = make_learner(algorithm, model, settings.loss)
    starts_from_policy = learner.algorithm.has_reference or not learner.trains_policy()
    if starts_from_policy and not ready and trunk is None and networks is None:
        _, cloning, _ = choose_options("bc", watched, model, asked | {"loss": {}}, {})
        cloned = fit(rows, "bc", model=model, settings=cloning, seed=seed, validation=held_out, trunk=pretrained)
        trunk = policy_trunk(cloned.trained.params)
    trunk = pretrained if trunk is None else trunk
    check_start(learner.model, trunk, networks)
    stage = make_stage(algorithm, learner, settings, rows, held_out)

    def write(step: int, metrics: Mapping[str, float]) -> None:
        curve.append({"step": step} | {name: float(value) for name, value in metrics.items()})

    state = train_stage(
        stage,
        key=jax.random.key(seed),
        seed=seed,
        mesh=make_mesh(MeshConfig(data=1)),
        store=_MemoryStore(keep_best=settings.select == "best"),
        open_writers=lambda first: [SimpleNamespace(write=write, close=lambda: None)],
        start=Start(trunk, networks),
        watch=None if watch is None else lambda step, state: watch(step, select_acting_params(state), state.target),
        watch_every=watch_every,
    )
    trained = Trained(learner, stage.transform, select_acting_params(state), state.target)
    returns = measure_returns(held_out, rows) if stage.is_clone else None
    return Fitted(algorithm, trained, rows.tokenizer, decode, seed, curve, returns)


def check_arguments(
    dialogues: Any, model: Any, tokenizer: Any, settings: Any, decode: Any, validation: Any, watch: Any
) -> None:
    """Raise a `UserError` at an argument of `fit` that is of another type; None stands for one that was left out."""
    triples = "Give a list of (prompt, text, reward), or a dataset."
    check_type((Iterable, RLDataset), triples, dialogues=dialogues)
    kinds = () if isinstance(dialogues, RLDataset) else (Iterable,)  # a ready dataset is validated on another
    check_type((ListRLDataset, type(None), *kinds), triples, validation=validation)
    advice = "Give load_model(path), or ValueLM(GPT2(GPT2Config(...)), ValueLMConfig())."
    check_type((ValueLM, BuiltModel, type(None)), advice, model=model)
    advice = "Give one of load_tokenizer, train_bpe or CharacterTokenizer."
    check_type((Tokenizer, type(None)), advice, tokenizer=tokenizer)
    advice = "Give a TrainConfig, or some of its options, such as {'total_steps': 500}."
    check_type((TrainConfig, Mapping), advice, settings=settings)
    advice = "Give a DecodeConfig, or some of its options, such as {'temperature': 0.5}."
    check_type((DecodeConfig, Mapping), advice, decode=decode)
    check_type((Callable, type(None)), "Give a function of the step, the parameters and the targets.", watch=watch)


def check_start(model: ValueLM, trunk: Any, networks: Any) -> None:
    """Raise a `UserError` unless what a training starts from has the names and shapes of the model's parameters."""

    def list_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}

    def init(key: Array) -> tuple[dict, tuple[dict, dict]]:
        params = model.init_params(key)
        return model.init_trunk(key), (params, model.init_target(params))

    expected = jax.eval_shape(init, jax.random.key(0))
    if model.config.lora_rank and isinstance(trunk, dict) and "h" in trunk:  # it may have no adapter yet
        trunk = jax.eval_shape(model.adapt_trunk, jax.random.key(0), trunk)
    for name, given, wanted in zip(("trunk", "networks"), (trunk, networks), expected, strict=True):
        own, known = list_shapes(given), list_shapes(wanted)
        if given is not None and own != known:
            place = min(name for name, _ in own.items() ^ known.items())
            shapes = f"{own.get(place, 'none')}, in the model {known.get(place, 'none')}"
            raise UserError(f"{name}{place}: the shape is {shapes}. Give networks of this model.")


def read_dialogues(given: Iterable[Any]) -> list[Dialogue]:
    """Return what `fit` takes as dialogues; raise a `UserError` at anything else."""
    found: list[Dialogue] = []
    for one in given:
        match one:
            case Dialogue():
                found.append(one)
            case (str(prompt), str(text), Real() as reward):
                paid = reward if isinstance(reward, StepRewards) else float(reward)
                found.append(ListDialogue([(prompt, None), (text, paid)]))
            case _:
                shape = "(prompt, text, reward), or ListDialogue([(text, its reward or None), ...])"
                raise UserError(f"dialogue {len(found)} is {repr(one)[:EXCERPT]}. Give {shape}.")
    return found


def make_rows(given: Iterable[Any], tokenizer: Tokenizer | None, model: ValueLM | None) -> ObservationDataset:
    """Tokenize dialogues as `fit` says; a `UserError` where the model is not the tokenizer's."""
    dialogues = read_dialogues(given)
    said = [dialogue.to_sequence()[0] for dialogue in dialogues]
    tokenizer = tokenizer or train_bpe((text for one in said for text, _ in one), vocab_size=MOST_TOKENS)
    size = GPT2Config(tokenizer.vocab_size, MOST_TOKENS) if model is None else model.backbone.config
    if size.vocab_size != tokenizer.vocab_size:
        raise UserError(f"model: {size.vocab_size} ids, tokenizer: {tokenizer.vocab_size}. Give two of one vocabulary.")
    shift, scale = infer_reward_scaling(dialogues)
    return ObservationDataset(dialogues, tokenizer, max_length=size.n_positions, reward_shift=shift, reward_scale=scale)


def choose_options(
    algorithm: str, watched: Sequence[ListRLDataset], model: ValueLM | None, settings: dict[str, Any], decode: Any
) -> tuple[ValueLM, TrainConfig, DecodeConfig]:
    """Choose what `fit` was not given, by the training rows and those beside them; errors are `from_section`'s."""
    acting = {**(asdict(decode) if isinstance(decode, DecodeConfig) else decode)}
    own = settings.get("loss", {})
    check_type(Mapping, "Give options of the algorithm by name, such as {'discount': 0.9}.", **{"settings.loss": own})
    loss = ({"beta": acting.get("beta", BETA)} if algorithm == "psi" else {}) | dict(own)
    found, options = read_options(algorithm, loss, path="settings.loss")
    rows, transform = watched[0], found.transform.fit(watched[0], options)
    changed: list[Any] = [transform.apply(data) for data in watched]  # lists of rows, as those are
    longest = max(int(data.row_sizes[:, 0].max()) for data in changed)
    points = map(rows.get_item, range(rows.size()))
    answer = max(int((p.utterance_action_idxs - p.utterance_state_idxs[:-1]).max(initial=1)) for p in points)
    if model is None:
        size: dict[str, Any] = {"n_positions": longest + answer, "n_embd": 64, "n_layer": 2, "n_head": 4}
        model = ValueLM(GPT2(GPT2Config(rows.tokenizer.vocab_size, **size)), ValueLMConfig())
    judges = found.has_critic and found.level == "utterance"
    acting = {"max_new_tokens": answer, "beta": BETA, **(JUDGING if judges else {}), **acting}
    how = {"total_steps": 500, "batch_size": 32, "target": {"polyak": 0.05}, "length_buckets": (longest,)}
    how["lr"] = 2e-4 if found.has_reference else 2e-3  # a policy that leaves its reference fast stops writing
    critic = {"cql_weight": 0.05, "td_lambda": 0.95}  # a reward at the end of a text is carried back in few updates
    if rows.row_sizes[:, 2].mean() >= MANY_TURNS and not found.has_reference:
        # A move depends on what was said long before, which AdamW learns late. And chance comes between turns: a value
        # is asked for where one ends, instead of waiting for what came of the dialogue.
        how |= {"total_steps": 1200, "optimizer": "muon", "lr": 2e-3 if found.has_critic else 3e-3}
        critic = {"cql_weight": 0.1, "td_lambda": 1.0, "turn_lambda": 0.0}
    if found.has_critic and not judges:
        loss = critic | loss
    chosen = from_section(TrainConfig, how | settings | {"loss": loss}, path="settings")
    return model, chosen, from_section(DecodeConfig, acting, path="decode")


class _MemoryStore:
    """Keep the state of the lowest metric, in the host's memory, where that is wanted; nothing else is kept."""

    def __init__(self, *, keep_best: bool) -> None:
        self.keep_best = keep_best
        self.best: tuple[float, int, Any] | None = None
        self.latest_step: Callable = lambda: None  # there is nothing from before
        self.check_metrics = self.wait = self.latest_step
        self.amend: Callable = lambda *_, **__: None  # of a step that was saved without its evaluation

    def best_step(self) -> int | None:
        return self.best and self.best[1]

    def save(self, step: int, state: Any, extra: dict[str, Any], *, metric: float | None = None) -> None:
        if self.keep_best and metric is not None and (self.best is None or metric <= self.best[0]):
            self.best = metric, step, jax.device_get(state._replace(key=jax.random.key_data(state.key)))

    def restore(self, template: Any, *, step: str = "last") -> tuple[Any, dict[str, Any], int]:
        assert self.best is not None, "nothing was saved"
        _, best, state = self.best
        return state._replace(key=jax.random.wrap_key_data(state.key)), {}, best
