"""A matcher over HTTP, against a real server on this machine: answers, delays, failures, and nonsense."""

import contextlib
import json
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.matching.http import HttpMatcher, HttpSource
from ilqljax.hiring.matching.matcher import Matcher

IDS = tuple(f"c{i}" for i in range(10))


def answer_well(request):
    """Rank from the candidate that the text names."""
    rolled = [[*IDS[int(text) :], *IDS[: int(text)]][: request["k"]] for text in request["texts"]]
    return {"matches": [{"ids": ids, "scores": [1.0 - 0.1 * i for i in range(len(ids))]} for ids in rolled]}


class Engine:
    """A server whose `behave(handler, request)` may do anything; it keeps what it was asked."""

    def __init__(self):
        self.behave = lambda handler, request: send(handler, answer_well(request))
        self.requests, self.headers, self._lock = [], [], threading.Lock()
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with engine._lock:
                    engine.requests.append(request)
                    engine.headers.append(self.headers)
                with contextlib.suppress(OSError):  # the client has gone
                    engine.behave(self, request)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/match?v=1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def send(handler, answer, *, status=200, headers=()):
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    handler.send_response(status)
    for name, value in (("Content-Length", str(len(body))), *headers):
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    engine.stop()


def ask(engine, texts, k=2, **settings):
    settings = {"timeout_s": 10.0, "backoff_s": 0.01} | settings
    return HttpMatcher(HttpSource(engine.url, **settings), IDS).top_k(texts, k)


def test_texts_are_asked_in_batches_and_answers_keep_their_order(engine):
    texts = [str(i % 10) for i in range(23)]
    matches = ask(engine, texts, batch_size=4)
    assert matches.indices.tolist() == [[i % 10, (i + 1) % 10] for i in range(23)]
    assert sorted(len(request["texts"]) for request in engine.requests) == [3, 4, 4, 4, 4, 4]
    assert {request["k"] for request in engine.requests} == {2}


def test_protocol_and_no_texts(engine):
    matcher = HttpMatcher(HttpSource(engine.url), IDS)
    assert isinstance(matcher, Matcher) and matcher.n_candidates == 10
    assert matcher.top_k([], 3).indices.shape == (0, 3) and not engine.requests
    with pytest.raises(UserError, match="k=11"):
        matcher.top_k(["1"], 11)


def test_only_so_many_requests_are_made_at_a_time(engine):
    lock, at_once = threading.Lock(), []

    def behave(handler, request):
        with lock:
            at_once.append(at_once[-1] + 1 if at_once else 1)
        time.sleep(0.05)
        with lock:  # before the answer, after which the client may ask again
            at_once.append(at_once[-1] - 1)
        send(handler, answer_well(request))

    engine.behave = behave
    ask(engine, ["1"] * 12, batch_size=1, max_concurrent=3)
    assert len(engine.requests) == 12 and 1 < max(at_once) <= 3


def test_a_call_needs_texts_for_all_the_requests_that_are_made_at_a_time():
    assert HttpMatcher(HttpSource("http://a", batch_size=512, max_concurrent=4), IDS).texts_at_once == 2048


@pytest.mark.parametrize("status", [429, 500, 503])
def test_failure_that_passes_is_tried_again(engine, status):
    def behave(handler, request):
        if len(engine.requests) < 3:
            send(handler, b"busy", status=status)
        else:
            send(handler, answer_well(request))

    engine.behave = behave
    assert ask(engine, ["4"]).indices.tolist() == [[4, 5]]
    assert len(engine.requests) == 3


def test_failure_that_does_not_pass_is_reported_after_the_last_try(engine):
    engine.behave = lambda handler, request: send(handler, b"", status=502)
    with pytest.raises(UserError, match=r"answered with status 502, 3 times in a row"):
        ask(engine, ["4"], n_retries=2)
    assert len(engine.requests) == 3


class ImpatientEvent(threading.Event):
    """Record how long one would wait, and do not."""

    def __init__(self):
        super().__init__()
        self.pauses = []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        return self.is_set()


