"""Build the prompt: what the policy reads before it writes a new posting.

The prompt states the original posting, its title, company, location, requirements and remote option, each on a short
line, then asks for a new posting that uses only that information. Empty fields are left out. The overhead is about
twenty words, so that most of a row's tokens are the posting itself.
"""

from collections.abc import Iterable

from ilqljax.errors import UserError
from ilqljax.hiring.postings.posting import Posting, normalize_spaces

INSTRUCTION = "Write a new posting using only this information."


def build_prompt(posting: Posting) -> str:
    """Build the prompt of one posting.

    A posting "Blue Oak needs a warm nurse." with title "Ward Nurse" and nothing else gives

        Posting: Blue Oak needs a warm nurse.
        Title: Ward Nurse
        Remote: no
        Write a new posting using only this information.
    """
    fields = (
        ("Posting", posting.description),
        ("Title", posting.title),
        ("Company", posting.company),
        ("Location", posting.location),
        ("Requirements", posting.requirements),
        ("Remote", "yes" if posting.remote else "no"),
    )
    lines = [f"{name}: {normalize_spaces(value)}" for name, value in fields if value.strip()]
    return "\n".join([*lines, INSTRUCTION])


def parse_prompt(prompt: str) -> Posting:
    """Return the posting that a prompt states, white space folded; what a prompt does not hold is empty.

    Raises:
        UserError: `build_prompt` did not make it.
    """
    lines = [line.partition(": ") for line in prompt.split("\n")[:-1]]
    values = {name: value for name, separator, value in lines if separator}
    if not values.get("Posting") or prompt.split("\n")[-1] != INSTRUCTION:
        raise UserError(f"{prompt[:60]!r} is not a posting's prompt. Make prompts with prompts.build_prompt.")
    return Posting(
        id="",
        title=values.get("Title", ""),
        description=values["Posting"],
        company=values.get("Company", ""),
        location=values.get("Location", ""),
        requirements=values.get("Requirements", ""),
        remote=values.get("Remote") == "yes",
    )


def map_groups(postings: Iterable[Posting]) -> dict[str, str]:
    """Return each posting's job group by its prompt, which is what a reward sees of a posting."""
    return {build_prompt(posting): posting.group for posting in postings}
