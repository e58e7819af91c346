"""What validation says of a training: when it stops, and whether a clone is worth its data."""

import json
import math

import pytest
from dialogues import Talk, answer

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.training.validation import Patience, Returns, describe_shortfall, measure_returns

TOKENIZER = CharacterTokenizer("ab")
DATA = Returns(-8.3, 0.1)


def make_rows(*rewards, **settings):
    return ObservationDataset([answer("a", "b", reward) for reward in rewards], TOKENIZER, **settings)


def count(*metrics, maximise=False):
    patience = Patience()
    counted = []
    for step, metric in enumerate(metrics):
        patience.count(step, metric, maximise=maximise)
        counted.append(patience.n_worse)
    return patience, counted


def test_evaluations_in_a_row_without_a_better_one_are_counted():
    patience, counted = count(3.0, 2.0, 2.0, 4.0, 1.0)
    assert counted == [0, 0, 1, 2, 0] and (patience.best, patience.best_step, patience.last) == (1.0, 4, 1.0)
    assert count(3.0, 2.0, 5.0, maximise=True)[1] == [0, 1, 0]
    assert count(None, 1.0, None, math.nan)[1] == [0, 0, 0, 1]


def test_patience_goes_on_where_a_checkpoint_has_it():
    for patience in (Patience(), count(3.0, 4.0)[0]):
        again = Patience.from_json(json.loads(json.dumps(patience.to_json())))
        assert str(again) == str(patience)
    assert str(Patience.from_json({})) == str(Patience())


def test_returns_are_in_the_unit_of_the_task_with_their_standard_error():
    mean, error = measure_returns(make_rows(1.0, 3.0, 5.0, reward_shift=2.0, reward_scale=10.0))
    assert mean == pytest.approx(3.0) and error == pytest.approx(2.0 / math.sqrt(3.0))


def test_returns_that_played_dialogues_do_not_compare_with_are_left_out():
    made_up = make_rows(1.0, 9.0)
    made_up.as_paid = False
    unfinished = ObservationDataset([Talk((("a", None), ("b", r)), terminal=False) for r in (1.0, 2.0)], TOKENIZER)
    incomparable = (None, make_rows(1.0), make_rows(0.0, 0.0), made_up, unfinished)
    assert measure_returns(*incomparable) is None
    assert measure_returns(*incomparable, make_rows(1.0, 3.0), make_rows(5.0, 6.0)).mean == 2.0


def test_a_clone_that_is_worse_than_its_data_by_more_than_the_standard_error_is_told_of():
    assert not describe_shortfall(Returns(-8.4, 0.2), DATA, Patience())
    assert not describe_shortfall(Returns(-9.6, 2.0), DATA, Patience())
    assert not describe_shortfall(Returns(-9.6, math.nan), DATA, Patience())
    assert not describe_shortfall(Returns(-9.6, 0.2), None, Patience())
    told = describe_shortfall(Returns(-9.6, 0.2), DATA, Patience())
    assert told.startswith(
        "the clone's dialogues are worth -9.6 (standard error 0.2), those of its data -8.3 (standard error 0.1). "
    )


@pytest.mark.parametrize(
    ("losses", "advice"),
    [
        ((), "Give validation rows"),
        ((2.0, 1.0, 1.5), "It overfits: its validation loss was 1 at step 1 and is 1.5. Set select='best'"),
        ((2.0, 1.5, 1.5), "Its validation loss still falls: train longer"),
    ],
)
def test_what_to_change_depends_on_the_validation_loss(losses, advice):
    assert advice in describe_shortfall(Returns(-9.6, 0.2), DATA, count(*losses)[0])