def test_pauses_double_and_follow_retry_after(engine):
    ended = ImpatientEvent()
    retry = {2: "7", 3: "9999", 4: "Wed, 21 Oct 2026 07:28:00 GMT"}

    def behave(handler, request):
        seconds = retry.get(len(engine.requests))
        send(handler, b"", status=503, headers=[("Retry-After", seconds)] if seconds else ())

    engine.behave = behave
    with pytest.raises(UserError):
        HttpMatcher(HttpSource(engine.url, n_retries=5, backoff_s=0.5), IDS)._ask(["4"], 2, ended=ended)
    assert ended.pauses == [0.5, 7.0, 60.0, 4.0, 8.0]


@pytest.fixture
def ctrl_c(engine, monkeypatch):
    """Interrupt the main thread where Ctrl-C finds it, once three requests have been made."""
    result = Future.result

    def wait_and_be_interrupted(future):
        if threading.current_thread() is not threading.main_thread():
            return result(future)
        while len(engine.requests) < 3:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", wait_and_be_interrupted)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("status", [200, 503])
def test_ctrl_c_ends_the_queue_and_further_tries(engine, status):
    def behave(handler, request):
        time.sleep(0.05)
        send(handler, answer_well(request), status=200 if len(engine.requests) < 3 else status)

    engine.behave = behave
    with pytest.raises(KeyboardInterrupt):
        ask(engine, ["1"] * 40, batch_size=1, max_concurrent=1, n_retries=10)
    assert len(engine.requests) < 6


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_pause_and_no_further_request_is_made(engine):
    engine.behave = lambda handler, request: send(handler, b"", status=503, headers=[("Retry-After", "2")])
    with pytest.raises(KeyboardInterrupt):
        ask(engine, ["1"] * 40, batch_size=1, max_concurrent=3, n_retries=10)
    assert len(engine.requests) == 3


def test_late_answer_is_a_time_out(engine):
    def behave(handler, request):
        time.sleep(1.0)
        send(handler, answer_well(request))

    engine.behave = behave
    with pytest.raises(UserError, match=r"gave no complete answer within 0\.1 s, 2 times"):
        ask(engine, ["4"], timeout_s=0.1, n_retries=1)


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\nX-Slow: ", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["head", "body"])
def test_answer_that_drips_is_a_time_out_too(engine, head):
    def behave(handler, request):
        handler.wfile.write(head)
        for _ in range(40):  # each byte in time, the whole not
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    engine.behave = behave
    start = time.monotonic()
    with pytest.raises(UserError, match=r"no complete answer within 0\.3 s"):
        ask(engine, ["4"], timeout_s=0.3, n_retries=0)
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("how", ["short body", "nothing", "no HTTP"])
def test_broken_answer_is_tried_again(engine, how):
    def behave(handler, request):
        if len(engine.requests) > 1:
            send(handler, answer_well(request))
        elif how == "short body":
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b'{"matches"')
        elif how == "no HTTP":
            handler.wfile.write(b"good morning\r\n\r\n")
        handler.close_connection = True

    engine.behave = behave
    assert ask(engine, ["4"]).indices.tolist() == [[4, 5]]
    assert len(engine.requests) == 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>", "the answer is not JSON"),
        (b"\xff\xfe", "the answer is not JSON"),
        (b"[" * 200_000, "the answer is not JSON"),
        (b"[]", r'the answer must be \{"matches"'),
        (b'{"matches": {}}', "the answer must be"),
        (b'{"matches": [1]}', "the answer must be"),
        (b'{"matches": []}', "got 0 for ids, expected a list of 1, one list a text"),
        (b'{"matches": [{"ids": ["c1", "c2"]}]}', "got NoneType for scores"),
        (b'{"matches": [{"ids": ["c1"], "scores": [1]}]}', "got 1 for ids, expected a list of 2"),
        (b'{"matches": [{"ids": ["c1", "zz"], "scores": [1, 0]}]}', "'zz' is not a candidate's id"),
        (b'{"matches": [{"ids": ["c1", "c1"], "scores": [1, 0]}]}', "named twice"),
        (b'{"matches": [{"ids": ["c1", "c2"], "scores": [1, NaN]}]}', "nan is not a finite number"),
        (b'{"matches": [{"ids": ["c1", "c2"], "scores": [1, 2]}]}', "increase"),
    ],
)
def test_wrong_answer_is_refused_at_once(engine, answer, message):
    engine.behave = lambda handler, request: send(handler, answer)
    with pytest.raises(UserError, match=f"127.0.0.1.*{message}"):
        ask(engine, ["4"])
    assert len(engine.requests) == 1


