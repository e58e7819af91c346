"""Turn text into token ids and back: a pretrained model's vocabulary, one learned from given texts, or characters.

The six control tokens follow the text's own ids and are known only by id. No tokenizer here ever reads one out of text:
a posting that literally contains "</a>" or "<|pad|>" is encoded as the characters it is made of. Only
`ilqljax.data.datapoint` adds them.
"""

import functools
import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from ilqljax.data.chat import split_chat
from ilqljax.data.files import check_checksum, fetch_snapshot, read_json, save_with_checksum
from ilqljax.data.tokenizer_files import (
    CHAT_TEMPLATE,
    MERGES,
    SAVE_AGAIN,
    TOKENIZER_CONFIG,
    TOKENIZER_JSON,
    VOCABULARY,
    build_tokenizer,
    check_definition,
    check_saved,
    find_difference_from_gpt2,
    read_definition,
    read_published,
    read_vocabulary,
    save_published,
    split_merges,
)
from ilqljax.errors import UserError, check_type, check_whole

PAD, ENV_START, ENV_END = "<|pad|>", "<s>", "</s>"
AGENT_START, AGENT_END, DIALOGUE_END = "<a>", "</a>", "</eod>"
# The order in which the ids follow the text's; the character tokenizer keeps the order of the golden numbers.
GPT2_ORDER = (PAD, ENV_START, ENV_END, AGENT_START, AGENT_END, DIALOGUE_END)
CHARACTER_ORDER = (PAD, ENV_END, AGENT_END, ENV_START, AGENT_START, DIALOGUE_END)

FILE_NAME = "ilqljax_tokenizer.json"  # transformers has its own tokenizer.json, which may lie in the same directory
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
N_BYTES = 256


class Frame(NamedTuple):
    """Ids around the utterances of a dialogue, by what stands where.

    | ids            | stand                                                     | by default | in a chat format     |
    |----------------|-----------------------------------------------------------|------------|----------------------|
    | `start`        | first, where the environment opens                        | `<s>`      | system, user's head  |
    | `agent_start`  | first, where the agent opens; None: it may not            | `<a>`      | the assistant's head |
    | `env_end`      | after an utterance of the environment                     | `</s>`     | the user's end       |
    | `env_header`   | before each later one                                     |            | the user's head      |
    | `agent_header` | before an utterance of the agent, and at a prompt's end   |            | the assistant's head |
    | `agent_rest`   | after an utterance of the agent, and the `eoa_id` that it ends with |  | what follows it      |
    """

    start: tuple[int, ...]
    agent_start: tuple[int, ...] | None
    env_end: tuple[int, ...]
    env_header: tuple[int, ...] = ()
    agent_header: tuple[int, ...] = ()
    agent_rest: tuple[int, ...] = ()

    def lead(self, before: str, speaker: str) -> tuple[int, ...]:
        """Return the ids before an utterance, by who spoke `before` ("" for nobody) and who speaks: "env" or "agent".

        An agent that opens, in a chat format that does not let it, is a `UserError`.
        """
        if before:
            rest = self.agent_rest if before == "agent" else ()
            return rest + (self.agent_header if speaker == "agent" else self.env_header)
        if speaker == "env":
            return self.start
        if self.agent_start is None:
            raise UserError(
                "A dialogue opens with the agent, and the model's chat format opens with the user. Let the environment "
                "speak first, or set config.tokenizer.chat=False."
            )
        return self.agent_start


