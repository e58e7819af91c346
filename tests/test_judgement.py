"""A judgement that is interrupted goes on where it stopped, if it is made in the same way."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from ilqljax.config.files import save_config_json
from ilqljax.errors import UserError
from ilqljax.training.evaluation import Trained, evaluate_policies, override_decoding
from ilqljax.training.judgement import begin_judgement, choose_folder, keep_made
from ilqljax.training.run_config import load_run_config, read_run_config
from ilqljax.wordle.evaluation import WordleJudge
from ilqljax.wordle.game import WordList
from ilqljax.wordle.policies import ConsistentPolicy

WAYS = {"seed": 0, "time": "1", "decode": {"beta": 1.0, "stop": ()}, "sections": {"tokenizer": {"name": "bpe"}}}


def change(**changed):
    return WAYS | changed


@pytest.fixture(autouse=True)
def shown(caplog):
    caplog.set_level(logging.INFO, logger="ilqljax")


def keep(folder, value, *, given=0):
    """Return what is kept as "bc", and whether the value had to be made."""
    made = []
    return keep_made(folder, "bc", lambda: made.append(1) or value, given=given), bool(made)


def test_what_was_made_in_the_same_way_is_kept_whatever_the_time_and_the_tokenizers_section(tmp_path, caplog):
    begin_judgement(tmp_path, WAYS)
    assert keep(tmp_path, [0.1]) == ([0.1], True)
    assert not caplog.records
    begin_judgement(tmp_path, change(time="2", sections={"tokenizer": {"name": "saved"}}))
    assert keep(tmp_path, [0.2]) == ([0.1], False)
    assert [r.getMessage() for r in caplog.records] == [
        "goes on with the judgement that was interrupted: what bc wrote is kept"
    ]


@pytest.mark.parametrize(
    ("changed", "names"),
    [({"decode": {"beta": 2.0, "stop": ()}}, "decode"), ({"seed": 1, "networks": {}}, "networks, seed")],
)
def test_what_was_made_otherwise_is_removed_with_one_line(tmp_path, caplog, changed, names):
    begin_judgement(tmp_path, WAYS)
    keep(tmp_path, [0.1])
    begin_judgement(tmp_path, change(**changed))
    (record,) = caplog.records
    assert f"was made with other values of {names}: it is not used" in record.getMessage()
    assert keep(tmp_path, [0.2]) == ([0.2], True)


def test_what_was_made_of_other_data_is_made_again(tmp_path):
    begin_judgement(tmp_path, WAYS)
    keep(tmp_path, [0.1])
    assert keep(tmp_path, [0.2], given=1) == ([0.2], True)


def test_outside_a_judgement_nothing_is_kept(tmp_path):
    assert keep(tmp_path, [0.1]) == ([0.1], True)
    assert not list(tmp_path.iterdir())


def test_damaged_texts_are_refused_by_name(tmp_path):
    begin_judgement(tmp_path, WAYS)
    keep(tmp_path, ["one"])
    file = tmp_path / "unfinished" / "bc.json"
    file.write_text(file.read_text().replace("one", "two"))
    with pytest.raises(UserError, match=r"bc\.json: is damaged"):
        keep(tmp_path, ["one"])


def test_an_interrupted_judgement_is_found_again_and_one_made_otherwise_is_left_alone(tmp_path):
    assert choose_folder(tmp_path, WAYS) == tmp_path
    (tmp_path / "results.json").write_text("[]")
    second, third = tmp_path / "judged" / "2", tmp_path / "judged" / "3"
    assert choose_folder(tmp_path, WAYS) == second
    begin_judgement(second, WAYS)
    assert choose_folder(tmp_path, WAYS) == second
    other = change(seed=1)
    assert choose_folder(tmp_path, other) == third
    begin_judgement(third, other)
    assert choose_folder(tmp_path, other) == third
    (second / "results.json").write_text("[]")
    assert choose_folder(tmp_path, WAYS) == tmp_path / "judged" / "4"


class Judge:
    """Make one value a policy; killed at the policy named."""

    def __init__(self, kill_at=""):
        self.kill_at, self.made = kill_at, []

    def __call__(self, names, make, *, out_dir):
        return [keep_made(out_dir, name, lambda name=name: self.make(name), given="") for name in names], "a table"

    def make(self, name):
        if name == self.kill_at:
            raise KeyboardInterrupt
        self.made.append(name)
        return {"policy": name, "made": len(name)}


def judge(run_dir, judge, *, out_dir=None, weight=0.0, beta=1.0):
    config = read_run_config(load_run_config("configs/workable.py"))
    config = dataclasses.replace(config, decode=override_decoding(config.decode, {"beta": beta}))
    learner = SimpleNamespace(algorithm=SimpleNamespace(has_critic=False))
    networks = {"bc": np.zeros(2, np.float32), "ilql": np.full(2, weight, np.float32)}
    policies = {name: Trained(learner, None, {"w": array}, {}) for name, array in networks.items()}
    return evaluate_policies(config, None, policies, judge=judge, run_dir=run_dir, out_dir=out_dir)


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    save_config_json(load_run_config("configs/workable.py"), folder / "config.json")
    return folder


@pytest.mark.parametrize("named", [False, True])
def test_a_killed_judgement_goes_on_after_the_last_policy_that_was_done(run_dir, tmp_path, named):
    out_dir = tmp_path / "named" if named else None
    with pytest.raises(KeyboardInterrupt):
        judge(run_dir, Judge(kill_at="ilql"), out_dir=out_dir)
    again = Judge()
    folder = judge(run_dir, again, out_dir=out_dir)
    assert again.made == ["ilql"] and folder == (out_dir or run_dir)
    assert [row["policy"] for row in json.loads((folder / "results.json").read_text())] == ["bc", "ilql"]
    assert not (folder / "unfinished").exists()


@pytest.mark.parametrize("changed", [{"weight": 1.0}, {"beta": 2.0}])
def test_another_checkpoint_and_other_decoding_judge_from_the_start(run_dir, tmp_path, changed):
    with pytest.raises(KeyboardInterrupt):
        judge(run_dir, Judge(kill_at="ilql"), out_dir=tmp_path / "out")
    again = Judge()
    judge(run_dir, again, out_dir=tmp_path / "out", **changed)
    assert again.made == ["bc", "ilql"]


class Player(ConsistentPolicy):
    """Play Wordle as a language model without a critic would be asked to; killed where it is told to."""

    params, killed = {}, False

    def act(self, obs):
        if self.killed:
            raise KeyboardInterrupt
        return super().act(obs)


def test_a_killed_judgement_of_wordle_plays_what_it_had_not_played(tmp_path):
    words, made = WordList(["aloft", "bread", "cigar", "dwarf", "eagle"]), []
    kill_at, unbroken, broken = "", tmp_path / "unbroken", tmp_path / "broken"

    def make(name, **ways):
        made.append(f"{name} {len(ways)}")
        player = Player(words, len(made))
        player.killed = name == kill_at
        return player

    def play(folder):
        folder.mkdir(exist_ok=True)
        begin_judgement(folder, WAYS)
        made.clear()
        return WordleJudge(words, ConsistentPolicy(words), n_games=8)(["bc", "other"], make, out_dir=folder)

    wanted, kill_at = play(unbroken), "other"
    with pytest.raises(KeyboardInterrupt):
        play(broken)
    kill_at = "bc"  # which is not asked again
    assert play(broken) == wanted
    assert (broken / "games.jsonl").read_bytes() == (unbroken / "games.jsonl").read_bytes()
