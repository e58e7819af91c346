"""Turn taking between policies and environments, one at a time and many at once."""

from dataclasses import dataclass

import pytest

from ilqljax.envs.base import LanguageEnvironment, LanguageObservation, Policy, interact_environments


@dataclass(frozen=True)
class Chat(LanguageObservation):
    sequence: tuple
    terminal: bool = False

    def to_sequence(self):
        return list(self.sequence), self.terminal

    def __str__(self):
        return " / ".join(text for text, _ in self.sequence)


class Countdown(LanguageEnvironment):
    """Ends after `n_turns` actions; an action earns its length."""

    def __init__(self, n_turns):
        self.n_turns = n_turns
        self.obs = Chat((), True)

    def reset(self):
        self.obs = Chat((("start", None),), self.n_turns == 0)
        return self.obs

    def step(self, action):
        reward = float(len(action))
        sequence = (*self.obs.sequence, (action, reward))
        n_actions = sum(r is not None for _, r in sequence)
        self.obs = Chat(sequence, n_actions == self.n_turns)
        return self.obs, reward, self.obs.terminal

    def is_terminal(self):
        return self.obs.terminal


class Counter(Policy):
    """Says how many utterances it has seen, and remembers how many observations each batched call held."""

    def __init__(self):
        self.batch_sizes = []

    def act(self, obs):
        return "x" * len(obs.to_sequence()[0])

    def act_batch(self, observations):
        self.batch_sizes.append(len(observations))
        return super().act_batch(observations)


def test_a_turn_holds_what_was_seen_before_the_action():
    ((final, turns),) = interact_environments([Countdown(2)], Counter())
    assert turns == [
        (Chat((("start", None),)), "x", 1.0, False),
        (Chat((("start", None), ("x", 1.0))), "xx", 2.0, True),
    ]
    assert final == Chat((("start", None), ("x", 1.0), ("xx", 2.0)), True)


def test_a_dialogue_under_way_is_continued_and_not_reset():
    env = Countdown(3)
    env.reset()
    obs, _, _ = env.step("yyyy")
    ((final, turns),) = interact_environments([env], Counter(), [obs])
    assert [turn.action for turn in turns] == ["xx", "xxx"]
    assert final.to_sequence()[0][1] == ("yyyy", 4.0)


def test_a_finished_dialogue_has_no_turns():
    assert interact_environments([Countdown(0)], Counter()) == [(Chat((("start", None),), True), [])]


def test_batched_interaction_equals_one_at_a_time():
    n_turns = (2, 0, 3, 1)
    together = interact_environments([Countdown(n) for n in n_turns], Counter())
    assert together == [interact_environments([Countdown(n)], Counter())[0] for n in n_turns]


def test_each_turn_is_one_batched_call_over_live_environments():
    policy = Counter()
    interact_environments([Countdown(n) for n in (2, 0, 3, 1)], policy)
    assert policy.batch_sizes == [3, 2, 1]


def test_batched_interaction_continues_given_observations():
    envs = [Countdown(2), Countdown(2)]
    observations = [envs[0].reset(), (envs[1].reset(), envs[1].step("yy")[0])[1]]
    results = interact_environments(envs, Counter(), observations)
    assert [len(turns) for _, turns in results] == [2, 1]


def test_a_dialogue_that_the_policy_has_no_room_for_is_left_and_the_others_go_on():
    class Brief(Counter):
        def has_room(self, obs):
            return len(obs.sequence) < 3

    results = interact_environments([Countdown(1), Countdown(4), Countdown(2)], Brief())
    assert [len(turns) for _, turns in results] == [1, 2, 2]


def test_no_environments_give_no_results():
    assert interact_environments([], Counter()) == []


def test_the_same_environment_twice_is_refused():
    env = Countdown(1)
    with pytest.raises(ValueError, match="appears twice"):
        interact_environments([env, env], Counter())


def test_observations_of_another_number_are_refused():
    with pytest.raises(ValueError, match="1 observations were given for 2 environments"):
        interact_environments([Countdown(1), Countdown(1)], Counter(), [Chat(())])


def test_a_policy_that_drops_an_action_is_refused():
    class Mute(Counter):
        def act_batch(self, observations):
            return super().act_batch(observations)[1:]

    with pytest.raises(ValueError, match="returned 1 actions for 2 observations"):
        interact_environments([Countdown(1), Countdown(1)], Mute())


def test_an_observation_has_no_metadata_by_default():
    assert Chat(()).metadata() == {}
