"""The single-turn environment and its observation."""

import numpy as np
import pytest

from ilqljax.envs.base import Policy, interact_environments
from ilqljax.hiring.environment import PostingEnvironment, PostingObservation
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings.posting import build_prompt

POSTINGS = make_market(n_postings=5, n_candidates=1)[0]


class LengthReward:
    def score(self, prompts, texts):
        return np.array([-float(len(text)) for text in texts])


class Answer(Policy):
    def act(self, obs):
        return "three"


def make_environment():
    return PostingEnvironment(POSTINGS[0], LengthReward())


def test_prompt_alone_is_open_and_a_rewrite_ends_it():
    assert PostingObservation("p").to_sequence() == ([("p", None)], False)
    assert PostingObservation("p", "r", -3).to_sequence() == ([("p", None), ("r", -3.0)], True)


def test_rewrite_without_reward_is_refused():
    with pytest.raises(ValueError, match=r"give both or neither"):
        PostingObservation("p", "r")


def test_metadata_names_the_posting():
    observation = make_environment().reset()
    assert observation.metadata()["posting_id"] == observation.posting.id
    assert PostingObservation("p").metadata() == {}


def test_interaction_ends_after_one_scored_rewrite():
    ((last, (turn,)),) = interact_environments([make_environment()], Answer())
    assert (turn.action, turn.reward, turn.terminal) == ("three", -5.0, True)
    assert last.to_sequence() == ([(turn.obs.prompt, None), ("three", -5.0)], True)


def test_reset_opens_the_posting_again():
    env = make_environment()
    assert env.reset().prompt == build_prompt(POSTINGS[0]) and not env.is_terminal()
    observation, _, _ = env.step("text")
    assert observation.posting == POSTINGS[0] and env.is_terminal()
    env.reset()
    assert not env.is_terminal()


def test_step_needs_an_open_posting():
    env = make_environment()
    with pytest.raises(ValueError, match=r"call reset"):
        env.step("text")
    env.reset()
    env.step("text")
    with pytest.raises(ValueError, match=r"call reset"):
        env.step("text")
