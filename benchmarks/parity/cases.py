"""Read a folder of the original's numbers and rebuild each case as our objects."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.parity.comparison import select
from benchmarks.parity.options import make_token_reward, translate_options, translate_sizes
from benchmarks.parity.original_batch import cut_end
from ilqljax.data.datapoint import DataPoint, collate
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.data.types import Batch
from ilqljax.errors import UserError
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.io.original import params_from_original
from ilqljax.models.value_lm import ValueLM

MOVES = ("state_idxs", "action_idxs", "rewards", "terminals")
BATCH = ("tokens", "attn_mask", *MOVES, *(f"u_{name}" for name in MOVES))
OUTPUTS = ("vs", "vns", "q1", "target_qs", "weights")
TERMS = ("token_loss", "v_loss", "q_loss")


class Dialogue(NamedTuple):
    """A dialogue of `cases.json`."""

    sequence: list
    terminal: bool

    def to_sequence(self) -> tuple[list, bool]:
        """Return utterances with rewards, and whether the dialogue is over."""
        return [tuple(item) for item in self.sequence], self.terminal

    def metadata(self) -> dict:
        """Return nothing."""
        return {}


class Case(NamedTuple):
    """A case rebuilt as our objects.

    Attributes:
        name: of the case and its file.
        settings: the case's part of `cases.json`.
        shared: all of `cases.json`; a case's own "optimizer", "beam" or "scores" go before those at its top level.
        arrays: the original's numbers.
        tokenizer: whose ids the numbers use.
        datapoints: whole dialogues.
        batch: what the original's loss saw: rows cut to `max_len` in its way, rewards rounded where it rounded them.
        notes: what of the settings is not followed, and why.
        model: the networks.
        algorithm: our name of the case's algorithm.
        options: its options.
        params: initial online parameters.
        target: initial target parameters.
    """

    name: str
    settings: Mapping[str, Any]
    shared: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    tokenizer: CharacterTokenizer
    datapoints: list[DataPoint]
    batch: Batch
    notes: tuple[str, ...]
    model: ValueLM
    algorithm: str
    options: dict[str, Any]
    params: dict
    target: dict

    def find(self, key: str) -> Any:
        """Return a setting of the case, or of all cases; None where neither has it."""
        return self.settings.get(key, self.shared.get(key))

    @property
    def is_bc(self) -> bool:
        """Whether the case is a language model without a critic."""
        return self.algorithm == "bc"

    @property
    def max_length(self) -> int:
        """Longest row: the case's `max_len`, or as many positions as the model has."""
        positions = self.model.backbone.config.n_positions
        return min(self.settings.get("max_len") or positions, positions)


def load_cases(folder: str | Path) -> dict[str, Any]:
    """Read `cases.json`.

    Raises:
        UserError: it is missing or holds something else.
    """
    path = Path(folder) / "cases.json"
    if not path.is_file():
        raise UserError(f"{path} is missing. Give a folder with cases.json and one NAME.npz per case.")
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}). Give the file that was written with the numbers.") from error
    needed = ("charset", "special", "optimizer", "cases")
    missing = [key for key in needed if not isinstance(cases, dict) or key not in cases]
    if missing or not isinstance(cases["cases"], dict) or not cases["cases"]:
        raise UserError(f"{path} lacks {missing or 'any case'}. Expected an object with {list(needed)} and a case.")
    return cases


