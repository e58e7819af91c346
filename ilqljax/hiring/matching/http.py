"""Ask the user's own matcher over HTTP.

Each request is a POST of JSON, with at most `batch_size` texts:

    {"texts": ["Nurse wanted ...", "..."], "k": 50}

and the answer, status 200, must be (`user_supplied` says how strictly it is checked; other keys are ignored)

    {"matches": [{"ids": ["c17", "c3", ...], "scores": [0.91, 0.87, ...]}, {...}]}

with one entry a text, in the order of the texts, of exactly k ids of candidates, best first.

What may pass with time is tried again after a pause that doubles: no connection, no complete answer within `timeout_s`,
and the statuses 408, 425, 429 and 5xx (which may name the pause: Retry-After, in seconds). Anything else, a redirect
too, is reported at once. Ours are the limits that httpx and tenacity lack: one on a whole request, one on the length of
an answer, and no further request once another one of the call has failed.
"""

import contextlib
import json
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
import tenacity

from ilqljax.config import register
from ilqljax.errors import UserError, check_range
from ilqljax.hiring.matching.matcher import CheckedMatcher, Matcher, Matches, hash_texts, join_matches
from ilqljax.hiring.matching.user_supplied import check_answers, number_ids
from ilqljax.hiring.postings.posting import Candidate

RETRIED_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
LONGEST_PAUSE_S = 60.0
_SECRET = re.compile(r"token|secret|passw|pwd|credential|signature|api.?key|^(?:key|sig|auth)$", re.IGNORECASE)


