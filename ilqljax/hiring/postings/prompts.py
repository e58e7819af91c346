"""Build the prompt: what the policy reads before it writes a new posting.

Each fact is a short line, and empty fields are left out. The overhead is about twenty words, so that most of a row's
tokens are the posting itself.
"""

from collections.abc import Iterable

from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

INSTRUCTION = "Write a new posting using only this information."
_FIELDS = {
    "Posting": "description",
    "Title": "title",
    "Company": "company",
    "Location": "location",
    "Requirements": "requirements",
}


def build_prompt(posting: Posting) -> str:
    """Build the prompt of one posting.

    A posting "Blue Oak needs a warm nurse." with title "Ward Nurse" and nothing else gives

        Posting: Blue Oak needs a warm nurse.
        Title: Ward Nurse
        Remote: no
        Write a new posting using only this information.
    """
    fields = {label: normalize_spaces(getattr(posting, name)) for label, name in _FIELDS.items()}
    fields["Remote"] = "yes" if posting.remote else "no"
    return "\n".join([*(f"{label}: {text}" for label, text in fields.items() if text), INSTRUCTION])


def parse_prompt(prompt: str) -> Posting:
    """Return the posting that a prompt states, white space folded; what a prompt does not hold is empty.

    Raises:
        UserError: `build_prompt` did not make it.
    """
    lines = [line.partition(": ") for line in prompt.split("\n")[:-1]]
    values = {label: value for label, separator, value in lines if separator}
    if not values.get("Posting") or prompt.split("\n")[-1] != INSTRUCTION:
        raise UserError(f"{prompt[:60]!r} is not a posting's prompt. Make prompts with prompts.build_prompt.")
    known = {name: values.get(label, "") for label, name in _FIELDS.items()}
    return Posting(id="", remote=values.get("Remote") == "yes", **known)


def map_groups(postings: Iterable[Posting]) -> dict[str, str]:
    """Return each posting's job group by its prompt, which is what a reward sees of a posting."""
    return {build_prompt(posting): posting.group for posting in postings}
