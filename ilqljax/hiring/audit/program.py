r"""Audit who is shortlisted, selected and scored high, by declared attributes. Needs no trained model.

    ilqljax audit --sample --out report
    ilqljax audit --jobs jobs.jsonl --candidates candidates.jsonl --rewrites rewrites.jsonl \
        --attributes sex,race --top 50 --selected 10 --out report
    ilqljax audit --scores scores.csv --attributes sex,race --out report
    ilqljax audit --check published.csv --out check

These audit the built-in sample market; your postings and candidates, before and after rewriting; a ready table of a row
a decision; and check published audits. Writes a new folder, all of it or nothing: report.html (one page that loads
nothing), audit.json (every number), and one CSV table a rate, attribute and phase in the form of New York City Local
Law 144. What each number means is at the end of the page. Formats: `ilqljax/hiring/postings/posting.py` (jobs,
candidates), `load_rewrites` in `ilqljax/hiring/audit/program.py` (rewrites), `ilqljax/hiring/audit/ready_table.py`
(scores), `ilqljax/hiring/audit/published.py` (published audits).
"""

import argparse
import ast
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ilqljax.cli import add_options, read_options
from ilqljax.config import BuildContext, build
from ilqljax.data.files import check_checksum, check_new_folder, save_folder
from ilqljax.data.json_lines import check_spelling, read_field, read_json_lines
from ilqljax.data.pages import clean_text
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.audit.categories import UNKNOWN_WORDS, list_values, unify_candidates, warn_of_unknown
from ilqljax.hiring.audit.columns import Bins, bin_columns, choose_attributes, parse_bins
from ilqljax.hiring.audit.decisions import ID, JOB, SELECTED, WEIGHT
from ilqljax.hiring.audit.decisions import SCORE as SCORED
from ilqljax.hiring.audit.filing import STATED, add_filing_arguments, describe_filing, read_filing
from ilqljax.hiring.audit.market import AuditConfig, audit_market, check_categories, choose_score
from ilqljax.hiring.audit.published import Verdict, check_tables, format_rows, load_published, summarize
from ilqljax.hiring.audit.ready_table import ReadyTable, audit_ready_table, check_weights, load_ready_table
from ilqljax.hiring.audit.tables import format_json, list_disagreements, list_tables, show_name, state_lowest
from ilqljax.hiring.audit.ties import describe_medians, describe_ties
from ilqljax.hiring.audit.workbook import WORKBOOK, check_workbook, format_workbook
from ilqljax.hiring.data.prepare import choose_some
from ilqljax.hiring.edits.operators import OPERATORS
from ilqljax.hiring.evaluation.headroom import HEADROOM_MATCHERS, HEADROOM_POSTINGS, describe_headroom, list_edits
from ilqljax.hiring.evaluation.record import Rewrite
from ilqljax.hiring.guardrails import MODES, check_rewrite
from ilqljax.hiring.matching.matcher import Matcher, MatcherSource
from ilqljax.hiring.postings.posting import Candidate, Posting, build_prompt, normalize_spaces
from ilqljax.hiring.postings.sources import SAMPLE, has_candidates, load_market
from ilqljax.hiring.reward.distances import DISTANCE_NAMES
from ilqljax.hiring.reward.scores import RewardConfig

