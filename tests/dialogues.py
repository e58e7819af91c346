"""The plainest dialogue that a row can be made from."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Talk:
    """Utterances with the agent's rewards (None: the environment's), and whether it is over."""

    sequence: tuple
    terminal: bool = True

    def to_sequence(self) -> tuple[list, bool]:
        return list(self.sequence), self.terminal

    def metadata(self) -> dict[str, Any]:
        return {}


def answer(prompt: str, text: str, reward: float) -> Talk:
    """One prompt, one answer, and it is over."""
    return Talk(((prompt, None), (text, reward)))