class Tokenizer(ABC):
    """Encode and decode text; the six control tokens have the last ids.

    Attributes:
        kind: names the class in a saved tokenizer.
        fields: what is saved of it, apart from the order of the control tokens; arguments of the constructor.
        chat_template: Jinja template that writes a conversation for the pretrained model; "" where it has none.
        n_text: number of ids without the control tokens, whose ids begin there.
        vocab_size: number of ids, control tokens included.
        pad_id: `<|pad|>`, fills a row.
        bos_id, boa_id: `<s>` and `<a>`, start a dialogue that the environment or the agent opens.
        eos_id, eoa_id: `</s>` and `</a>`, close an utterance of the environment or the agent.
        eod_id: `</eod>`, ends a dialogue.
        frame: the ids around utterances.
        suppressed_ids: what an agent never says: control tokens that do not end its utterance.
        fingerprint: changes whenever any id could: caches and checkpoints use it.
    """

    kind: str
    fields: tuple[str, ...]
    chat_template: str = ""

    def __init__(self, n_text: int, special_tokens: Sequence[str]):
        """Give the control tokens the ids from `n_text` on, in the order listed."""
        if sorted(special_tokens) != sorted(GPT2_ORDER):
            raise UserError(f"the special tokens were {list(special_tokens)}: list each of {list(GPT2_ORDER)} once")
        self.n_text = n_text
        self.special_tokens = tuple(special_tokens)
        ids = {token: n_text + n for n, token in enumerate(special_tokens)}
        self.vocab_size = n_text + len(ids)
        self.pad_id, self.bos_id, self.eos_id = ids[PAD], ids[ENV_START], ids[ENV_END]
        self.boa_id, self.eoa_id, self.eod_id = ids[AGENT_START], ids[AGENT_END], ids[DIALOGUE_END]
        self.frame = Frame(start=(self.bos_id,), agent_start=(self.boa_id,), env_end=(self.eos_id,))
        self.suppressed_ids = (self.pad_id, self.bos_id, self.boa_id, self.eos_id)
        content = json.dumps(self.to_json(), sort_keys=True)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the text's ids, never those of control tokens."""

    @abstractmethod
    def _decode_text(self, ids: list[int]) -> str:
        """Return the text of ids that are not control tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids, without control tokens; one that is not in the vocabulary is a `ValueError`."""
        tokens = list(map(int, ids))
        if unknown := [token for token in tokens if not 0 <= token < self.vocab_size]:
            raise ValueError(f"token id {unknown[0]} is not in the vocabulary of {self.vocab_size}: mask such logits")
        return self._decode_text([token for token in tokens if token < self.n_text])

    @abstractmethod
    def _define_text(self) -> dict[str, Any]:
        """Return the content of a `tokenizer.json` that gives the text's ids."""

    def to_json(self) -> dict[str, Any]:
        """Return all there is to save; `kind` says which class reads it."""
        return {name: getattr(self, name) for name in ("kind", "special_tokens", *self.fields)}

    def save(self, directory: str | os.PathLike) -> None:
        """Write the tokenizer and its checksum into the directory, for `load_tokenizer`; whole or not at all."""
        target = Path(directory) / FILE_NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        save_with_checksum(target, json.dumps(self.to_json(), ensure_ascii=False) + "\n")

    def to_transformers(self, directory: str | os.PathLike) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and the chat template, for transformers' AutoTokenizer.

        Texts have the same ids there, and the control tokens are its special tokens: `<|pad|>` pads and `</a>` ends. A
        control token whose name the text's vocabulary has already (Llama 2 has a `</s>` of its own) is called
        `<|ilqljax:/s|>` there. transformers reads special tokens out of text; `split_special_tokens=True` forbids it.
        Beside a `config.json` of model_type qwen2 it splits text as Qwen 2 does, whatever these files say. For a chat,
        bos_token and eos_token are the model's own, as its template writes them.

        Raises:
            UserError: the text's ids have gaps, in which transformers would number the control tokens.
        """
        known = {PAD: "pad_token", ENV_START: "bos_token", AGENT_END: "eos_token"}
        control = {token: known.get(token, "") for token in self.special_tokens}
        save_published(
            Path(directory),
            self._define_text(),
            first_id=self.n_text,
            control=control,
            template=self.chat_template,
            names=self._name_special(),
        )

    def _name_special(self) -> dict[str, str]:
        """Return what is special to transformers under its names instead of control tokens; "" is nothing."""
        return {}


class CharacterTokenizer(Tokenizer):
    """Give every character of a set its own id; small and exact, for tests and toy tasks."""

    kind, fields = "character", ("charset", "unk")

    def __init__(self, charset: str, *, unk: bool = True, special_tokens: Sequence[str] = CHARACTER_ORDER):
        """Number the distinct characters in order, then the unknown one (where `unk`), then the control tokens."""
        repeated = sorted(character for character, n in Counter(charset).items() if n > 1)
        if not charset or repeated:
            raise UserError(f"charset={charset!r} repeats {repeated} or is empty: list each character once")
        self.charset, self.unk = charset, unk
        self._ids = {character: n for n, character in enumerate(charset)}
        super().__init__(len(charset) + int(unk), special_tokens)

    def encode(self, text: str) -> list[int]:
        """Return one id for each character; one without an id is a `UserError`."""
        missing = sorted(set(text) - self._ids.keys())
        if missing and not self.unk:
            raise UserError(f"the characters {missing} are not in charset={self.charset!r}: add them or set unk=True")
        return [self._ids.get(character, len(self.charset)) for character in text]

    def _decode_text(self, ids: list[int]) -> str:
        return "".join(self.charset[token] if token < len(self.charset) else UNKNOWN for token in ids)

    def _define_text(self) -> dict[str, Any]:
        unknown = UNKNOWN if UNKNOWN not in self.charset else "<|unknown|>"
        ids = self._ids | ({unknown: len(self.charset)} if self.unk else {})
        backend = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=unknown))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        backend.decoder = decoders.Fuse()
        return json.loads(backend.to_str())


class BPETokenizer(Tokenizer):
    """Merge bytes into frequent pieces, as GPT-2 does (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909).

    Any text can be encoded, and decodes to itself: bytes that were never merged have an id each.
    """

    kind, fields = "bpe", ("vocab", "merges")

    def __init__(
        self, vocab: Sequence[str], merges: Sequence[Sequence[str]], *, special_tokens: Sequence[str] = GPT2_ORDER
    ):
        """Hold the pieces in the order of their ids, and the merges in the order in which they apply.

        Pieces that are repeated, lack a byte or a part or product of a merge are a `UserError`.
        """
        ids = {piece: n for n, piece in enumerate(vocab)}
        missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - ids.keys())
        if missing or len(ids) != len(vocab):
            n_twice = len(vocab) - len(ids)
            raise UserError(f"the vocabulary lacks {len(missing)} bytes and repeats {n_twice} pieces: list each once")
        unlisted = [pair for pair in merges if len(pair) != 2 or not {*pair, "".join(pair)} <= ids.keys()]
        if unlisted:
            raise UserError(f"the merge {list(unlisted[0])} uses or gives a piece that the vocabulary does not list")
        self.vocab, self.merges = tuple(vocab), tuple((first, second) for first, second in merges)
        # No control token is added to this object: it could then be read out of text.
        self._backend = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(self.merges)))
        self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self._backend.decoder = decoders.ByteLevel()
        # Offline data asks for one prompt many times in a row, once for each of its rewrites.
        self._encode = functools.lru_cache(maxsize=256)(
            lambda text: tuple(self._backend.encode(check_text(text), add_special_tokens=False).ids)
        )
        super().__init__(len(vocab), special_tokens)

    def encode(self, text: str) -> list[int]:
        return list(self._encode(text))

    def _decode_text(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=False)

    def _define_text(self) -> dict[str, Any]:
        return json.loads(self._backend.to_str())


class GPT2Tokenizer(BPETokenizer):
    """Use GPT-2's own pieces: 50,257 ids, and the six control tokens make 50,263."""

    kind = "gpt2"

    @classmethod
    def from_directory(cls, path: str | os.PathLike) -> "GPT2Tokenizer":
        """Read a byte-level BPE's directory: `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Raises:
            UserError: there is no tokenizer, it cannot be read, or it is not plain byte-level BPE.
        """
        path = Path(path)
        if (path / TOKENIZER_JSON).is_file():
            definition = read_definition(path / TOKENIZER_JSON)
        elif (path / VOCABULARY).is_file() and (path / MERGES).is_file():
            definition = read_vocabulary(path)
        else:
            raise UserError(
                f"{path} does not hold a GPT-2 tokenizer: expected tokenizer.json, or vocab.json and merges.txt"
            )
        if problem := find_difference_from_gpt2(definition):
            raise UserError(f"{str(path)!r} {problem}: give GPT-2's plain byte-level BPE")
        ids = definition["model"]["vocab"]
        return cls(sorted(ids, key=ids.get), split_merges(definition["model"]["merges"]))

    @classmethod
    def from_pretrained(cls, name: str) -> "GPT2Tokenizer":
        """Read a tokenizer by its name on the Hugging Face hub, such as "gpt2"; needs the network once."""
        # transformers itself would build an empty tokenizer from a name that it cannot fetch.
        return cls.from_directory(fetch_snapshot(name, files=(VOCABULARY, MERGES)))


