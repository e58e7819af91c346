"""The work items: sizes that stay fixed so that figures compare over time, and what they cost in arithmetic.

Costs count multiply-adds as two operations, and only what the task needs: matrix products of forward and backward
passes, causal attention at half the square. What an implementation computes besides is its own loss.
"""

from dataclasses import dataclass

import numpy as np

VOCAB_SIZE = 50_263  # GPT-2 and six special tokens
SEED = 0


@dataclass(frozen=True)
class Sizes:
    """Size of a GPT-2."""

    width: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_positions: int = 1024

    def trunk_flops(self, n_tokens: int, *, length: int) -> float:
        """Cost of one forward pass over `n_tokens` tokens of rows of `length`, without the output layer."""
        per_token = 24 * self.width**2 + 2 * length * self.width  # causal: half of 4 length width
        return float(n_tokens) * self.n_layer * per_token

    def vocabulary_flops(self, n_tokens: int, *, inner: int) -> float:
        """Cost of an output layer of `inner` inputs over the whole vocabulary."""
        return 2.0 * n_tokens * inner * VOCAB_SIZE


@dataclass(frozen=True)
class TrainWork:
    """A training step: rows x tokens, of which so many are actions; ILQL with two Q heads, or BC."""

    name: str
    batch_size: int
    length: int
    n_actions: int
    critic: bool
    sizes: Sizes = Sizes()
    dtype: str = "float32"

    @property
    def n_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.length

    @property
    def flops(self) -> float:
        """Arithmetic of a step: backward passes cost twice the forward ones; the target trunk has none."""
        trunk = self.sizes.trunk_flops(self.n_tokens, length=self.length)
        acted = self.batch_size * self.n_actions
        if not self.critic:
            return 3.0 * (trunk + self.sizes.vocabulary_flops(acted, inner=self.sizes.width))
        hidden = 2.0 * acted * self.sizes.width * 2 * self.sizes.width
        head = hidden + self.sizes.vocabulary_flops(acted, inner=2 * self.sizes.width)
        return 4.0 * trunk + 2 * 3.0 * head

    def make_tokens(self) -> np.ndarray:
        """Draw the step's tokens [B T]."""
        return np.random.default_rng(SEED).integers(0, 50_257, (self.batch_size, self.length)).astype(np.int32)


@dataclass(frozen=True)
class ActWork:
    """ILQL sampling: prompts of one length, so many new tokens, three trunks of one size."""

    name: str
    batch_size: int
    prompt: int = 128
    n_new: int = 64
    beta: float = 8.0
    sizes: Sizes = Sizes()
    dtype: str = "float32"

    @property
    def n_tokens(self) -> int:
        """New tokens of a call."""
        return self.batch_size * self.n_new

    @property
    def flops(self) -> float:
        """Arithmetic of a call: three trunks over prompts and new tokens, the policy's output layer and two Q heads."""
        length = self.prompt + self.n_new
        trunks = 3.0 * self.sizes.trunk_flops(self.batch_size * length, length=length)
        outputs = self.sizes.vocabulary_flops(self.n_tokens, inner=self.sizes.width)
        return trunks + outputs + 2 * self.sizes.vocabulary_flops(self.n_tokens, inner=2 * self.sizes.width)

    @property
    def bytes_per_token(self) -> float:
        """Parameters that one decoding step must read at least: three trunks and the outputs, float32."""
        trunk = 12 * self.sizes.n_layer * self.sizes.width**2
        heads = VOCAB_SIZE * self.sizes.width * (1 + 2 * 2)
        return 4.0 * (3 * trunk + heads)


@dataclass(frozen=True)
class RewardWork:
    """The best 50 of so many candidates (384 dimensions) for 256 texts."""

    name: str
    n_candidates: int
    n_texts: int = 256
    width: int = 384
    k: int = 50

    @property
    def n_tokens(self) -> int:
        """Texts of a call."""
        return self.n_texts

    @property
    def flops(self) -> float:
        """Arithmetic of a call: one product of texts and candidates."""
        return 2.0 * self.n_texts * self.n_candidates * self.width

    def make_vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw candidates [N 384] and texts [256 384]."""
        rng = np.random.default_rng(SEED)
        candidates = rng.standard_normal((self.n_candidates, self.width), np.float32)
        return candidates, rng.standard_normal((self.n_texts, self.width), np.float32)


Work = TrainWork | ActWork | RewardWork
ITEMS: dict[str, tuple[Work, ...]] = {
    "train-small": (TrainWork("train-small", 2, 512, 256, critic=True),),
    "bc-small": (TrainWork("bc-small", 4, 512, 256, critic=False),),
    "act": tuple(ActWork(f"act, batch {n}", n) for n in (1, 8, 32)),
    "reward": tuple(RewardWork(f"reward, {n:,} candidates", n) for n in (17_600, 1_000_000)),
    "gpu-train": (
        TrainWork("gpu-train small", 64, 512, 256, critic=True, dtype="bfloat16"),
        TrainWork("gpu-train medium", 32, 512, 256, critic=True, sizes=Sizes(1024, 24, 16), dtype="bfloat16"),
        TrainWork("gpu-train large", 16, 512, 256, critic=True, sizes=Sizes(1280, 36, 20), dtype="bfloat16"),
    ),
    "gpu-act": tuple(ActWork(f"gpu-act, batch {n}", n, n_new=256, dtype="bfloat16") for n in (64, 256)),
}
CPU_ITEMS = ("train-small", "bc-small", "act", "reward")
