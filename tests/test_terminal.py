"""What comes from outside and is shown on a terminal, in a spreadsheet or in a config's file does nothing there."""

import csv
import logging

import pytest

from ilqljax.cli import PlainFormatter, run_main
from ilqljax.errors import UserError
from ilqljax.hiring.evaluation.summary import save_rows
from ilqljax.hiring.matching.http import HttpSource
from ilqljax.training.loop import say

CLEAR = "\x1b[2J\x9b2J\x07owned"


def test_control_characters_of_an_error_do_not_reach_the_terminal(capsys):
    def fail() -> None:
        raise UserError(f"{CLEAR}: no such id")

    with pytest.raises(SystemExit):
        run_main(fail)
    assert capsys.readouterr().err == "error: \ufffd[2J\ufffd2J\ufffdowned: no such id\n"


def test_control_characters_of_what_training_says_do_not_reach_the_terminal(capsys):
    say(CLEAR)
    record = logging.LogRecord("ilqljax", logging.WARNING, "", 0, "%s is unknown", (CLEAR,), None)
    shown = capsys.readouterr().err + PlainFormatter().format(record)
    assert shown == "\ufffd[2J\ufffd2J\ufffdowned\n\ufffd[2J\ufffd2J\ufffdowned is unknown"


def test_rows_that_are_saved_as_csv_run_nothing_in_a_spreadsheet(tmp_path):
    save_rows(tmp_path / "a.csv", [{"category": "=1+1", "ratio": -0.5}, {"category": "@x", "ratio": 0.5}])
    with (tmp_path / "a.csv").open() as file:
        assert list(csv.reader(file)) == [["category", "ratio"], ["'=1+1", "-0.5"], ["'@x", "0.5"]]


@pytest.mark.parametrize("query", ["token=x", "api_key=x", "a=1&access_token=x", "Key=x", "password=x", "sig=x"])
def test_a_url_with_a_secret_is_refused_without_showing_it(query):
    with pytest.raises(UserError, match="looks like a secret") as caught:
        HttpSource(url=f"https://engine.example/match?{query.replace('x', 'hunter2')}")
    assert "hunter2" not in str(caught.value)


def test_a_url_with_an_ordinary_parameter_is_taken():
    assert HttpSource(url="https://engine.example/match?v=1&keyboard=de").url.endswith("de")
