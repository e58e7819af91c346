"""Ending on request: at SIGTERM or Ctrl-C a training finishes its step and saves it, within a time.

| asked to end in                 | what happens                                            | what is lost        |
|---------------------------------|---------------------------------------------------------|---------------------|
| a training step                 | the step is finished and saved                          | nothing             |
| an evaluation of a training     | its step is saved; a resumed run evaluates it first     | the evaluation      |
| anything else                   | it is broken off, by `Interrupted`                      | what it was making  |

A second signal, and the end of the time, end the process at once. `ilqljax.train.train` listens to signals
(`heed_signals`), `fit` does not.
"""

import _thread
import contextlib
import itertools
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from ilqljax.errors import Interrupted
from ilqljax.training.processes import get_client

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS_BETWEEN_LOOKS = 0.5  # of a process for the others' requests
LONGEST_WAIT_MS = 60_000  # for a process to say where it is

_numbers = itertools.count()  # of what the processes agree on; all count alike


class Ending:
    """Whether a run is asked to end, and what it would lose. One that no `heed_signals` made is never asked.

    Attributes:
        number: of the signal that asked; 0 for none.
        lost: what is under way and is not kept when it is broken off; "" for nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self.lost = ""
        self._deferred = False
        # Of several processes, between the thread that looks for requests and the one that trains.
        self.lock = threading.Lock()
        self.n_steps, self.last_step, self.closed = 0, 0, False
        self.heard = 0  # the number before Python calls `ask`, which it does not while it waits for a computation
        self.relayed = False  # a signal that came to another process is on its way to this one's main thread

    def ask(self, number: int, _: object = None) -> None:
        """Ask the run to end, as a signal's handler does; raises `Interrupted` unless it is `deferred`."""
        if self.number:
            return
        self.number = number
        if not self._deferred:
            raise Interrupted(number)

    def reached(self) -> bool:
        """Count a training step that has been taken, and return whether the run is to end after it.

        Several processes end after the same step: at a request each says how many steps it has taken, and waits for the
        others' answers. The last is the first step that none of them has taken. A step costs nothing until then.

        | taken by process 0 | by process 1 | both end after |
        |--------------------|--------------|----------------|
        | 7                  | 7            | 8              |
        | 7                  | 8            | 9              |
        """
        if jax.process_count() == 1:
            return bool(self.number)
        with self.lock:
            self.n_steps += 1
            return bool(self.last_step) and self.n_steps >= self.last_step

    def check(self) -> None:
        """Raise `Interrupted` where the run is asked to end: Python drops what a handler raises in a destructor."""
        if self.number:
            raise Interrupted(self.number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let nothing be broken off in the block, which asks for `number` where it can end."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    @contextlib.contextmanager
    def losing(self, what: str) -> Iterator[None]:
        """Let a request break off the block, which makes what is then lost."""
        before, self._deferred, self.lost = self._deferred, False, what
        try:
            self.check()
            yield
            self.check()
            self.lost = ""
        finally:
            self._deferred = before


def _look(ending: Ending, client: Any, key: str) -> None:
    """Agree with the other processes on the last step, once any of them is asked to end; one thread of each runs it."""
    while True:
        closed = ending.closed  # before the look, for a request that has just ended this process
        if asked := ending.number or ending.heard:
            client.key_value_set(key, str(int(asked)), allow_overwrite=True)
        try:
            number = int(client.key_value_try_get(key))
        except jax.errors.JaxRuntimeError:  # nobody is asked
            if closed:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        with ending.lock:  # no step ends until all have said where they are
            client.key_value_set(f"{key}/{jax.process_index()}", str(ending.n_steps))
            said = [client.blocking_key_value_get(f"{key}/{i}", LONGEST_WAIT_MS) for i in range(jax.process_count())]
            ending.last_step = 1 + max(map(int, said))
            _relay(ending, number)
        return


def _relay(ending: Ending, number: int) -> None:
    """Ask the main thread as if another process's signal had come here, so that what cannot be saved is broken off."""
    if ending.number or ending.heard:
        return
    if signal.getsignal(number) == ending.ask:
        ending.relayed = True
        _thread.interrupt_main(number)
    else:  # it is ignored here
        ending.number = number


@contextlib.contextmanager
def heed_signals(*, grace_seconds: float) -> Iterator[Ending]:
    """Let SIGTERM and Ctrl-C ask a run to end for the block; afterwards they do what they did before.

    The process ends at once, with status 128 + the signal, where `grace_seconds` after the first signal it has not
    ended, and at a second one. Signals that are ignored stay so, and off the main thread nothing is changed.
    """
    ending = Ending()
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    # Written to by the system, so that the thread hears of a signal while Python waits for a computation. Sockets:
    # Windows waits for nothing else.
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(ending, reading, grace_seconds), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, ending.ask) for number in heard}
    looker = None
    if jax.process_count() > 1:
        key = f"ilqljax/ending/{next(_numbers)}"
        looker = threading.Thread(target=_look, args=(ending, get_client(), key), daemon=True)
        looker.start()
    try:
        yield ending
    except Interrupted as error:  # by what another process said, before its request is here
        ending.number = ending.number or error.number
        raise
    finally:
        ending.closed = True
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(before)
        writing.close()
        watcher.join()
        reading.close()
        if looker is not None:
            looker.join(2 * SECONDS_BETWEEN_LOOKS)  # longer where another process is gone


def _watch(ending: Ending, reading: socket.socket, grace_seconds: float) -> None:
    """End the process at a second signal, or when its time is over; return when nobody writes any more."""
    asked, deadline = 0, None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([reading], [], [], left)[0]:
            _say(f"did not end within grace_seconds={grace_seconds:g}, and is ended: what was not saved yet is lost")
            os._exit(128 + asked)
        number = next(iter(reading.recv(1)), 0)
        if not number:
            return
        if number in SIGNALS and ending.relayed:  # nobody sent it here: a first one may come yet
            ending.relayed = False
        elif number in SIGNALS:
            if asked:
                os._exit(128 + number)
            ending.heard = number
            asked, deadline = number, time.monotonic() + grace_seconds
            _say(f"{signal.Signals(number).name}: ending; a second one ends at once")


def _say(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # not through sys.stderr, which the main thread may hold
