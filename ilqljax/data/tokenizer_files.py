"""The files of a published tokenizer: read, checked, made into one that text cannot deceive, and written again."""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from ilqljax.data.files import read_json, save_text
from ilqljax.errors import UserError

TOKENIZER_JSON, TOKENIZER_CONFIG, CHAT_TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
SAVE_AGAIN = "Save the tokenizer again."
SPECIAL = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def read_published(path: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    """Read a directory's `tokenizer.json`, the names of special tokens in `tokenizer_config.json`, and chat template.

    Raises:
        UserError: the first is missing, or a file is damaged.
    """
    if not (path / TOKENIZER_JSON).is_file():
        raise UserError(f"{path} holds no {TOKENIZER_JSON}. Save the tokenizer there with `save_pretrained`.")
    definition, file = read_definition(path / TOKENIZER_JSON), path / TOKENIZER_CONFIG
    settings = read_json(file, advice=SAVE_AGAIN) if file.is_file() else {}
    try:
        names = {name: token for name in NAMES if (token := _get_content(settings.get(name)))}
        definition["added_tokens"] = _merge_added_tokens(definition.get("added_tokens") or [], settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: its special tokens are damaged ({error!r}). {SAVE_AGAIN}") from error
    return definition, names, _read_template(path, settings)


def read_definition(path: str | os.PathLike) -> dict[str, Any]:
    """Read a `tokenizer.json`; a `UserError` unless it is one that `parse_tokenizer` may be given."""
    return _check_read(read_json(path, advice=SAVE_AGAIN), path)


def _check_read(definition: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
    try:
        check_definition(definition)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return definition


def check_definition(definition: Any) -> None:
    """Raise a `UserError` unless a definition has pieces, merges and added tokens of the form that they should have."""
    model = definition.get("model") if isinstance(definition, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise UserError(f"the tokenizer has no model with a vocabulary. {SAVE_AGAIN}")
    pieces, merges, added = model["vocab"], model.get("merges") or [], definition.get("added_tokens") or []
    numbers = pieces.values() if isinstance(pieces, dict) else ()
    scored = pieces if isinstance(pieces, list) else ()
    problem = ""
    if not all(type(number) is int for number in numbers) or not all(_is_pair(one, float | int) for one in scored):
        problem = "vocabulary lacks numbers of its pieces"
    elif not isinstance(merges, list) or not all(_is_pair(pair, str) for pair in split_merges(merges)):
        problem = "merges are not a list of pairs"
    elif not isinstance(added, list) or not all(
        isinstance(one, dict) and isinstance(one.get("content"), str) for one in added
    ):
        problem = "added_tokens are not a list of tokens with their content"
    if problem:
        raise UserError(f"the tokenizer's {problem}. {SAVE_AGAIN}")


def _is_pair(value: Any, second: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], second)


def _get_content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else token or ""


def _merge_added_tokens(added: list[dict[str, Any]], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the added tokens of `tokenizer.json` and, after them, those that only `tokenizer_config.json` lists."""
    merged = {one["content"]: one for one in added}
    numbered = {int(number): token for number, token in (settings.get("added_tokens_decoder") or {}).items()}
    for number in sorted(numbered):
        merged.setdefault(numbered[number]["content"], {**SPECIAL, **numbered[number], "id": number})
    for key in ("additional_special_tokens", "extra_special_tokens"):
        for token in map(_get_content, settings.get(key) or ()):
            if token in merged:
                merged[token] = {**merged[token], "special": True}
    return list(merged.values())


def _read_template(directory: Path, settings: Mapping[str, Any]) -> str:
    file = directory / CHAT_TEMPLATE
    if file.is_file():
        try:
            return file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({error}). {SAVE_AGAIN}") from error
    template = settings.get("chat_template") or ""
    if isinstance(template, list):  # several by name
        named = [one for one in template if isinstance(one, dict) and one.get("name") == "default"]
        template = named[0].get("template", "") if named else ""
    return template


def read_vocabulary(directory: Path) -> dict[str, Any]:
    """Read GPT-2's `vocab.json` and `merges.txt` as the content of a `tokenizer.json`; errors are a `UserError`."""
    try:
        lines = (directory / MERGES).read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{directory / MERGES}: cannot be read ({error}). {SAVE_AGAIN}") from error
    merges = [line for line in lines if line and not line.startswith("#version")]
    model = {"type": "BPE", "vocab": read_json(directory / VOCABULARY, advice=SAVE_AGAIN), "merges": merges}
    splitter = {"type": "ByteLevel", "add_prefix_space": False}
    return _check_read({"model": model, "pre_tokenizer": splitter, "added_tokens": []}, directory)


def find_difference_from_gpt2(definition: Mapping[str, Any]) -> str:
    """Say what a tokenizer does otherwise than GPT-2's plain byte-level BPE, or "" where nothing.

    transformers' own GPT2Tokenizer cannot tell: it takes the vocabulary and ignores the splitter and the normalizer.
    """
    model, splitter = definition["model"], definition.get("pre_tokenizer") or {}
    kind = model.get("type", "BPE" if "merges" in model else None)
    plain = splitter.get("type") == "ByteLevel" and splitter.get("use_regex", True)
    if kind != "BPE" or not plain or splitter.get("add_prefix_space"):
        return f"is a {kind} tokenizer split by {splitter}"
    if definition.get("normalizer"):
        return f"normalizes text by {definition['normalizer']}"
    if options := [key for key in ("dropout", "byte_fallback", "ignore_merges") if model.get(key)]:
        return f"sets {', '.join(options)} of its model"
    vocab, added = model["vocab"], definition.get("added_tokens") or []
    if new := [one["content"] for one in added if one["content"] not in vocab or not one.get("special")]:
        return f"adds the tokens {new} to its vocabulary"
    if sorted(vocab.values()) != list(range(len(vocab))):
        return f"has other ids than 0 to {len(vocab) - 1}, each once"
    return ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


# Which values each field of a saved tokenizer may have.
_SAVED: dict[str, Callable[[Any], bool]] = {
    **{name: lambda value: isinstance(value, str) for name in ("charset", "chat_template", "instruction")},
    **{name: lambda value: isinstance(value, bool) for name in ("unk", "chat")},
    **{name: lambda value: isinstance(value, dict) for name in ("definition", "names")},
    **dict.fromkeys(("special_tokens", "vocab"), _is_texts),
    "merges": lambda value: isinstance(value, list) and all(map(_is_texts, value)),
}


def check_saved(content: Mapping[str, Any], file: Path) -> None:
    """Raise a `UserError` unless the fields of a tokenizer of ours are of the kinds that are saved."""
    if wrong := [name for name, value in content.items() if not _SAVED[name](value)]:
        raise UserError(f"{file}: {wrong[0]} is of another kind than was saved. {SAVE_AGAIN}")


def split_merges(merges: list[Any]) -> list[list[str]]:
    """Return merges as pairs; older files have them as texts, "a b"."""
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


def parse_tokenizer(definition: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Build what a `tokenizer.json` describes; what the tokenizers library cannot read is a `UserError`."""
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:
        if type(error) is not Exception:  # the library has no class of its own for its errors
            raise
        raise UserError(f"the tokenizers library cannot read the tokenizer ({error}). {SAVE_AGAIN}") from error


def build_tokenizer(definition: Mapping[str, Any], named: Iterable[str]) -> tuple[tokenizers.Tokenizer, dict[str, int]]:
    """Build a tokenizer that reads no special token out of text, and return the ids of those tokens besides.

    `encode_special_tokens` leaves the added tokens alone, but the model may have a special token among its pieces:
    Unigram takes `</s>` whole, and so do words of WordPiece and WordLevel, merges, and BPE that ignores its merges. So
    special tokens have another name here, which no text contains because it is a secret of this object.

    Args:
        definition: as `check_definition` wants it.
        named: tokens that are special although the definition does not say so, where its vocabulary has them.

    Raises:
        UserError: the tokenizers library cannot read the definition.
    """
    model = {**definition["model"], "dropout": None}  # of training: it would give a text other ids each time
    added = {one["content"]: dict(one) for one in definition["added_tokens"]}
    listed = isinstance(model["vocab"], list)  # Unigram's pieces with their scores; the others have a dict of ids
    pieces = {piece for piece, _ in model["vocab"]} if listed else model["vocab"].keys()
    for token in named:
        if token in added:
            added[token]["special"] = True
        elif token in pieces and len(token) > 1:  # a "!" that pads remains one that texts are made of
            added[token] = {"id": 0, "content": token, **SPECIAL}
    secret = secrets.token_hex(16)
    hidden = {token: f"{secret}.{n}" for n, token in enumerate(added) if added[token].get("special")}
    model["vocab"] = (
        [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
        if listed
        else {hidden.get(piece, piece): number for piece, number in model["vocab"].items()}
    )
    if model.get("merges"):
        pairs = split_merges(model["merges"])
        model["merges"] = [pair for pair in pairs if not hidden.keys() & {*pair, "".join(pair)}]
    if model.get("unk_token") in hidden:
        model["unk_token"] = hidden[model["unk_token"]]
    tokens = [one | {"content": hidden.get(token, token)} for token, one in added.items()]
    backend = parse_tokenizer({**definition, "model": model, "added_tokens": tokens, "post_processor": None})
    backend.encode_special_tokens = True
    return backend, {token: backend.token_to_id(name) for token, name in hidden.items()}


def save_published(
    folder: Path,
    definition: Mapping[str, Any],
    *,
    first_id: int,
    control: Mapping[str, str],
    template: str,
    names: Mapping[str, str],
) -> None:
    """Write a tokenizer with control tokens for transformers' AutoTokenizer; the folder is made where it is missing.

    Args:
        folder: gets `tokenizer.json`, `tokenizer_config.json`, and `chat_template.jinja` where there is a template.
        definition: of the text's ids, as `check_definition` wants it.
        first_id: the first control token's; the others follow.
        control: control tokens in the order of their ids, and what transformers calls those that it knows: `pad_token`.
        template: of chats, or "".
        names: other tokens by what transformers calls them, in place of control tokens: `eos_token`; "" for none.

    Raises:
        UserError: the text's ids have gaps, in which transformers would number the control tokens.
    """
    ids = parse_tokenizer(definition).get_vocab(with_added_tokens=True)
    written = {token: f"<|ilqljax:{token.strip('<|>')}|>" if token in ids else token for token in control}
    added = [{"id": first_id + n, "content": name, **SPECIAL} for n, name in enumerate(written.values())]
    definition = {**definition, "added_tokens": [*definition["added_tokens"], *added]}
    backend = parse_tokenizer(definition)
    if any(backend.token_to_id(token["content"]) != token["id"] for token in added):
        raise UserError(
            f"The tokenizer has {len(ids)} ids up to {first_id - 1}, and transformers would give the control tokens "
            "the ids that are left out. Export a tokenizer whose ids have no gaps."
        )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # most other classes have a splitter of their own
        "clean_up_tokenization_spaces": False,
        **{name: written[token] for token, name in control.items() if name and name not in names},
        **{name: token for name, token in names.items() if token},
        "additional_special_tokens": [written[t] for t, name in control.items() if not name or name in names],
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_text(folder / TOKENIZER_JSON, json.dumps(definition, ensure_ascii=False) + "\n")
    save_text(folder / TOKENIZER_CONFIG, json.dumps(settings, indent=2) + "\n")
    if template:
        save_text(folder / CHAT_TEMPLATE, template)
