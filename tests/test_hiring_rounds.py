"""Rounds of proposing and training: what each adds, what a killed command leaves, and what is never done twice."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from ilqljax.cli import run_command
from ilqljax.decoding.policy import Generation
from ilqljax.errors import UserError
from ilqljax.hiring import rounds
from ilqljax.hiring.data.prepare import load_samples
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.proposals import RoundsConfig
from ilqljax.hiring.rounds import format_rounds, run_rounds

TEXT = "Blue Oak needs a strong nurse in Basel. You plan care and record vital signs every day."
POSTINGS = [Posting(f"job-{i}", "Nurse", TEXT, "Blue Oak", "Basel") for i in range(2)]
LOST = TEXT.replace("Blue Oak", "Red Elm")


def swap(word):
    return TEXT.replace("strong", word)


class Scores:
    guardrails = "edits"

    def score(self, prompts, texts):
        worth = {"kind": 2.0, "warm": 3.0, "calm": -1.0}
        return np.array([-5.0 + sum(value for word, value in worth.items() if word in text) for text in texts])


# By run: two samples of each posting.
WRITTEN = {
    "first": [[swap("kind"), LOST], [swap("calm"), TEXT]],
    "round-1": [[swap("kind"), swap("warm")], [swap("calm"), LOST]],
    "round-2": [[TEXT, TEXT], [swap("kind"), swap("kind")]],
}


class World:
    """Runs that are looked up, and a training that only records what it was asked."""

    def __init__(self, folder, monkeypatch, *, written=WRITTEN):
        self.first, self.written, self.acted, self.trained = folder / "first", written, [], []
        data = {"folder": str(folder / "first-data"), "rewrites_path": ""}
        steps = {"total_steps": 9}
        self.configs = {self.first: {"data": data, "pretrain": dict(steps), "train": dict(steps)}}
        self.dies_in = self.dies_acting = ""
        monkeypatch.setattr(rounds, "open_run_config", lambda run_dir, imports: (run_dir, None))
        monkeypatch.setattr(rounds, "load_saved_config", lambda run_dir: self.load(run_dir))
        monkeypatch.setattr(rounds, "complete_config", lambda config, imports: config)
        monkeypatch.setattr(rounds, "open_run", self.open)

    def load(self, run_dir):
        return ConfigDict({"run_dir": str(run_dir), "resume": "", "imports": (), **self.configs[run_dir]})

    def open(self, run_dir, imports):
        assert imports == ("task.py",)
        path = self.load(run_dir).data.rewrites_path
        old = [SimpleNamespace(posting_id=p.id, text=p.description) for p in POSTINGS]
        if path:
            lines = rounds.Path(path).read_text(encoding="utf-8").splitlines()
            old += [SimpleNamespace(**{name: json.loads(x)[name] for name in ("posting_id", "text")}) for x in lines]
        prepared = SimpleNamespace(rewrites=old, select_postings=lambda split: POSTINGS if split == "train" else [])
        data = SimpleNamespace(prepared=prepared, reward=Scores(), config=SimpleNamespace(rewrites_path=path))
        name = run_dir.parent.name if run_dir.name == "run" else run_dir.name

        def make_policy(decode, tokenizer, seed, acting, **options):
            self.acted.append((name, seed, options))
            return SimpleNamespace(generate_batch=lambda observations: self.act(name, observations))

        return SimpleNamespace(
            name_policy=lambda policy: policy or "ilql",
            select_policy=lambda policy: SimpleNamespace(make_policy=make_policy),
            build_section=lambda section: data,
            config=SimpleNamespace(decode=None, acting=None),
            built=SimpleNamespace(tokenizer=None),
        )

    def act(self, name, observations):
        if name == self.dies_acting:
            raise KeyboardInterrupt
        rows = [int(o.posting.id[-1]) for o in observations]
        return [[Generation(text, -1.0, 0.0, 0.0, True) for text in self.written[name][row]] for row in rows]

    def train(self, config, *, overrides):
        self.trained.append((config.to_dict(), overrides))
        folder = rounds.Path(config.run_dir)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        self.configs[folder] = {name: config[name].to_dict() for name in ("data", "pretrain", "train")}
        if folder.parent.name == self.dies_in:
            raise KeyboardInterrupt
        (folder / "results.json").write_text("[]")

    def run(self, out, n_rounds=3, decoding=(), **options):
        config = RoundsConfig(rounds=n_rounds, n=2, **options)
        return run_rounds(self.first, out, config, train=self.train, decoding=dict(decoding), imports=("task.py",))


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def list_files(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.glob("round-*/proposals/*"))}


def test_each_round_proposes_from_the_run_before_and_trains_on_all_that_was_kept(world, tmp_path):
    world.run(tmp_path / "out", decoding={"beta": 4.0})
    options = {"beta": 4.0, "n_generations": 2, "beam_width": 0}
    assert world.acted == [(name, i, options) for i, name in enumerate(("first", "round-1", "round-2"), start=1)]
    found = [
        load_samples(tmp_path / f"out/round-{i}/proposals/rewrites.jsonl", train_ids=["job-0", "job-1"])
        for i in (1, 2, 3)
    ]
    assert found[0] == {"job-0": [("ilql-1", swap("kind"))], "job-1": [("ilql-1", swap("calm"))]}
    assert found[1]["job-0"] == [("ilql-1", swap("kind")), ("ilql-2", swap("warm"))]
    assert found[2]["job-1"] == [("ilql-1", swap("calm")), ("ilql-3", swap("kind"))]
    for i, (config, overrides) in enumerate(world.trained, start=1):
        folder = tmp_path / "out" / f"round-{i}"
        assert config["data"] == {
            "folder": str(folder / "data"),
            "rewrites_path": str(folder / "proposals/rewrites.jsonl"),
        }
        assert (config["run_dir"], config["resume"], overrides) == (str(folder / "run"), "", {})
        assert config["imports"] == ("task.py",)


def test_the_table_by_hand(world, tmp_path, capsys):
    lines = world.run(tmp_path / "out")
    # Round 1: -3 and -6 are kept, one text is refused and one is the original; round 2: -2, of the two that are new.
    first = {"round": 1, "written": 4, "kept": 2, "rows": 2, "pass": 2 / 3, "postings": 2, "reward": -4.5, "best": -4.5}
    assert lines[0] == first | {"best_gain": 0.5}
    second = {"round": 2, "written": 4, "kept": 1, "rows": 3, "pass": 0.5, "postings": 1, "reward": -2.0, "best": -2.0}
    assert lines[1] == second | {"best_gain": 3.0}
    assert lines[2]["pass"] == 1.0 and lines[2]["rows"] == 4
    shown = capsys.readouterr().out
    assert shown.endswith(format_rounds(lines) + "\n") and format_rounds(lines[:1]) + "\n" in shown
    assert format_rounds(lines).splitlines()[1].split()[4:] == ["67", "%", "2", "-4.50", "-4.50", "0.50"]


def test_a_round_that_keeps_nothing_new_has_no_means(world, tmp_path):
    world.written = {**WRITTEN, "round-1": [[LOST, LOST], [TEXT, TEXT]]}
    line = world.run(tmp_path / "out", 2)[1]
    assert (line["kept"], line["rows"], line["pass"], line["best"]) == (0, 2, 0.0, None)
    assert format_rounds([line]).splitlines()[1].split()[4:] == ["0", "%", "0", "-", "-", "-"]


def test_only_what_gains_is_kept_where_that_is_asked(world, tmp_path):
    lines = world.run(tmp_path / "out", 1, keep="improved")
    assert (lines[0]["kept"], lines[0]["reward"], lines[0]["pass"]) == (1, -3.0, 2 / 3)


@pytest.mark.parametrize("dies", ["dies_in", "dies_acting"])
def test_a_killed_command_goes_on_where_it_was_and_ends_alike(world, tmp_path, monkeypatch, dies):
    killed = tmp_path / "killed"
    name = "round-2" if dies == "dies_in" else "round-1"  # the training of round 2, or what the policy before it writes
    setattr(world, dies, name)
    with pytest.raises(KeyboardInterrupt):
        world.run(killed)
    assert (killed / "round-2" / "proposals").is_dir() == (dies == "dies_in")
    assert not list(killed.glob("**/*.tmp"))
    setattr(world, dies, "")
    world.acted.clear()
    world.trained.clear()
    lines = world.run(killed)
    assert [name for name, *_ in world.acted] == (["round-2"] if dies == "dies_in" else ["round-1", "round-2"])
    resumed = [config["resume"] for config, _ in world.trained]
    assert resumed == [str(killed / "round-2" / "run") if dies == "dies_in" else "", ""]
    assert lines == world.run(tmp_path / "whole") and list_files(killed) == list_files(tmp_path / "whole")
    world.acted.clear()
    world.trained.clear()
    assert world.run(killed) == lines and not world.acted and not world.trained


def test_more_rounds_may_be_asked_for_and_other_settings_are_refused(world, tmp_path):
    world.run(tmp_path / "out", 1)
    assert len(world.run(tmp_path / "out", 2)) == 2
    with pytest.raises(UserError, match="other values of seed, decoding"):
        world.run(tmp_path / "out", 2, seed=1, decoding={"beta": 2.0})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        world.run(tmp_path / "mine")


def test_the_budget_of_a_round_is_the_users_or_the_runs(world, tmp_path):
    world.run(tmp_path / "out", 1, train_steps=4, max_postings=1, seed=3)
    ((config, overrides),) = world.trained
    assert (config["pretrain"]["total_steps"], config["train"]["total_steps"]) == (9, 4)
    assert overrides == {"train.total_steps": 4}
    assert json.loads((tmp_path / "out/round-1/proposals/summary.json").read_text())["line"]["written"] == 2


def test_nothing_to_add_is_refused_with_what_became_of_it(world, tmp_path):
    world.written = {"first": [[LOST, TEXT], [TEXT, TEXT]]}
    with pytest.raises(UserError, match=r"of 4 samples of 'ilql' none is to be kept.*refused 1.*company_kept 1"):
        world.run(tmp_path / "out")
    assert not (tmp_path / "out" / "round-1" / "proposals").exists() and not world.trained


@pytest.mark.parametrize(
    ("options", "message"),
    [({"keep": "all"}, "keep='all'"), ({"n_rounds": 0}, "rounds=0"), ({"train_steps": -2}, "-2")],
)
def test_wrong_options_are_refused(world, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        world.run(tmp_path / "out", **options)


def test_options_of_rounds_need_rounds():
    with pytest.raises(UserError, match="are options of rounds"):
        run_command(["data", "sample", "--run", "r", "--out", "x.jsonl", "--keep", "improved"])


@pytest.mark.slow
def test_two_real_rounds_repeat_to_the_last_digit(tmp_path, monkeypatch):
    from ilqljax.train import train
    from tests.small_runs import make_config

    # So small a model writes nothing true; what the guardrails refuse is not what this is about.
    monkeypatch.setattr("ilqljax.hiring.proposals.check_rewrite", lambda *args, **options: [])
    config = make_config(tmp_path, "first")
    config.pretrain.total_steps = 120  # enough that a sample ends
    config.decode.max_new_tokens = 64
    config.evaluator.max_postings = 2
    train(config)
    options = RoundsConfig(rounds=2, n=4, pretrain_steps=6, train_steps=4)
    folders = [tmp_path / name for name in ("a", "b")]
    first, second = (
        run_rounds(tmp_path / "first", folder, options, train=train, decoding={"temperature": 0.5})
        for folder in folders
    )
    assert first[0]["kept"] > 0 and first[1]["rows"] >= first[0]["rows"]
    assert first == second and list_files(folders[0]) == list_files(folders[1])
    results = [(folder / "round-2/run/results.json").read_bytes() for folder in folders]
    assert results[0] == results[1]