VERSION = 1  # of audit.json, which `audit.schema.json` describes
SCHEMA = f"urn:ilqljax:audit:{VERSION}"
MOST_PRINTED = 10
WEIGHTED = (
    "counts are sums of weights, and rates are weighted; intervals are of effective counts, as many independent people "
    "as give a rate the variance that it has"
)
DEFAULT_POLICY = "rewrite"
MATCHERS = ("tfidf", "bm25", "ngrams", "encoder", "embeddings", "callable", "http", "postgres")
SCORE = ("distance", "target", "shares", "group_attribute", "smoothing", "ground", "weights")
LISTS, AUDIT, RENAMED = ("top", "n_selected"), ("min_count", "leave_out_below", "seed"), {"n_selected": "selected"}
Facts = list[tuple[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is audited, against what, and where the report goes."""
    add = parser.add_argument
    add("--out", default="", help="folder to write; must be new or empty")
    add("--check", default="", help="check a table of published audits instead: see whether its numbers follow")
    add("--jobs", default="", help="postings: a file or folder of any known format, or 'sample'")
    add(
        "--candidates", default="", help="candidates.jsonl, or 'sample'; may be left out where the jobs bring their own"
    )
    add("--rewrites", default="", help="JSONL of id and text, or a run's evaluation.jsonl")
    add("--policy", default="", help="which policy of an evaluation.jsonl to audit")
    add(
        "--guardrails",
        default="edits",
        choices=tuple(MODES),
        help="what rewrites of your own must pass: guardrails of edited words, or of free text",
    )
    add(
        "--scores",
        default="",
        help="ready table (CSV, Excel, Parquet), instead of jobs and candidates; rows of one id are one person",
    )
    for name in (ID, SCORED, SELECTED):
        add(f"--{name}_column", default="", help=f"what the ready table calls its column '{name}'")
    add("--job_column", default="", help="column that says for which job a row was decided; intervals then count jobs")
    add("--weight_column", default="", help="column of weights above 0 in the ready table, by which rows count")
    add(
        "--bins",
        action="append",
        default=[],
        metavar="COLUMN=EDGES",
        help="put a column of numbers in bins, as age=0,40,200 (edges) or age=quantiles:4; once for each column",
    )
    add(
        "--within",
        default="",
        help="columns of the ready table, as job,level; compares within each combination of their values",
    )
    add("--scores_after", default="", help="a second ready table of the same ids, scored another way, to compare")
    add("--allow_negative", action="store_true", help="take scores below 0 in the ready table")
    add("--sample", action="store_true", help="audit the built-in sample market")
    add("--plant", type=float, default=0.8, help="strength of the sample's planted correlation, 0 to 1")
    add(
        "--attributes",
        default="",
        help="comma-separated, and every pair of them; if left out, all that look like attributes",
    )
    add(
        "--unknown",
        action="append",
        default=[],
        help="what stands for an unknown category besides an empty one: a list, or several times; "
        "replaces a list of unknown, N/A, NA, none, -, ?, not specified, prefer not to say and their like",
    )
    add(
        "--reference",
        action="append",
        default=[],
        metavar="ATTRIBUTE=CATEGORY",
        help="compare an attribute's categories with this one, not with the highest rate; once for each attribute",
    )
    add("--max_postings", type=int, default=0, help="audit a random part of the postings of this size; 0 for all")
    add("--matcher", default="tfidf", help=f"what ranks: {', '.join(MATCHERS)}")
    add("--matcher_options", default="", help="the matcher's, such as path=DIR or url=http://..., comma-separated")
    add_options(parser, RewardConfig, SCORE, known={"distance": DISTANCE_NAMES})
    add_options(parser, AuditConfig, LISTS + AUDIT, renamed=RENAMED)
    add("--workbook", action="store_true", help="write the tables as an Excel workbook too (extra tables)")
    add_filing_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Audit, write the folder, and say what was found and where it is."""
    from ilqljax.hiring.audit.page import format_page  # matplotlib takes a second, and --help needs none

    if args.check:
        check_published(args)
        return
    check_sources(args)
    check_new_folder(args.out)
    if args.workbook:
        check_workbook()
    paths = (args.scores, args.scores_after, args.jobs, args.candidates, args.rewrites)
    filing = read_filing(args, [path for path in paths if path not in ("", SAMPLE)])
    audit, facts, rewrites = audit_table(args) if args.scores else audit_jobs(args)
    settings = {name: value for name, value in vars(args).items() if name not in ("out", "date", "workbook", *STATED)}
    tables = list_tables(audit)
    contents: dict[str, str | bytes] = {
        **tables,
        **({WORKBOOK: format_workbook(tables)} if args.workbook else {}),
        "audit.json": format_json(
            {"$schema": SCHEMA, "version": VERSION, "filing": filing, "settings": settings, **audit}
        ),
        "report.html": format_page(audit, filing=describe_filing(filing), facts=facts, rewrites=rewrites),
    }
    save_folder(args.out, contents)
    print("\n".join(clean_text(line) for line in [state_lowest(audit), *list_disagreements(audit)]))
    print(f"{args.out}/report.html and {len(contents) - 1} more files: {'; '.join(f'{n}: {v}' for n, v in facts[:2])}")


def check_published(args: argparse.Namespace) -> None:
    """Print what was found of a table of published audits; with --out, write each row's verdicts too."""
    if args.jobs or args.scores or args.sample:
        raise UserError("--check reads a published audit: leave out --jobs, --scores and --sample.")
    if args.out:
        check_new_folder(args.out)
    tables = load_published(args.check)
    if not tables:
        raise UserError(f"{args.check}: holds no row. Give a row a category below the header.")
    check_tables(tables)
    found = summarize(tables)
    if args.out:
        save_folder(args.out, {"check.csv": format_rows(tables)})
    print("\n".join(f"{name}: {value}" for name, value in found))
    rows = [
        row for table in tables for row in table.rows if Verdict.UNEXPLAINED in (row.rate_verdict, row.ratio_verdict)
    ]
    for row in rows[:MOST_PRINTED]:
        print(f"unexplained: {row.where}: {show_name(row.category)}, rate {row.rate:g}, ratio {row.ratio:g}")
    if len(rows) > MOST_PRINTED:
        print(f"{len(rows) - MOST_PRINTED:,} more are unexplained; --out writes every row.")


def check_sources(args: argparse.Namespace) -> None:
    """Raise a `UserError` unless exactly one thing is to be audited, and in a way that makes sense."""
    if not args.out:
        raise UserError("Say where the report goes: --out FOLDER, which must be new or empty.")
    given = [name for name in ("jobs", "scores", "sample") if getattr(args, name)]
    if len(given) != 1:
        raise UserError(
            f"Give one of --jobs (with --candidates), --scores and --sample; got {', '.join(given) or 'none'}. "
            "To try it without data: ilqljax audit --sample --out report"
        )
    if args.scores_after and not args.scores:
        raise UserError("--scores_after is compared with --scores: give both.")
    if args.within and not args.scores:
        raise UserError("--within names columns of a ready table: give --scores too.")
    check_weights(bool(args.weight_column), by_job=bool(args.job_column), by_stratum=bool(args.within))
    if args.scores and (args.rewrites or args.candidates):
        raise UserError("--scores is a ready table: leave out --candidates and --rewrites, or give --jobs instead.")


def list_names(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the attributes that were named, each once."""
    return split_names(args.attributes)


def split_names(text: str) -> tuple[str, ...]:
    """Return names that are separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def list_unknown(args: argparse.Namespace) -> tuple[str, ...]:
    """Return what stands for an unknown category; --unknown "" leaves the empty one alone."""
    return tuple(",".join(args.unknown).split(",")) if args.unknown else UNKNOWN_WORDS


def list_references(args: argparse.Namespace) -> dict[str, str]:
    """Return the reference categories that were named, by attribute."""
    parts = [text.partition("=") for text in args.reference]
    references = {name.strip(): category.strip() for name, _, category in parts}
    if len(references) < len(parts) or not all(references.values()):
        raise UserError(f"--reference {args.reference}: write ATTRIBUTE=CATEGORY, once for each attribute.")
    return references


def make_config(args: argparse.Namespace, table: AttributeTable, names: Sequence[str]) -> AuditConfig:
    """Return the settings of the audit, with every attribute looked up in the candidates' table."""
    if not names:
        raise UserError("The candidates declare no attribute. Add attributes to the candidates' file.")
    check_categories([table.attribute(name) for name in names])
    score = read_options(args, RewardConfig, SCORE)
    options, others = AUDIT if args.scores else LISTS + AUDIT, {"score": score, "reference": list_references(args)}
    return read_options(args, AuditConfig, options, renamed=RENAMED, attributes=tuple(names), **others)


def audit_table(args: argparse.Namespace) -> tuple[dict[str, Any], Facts, list[Rewrite]]:
    """Audit a ready table."""
    ready, *after = (
        load_ready_table(
            path,
            attributes=list_names(args),
            within=split_names(args.within),
            allow_negative=args.allow_negative,
            unknown=list_unknown(args),
            names={name: getattr(args, f"{name}_column") for name in (ID, SCORED, SELECTED, JOB, WEIGHT)},
            bins=parse_bins(args.bins),
        )
        for path in filter(None, (args.scores, args.scores_after))
    )
    config = make_config(args, ready.table, list_names(args) or ready.table.names)
    audit = audit_ready_table(ready, config, after=after[0] if after else None)
    source = f"{args.scores} (before) and {args.scores_after} (after)" if after else args.scores
    facts = [
        ("Candidates", f"{len(ready.table.ids):,}{describe_rows(ready)}, from {source}"),
        ("Assessed by", f"column '{ready.kind}'"),
        *describe_medians(audit),
        ("Attributes", ", ".join(map(show_name, config.attributes))),
        *describe_strata(audit),
        *([("Weights", WEIGHTED)] if audit["is_weighted"] else []),
        *describe_unknown(audit),
        *([("Columns not audited", ", ".join(map(show_name, ready.unused)))] if ready.unused else []),
        ("Small cells", describe_hiding(args.min_count)),
    ]
    return audit, facts, []


def audit_jobs(args: argparse.Namespace) -> tuple[dict[str, Any], Facts, list[Rewrite]]:
    """Match postings to candidates and audit the shortlists; with rewrites, of the postings that have one only."""
    jobs = SAMPLE if args.sample else args.jobs
    known, candidates = load_jobs(args, jobs)
    candidates, taken = unify_candidates(candidates, unknown=list_unknown(args), names=list_names(args))
    known_names = AttributeTable.from_candidates(candidates).names  # refuses what is no text
    people = args.candidates or ("sample" if args.sample else "the jobs' own source")
    declared = {name: [candidate.attributes.get(name, "") for candidate in candidates] for name in known_names}
    bins = parse_bins(args.bins)
    names = list_names(args) or choose_attributes(declared, bins=bins, where=people)
    candidates, table = bin_candidates(candidates, declared, names, bins)
    config = make_config(args, table, names)
    rewrite_of = (
        load_rewrites(args.rewrites, known=known, policy=args.policy, guardrails=args.guardrails)
        if args.rewrites
        else {}
    )
    postings = [posting for posting in known if not rewrite_of or posting.id in rewrite_of]
    rewrites = [rewrite_of[posting.id] for posting in postings if rewrite_of]
    matcher = make_matcher(args.matcher, candidates, options=parse_options(args.matcher_options))
    audit = audit_market(postings, candidates, config, matcher=matcher, rewrites=rewrites)
    audit["taken_as_unknown"] = list_values(taken)
    warn_of_unknown(taken, where=people)
    rewritten = f" that were rewritten, of {len(known):,}" if len(postings) < len(known) else ""
    part = f" (a random part, seed {args.seed})" if args.max_postings else ""
    reached = [f"{n:,} different people{f' {phase}' if rewrites else ''}" for phase, n in audit["n_reached"].items()]
    facts = [
        ("Postings", f"{len(postings):,}{rewritten}{part}, from {jobs}"),
        ("Candidates", f"{len(candidates):,}, from {people}"),
        ("Matcher", f"{args.matcher}: a shortlist of {args.top}, of which the first {args.selected} are selected"),
        ("On any shortlist", ", ".join(reached)),
        *(
            (f"Equal scores{f', {phase}' if rewrites else ''}", describe_ties(ties, len(postings), seed=args.seed))
            for phase, ties in audit["ties"].items()
        ),
        *describe_medians(audit),
        (
            "Attributes",
            ", ".join(map(show_name, config.attributes)) + " (declared by the data's owner, never inferred)",
        ),
        *describe_unknown(audit),
        ("Score", f"{args.distance}, target {args.target}, weights {args.weights}"),
        ("Small cells", describe_hiding(args.min_count)),
        ("Seed", str(args.seed)),
    ]
    scored = list_scored(audit, config)
    if not rewrites and args.matcher in HEADROOM_MATCHERS and scored:
        scores = [replace(choose_score(config, name), k=args.top) for name in scored]
        some = choose_some(postings, HEADROOM_POSTINGS, seed=args.seed)
        edits, groups = list_edits(some, operators=tuple(OPERATORS), seed=args.seed), [p.group for p in some]
        found = describe_headroom(edits, table, scores, matcher=matcher, groups=groups, seed=args.seed)
        facts += [("Headroom of rewording", " ".join(found))] if found else []
    if rewrites:
        facts.insert(1, ("Rewrites", f"{len(rewrites):,}, from {args.rewrites}"))
    if SAMPLE in (jobs, args.candidates):
        note = f"generated; wording and groups go together with strength {args.plant:g} (0: not at all)"
        facts.append(("Sample", note))
    return audit, facts, rewrites


def bin_candidates(
    candidates: Sequence[Candidate], declared: Mapping[str, Sequence[str]], names: Sequence[str], bins: Bins
) -> tuple[list[Candidate], AttributeTable]:
    """Return the candidates with numbers in bins, and their table."""
    binned = bin_columns({name: declared[name] for name in names if name in declared}, bins)
    changed = [
        replace(candidate, attributes={**candidate.attributes, **{name: of[row] for name, of in binned.items()}})
        for row, candidate in enumerate(candidates)
    ]
    return changed, AttributeTable.from_candidates(changed)


def load_jobs(args: argparse.Namespace, jobs: str) -> tuple[list[Posting], list[Candidate]]:
    """Load the postings, or a random part of them, and the candidates: the jobs' own if none are named, or refuse."""
    path = "" if jobs == SAMPLE else jobs
    if not (args.candidates or has_candidates(path)):
        raise UserError(
            f"--jobs {jobs} brings no candidates. Give --candidates candidates.jsonl, or --candidates sample to audit "
            "generated people."
        )
    market = load_market(path=path, candidates_path=args.candidates, seed=args.seed, plant=args.plant)
    return choose_some(market.postings, args.max_postings, seed=args.seed), market.candidates


def make_matcher(
    name: str, candidates: Sequence[Candidate], *, options: Mapping[str, Any] = MappingProxyType({})
) -> Matcher:
    """Return a matcher of the candidates, with options of its own, such as an encoder's `path`.

    A `UserError` is raised where the matcher or an option is unknown, or the matcher cannot rank these candidates.
    """
    source = make_source(name, options=options)
    with tempfile.TemporaryDirectory() as folder:
        return source.make(candidates, folder=Path(folder))


def make_source(name: str, *, options: Mapping[str, Any] = MappingProxyType({})) -> MatcherSource:
    """Return what makes a matcher, with options of its own; an unknown name or option is a `UserError`."""
    check_known(MATCHERS, matcher=name)
    if name in ("encoder", "embeddings"):
        import ilqljax.hiring.matching.encoders  # registers them; it needs jax, which the others do not
    elif name == "postgres":
        import ilqljax.hiring.matching.postgres
    elif name != "tfidf":
        import ilqljax.hiring.matching.http  # noqa: F401  (registers it, and "callable")
    return build("matcher", {"name": name, **options}, context=BuildContext(), path="--matcher_options")


def parse_options(text: str) -> dict[str, Any]:
    """Read "path=DIR, max_length=128": numbers and True or False as such, everything else as text."""
    options: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key:
            raise UserError(f"--matcher_options: {part!r} is not an assignment. Write key=value, separated by commas.")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return options


def load_rewrites(
    path: str | Path, *, known: Sequence[Posting], policy: str = "", guardrails: str = "edits"
) -> dict[str, Rewrite]:
    """Load rewrites by posting id: a JSONL file of {"id", "text"}, or a run's `evaluation.jsonl`.

    In an evaluation file ("posting_id", "rewrite", "policy", "guardrail_failures") one policy is audited. Guardrails
    are checked here where the file does not say what failed, in the mode that `guardrails` names (`MODES`).

    Raises:
        UserError: a malformed line, a posting that is not known or occurs twice, several policies and none named, or a
            run's file that was changed since it was written.
    """
    check_checksum(path)
    posting_of = {posting.id: posting for posting in known}
    by_policy: dict[str, dict[str, Rewrite]] = {}
    for where, row in read_json_lines(path):
        check_spelling(row, ("policy", "guardrail_failures", "guardrail_reasons"), where=where)
        name = read_field(row, "policy", kind=str, where=where, default=DEFAULT_POLICY)
        posting_id = read_field(row, "posting_id" if "posting_id" in row else "id", kind=str, where=where)
        rewrites = by_policy.setdefault(name, {})
        if posting_id not in posting_of:
            raise UserError(f"{where}: there is no posting '{posting_id}' in the jobs. Remove the line or add the job.")
        if posting_id in rewrites:
            raise UserError(
                f"{where}: the posting '{posting_id}' was already rewritten at {rewrites[posting_id].where}. Keep one."
            )
        text = read_field(row, "rewrite" if "rewrite" in row else "text", kind=str, where=where)
        rewrites[posting_id] = _read_rewrite(
            row, posting_of[posting_id], text, policy=name, where=where, guardrails=guardrails
        )
    if not by_policy:
        raise UserError(f"{path}: holds no rewrite. Give lines of {{'id': ..., 'text': ...}}.")
    names = ", ".join(map(repr, by_policy))
    if policy and policy not in by_policy:
        raise UserError(f"{path}: has no policy '{policy}'. It has: {names}.")
    if not policy and len(by_policy) > 1:
        raise UserError(f"{path}: holds rewrites of several policies. Name one with --policy: {names}.")
    return by_policy[policy or next(iter(by_policy))]


def _read_rewrite(row: Mapping, posting: Posting, text: str, *, policy: str, where: str, guardrails: str) -> Rewrite:
    prompt, text = build_prompt(posting), normalize_spaces(text)
    if "guardrail_failures" in row:
        names = read_field(row, "guardrail_failures", kind=list, where=where)
        reasons = read_field(row, "guardrail_reasons", kind=list, where=where, default=[])
        if not all(isinstance(value, str) for value in (*names, *reasons)):
            raise UserError(f"{where}: 'guardrail_failures' and 'guardrail_reasons' must be lists of texts.")
    else:
        failures = check_rewrite(posting, text, prompt, mode=guardrails)
        names, reasons = sorted({failure.check for failure in failures}), [failure.reason for failure in failures]
    return Rewrite(
        policy=policy,
        posting_id=posting.id,
        company=posting.company,
        prompt=prompt,
        original=normalize_spaces(posting.description),
        text=text,
        failed_checks=tuple(names),
        reasons=tuple(reasons),
        where=where,
    )


def list_scored(audit: Mapping[str, Any], config: AuditConfig) -> list[str]:
    """Return the attributes whose scores are told, for none of their cells is hidden."""
    return [
        section["name"] for section in audit["attributes"] if section["scores"] and section["name"] in config.attributes
    ]


def describe_unknown(audit: Mapping[str, Any]) -> Facts:
    """Say which values were taken as unknown, if there are any."""
    taken = [
        f"{show_name(name)}: {', '.join(map(repr, map(show_name, values)))}"
        for name, values in audit["taken_as_unknown"].items()
    ]
    return [("Taken as unknown", "; ".join(taken))] if taken else []


def describe_strata(audit: Mapping[str, Any]) -> Facts:
    """Say what the strata are, if there are any."""
    if not (within := audit["within"]):
        return []
    unknown = f"; {within['n_unknown']:,} rows are of none" if within["n_unknown"] else ""
    return [("Compared within", f"the same {', '.join(within['names'])}: {within['n_strata']:,} strata{unknown}")]


def describe_rows(ready: ReadyTable) -> str:
    """Say how many rows a table has where these are not its people."""
    if ready.jobs:
        return f" people in {len(ready.values):,} person-job pairs of {len(set(ready.jobs)):,} jobs"
    return f" people in {len(ready.values):,} rows" if ready.has_repeats else ""


def describe_hiding(min_count: int) -> str:
    """Say which cells are hidden."""
    return f"those of fewer than {min_count} people are hidden" if min_count else "all are shown"
