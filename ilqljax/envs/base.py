"""Describe a text task: what is observed, what acts, and how the two take turns.

A task plugs in by subclassing `LanguageObservation` and `LanguageEnvironment`. Anything that turns observations into
text is a `Policy`. Environments and policies know nothing of tokens: that is `ilqljax.data`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from ilqljax.errors import UserError, check_type


class LanguageObservation(ABC):
    """Hold a dialogue so far, as one side of the conversation sees it."""

    @abstractmethod
    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return the utterances in order and whether the dialogue is over.

        Each comes with its reward, in the task's unit: None marks one of the environment, a float one of the agent.
        """

    @abstractmethod
    def __str__(self) -> str:
        """Return the dialogue as a person would read it."""

    def metadata(self) -> dict[str, Any]:
        """Return what a report wants to know and the model must not see, such as the identity of a posting."""
        return {}


@dataclass(frozen=True)
class ListDialogue(LanguageObservation):
    """Hold a dialogue as (text, reward) pairs.

    Attributes:
        sequence: what was said, in order, each with its reward in the task's unit; None for what the agent did not say.
        over: whether nothing more can be said: true of a training row, false of what a policy is to answer.

    Raises:
        UserError: the sequence is no list of pairs, or one is no text with a number or None.
    """

    sequence: Sequence[tuple[str, float | None]]
    over: bool = True

    def __post_init__(self) -> None:
        check_type(Iterable, "Give pairs of a text and its reward, such as [('hello', None)].", sequence=self.sequence)
        for pair in self.sequence:
            match pair:
                case (str(), None | Real()):
                    continue
            raise UserError(f"{pair!r} is not a text with its reward or None. Give pairs such as ('hello', None).")

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        return list(self.sequence), self.over

    def __str__(self) -> str:
        return "\n".join(text for text, _ in self.sequence)


class LanguageEnvironment(ABC):
    """Answer actions with observations and rewards until the dialogue is over."""

    @abstractmethod
    def step(self, action: str) -> tuple[LanguageObservation, float, bool]:
        """Apply the agent's text; return the next observation, the reward (the task's unit), and whether it is over."""

    @abstractmethod
    def reset(self) -> LanguageObservation:
        """Start a new dialogue and return its first observation."""

    @abstractmethod
    def is_terminal(self) -> bool:
        """Return whether the dialogue is over."""


class Policy(ABC):
    """Choose what to say."""

    @abstractmethod
    def act(self, obs: LanguageObservation) -> str:
        """Return the agent's next utterance."""

    def act_batch(self, observations: Sequence[LanguageObservation]) -> list[str]:
        """Return one utterance for each observation; a policy that can act for many at once overrides this."""
        return [self.act(obs) for obs in observations]

    def has_room(self, obs: LanguageObservation) -> bool:
        """Return whether the policy goes on with a dialogue; one that it does not is left as it is."""
        return True


class Turn(NamedTuple):
    """Record one action: what was seen before it, what was said, and what came of it."""

    obs: LanguageObservation
    action: str
    reward: float
    terminal: bool


def interact_environments(
    envs: Sequence[LanguageEnvironment], policy: Policy, observations: Sequence[LanguageObservation] | None = None
) -> list[tuple[LanguageObservation, list[Turn]]]:
    """Let a policy act in distinct environments until all dialogues are over: each one's last observation and turns.

    The environments are reset unless their present observations are given, to continue dialogues that are under way.
    Each turn is one `act_batch` call over those still alive; finished ones, and those that the policy has no room for
    (`Policy.has_room`), drop out.

    Raises:
        UserError: something is no environment or appears twice, or there is not one observation or action for each.
    """
    check_type(Sequence, "Give a list of environments.", envs=envs)
    for env in envs:
        check_type(LanguageEnvironment, "Give an object of a subclass of LanguageEnvironment.", environment=env)
    if len({id(env) for env in envs}) != len(envs):
        raise UserError("an environment appears twice in envs, so its dialogues would mix: pass distinct objects")
    if observations is not None and len(observations) != len(envs):
        raise UserError(f"{len(observations)} observations were given for {len(envs)} environments: pass one for each")
    current = [env.reset() for env in envs] if observations is None else list(observations)
    turns: list[list[Turn]] = [[] for _ in envs]
    given_up: set[int] = set()
    while live := [i for i, env in enumerate(envs) if not (i in given_up or env.is_terminal())]:
        if full := {i for i in live if not policy.has_room(current[i])}:
            given_up |= full
            continue
        actions = policy.act_batch([current[i] for i in live])
        if len(actions) != len(live):
            raise UserError(
                f"act_batch returned {len(actions)} actions for {len(live)} observations: return one for each"
            )
        for i, action in zip(live, actions, strict=True):
            next_obs, reward, terminal = envs[i].step(action)
            turns[i].append(Turn(current[i], action, reward, terminal))
            current[i] = next_obs
    return list(zip(current, turns, strict=True))
