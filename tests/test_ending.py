"""Ending on request: what a signal does to a run, and what is left as it was."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import jax
import pytest

from ilqljax import train as train_module
from ilqljax.cli import run_main
from ilqljax.errors import Interrupted, UserError
from ilqljax.training import ending as ending_module
from ilqljax.training.ending import SIGNALS, Ending, heed_signals
from ilqljax.training.run_config import load_run_config, read_run_config

TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(autouse=True)
def heeded_interrupts():
    """Heed SIGINT also where the tests run in the background, in which shells have it ignored."""
    before = signal.signal(INT, signal.default_int_handler)
    yield
    signal.signal(INT, signal.SIG_DFL if before is None else before)


def get_handlers():
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return [*map(signal.getsignal, SIGNALS), wakeup]


@pytest.mark.parametrize(("number", "status"), [(TERM, 143), (INT, 130)])
def test_a_signal_breaks_off_what_cannot_be_saved_and_handlers_are_put_back(number, status):
    before = get_handlers()
    with pytest.raises(Interrupted) as raised, heed_signals(grace_seconds=60) as ending, ending.losing("a judgement"):
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert (raised.value.status, ending.lost) == (status, "a judgement")
    assert get_handlers() == before


def test_a_request_to_another_process_breaks_off_what_cannot_be_saved_here(capfd):
    client = SimpleNamespace(
        key_value_try_get=lambda _: str(int(TERM)),
        key_value_set=lambda *_: None,
        blocking_key_value_get=lambda *_: "7",
    )
    with pytest.raises(Interrupted) as raised, heed_signals(grace_seconds=60) as ending, ending.losing("a judgement"):
        threading.Thread(target=ending_module._look, args=(ending, client, "key")).start()
        for _ in range(500):
            time.sleep(0.02)
    assert (raised.value.status, ending.lost, ending.last_step) == (143, "a judgement", 8)
    assert capfd.readouterr().err == ""  # the signal is the other's, and one that comes here is the first


@pytest.mark.parametrize("state", [{"heard": TERM}, {"number": TERM, "closed": True}])
def test_the_others_are_told_while_python_waits_and_when_it_has_broken_off(state):
    told, ending = {}, Ending()
    vars(ending).update(state)

    def get(key):
        if key in told:
            return told[key]
        ending.closed = True
        raise jax.errors.JaxRuntimeError("NOT_FOUND")

    client = SimpleNamespace(
        key_value_set=lambda key, value, **_: told.update({key: value}),
        key_value_try_get=get,
        blocking_key_value_get=lambda key, _: told[key],
    )
    ending_module._look(ending, client, "key")
    assert told == {"key": str(int(TERM)), "key/0": "0"}


def test_a_request_that_another_process_told_is_one_here_before_it_is_relayed():
    with pytest.raises(Interrupted), heed_signals(grace_seconds=60) as ending:
        raise Interrupted(TERM)
    assert ending.number == TERM  # its answer is not waited for


def test_what_is_deferred_goes_on_and_may_be_broken_off_within():
    with heed_signals(grace_seconds=60) as ending, ending.deferred():
        assert not ending.reached()
        os.kill(os.getpid(), TERM)
        assert ending.number == TERM and ending.reached()
        with pytest.raises(Interrupted), ending.losing("an evaluation"):
            pytest.fail("it began although the run is to end")
        assert ending.lost == "an evaluation"
    done = Ending()
    with done.losing("an evaluation"):
        pass
    assert done.lost == ""


def test_a_request_that_python_dropped_is_raised_at_the_end_of_the_block():
    class Ended:
        def __del__(self):
            ending.number = TERM  # a handler raises here, and Python drops it

    ending = Ending()
    with pytest.raises(Interrupted), ending.losing("a judgement"):
        Ended()


def test_no_handler_is_set_off_the_main_thread_nor_for_an_ignored_signal():
    before, found = get_handlers(), []

    def heed():
        with heed_signals(grace_seconds=60):
            found.append([signal.getsignal(number) for number in SIGNALS])

    thread = threading.Thread(target=heed)
    thread.start()
    thread.join()
    assert found == [before[:2]]
    own = signal.signal(INT, signal.SIG_IGN)  # as a shell starts what it runs in the background
    try:
        with heed_signals(grace_seconds=60):
            assert signal.getsignal(INT) is signal.SIG_IGN and signal.getsignal(TERM) != before[0]
    finally:
        signal.signal(INT, own)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the thread ends as in `leave`
@pytest.mark.parametrize(
    ("second", "grace", "status", "said"),
    [(INT, 60.0, 130, "SIGTERM: ending"), (None, 0.05, 143, "did not end within grace_seconds=0.05")],
)
def test_a_second_signal_and_the_end_of_the_time_end_the_process(monkeypatch, capfd, second, grace, status, said):
    ended, statuses = threading.Event(), []

    def leave(status):
        statuses.append(status)
        ended.set()
        raise SystemExit  # ends the thread

    monkeypatch.setattr(ending_module.os, "_exit", leave)
    with heed_signals(grace_seconds=grace) as ending, ending.deferred():
        os.kill(os.getpid(), TERM)
        if second:
            os.kill(os.getpid(), second)
        assert ended.wait(10)
    assert statuses == [status]
    assert said in capfd.readouterr().err


def test_the_program_ends_with_the_signals_status_and_a_line(monkeypatch, capfd):
    monkeypatch.setattr(train_module, "plan_run", lambda *_, **__: os.kill(os.getpid(), TERM))
    before = get_handlers()
    with pytest.raises(SystemExit) as raised:
        run_main(lambda: train_module.train(load_run_config("workable")))
    assert raised.value.code == 143 and get_handlers() == before
    assert "ended before the training began: the same command starts again" in capfd.readouterr().err


def test_a_library_call_is_asked_by_signals_in_the_main_thread_alone(monkeypatch):
    found = []

    def find(*_, **__):
        found.append([*map(signal.getsignal, SIGNALS)])
        raise UserError("enough")

    def call():
        with pytest.raises(UserError, match="enough"):
            train_module.train(config)

    monkeypatch.setattr(train_module, "plan_run", find)
    config, before = load_run_config("workable"), get_handlers()
    call()
    assert get_handlers() == before
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    (first, second), own = found
    assert first == second and first.__func__ is Ending.ask
    assert own == before[:2]


def test_a_grace_time_below_zero_is_refused():
    config = load_run_config("workable")
    config.grace_seconds = -1.0
    with pytest.raises(UserError, match="grace_seconds=-1"):
        read_run_config(config)
