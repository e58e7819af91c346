"""Beam search against the original's beams, which it found with the parameters after its training steps."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.parity.cases import Case, Dialogue
from benchmarks.parity.comparison import Comparison, compare_texts, relative_error, select
from benchmarks.parity.options import translate_acting
from ilqljax.data.datapoint import encode_prompt
from ilqljax.decoding.beam import Beams, make_beam_search
from ilqljax.decoding.sampling import prepare_for_decoding
from ilqljax.models.io.original import params_from_original

AFTER_STEPS = "with the parameters after its training steps, as the original's beams"


def compare_beams(case: Case) -> Iterator[Comparison]:
    """Compare beam texts and their scores, best first."""
    texts = case.settings.get("beams")
    settings: Mapping[str, Any] = case.find("beam") or {}
    if not texts:
        for quantity in ("beam/texts", "beam/scores"):
            yield Comparison(case.name, quantity, None, note="the case has no beams")
        return
    config, reason = translate_acting(settings, beta=0.0)
    prompts = find_prompts(case, len(texts))
    if config is None or prompts is None or "beam/scores" not in case.arrays:
        reason = reason or f"no reading of the dialogues gives {len(texts)} prompts, or beam/scores is missing"
        for quantity in ("beam/texts", "beam/scores"):
            yield Comparison(case.name, quantity, None, note=reason)
        return
    beams = run_beams(case, prompts, settings)
    found = [
        [read_beam(case, tokens[:length]) for tokens, length in zip(*row, strict=True)]
        for row in zip(beams.tokens, beams.lengths, strict=True)
    ]
    yield compare_texts(case.name, "beam/texts", found, [[text.strip() for text in row] for row in texts])
    yield Comparison(
        case.name, "beam/scores", relative_error(beams.scores, case.arrays["beam/scores"]), note=AFTER_STEPS
    )


def run_beams(case: Case, prompts: list[np.ndarray], settings: Mapping[str, Any]) -> Beams:
    """Search from all prompts at once, with the original's options and parameters."""
    params, target = params_from_original(select(case.arrays, "after3/"))
    if "trunk" in params and "policy" in params:
        # The original's beam search puts the policy in the value trunk's place, so V reads the policy's hidden states.
        params = {**params, "trunk": params["policy"]}
    config, _ = translate_acting(settings if not case.is_bc else {}, beta=0.0)
    limits = (-np.inf, np.inf) if case.is_bc else (case.options["value_min"], case.options["value_max"])
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.full((len(prompts), lengths.max()), case.tokenizer.pad_id, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    n_new = settings.get("max_generation_len") or case.max_length
    search = make_beam_search(
        case.model,
        replace(config, max_new_tokens=n_new),
        width=settings.get("beam_width", 1),
        end_ids=(case.tokenizer.eoa_id,),
        pad_id=case.tokenizer.pad_id,
        suppress_ids=(case.tokenizer.pad_id,),
        value_range=limits,
        max_length=case.max_length,
    )
    networks = prepare_for_decoding(case.model, params, target, critic=config.beta != 0.0)
    return Beams(*(np.asarray(x) for x in search(networks, tokens, lengths)))


def find_prompts(case: Case, n_prompts: int) -> list[np.ndarray] | None:
    """Encode what the original's search started from: each dialogue up to the agent's first word.

    A dialogue that the agent opens has no prompt but `<a>`, and is left out where that gives the expected number.
    """
    opened = []
    for dialogue in case.settings["dialogues"]:
        n = next((i for i, (_, reward) in enumerate(dialogue["sequence"]) if reward is not None), None)
        opened.append(dialogue["sequence"][:n])
    for sequences in ([sequence for sequence in opened if sequence], opened):
        if len(sequences) == n_prompts:
            prompts = [encode_prompt(Dialogue(sequence, False), case.tokenizer) for sequence in sequences]
            return [prompt[: case.max_length] for prompt in prompts]
    return None


def read_beam(case: Case, tokens: np.ndarray) -> str:
    """Spell a beam as the original does: up to its `</a>`, other control tokens spelled out, ends stripped."""
    closed = len(tokens) > 0 and tokens[-1] == case.tokenizer.eoa_id
    spelled = {case.tokenizer.n_text + i: token for i, token in enumerate(case.tokenizer.special_tokens)}
    pieces = [spelled.get(token) or case.tokenizer.decode([token]) for token in tokens.tolist()]
    return "".join(pieces[:-1] if closed else pieces).strip()
