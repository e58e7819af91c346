"""Load postings and candidates from any known source, detecting the format when it is not named."""

from pathlib import Path

from ilqljax.data.json_lines import read_json_lines
from ilqljax.errors import UserError, check_known
from ilqljax.hiring.market.sample import make_market
from ilqljax.hiring.postings import hackernews, workable
from ilqljax.hiring.postings.posting import Market, load_candidates, load_postings

SAMPLE = "sample"
SOURCES = (SAMPLE, "jobs", "workable_raw", "workable_prepared", "hackernews")
JOBS_FILES = ("jobs.jsonl", "jobs.jsonl.gz")
CANDIDATES_FILES = ("candidates.jsonl", "candidates.jsonl.gz")


def detect_source(path: str | Path) -> str:
    """Return the name in `SOURCES` of the format at a path ("" is the sample), or raise a `UserError` if none fits."""
    if not str(path):
        return "sample"
    path = Path(path)
    if path.is_dir():
        if any((path / name).is_file() for name in JOBS_FILES):
            return "jobs"
        if (path / workable.JOBS_FOLDER).is_dir():
            return "workable_prepared"
        if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
            return "hackernews"
        raise UserError(
            f"{path}: holds neither jobs.jsonl, nor {workable.JOBS_FOLDER}/, nor a saved Hugging Face dataset. "
            f"Give one of these, a file, or name the source ({', '.join(SOURCES)})."
        )
    keys = set(next((row for _, row in read_json_lines(path, take_null=True) if row), {}))
    if not keys:
        raise UserError(f"{path}: is empty. Give a file with at least one posting.")
    if keys >= workable.RAW_KEYS:
        return "workable_raw"
    if "description" in keys:
        return "jobs"
    if (
        keys >= hackernews.RAW_KEYS
        or keys >= hackernews.ITEM_KEYS
        or (keys & {"text", "cleaned_text"} and keys & hackernews.PREPARED_KEYS)
    ):
        return "hackernews"
    raise UserError(
        f"{path}:1: the fields {sorted(keys)} are of no known format. Expected id, title, description (jobs.jsonl); "
        "job, candidates (Workable); or id, text, locations, remote (Hacker News). Rename them or name the source."
    )


def load_market(
    *,
    source: str = "",
    path: str | Path = "",
    candidates_path: str | Path = "",
    seed: int = 0,
    plant: float = 0.8,
    n_postings: int = 300,
    n_candidates: int = 2000,
) -> Market:
    """Load or make the postings and candidates; the arguments are options of `data.prepare.DataConfig`.

    The candidates' path "sample" stands for the sample's people. An unknown source, a path that does not go with it,
    and bad data raise a `UserError`.
    """
    source, sample = source or detect_source(path), {"seed": seed, "n_candidates": n_candidates, "plant": plant}
    check_known(SOURCES, source=source)
    if source == "sample":
        if str(path):
            raise UserError(
                f"source='sample' takes no path, got '{path}'. Leave the path empty, or name another source."
            )
        market = Market(*make_market(n_postings=n_postings, **sample), {})
    elif not str(path):
        raise UserError(f"source='{source}' needs the path of its data. Give --path.")
    elif source == "jobs":
        path = Path(path)
        folder, jobs = (path, _find_file(path, JOBS_FILES)) if path.is_dir() else (path.parent, path)
        candidates_path = candidates_path if str(candidates_path) else _find_file(folder, CANDIDATES_FILES)
        market = Market(load_postings(jobs), [], {}, (jobs,))
    elif source == "workable_raw":
        market = Market(*workable.load_raw_workable(path), {}, (Path(path),))
    elif source == "workable_prepared":
        market = workable.load_prepared_workable(path)._replace(files=_list_files(Path(path)))
    else:
        postings = hackernews.load_hackernews(path)
        people = [] if str(candidates_path) else make_market(**sample)[1]
        market = Market(postings, people, {}, _list_files(Path(path)))
    if not str(candidates_path):
        return market
    if str(candidates_path) == SAMPLE:
        return market._replace(candidates=make_market(**sample)[1])
    people = load_candidates(candidates_path)
    return market._replace(candidates=people, files=(*market.files, Path(candidates_path)))


def has_candidates(path: str | Path) -> bool:
    """Return whether a source brings candidates of its own; `detect_source` says what is refused."""
    source, path = detect_source(path), Path(path)
    folder = path if path.is_dir() else path.parent
    return source != "hackernews" and (source != "jobs" or _find_file(folder, CANDIDATES_FILES).is_file())


def _find_file(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the first of the named files that exists, else the first name, whose absence is then reported."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def _list_files(path: Path) -> tuple[Path, ...]:
    return tuple(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else (path,)
