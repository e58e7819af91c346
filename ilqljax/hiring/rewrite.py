"""Sample rewrites of one posting with a trained policy, judge them, and show the best: `ilqljax rewrite`."""

import sys
from collections import Counter
from pathlib import Path

from ilqljax.data.datapoint import encode_prompt
from ilqljax.data.files import parse_json, replace_half_characters
from ilqljax.data.pages import clean_text
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.edits.differences import diff_words
from ilqljax.hiring.environment import PostingObservation
from ilqljax.hiring.guardrails.language_model import CLONE, make_fluency
from ilqljax.hiring.postings.posting import Posting, build_prompt, check_size, parse_posting
from ilqljax.hiring.proposals import RANKINGS, Rewriting, describe_shortlist, judge_samples
from ilqljax.hiring.task import HiringData
from ilqljax.training.evaluation import OpenRun, make_policy

MARKS = {"removed": ("[-", "-]"), "added": ("{+", "+}"), "same": ("", "")}
COLOURS = {"removed": ("\033[31;9m", "\033[0m"), "added": ("\033[32m", "\033[0m"), "same": ("", "")}


def rewrite_with_run(
    run: OpenRun, data: HiringData, posting: Posting, *, n: int = 16, policy: str = "", rank_by: str = "reward"
) -> Rewriting:
    """Sample `n` rewrites of any posting with a run's policy, and reward them with the run's matcher.

    `data` is what `run.build_section("data")` gives, `policy` the run's algorithm ("") or "bc" for its clone, and
    `rank_by` what sorts the improvements (`proposals.judge_samples`).

    Raises:
        UserError: the run has no such policy, `n` is not positive, the ranking is unknown or asks a critic that does
            not run, or the posting is too long for the model.
    """
    check_known(RANKINGS, rank_by=rank_by)
    trained = run.select_policy(policy)
    if n < 1:
        raise UserError(f"n={n}: sample at least one rewrite.")
    actor = make_policy(run.config, run.built, trained, n_generations=n, beam_width=0)
    algorithm = trained.learner.algorithm
    judged = algorithm.has_critic and (algorithm.level == "utterance" or actor.config.beta != 0)
    if rank_by == "advantage" and not judged:
        raise UserError(
            "rank_by='advantage', but no critic runs: the policy was cloned, or the run's decode.beta is 0. Use "
            "rank_by='reward', or a policy that a critic steers."
        )
    observation = PostingObservation(build_prompt(posting), posting=posting)
    n_tokens = len(encode_prompt(actor.view(observation), run.built.tokenizer))
    if n_tokens > actor.max_prompt:
        raise UserError(
            f"The posting makes a prompt of {n_tokens} tokens, and the model has room for {actor.max_prompt} beside "
            f"{actor.config.max_new_tokens} new ones. Shorten it, or use a run of a larger model."
        )
    generations = actor.generate_batch([observation])[0]
    samples = [(g.text, g.advantage, g.log_probability) for g in generations if g.finished]
    clone = make_policy(run.config, run.built, run.policies[CLONE]) if CLONE in run.policies else None
    fluency = make_fluency(run.config.objects["evaluator"].get("fluency", ""), data.prepared, clone=clone)
    name = run.name_policy(policy)
    asked = {"fluency": fluency, "guardrails": data.reward.guardrails}
    return judge_samples(posting, samples, data.reward, policy=name, rank_by=rank_by, **asked)


def read_job(name: str, *, title: str, company: str, location: str) -> Posting:
    """Read a posting from a JSON object, a text file or standard input, or raise a `UserError` if it is none."""
    where = "standard input" if name == "-" else name
    if name != "-" and (Path(name).is_dir() or not Path(name).exists()):
        raise UserError(f"{name}: no such file. Give a JSON object as in jobs.jsonl, a text file, or - for stdin.")
    raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from error
    if not text.strip():
        raise UserError(f"{where}: is empty. Give the posting's text.")
    if name.endswith(".json") or text.lstrip().startswith("{"):
        row = replace_half_characters(parse_json(text, where, advice="Give one complete object such as {'id': ...}."))
        return check_size(parse_posting({"id": "job", "title": "", **row}, where=where), where=where)
    return check_size(Posting("job", title, text, company, location), where=where)


def format_rewriting(rewriting: Rewriting, data: HiringData, *, colour: bool) -> str:
    """Lay out the best rewrite: its difference, scores, and the shortlist before and after; or why there is none."""
    lines, best = [f"the original scores {rewriting.original_reward:.2f}"], next(iter(rewriting.safe), None)
    if best is None:
        lines.append(f"No safe improvement found among {len(rewriting.refused)} different rewrites.")
    else:
        marks, differences = COLOURS if colour else MARKS, diff_words(rewriting.original, best.text)
        lines += [
            f"the best of {len(rewriting.safe)} safe improvements scores {best.reward:.2f} ({best.gain:+.2f}); "
            f"advantage {best.advantage:+.2f}",
            "",
            "".join(f"{marks[kind][0]}{clean_text(text)}{marks[kind][1]}" for kind, text in differences),
            "",
            *_format_shortlists(rewriting.original, best.text, data),
        ]
    reasons = [check for rewrite in rewriting.refused for check in (rewrite.failed_checks or ("no gain",))]
    if reasons:
        lines.append("refused: " + ", ".join(f"{n} {name}" for name, n in sorted(Counter(reasons).items())))
    return "\n".join(lines)


def _format_shortlists(before: str, after: str, data: HiringData) -> list[str]:
    """Lay out both shortlists by the attributes that candidates declare."""
    reward = data.reward
    rows = reward.shortlists([before, after])
    lines = [f"{'shortlist of ' + str(reward.config.k):<24}{'before':>8}{'after':>8}{'ratio before':>14}{'after':>8}"]
    for name in reward.table.names:
        attribute = reward.table.attribute(name)
        old, new = (describe_shortlist(attribute.codes[row], attribute) for row in rows)
        for i, category in enumerate(attribute.categories):
            label = clean_text(f"{name}: {category}")
            lines.append(f"{label:<24}{old[0][i]:>8}{new[0][i]:>8}{old[2][i]:>14.2f}{new[2][i]:>8.2f}")
        lines.append(f"{name + ': (unknown)':<24}{old[1]:>8}{new[1]:>8}")
    return lines


def ask_for_decision(*, can_ask: bool) -> str:
    """Ask on a terminal whether the rewrite is accepted; anywhere else, and by Ctrl-D, nothing is decided."""
    if not can_ask:
        return "skip"
    try:
        answer = input("Use this rewrite? [y]es, [n]o, anything else skips: ").strip().lower()
    except EOFError:
        print()  # ends the question's line
        return "skip"
    return {"y": "accept", "yes": "accept", "n": "reject", "no": "reject"}.get(answer, "skip")
