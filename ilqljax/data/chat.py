"""What a model's chat template writes around utterances, found by rendering conversations of marked ones."""

from collections.abc import Mapping
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ilqljax.errors import UserError

ASKED, ANSWERED, ASKED_AGAIN, ANSWERED_AGAIN = (f"ILQLJAX-UTTERANCE-{n}" for n in "1234")
WITHOUT = "Set config.tokenizer.chat=False, or use a model with another template."


def split_chat(template: str, *, instruction: str, names: Mapping[str, str]) -> dict[str, str | None]:
    """Take a chat template apart, with the user as the environment and the assistant as the agent.

    Answers follow what the template writes to ask for one. What it writes only before answers that are there already, a
    space or an empty thought, is left out.

    Args:
        template: in Jinja, as transformers saves it (`tokenizer.chat_template`).
        instruction: of a system message, "" for none.
        names: special tokens by name (`bos_token`), which templates may write.

    Returns:
        Texts by the names of `ilqljax.data.tokenizer.Frame`, and `agent_end`, which closes the agent's utterances;
        `agent_start` is None where the template does not let the assistant open.

    Raises:
        UserError: there is no template, it is damaged, or it writes utterances in another order or not at all.
    """
    if not template:
        raise UserError("config.tokenizer.chat=True, and the tokenizer has no chat template. Set it to False.")
    system = [("system", instruction)] if instruction else []

    def render(*messages: tuple[str, str], prompt: bool = False) -> str:
        return _render(template, [*system, *messages], names, prompt=prompt)

    whole = render(("user", ASKED), ("assistant", ANSWERED), ("user", ASKED_AGAIN), ("assistant", ANSWERED_AGAIN))
    start, _, between, _, agent_end = _cut(whole, ASKED, ANSWERED, ASKED_AGAIN, ANSWERED_AGAIN)
    env_end = _cut(render(("user", ASKED)), ASKED)[1]
    prompt = _cut(render(("user", ASKED), prompt=True), ASKED)[1]
    if not prompt.startswith(env_end) or not between.startswith(agent_end):
        raise UserError(f"The chat template closes utterances differently in the middle and at the end. {WITHOUT}")
    try:
        agent_start: str | None = _cut(render(("assistant", ANSWERED)), ANSWERED)[0]
    except UserError:
        agent_start = None
    return {
        "start": start,
        "agent_start": agent_start,
        "env_end": env_end,
        "env_header": between[len(agent_end) :],
        "agent_header": prompt[len(env_end) :],
        "agent_end": agent_end,
    }


def _render(template: str, said: list[tuple[str, str]], names: Mapping[str, str], *, prompt: bool) -> str:
    """Render messages (role, content) as transformers' `apply_chat_template` does; `prompt` opens an answer."""

    def refuse(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    loops = "jinja2.ext.loopcontrols"
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loops])
    environment.globals["raise_exception"] = refuse
    messages: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in said]
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=prompt, **{"bos_token": "", "eos_token": "", **names}
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"The chat template cannot write a dialogue ({error}). {WITHOUT}") from error


def _cut(text: str, *marks: str) -> list[str]:
    """Return what stands before, between and after marks, which must be there once each and in order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise UserError(f"The chat template does not write each utterance once, in order. {WITHOUT}")
        parts.append(before)
    return [*parts, text]