@register("matcher", "http")
@dataclass(frozen=True)
class HttpSource:
    """Rank by the user's own matcher over HTTP: where it is and how patiently to ask it.

    Attributes:
        url: http:// or https:// address that takes the requests.
        version: the matcher's version, in any words; change it when its rankings do, so that cached rewards are not
            used.
        batch_size: most texts a request.
        max_concurrent: most requests at a time.
        timeout_s: longest that one request may take, from connecting to the last byte.
        n_retries: further tries of a request that failed in a way that may pass.
        backoff_s: pause before the first further try; each next one is twice as long, up to a minute.
        max_answer_bytes: a longer answer is refused.
        token_variable: environment variable whose value is sent as "Authorization: Bearer ..."; "" sends none.
    """

    url: str
    version: str = ""
    batch_size: int = 32
    max_concurrent: int = 4
    timeout_s: float = 30.0
    n_retries: int = 3
    backoff_s: float = 0.5
    max_answer_bytes: int = 1 << 26
    token_variable: str = ""

    def __post_init__(self) -> None:
        if not self.url.isascii() or any(not c.isprintable() or c.isspace() for c in self.url):
            raise UserError(
                f"url={self.url!r} must be ASCII without white space. Write other characters as %C3%A4 "
                "(urllib.parse.quote does), and a host's name in its xn-- form."
            )
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL:
            url = httpx.URL()  # has no scheme
        if url.scheme not in ("http", "https") or not url.host or not (url.port is None or 0 < url.port < 65536):
            raise UserError(f"url={self.url!r} is not a matcher's address, such as http://127.0.0.1:8000/match.")
        if url.userinfo:
            raise UserError(
                "The url holds a user name or password, which would be written to the run's config. "
                "Set token_variable to the name of an environment variable instead."
            )
        if secret := next((name for name in url.params if _SECRET.search(name)), ""):
            raise UserError(
                f"The url's parameter {secret!r} looks like a secret, which would be written to the run's config. Set "
                "token_variable to the name of an environment variable instead."
            )
        check_range(self, "[1, inf)", "batch_size", "max_concurrent", "max_answer_bytes")
        check_range(self, "(0, inf)", "timeout_s")
        check_range(self, "[0, inf)", "n_retries", "backoff_s")

    @property
    def name(self) -> str:
        """The address."""
        return self.url

    @property
    def fingerprint(self) -> str:
        """Of the address and the version."""
        return f"http {self.url} {self.version}"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Hand the matcher's client the candidates' ids."""
        return HttpMatcher(self, [candidate.id for candidate in candidates])


class TransientError(Exception):
    """Report a failure that may pass: why, and for how many seconds to wait (0 leaves that to the caller)."""


class HttpMatcher(CheckedMatcher):
    """Rank candidates by what a server answers (module docstring)."""

    def __init__(self, config: HttpSource, candidate_ids: Sequence[str]):
        """Hold the settings; wrong ids (`number_ids`) and a token's variable without one raise a `UserError`."""
        self.config = config
        self._row_of = number_ids(candidate_ids)
        self.n_candidates = len(self._row_of)
        self.fingerprint = f"http-{hash_texts([f'{config.url} {config.version}', *candidate_ids])[:32]}"
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "ilqljax"}
        headers |= {"Accept-Encoding": "identity", "Connection": "close"}
        if config.token_variable:
            token = os.environ.get(config.token_variable, "")
            if not token or not token.isascii() or any(c.isspace() for c in token):
                raise UserError(
                    f"The environment variable {config.token_variable} must hold the matcher's token, one printable "
                    "word. Set it, or leave token_variable empty."
                )
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(config.timeout_s, pool=None),
            limits=httpx.Limits(max_connections=config.max_concurrent, max_keepalive_connections=0),
            verify=ssl.create_default_context(),  # the machine's own authorities, and not those that httpx brings
            trust_env=False,  # no proxy and no password that the user has not named
        )

    @property
    def texts_at_once(self) -> int:
        """As many texts as `max_concurrent` full requests hold."""
        return self.config.batch_size * self.config.max_concurrent

    def _rank(self, texts: Sequence[str], k: int) -> Matches:
        size = self.config.batch_size
        batches = [list(texts[at : at + size]) for at in range(0, len(texts), size)]
        ended = threading.Event()
        with ThreadPoolExecutor(min(self.config.max_concurrent, len(batches))) as pool:
            futures = [pool.submit(self._ask, batch, k, ended=ended) for batch in batches]
            try:
                parts = [future.result() for future in futures]
            except BaseException:  # Ctrl-C too
                # No further requests after one that failed: the queue goes first, then those who wait wake and give up.
                pool.shutdown(wait=False, cancel_futures=True)
                ended.set()
                raise
        return join_matches(parts, k)

    def _ask(self, texts: list[str], k: int, *, ended: threading.Event) -> Matches:
        body = json.dumps({"texts": texts, "k": k}).encode()

        def ask_once() -> Matches:
            if ended.is_set():  # a pause that was cut short ends here
                raise UserError(f"{self.config.url}: not asked any more, because another request failed.")
            return self._read(self._post(body), n_texts=len(texts), k=k)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=self._choose_pause,
            sleep=tenacity.sleep_using_event(ended),
            stop=tenacity.stop_after_attempt(self.config.n_retries + 1),
            retry_error_callback=self._give_up,
        )(ask_once)

    def _choose_pause(self, state: tenacity.RetryCallState) -> float:
        _, told = state.outcome.exception().args
        doubled = tenacity.wait_exponential(multiplier=self.config.backoff_s, max=LONGEST_PAUSE_S)
        return min(told, LONGEST_PAUSE_S) or doubled(state)

    def _give_up(self, state: tenacity.RetryCallState) -> NoReturn:
        error = state.outcome.exception()
        raise UserError(
            f"{self.config.url} {error.args[0]}, {state.attempt_number} times in a row. Is the matcher running? Raise "
            "timeout_s or n_retries if it needs longer."
        ) from error

    def _post(self, body: bytes) -> bytes:
        """Send one request and return the answer's body, or raise a `TransientError` or a `UserError`."""
        c, answer = self.config, bytearray()
        try:
            with (
                _TimeLimit(c.timeout_s) as limit,
                self._client.stream("POST", c.url, content=body, extensions={"trace": limit.watch}) as response,
            ):
                for part in response.iter_raw():
                    answer += part
                    if len(answer) > c.max_answer_bytes:
                        break
        except httpx.TransportError as error:
            if not (limit.is_over or isinstance(error, httpx.TimeoutException)):
                raise TransientError(f"could not be asked ({type(error).__name__}: {error})", 0.0) from error
            limit.is_over = True
        if limit.is_over:
            raise TransientError(f"gave no complete answer within {c.timeout_s:g} s", 0.0)
        if response.status_code in RETRIED_STATUSES:
            told = response.headers.get("Retry-After", "").strip()
            pause_s = float(told) if told.isascii() and told.isdigit() else 0.0  # a date is not read
            raise TransientError(f"answered with status {response.status_code}", pause_s)
        if response.status_code != 200:
            raise UserError(
                f"{c.url} answered with status {response.status_code}: {bytes(answer[:200])!r}. Expected 200 and JSON."
            )
        return bytes(answer)

    def _read(self, answer: bytes, *, n_texts: int, k: int) -> Matches:
        where = self.config.url
        if len(answer) > self.config.max_answer_bytes:
            raise UserError(f"{where}: the answer is longer than max_answer_bytes={self.config.max_answer_bytes}.")
        try:
            value = json.loads(answer)
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors, and brackets without end
            raise UserError(f"{where}: the answer is not JSON ({error}): {answer[:60]!r}.") from error
        matches = value.get("matches") if isinstance(value, dict) else None
        if not isinstance(matches, list) or not all(isinstance(match, dict) for match in matches):
            shape = '{"matches": [{"ids": [...], "scores": [...]}, ...]}'
            raise UserError(f"{where}: the answer must be {shape}, got {answer[:60]!r}.")
        ids, scores = ([match.get(name) for match in matches] for name in ("ids", "scores"))
        return check_answers(ids, scores, n_texts=n_texts, k=k, row_of=self._row_of, where=where)


class _TimeLimit(contextlib.ExitStack):
    """End whatever a request still does after so many seconds in all; `is_over` is then true.

    A time-out of httpx starts again with every byte; this one does not. It is told of the connection by httpx's trace
    and shuts down a twin of the socket, since a TLS handshake takes the first one over.
    """

    def __init__(self, seconds: float):
        super().__init__()
        self.is_over = False
        self._end = time.monotonic() + seconds

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Start the clock once there is a connection; until then httpx's own time-out holds."""
        if event == "connection.connect_tcp.complete":
            twin = self.enter_context(info["return_value"].get_extra_info("socket").dup())
            timer = threading.Timer(max(0.0, self._end - time.monotonic()), self._cut, [twin])
            timer.daemon = True
            self.callback(timer.cancel)
            timer.start()

    def _cut(self, twin: socket.socket) -> None:
        self.is_over = True
        with contextlib.suppress(OSError):
            twin.shutdown(socket.SHUT_RDWR)