def rebuild_case(folder: str | Path, name: str, *, cases: Mapping[str, Any]) -> Case:
    """Rebuild a case's data, model and parameters.

    Raises:
        UserError: there is no such case, its file or arrays are missing, or its settings cannot be understood.
    """
    if name not in cases["cases"]:
        raise UserError(f"case {name!r} is unknown. {folder}/cases.json has: {', '.join(cases['cases'])}.")
    settings = cases["cases"][name]
    missing = [key for key in ("kind", "model", "gpt2", "dialogues", "datapoints") if key not in settings]
    if missing:
        raise UserError(f"{folder}/cases.json: case {name!r} lacks {missing}.")
    path = Path(folder) / f"{name}.npz"
    arrays = load_arrays(path)
    algorithm, options, heads, unknown = translate_options(settings, name=name)
    check_arrays(path, arrays, algorithm=algorithm, double_q=heads.double_q, n_steps=cases["optimizer"].get("steps", 3))
    tokenizer = make_tokenizer(cases)
    reward, reward_notes = make_token_reward(settings.get("token_reward"), tokenizer)
    dialogues = [Dialogue(d["sequence"], bool(d["terminal"])) for d in settings["dialogues"]]
    datapoints = [DataPoint.from_observation(d, tokenizer, token_reward=reward) for d in dialogues]
    rows = [cut_end(point, settings.get("max_len") or 0) for point in datapoints]
    batch = collate(
        rows,
        length=max(len(d.tokens) for d in rows),
        n_actions=max(len(d.action_idxs) for d in rows),
        n_utterance_actions=max(len(d.utterance_action_idxs) for d in rows),
        pad_id=tokenizer.pad_id,
    )
    if np.issubdtype(arrays["batch/u_rewards"].dtype, np.integer):
        rounded = batch.per_utterance._replace(rewards=np.trunc(batch.per_utterance.rewards))
        batch = batch._replace(per_utterance=rounded)
    sizes, ignored = translate_sizes(settings["gpt2"], vocab_size=settings.get("vocab", tokenizer.vocab_size))
    params, target = params_from_original(select(arrays, "init/"))
    model = ValueLM(GPT2(sizes), heads)
    check_heads(name, params, sizes, level=heads.level)
    notes = (*unknown, *ignored, *reward_notes)
    return Case(
        name, settings, cases, arrays, tokenizer, datapoints, batch, notes, model, algorithm, options, params, target
    )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read a case's file whole.

    Raises:
        UserError: it is missing or is no NumPy archive.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing, and cases.json lists it. Put the case's numbers there.")
    try:
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a NumPy archive of plain arrays ({error}). Write it again.") from error


def check_arrays(path: Path, arrays: Mapping[str, np.ndarray], *, algorithm: str, double_q: bool, n_steps: int) -> None:
    """Refuse a file without an array that every case of its kind has."""
    needed = [f"batch/{name}" for name in BATCH]
    needed += ["out/logits", "loss/total", *(f"train_loss/{i}" for i in range(n_steps))]
    if algorithm != "bc":
        needed += [*(f"out/{name}" for name in OUTPUTS), *(f"loss/{name}" for name in TERMS)]
        needed += ["out/q2"] if double_q else []
    missing = [key for key in needed if key not in arrays]
    missing += [f"{group}*" for group in ("init/", "grad/", "after3/") if not select(arrays, group)]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}. Every case of its kind has them; write the file again.")


def check_heads(name: str, params: Mapping[str, Any], sizes: GPT2Config, *, level: str) -> None:
    """Refuse heads of a size that ours cannot have, before a device is touched."""
    for head in sorted(set(params) & {"v", "q1", "q2"}):
        n_outputs = sizes.vocab_size if head != "v" and level == "token" else 1
        inner = ("ff1", sizes.inner_size) if "ff1" in params[head] else ("dense_in", 2 * sizes.n_embd)
        found = params[head][inner[0]]["kernel"].shape[1], params[head]["dense_out"]["kernel"].shape[1]
        if found != (inner[1], n_outputs):
            raise UserError(
                f"case {name!r}: head {head} has {found[0]} hidden units and {found[1]} outputs; our heads have "
                f"{inner[1]} and {n_outputs}. It cannot be compared."
            )


def make_tokenizer(cases: Mapping[str, Any]) -> CharacterTokenizer:
    """Make the character tokenizer whose ids the cases use."""
    charset = "".join(cases["charset"])
    unk_id = cases.get("unk_id", len(charset))
    if unk_id not in (None, len(charset)):
        raise UserError(f"unk_id={unk_id} does not follow the {len(charset)} characters of charset in cases.json.")
    return CharacterTokenizer(charset, unk=unk_id is not None, special_tokens=tuple(cases["special"]))
