"""What makes a matcher once the candidates are known: the `matcher` objects of a config that need no jax.

    config.matcher.name   ranks by                                     needs
    tfidf                 words in common (`fairness.matching`)        nothing
    callable              a Python function of the user's              `function`, as package.module:function
    http                  the user's engine over HTTP                  `url`

`matchers` adds `encoder` and `embeddings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from ilqljax.config import register
from ilqljax.hiring.matching.http import HttpConfig, HttpMatcher
from ilqljax.hiring.matching.matcher import Matcher, TfidfMatcher
from ilqljax.hiring.matching.user_supplied import CallableMatcher, hash_source, load_callable
from ilqljax.hiring.postings.posting import Candidate


@runtime_checkable
class MatcherSource(Protocol):
    """Describe an engine before it knows its candidates.

    Attributes:
        name: short, for tables and messages.
        fingerprint: changes whenever the ranking of the same candidates could.
    """

    name: str
    fingerprint: str

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Make the matcher; what is worth keeping (vectors) is kept in `folder`."""
        ...


@register("matcher", "tfidf")
@dataclass(frozen=True)
class TfidfSource:
    """Rank by words in common, with nothing to download."""

    @property
    def name(self) -> str:
        """The engine's name."""
        return "tfidf"

    @property
    def fingerprint(self) -> str:
        """Of the method; that of the matcher also covers the candidates."""
        return "tfidf"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Index the candidates' texts."""
        return TfidfMatcher([candidate.text for candidate in candidates])


@register("matcher", "callable")
@dataclass(frozen=True)
class CallableSource:
    """Rank by a Python function `(texts, k) -> (ids, scores)` (`fairness.foreign_matching`).

    Attributes:
        function: "package.module:function".
        version: of what the function depends on besides the files that define it (a model, a database); change it when
            that changes, so that cached rewards are not used.
    """

    function: str
    version: str = ""

    def __post_init__(self) -> None:
        load_callable(self.function)

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.function

    @property
    def fingerprint(self) -> str:
        """Of the function's name, the files that define it (`hash_source`) and the version."""
        return f"callable {self.function} {hash_source(self.function)} {self.version}"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Hand the function the candidates' ids to answer with."""
        ids = [candidate.id for candidate in candidates]
        return CallableMatcher(load_callable(self.function), ids, name=self.function, fingerprint=self.fingerprint)


@register("matcher", "http")
@dataclass(frozen=True)
class HttpSource(HttpConfig):
    """Rank by the user's own engine over HTTP (`fairness.http_matching`)."""

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.url

    @property
    def fingerprint(self) -> str:
        """Of the address and the version."""
        return f"http {self.url} {self.version}"

    def make(self, candidates: Sequence[Candidate], *, folder: Path) -> Matcher:
        """Hand the engine's client the candidates' ids."""
        return HttpMatcher(self, [candidate.id for candidate in candidates])
