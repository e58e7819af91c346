"""A matcher whose scores a test gives."""

import numpy as np

from ilqljax.hiring.matching.matcher import Matches


class FixedMatcher:
    """Rank people by the scores that a function gives for a text."""

    def __init__(self, n_candidates, score):
        """Keep what scores a text."""
        self.n_candidates, self.score = n_candidates, score

    def top_k(self, texts, k):
        """Return the best."""
        scores = np.array([self.score(text) for text in texts])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Matches(order, np.take_along_axis(scores, order, axis=1))
