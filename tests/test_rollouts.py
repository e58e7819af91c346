"""What playing environments measures."""

import pytest
from dialogues import Talk

from ilqljax.envs.base import LanguageEnvironment, Policy
from ilqljax.errors import UserError
from ilqljax.training.evaluation import evaluate_rollouts


class Talking(LanguageEnvironment):
    """Pays 1 a turn, n turns long."""

    def __init__(self, n):
        self.n, self.done = n, 0

    def observe(self):
        return Talk((("q", None), *[("a", 1.0), ("q", None)] * self.done), terminal=self.is_terminal())

    def reset(self):
        self.done = 0
        return self.observe()

    def step(self, action):
        self.done += 1
        return self.observe(), 1.0, self.is_terminal()

    def is_terminal(self):
        return self.done == self.n


class Brief(Policy):
    """Has room for some turns, and sees the newest alone."""

    n_dropped_turns = 3  # from before

    def __init__(self, room):
        self.room = room

    def has_room(self, obs):
        return len(obs.sequence) // 2 < self.room

    def act(self, obs):
        self.n_dropped_turns += len(obs.sequence) // 2
        return "a"


def test_returns_and_turns_are_means_over_environments():
    found = evaluate_rollouts([Talking(1), Talking(3)], Brief(9))
    assert found == {"return": 2.0, "return_standard_error": 1.0, "turns": 2.0, "dropped_turns": 3.0}


def test_dialogues_without_room_end_and_are_counted(caplog):
    found = evaluate_rollouts([Talking(1), Talking(1), Talking(3)], Brief(1))
    assert (found["ended"], found["return"]) == (1.0, 1.0) and "dropped_turns" not in found
    assert "0 old turns were not seen, 1 of 3 dialogues ended" in caplog.text


def test_nothing_to_play_in_is_refused():
    with pytest.raises(UserError, match="There is no environment"):
        evaluate_rollouts([], Brief(1))