class PretrainedTokenizer(Tokenizer):
    """Use a published tokenizer's ids: whatever a `tokenizer.json` of the tokenizers library describes.

    The ids of a text are those that it has there, but for the model's special tokens: text never gives one either, and
    `decode` leaves them out too. Special are the added tokens that `tokenizer.json` marks as such and those that
    `tokenizer_config.json` names (`eos_token`, ...); other added tokens are ordinary vocabulary and read out of text,
    as published. Nothing is truncated, padded or added around a text.

    Attributes:
        definition: content of `tokenizer.json`.
        names: contents of special tokens by name, such as `{"eos_token": "<|im_end|>"}`.
        chat: dialogues are laid out by the model's chat template: the environment is the user, the agent the assistant.
        instruction: what the system's message of the template says; "" leaves it to the template.
    """

    kind, fields = "pretrained", ("definition", "names", "chat_template", "chat", "instruction")

    def __init__(
        self,
        definition: Mapping[str, Any],
        names: Mapping[str, str] = MappingProxyType({}),
        chat_template: str = "",
        chat: bool = False,
        instruction: str = "",
        *,
        special_tokens: Sequence[str] = GPT2_ORDER,
    ):
        """Build the tokenizer.

        Raises:
            UserError: the tokenizers library cannot read the definition, or `chat` is asked for and there is no chat
                template, or not one that ends the assistant's utterances with a special token.
        """
        check_definition(definition)
        tokens = [chat_template, *names.values()] if isinstance(names, Mapping) else [names]
        if not all(isinstance(token, str) for token in tokens):
            raise UserError(f"names={names!r} or the chat template hold other things than texts. {SAVE_AGAIN}")
        self.definition = {**definition, "truncation": None, "padding": None}
        self.definition["added_tokens"] = definition.get("added_tokens") or []
        self.names, self.chat_template = dict(names), chat_template
        self._backend, self._special_ids = build_tokenizer(self.definition, self.names.values())
        self._encode = functools.lru_cache(maxsize=256)(
            lambda text: tuple(self._backend.encode(check_text(text), add_special_tokens=False).ids)
        )
        self.chat, self.instruction = chat, instruction
        super().__init__(1 + max(self._backend.get_vocab(with_added_tokens=True).values()), special_tokens)
        if chat:
            self.frame, self.eoa_id = self._read_chat()
        elif instruction:
            raise UserError("An instruction is a part of the chat format: set config.tokenizer.chat=True as well.")
        control = range(self.n_text, self.vocab_size) if chat else self.suppressed_ids
        self.suppressed_ids = tuple(sorted({*control, *self._special_ids.values()} - {self.eoa_id}))

    def with_chat(self, instruction: str = "") -> "PretrainedTokenizer":
        """Return the same tokenizer, for dialogues in the model's chat format; errors are those of `__init__`."""
        order = self.special_tokens
        return PretrainedTokenizer(
            self.definition, self.names, self.chat_template, True, instruction, special_tokens=order
        )

    def _read_chat(self) -> tuple[Frame, int]:
        """Find what the chat template writes around utterances, and the token that ends the agent's."""
        parts = split_chat(self.chat_template, instruction=self.instruction, names=self.names)
        ids = {name: tuple(self._encode_marked(text)) for name, text in parts.items() if text is not None}
        end = ids.pop("agent_end")
        if not set(end[:1]) & set(self._special_ids.values()):
            raise UserError(
                f"The chat template ends the assistant's utterances with {parts['agent_end']!r}, which does not begin "
                "with a special token, so that no token ends them. Set config.tokenizer.chat=False."
            )
        opening = ids.pop("agent_start", None)
        return Frame(agent_start=opening, agent_rest=end[1:], **ids), end[0]

    def _encode_marked(self, text: str) -> list[int]:
        """Encode a text of the model's own, in which special tokens are meant."""
        known = sorted(self._special_ids, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, known))})", text) if known else [text]
        return [i for p in pieces for i in ([self._special_ids[p]] if p in self._special_ids else self.encode(p))]

    @classmethod
    def from_directory(cls, path: str | os.PathLike) -> "PretrainedTokenizer":
        """Read a model's directory: `tokenizer.json`, and where there are, `tokenizer_config.json` and chat template.

        Raises:
            UserError: a file is missing, damaged, or describes no tokenizer that the tokenizers library reads.
        """
        published = read_published(Path(path))
        try:
            return cls(*published)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    def encode(self, text: str) -> list[int]:
        return list(self._encode(text))

    def token_id(self, name: str) -> int | None:
        """Return the id of a special token by its name, `eos_token`, or by its content, `<|im_end|>`; else None."""
        return self._special_ids.get(self.names.get(name, name))

    def _name_special(self) -> dict[str, str]:
        if not self.chat:
            return {}
        # Templates write these by name: what they mean by them must stay what it was.
        named = {name: self.names.get(name, "") for name in ("bos_token", "eos_token")}
        if "eos_token" not in self.chat_template:
            named["eos_token"] = next(token for token, number in self._special_ids.items() if number == self.eoa_id)
        return {name: token if token in self._special_ids else "" for name, token in named.items()}

    def _decode_text(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def _define_text(self) -> dict[str, Any]:
        # Without what adds tokens around a text: transformers does so unless asked not to.
        return {**self.definition, "post_processor": None}


def check_text(text: str) -> str:
    """Return a text, or raise a `UserError` at what is none or holds half a character, which no file can hold."""
    if not isinstance(text, str):
        raise UserError(f"expected a text, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the text {text[:40]!r} holds half a character ({text[error.start]!r}) at position {error.start}, as a "
            "damaged file gives it. Read the file as UTF-8, or replace it: text.encode(errors='replace').decode()"
        ) from error
    return text


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> BPETokenizer:
    """Learn a byte-level BPE of at most `vocab_size` ids, control tokens included; equal texts give an equal one.

    Raises:
        UserError: `texts` are none, or `vocab_size` has no room for every byte and the control tokens.
    """
    if isinstance(texts, str):
        raise UserError("texts is one text: its characters would be the texts. Give a list of texts.")
    check_type(Iterable, "Give a list of texts.", texts=texts)
    check_whole(vocab_size=vocab_size)
    smallest = N_BYTES + len(GPT2_ORDER)
    if vocab_size < smallest:
        raise UserError(f"vocab_size={vocab_size} is too small: bytes and control tokens need at least {smallest}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(GPT2_ORDER),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(map(check_text, texts), trainer)
    model = json.loads(backend.to_str())["model"]
    return BPETokenizer(sorted(model["vocab"], key=model["vocab"].get), model["merges"])


def load_tokenizer(path_or_name: str | os.PathLike) -> Tokenizer:
    """Open what `Tokenizer.save` wrote, a pretrained tokenizer's directory, or a name on the Hugging Face hub.

    Raises:
        UserError: there is nothing there, or it is not a tokenizer.
    """
    check_type((str, os.PathLike), "Give a path, or a name such as 'gpt2'.", path_or_name=path_or_name)
    path = Path(path_or_name)
    file = path / FILE_NAME if path.is_dir() else path
    if file.is_file():
        return _load_saved(file)
    if path.is_dir():
        return _load_published(path)
    # A hub name is `name` or `owner/name`; anything else can only have been meant as a path.
    if path.is_absolute() or str(path_or_name).startswith(".") or path.suffix == ".json" or len(path.parts) > 2:
        raise UserError(
            f"{path} does not exist: give a directory with {FILE_NAME}, that file, or a name such as 'gpt2'"
        )
    files = (TOKENIZER_JSON, TOKENIZER_CONFIG, CHAT_TEMPLATE, VOCABULARY, MERGES)
    return _load_published(fetch_snapshot(str(path_or_name), files=(), optional=files))


def _load_saved(file: Path) -> Tokenizer:
    check_checksum(file)
    content = read_json(file, advice=SAVE_AGAIN)
    kinds = {cls.kind: cls for cls in (CharacterTokenizer, BPETokenizer, GPT2Tokenizer, PretrainedTokenizer)}
    kind = content.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{file} holds a tokenizer of kind {kind!r}: expected one of {sorted(kinds)}")
    expected = {"special_tokens", *kinds[kind].fields}
    if content.keys() != expected:
        raise UserError(f"{file} has the fields {sorted(content)}: a {kind} tokenizer has {sorted(expected)}")
    check_saved(content, file)
    try:
        return kinds[kind](**content)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _load_published(directory: Path) -> Tokenizer:
    file = directory / TOKENIZER_JSON
    if file.is_file() and find_difference_from_gpt2(read_definition(file)):
        return PretrainedTokenizer.from_directory(directory)
    return GPT2Tokenizer.from_directory(directory)