@pytest.mark.parametrize("status", [204, 302, 400, 404])
def test_other_status_is_refused_at_once(engine, status):
    engine.behave = lambda handler, request: send(handler, b"" if status == 204 else b"no", status=status)
    with pytest.raises(UserError, match=f"answered with status {status}"):
        ask(engine, ["4"])
    assert len(engine.requests) == 1


def test_redirect_is_not_followed(engine):
    engine.behave = lambda handler, request: send(handler, b"", status=307, headers=[("Location", engine.url)])
    with pytest.raises(UserError, match="answered with status 307"):
        ask(engine, ["4"])
    assert len(engine.requests) == 1


def test_proxy_of_the_environment_is_not_used(engine, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(engine, ["4"], n_retries=0).indices.tolist() == [[4, 5]]


def test_compressed_answer_is_not_asked_for(engine):
    """What is unpacked could be far longer than `max_answer_bytes`."""
    ask(engine, ["4"])
    assert engine.headers[0]["Accept-Encoding"] == "identity"


def test_answer_without_end_is_refused(engine):
    engine.behave = lambda handler, request: send(handler, b" " * 10_000)
    with pytest.raises(UserError, match="longer than max_answer_bytes=100"):
        ask(engine, ["4"], max_answer_bytes=100)


def test_engine_that_is_not_there_is_reported(engine):
    engine.stop()
    with pytest.raises(UserError, match=r"could not be asked \(ConnectError.*refused\), 2 times in a row"):
        ask(engine, ["4"], n_retries=1)


def test_token_comes_from_the_environment_and_is_not_in_the_fingerprint(engine, monkeypatch):
    config = HttpSource(engine.url, token_variable="ENGINE_TOKEN")
    monkeypatch.delenv("ENGINE_TOKEN", raising=False)
    with pytest.raises(UserError, match="ENGINE_TOKEN must hold the matcher's token"):
        HttpMatcher(config, IDS)
    monkeypatch.setenv("ENGINE_TOKEN", "abc")
    matcher = HttpMatcher(config, IDS)
    matcher.top_k(["1"], 1)
    assert engine.headers[0]["Authorization"] == "Bearer abc"
    assert matcher.fingerprint == HttpMatcher(HttpSource(engine.url), IDS).fingerprint


def test_fingerprint_follows_address_version_and_candidates():
    prints = {
        HttpMatcher(HttpSource(url, version=version), ids).fingerprint
        for url in ("http://a/x", "https://a/x")
        for version in ("", "2")
        for ids in (IDS, IDS[1:])
    }
    assert len(prints) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "127.0.0.1:80"}, "is not a matcher's address"),
        ({"url": "ftp://a/b"}, "is not a matcher's address"),
        ({"url": "http://a:99999/b"}, "is not a matcher's address"),
        ({"url": "http://[::1/b"}, "is not a matcher's address"),
        ({"url": "http://me:pw@a/b"}, "holds a user name"),
        ({"url": "http://a/b c"}, "must be ASCII without white space"),
        ({"url": "http://a/b\n"}, "must be ASCII without white space"),
        ({"url": "http://a/b\x00"}, "must be ASCII without white space"),
        ({"url": "http://a/\xe4"}, "must be ASCII without white space. Write other characters as %C3%A4"),
        ({"url": "http://a", "batch_size": 0}, "batch_size=0"),
        ({"url": "http://a", "max_concurrent": 0}, "max_concurrent=0"),
        ({"url": "http://a", "timeout_s": 0.0}, "timeout_s=0.0"),
        ({"url": "http://a", "timeout_s": float("nan")}, "timeout_s=nan"),
        ({"url": "http://a", "n_retries": -1}, "n_retries=-1"),
    ],
)
def test_bad_setting_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        HttpSource(**settings)
