"""One stage of training, around its steps: what it refuses to save, and where its policy acts."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dialogues import answer
from raw_checkpoints import restore_raw

from ilqljax import train as train_module
from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.envs.base import ListDialogue
from ilqljax.errors import Interrupted, UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig
from ilqljax.rl.algorithms import make_learner
from ilqljax.rl.steps import TrainState
from ilqljax.training import loop
from ilqljax.training.checkpoint import CheckpointStore
from ilqljax.training.ending import Ending
from ilqljax.training.loop import Start, make_stage, report_end, train_stage
from ilqljax.training.mesh import MeshConfig, make_mesh, shard_batch
from ilqljax.training.metrics import JsonlWriter, NonFiniteError
from ilqljax.training.run_config import TrainConfig
from ilqljax.training.validation import Patience

TOKENIZER = CharacterTokenizer("ab")
MODEL = ValueLM(GPT2(GPT2Config(TOKENIZER.vocab_size, 8, n_embd=4, n_layer=1, n_head=1)), ValueLMConfig())
ROWS = ObservationDataset([answer("a", "b", -1.0), answer("b", "a", 0.0)], TOKENIZER)
STATE = TrainState(0, {}, {}, {}, (), None)
SETTINGS = TrainConfig(batch_size=2, length_buckets=(8,), n_rollouts=0)


def clone(run_dir, monkeypatch, step, *, play=None, writers=(), ending=None, judge=None, **settings):
    """Run a stage whose steps are only what `step` makes of the state."""

    def step_fn(state, batch):
        state = step(state)._replace(step=state.step + 1)
        return state, {"loss": jnp.ones(()), "tokens": jnp.ones(())}

    monkeypatch.setattr(loop, "make_train_step", lambda *_, **__: step_fn)
    monkeypatch.setattr(loop, "evaluate_loss", judge or (lambda *_, **__: {"loss": 1.0}))
    stage = make_stage("bc", make_learner("bc", MODEL, {}), dataclasses.replace(SETTINGS, **settings), ROWS, ROWS)
    with CheckpointStore(run_dir / "checkpoints" / "bc", metric_name="validation_loss") as store:
        return train_stage(
            stage,
            key=jax.random.key(0),
            seed=0,
            mesh=make_mesh(MeshConfig(data=2)),
            store=store,
            open_writers=writers if callable(writers) else lambda first: writers,
            play=play,
            ending=ending,
        )


def test_parameters_that_the_last_update_ruined_are_not_saved_over_good_ones(tmp_path, monkeypatch):
    def ruin(state):
        return state._replace(params=jax.tree.map(lambda x: jnp.where(state.step == 2, jnp.nan, x), state.params))

    with pytest.raises(NonFiniteError, match=r"after step 3\. Resume the run.*lower learning rate"):
        clone(tmp_path, monkeypatch, ruin, total_steps=4, save_every=1)
    folder = tmp_path / "checkpoints" / "bc"
    assert CheckpointStore(folder).steps() == [1, 2]
    jax.tree.map(lambda x: np.testing.assert_array_equal(np.isfinite(x), True), restore_raw(folder)["params"])


def test_all_writers_are_told_the_metrics_and_closed(tmp_path, monkeypatch):
    files = [tmp_path / "a", tmp_path / "b"]
    writers = [JsonlWriter(file) for file in files]
    clone(tmp_path, monkeypatch, lambda state: state, writers=writers, total_steps=1, log_every=1)
    first, second = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert first == second
    assert first[0]["train/loss"] == 1.0 and first[1] == {"step": 1, "validation/loss": 1.0}
    for writer in writers:
        with pytest.raises(ValueError, match="closed file"):
            writer.write(2, {})


def test_every_evaluation_plays_the_same_games(tmp_path, monkeypatch):
    played = []

    def play_games(generators, policy):
        played.append([int(rng.integers(1 << 30)) for rng in generators])
        return {"return": 0.0}

    def evaluate_twice(stage, *, play, **_):
        play(STATE)
        play(STATE)
        return STATE

    monkeypatch.setattr(train_module, "evaluate_rollouts", play_games)
    monkeypatch.setattr(train_module, "train_stage", evaluate_twice)
    monkeypatch.setattr(train_module, "make_policy", lambda *_: None)
    settings = dataclasses.replace(SETTINGS, n_rollouts=2)
    stage = make_stage("bc", make_learner("bc", MODEL, {}), settings, ROWS, ROWS)
    plan = SimpleNamespace(
        make_environment=np.random.default_rng, config=SimpleNamespace(seed=0), built=None, mesh=None
    )
    train_module.run_stage(plan, stage, tmp_path, Start(), settles=False)
    assert played[0] == played[1]


def judge_by(*losses):
    """Return what evaluates with these losses, one a call."""
    left = iter(losses)
    return lambda *_, **__: {"loss": next(left)}


EARLY = {"total_steps": 9, "eval_every": 1, "stop_after": 2}


def test_a_training_stops_early(tmp_path, monkeypatch, capsys):
    state = clone(tmp_path, monkeypatch, lambda state: state, judge=judge_by(3.0, 2.0, 2.5, 2.0), **EARLY)
    assert state.step == 4
    said = capsys.readouterr().err
    assert "bc step 3: train/loss 1, validation/loss 2.5" in said
    assert "bc ends at step 4, 2 evaluations after its best at step 2 (stop_after=2)" in said


@pytest.mark.slow
def test_a_resumed_training_counts_the_evaluations_before_it(tmp_path, monkeypatch):
    clone(tmp_path, monkeypatch, lambda state: state, judge=judge_by(3.0, 2.0, 2.5, 2.0), **EARLY)
    assert clone(tmp_path, monkeypatch, lambda state: state, judge=judge_by(), **EARLY).step == 4
    longer = EARLY | {"stop_after": 3}
    assert clone(tmp_path, monkeypatch, lambda state: state, judge=judge_by(2.1), **longer).step == 5


@pytest.mark.parametrize("select", ["last", "best"])
def test_overfitted_networks_that_are_kept_are_told_of(capsys, select):
    stage = make_stage("bc", make_learner("bc", MODEL, {}), dataclasses.replace(SETTINGS, select=select), ROWS, ROWS)
    report_end(stage, Patience(best=1.0, best_step=1, last=1.5), {})
    told = "bc: the validation loss was 1 at step 1 and is 1.5 now; select='best'" in capsys.readouterr().err
    assert told == (select == "last")


@pytest.mark.parametrize(
    ("algorithm", "rollouts", "warned"), [("bc", -0.4, False), ("bc", -3.0, True), ("filtered_bc", -3.0, False)]
)
def test_a_clone_that_plays_worse_than_its_data_is_warned_of(caplog, algorithm, rollouts, warned):
    stage = make_stage(algorithm, make_learner(algorithm, MODEL, {}), SETTINGS, ROWS, ROWS)
    report_end(stage, Patience(), {"rollout/return": rollouts, "rollout/return_standard_error": 0.1})
    told = "bc: the clone's dialogues are worth -3 (standard error 0.1), those of its data -0.5" in caplog.text
    assert told == warned


def test_a_run_says_what_its_rewards_were_multiplied_by(caplog):
    rows = ObservationDataset([answer("a", "b", -1.0), answer("b", "a", 0.0)], TOKENIZER, reward_shift=-0.5)
    with caplog.at_level("INFO", logger="ilqljax"):
        make_stage("bc", make_learner("bc", MODEL, {}), SETTINGS, ROWS)
        assert not caplog.records
        make_stage("bc", make_learner("bc", MODEL, {}), SETTINGS, rows)
    assert caplog.messages == ["bc: rewards are those of the dialogues less -0.5, times 1"]


def test_stopping_early_needs_something_to_evaluate():
    settings = dataclasses.replace(SETTINGS, stop_after=2)
    with pytest.raises(UserError, match=r"stop_after=2 needs something to evaluate\. Give validation rows"):
        make_stage("bc", make_learner("bc", MODEL, {}), settings, ROWS)


def make_quiet_stage(talks, algorithm="ilql"):
    return make_stage(algorithm, make_learner(algorithm, MODEL, {}), SETTINGS, ObservationDataset(talks, TOKENIZER))


def test_rows_without_an_action_are_refused_if_all_are_and_warned_of_if_some(caplog):
    silent = ListDialogue([("a", None), ("b", None)])
    with pytest.raises(UserError, match=r"bc: 3 of 3 rows hold no token of the agent's.*roles swapped"):
        make_quiet_stage([silent] * 3, "bc")
    make_quiet_stage([silent, *[answer("a", "b", 1.0), answer("b", "a", 0.0)] * 60])  # under 1 %
    assert not caplog.records
    make_quiet_stage([silent, *[answer("a", "b", 1.0), answer("b", "a", 0.0)] * 40])
    assert "1 of 81 rows" in caplog.text


def test_equal_returns_are_warned_of_where_a_critic_reads_them(caplog):
    make_quiet_stage([answer("a", "b", 0.1)] * 3, "bc")
    make_quiet_stage([answer("a", "b", 0.1), answer("a", "a", 0.2)])
    assert not caplog.records
    make_quiet_stage([answer("a", "b", 0.1), answer("a", "a", float(np.nextafter(0.1, 1)))])
    assert "all 2 rows have the same return" in caplog.text


def test_a_filter_without_a_choice_is_warned_of(caplog):
    make_quiet_stage([answer("a", "b", 0.1), answer("a", "a", 0.2)] * 4, "filtered_bc")
    assert not caplog.records
    make_quiet_stage([answer("a", "b", 0.1)] * 3, "filtered_bc")
    assert [r.getMessage() for r in caplog.records] == [
        "filtered_bc: all 3 rows have the same return, so that none is best. Check the rewards, or clone (bc)."
    ]


@pytest.mark.parametrize(
    "asked",
    [
        (3, "step"),
        (2, "evaluation"),
        *(pytest.param(asked, marks=pytest.mark.slow) for asked in ((1, "step"), (4, "step"), (4, "evaluation"))),
    ],
)
def test_a_training_that_is_asked_to_end_saves_its_step_and_resumes_as_if_nothing_had_been(
    tmp_path, monkeypatch, asked
):
    def run(run_dir, asked):
        ending, evaluated, steps, begun = Ending(), [], [], []

        def step(state):
            return state._replace(params=jax.tree.map(lambda x: x + 1, state.params))

        def shard(batch, mesh):
            steps.append(begun[-1] + 1)
            begun.append(steps[-1])
            if (steps[-1], "step") == asked:
                ending.number = 15  # a signal while the step is computed
            return shard_batch(batch, mesh)

        def judge(_, state, *args, **kwargs):
            evaluated.append(int(state.step))
            if (evaluated[-1], "evaluation") == asked:
                ending.ask(15)
            return {"loss": float(10 - state.step)}

        def open_writers(first):
            begun.append(first)
            return [JsonlWriter(run_dir / "metrics.jsonl", resume_step=first)]

        monkeypatch.setattr(loop, "shard_batch", shard)
        settings = {"total_steps": 4, "eval_every": 2, "save_every": 4, "log_every": 1}
        try:
            clone(run_dir, monkeypatch, step, writers=open_writers, ending=ending, judge=judge, **settings)
        except Interrupted as error:
            assert error.status == 143
        return steps, evaluated

    def read(run_dir):
        store = CheckpointStore(run_dir / "checkpoints" / "bc")
        lines = (run_dir / "metrics.jsonl").read_text().splitlines()
        own = [{k: v for k, v in json.loads(line).items() if k in ("step", "validation/loss")} for line in lines]
        return own, store.latest_step(), store.best_step(), restore_raw(run_dir / "checkpoints" / "bc")["params"]

    run(tmp_path / "unbroken", None)
    steps, evaluated = run(tmp_path / "run", asked)
    assert steps[-1] == asked[0]
    assert CheckpointStore(tmp_path / "run/checkpoints/bc").latest_step() == asked[0]
    again = run(tmp_path / "run", None)
    assert steps + again[0] == [1, 2, 3, 4]
    if asked[1] == "evaluation":
        assert evaluated.pop() == again[1][0]  # broken off, and done again first
    assert evaluated + again[1] == [2, 4]
    (own, *facts, params), (expected, *expected_facts, expected_params) = map(
        read, (tmp_path / "run", tmp_path / "unbroken")
    )
    assert (own, facts) == (expected, expected_facts)
    jax.tree.map(np.testing.assert_array_equal, params, expected_params)
