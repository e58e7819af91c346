"""From samples to a proposal: what is refused, what comes first, and what is logged."""

import json

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import Attribute
from ilqljax.hiring.postings.posting import Posting
from ilqljax.hiring.proposals import describe_shortlist, judge_samples, log_decision

TEXT = "Blue Oak needs a strong nurse in Basel. You plan care and record vital signs every day."
POSTING = Posting("job-1", "Nurse", TEXT, company="Blue Oak", location="Basel")
KIND, CALM = TEXT.replace("strong", "kind"), TEXT.replace("strong", "calm")


class Scores:
    """A reward that is looked up; -9 for anything else."""

    def __init__(self, **known):
        self.known = {TEXT: -5.0, KIND: -2.0, CALM: -1.0} | known

    def score(self, prompts, texts):
        assert len(set(prompts)) == 1
        return np.array([self.known.get(text, -9.0) for text in texts])


def judge(*texts, reward=None, **options):
    samples = [(text, float(i), -1.0) for i, text in enumerate(texts)]
    return judge_samples(POSTING, samples, reward or Scores(), **options)


def test_improvements_come_best_first_by_the_matcher_or_by_the_critic():
    assert [p.text for p in judge(CALM, KIND).safe] == [CALM, KIND]
    assert [p.text for p in judge(CALM, KIND, rank_by="advantage").safe] == [KIND, CALM]
    assert [p.gain for p in judge(KIND).safe] == [3.0]


def test_a_paraphrase_is_proposed_where_free_text_is_asked_about():
    text = "Planning of care, recording of vital signs: daily work of the strong nurse whom Blue Oak, Basel, needs."
    rewards = Scores(**{text: 0.0})
    assert judge(text, reward=rewards).safe == ()
    assert [p.text for p in judge(text, reward=rewards, guardrails="free_text").safe] == [text]


def test_a_rewrite_that_lost_a_fact_is_refused_however_well_it_scores():
    lost = KIND.replace("Blue Oak", "Red Elm")
    rewriting = judge(lost, reward=Scores(**{lost: 0.0}))
    assert rewriting.safe == ()
    assert "company_kept" in rewriting.refused[0].failed_checks


def test_a_copy_and_what_scores_no_better_are_no_improvement():
    rewriting = judge(TEXT, TEXT.replace("strong", "caring"))
    assert rewriting.safe == ()
    assert [p.failed_checks for p in rewriting.refused] == [(), ()]


def test_equal_samples_count_once_white_space_aside():
    rewriting = judge(KIND, KIND.replace(" ", "  "), KIND)
    assert len(rewriting.safe) == 1
    assert rewriting.safe[0].advantage == 0.0  # the first of them


def test_no_sample_at_all_is_no_improvement():
    rewriting = judge()
    assert (rewriting.safe, rewriting.refused, rewriting.original_reward) == ((), (), -5.0)


def test_an_unknown_ranking_is_refused():
    with pytest.raises(UserError, match="rank_by='luck'"):
        judge(KIND, rank_by="luck")


def test_shortlist_by_hand():
    # Of 4 female and 2 male candidates 2 and 2 are on the list: rates 0.5 and 1.
    attribute = Attribute("sex", ("female", "male"), np.array([0, 0, 0, 0, 1, 1, -1]))
    counts, unknown, ratios = describe_shortlist(np.array([0, 0, 1, 1, -1]), attribute)
    assert (counts.tolist(), unknown, ratios.tolist()) == ([2, 2], 1, [0.5, 1.0])


def test_an_empty_shortlist_has_no_ratios():
    attribute = Attribute("sex", ("female", "male"), np.array([0, 1]))
    assert np.isnan(describe_shortlist(np.array([], int), attribute)[2]).all()


def test_decisions_are_appended_line_by_line(tmp_path):
    path = tmp_path / "log.jsonl"
    for decision in ("accept", "reject"):
        log_decision(path, decision, judge(KIND), run="runs/x", time="2026-11-26T00:00:00Z")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["decision"] for line in lines] == ["accept", "reject"]
    assert lines[0]["text"] == KIND
    assert lines[0]["original_sha256"] != lines[0]["rewrite_sha256"]
    assert (lines[0]["posting_id"], lines[0]["gain"], lines[0]["run"]) == ("job-1", 3.0, "runs/x")


def test_a_decision_that_is_none_or_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match="decision='perhaps'"):
        log_decision(tmp_path / "log.jsonl", "perhaps", judge(KIND), run="", time="")
    with pytest.raises(UserError, match="cannot be written"):
        log_decision(tmp_path, "accept", judge(KIND), run="", time="")
