"""Metrics on their way out: fetched one step late, written to files and services, shown as progress."""

import collections
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from tqdm import tqdm

from ilqljax.data.files import advise_writing, parse_json, save_text
from ilqljax.errors import UserError, check_known
from ilqljax.training.compilation import CompilationCounter
from ilqljax.training.run_config import TrainConfig

SECONDS_BETWEEN_LINES = 30.0  # of progress, where there is no terminal
LAYOUT = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"  # where there is one


class MetricWriter(Protocol):
    """What all writers offer; `close` writes out what is held back, and lets go of files and connections."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class JsonlWriter:
    """Append one JSON object per step to a file: `{"step": 10, "train/loss": 2.5}`. Every line is flushed.

    JSON has no NaN and no infinity; they are written as null.
    """

    def __init__(self, path: str | Path, *, resume_step: float = math.inf) -> None:
        """Open the file to append to it, and create its folder where it is missing.

        Records of steps after `resume_step`, which a run continues from, are dropped, for they will come again. So are
        a last line that was cut off and the NUL bytes that a loss of power leaves at the end; another line that is not
        a record is a `UserError`.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _truncate_records(path, resume_step)
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        record = {"step": int(step)} | {name: v if math.isfinite(v) else None for name, v in values.items()}
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self._file.name}: cannot be written ({error.strerror}). {advise_writing(error)}"
            ) from error

    def close(self) -> None:
        self._file.close()


def _truncate_records(path: Path, last_step: float) -> None:
    """Rewrite a file of records without those after a step, and without a last line that was cut off."""
    advice = "Mend or move the file, then resume."
    raw, kept = path.read_bytes(), []
    for number, line in enumerate(raw.rstrip(b"\0").splitlines(keepends=True), start=1):
        if line.startswith(b"{") and not line.endswith(b"\n"):
            break
        record = parse_json(line, path, line=number, advice=advice)
        if not isinstance(record.get("step"), int):
            raise UserError(f"{path}:{number}: not a metric record with an integer 'step'. {advice}")
        if record["step"] <= last_step:
            kept.append(line)
    if (left := b"".join(kept)) != raw:
        save_text(path, left.decode())


class TensorBoardWriter:
    """Write scalars for TensorBoard, to a new event file; it hides the events after `resume_step` of older ones."""

    def __init__(self, directory: Path, *, resume_step: int) -> None:
        from tensorboardX import SummaryWriter  # here: it takes a while

        self._writer = SummaryWriter(logdir=str(directory), purge_step=resume_step + 1)
        self.close = self._writer.close

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), int(step))


def import_wandb() -> Any:
    """Return the module `wandb`; a `UserError` where it is not installed."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        if error.name != "wandb":
            raise
        raise UserError(
            "config.wandb.use_wandb needs wandb. Run: pip install 'ilqljax[wandb]', or set it to false."
        ) from error
    return wandb


class WandbWriter:
    """Log to Weights & Biases."""

    def __init__(self, project: str, *, directory: Path, name: str, mode: str, config: Mapping[str, Any]) -> None:
        """Start a run whose local files go to a folder, and which is shown under a name with a config's plain values.

        The mode is "online", "offline" (sync later with `wandb sync`) or "disabled"; "" follows WANDB_MODE.
        """
        check_known(("online", "offline", "disabled", ""), **{"config.wandb.mode": mode})
        wandb = import_wandb()
        directory.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project, dir=str(directory), name=name, resume="allow", mode=mode or None, config=dict(config)
        )
        self.close = self._run.finish

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({name: float(value) for name, value in metrics.items()}, step=int(step))


def measure_peak_memory() -> float | None:
    """Return the most memory that this process has held, in GB; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


class NonFiniteError(UserError, FloatingPointError):
    """Report a loss, or parameters, that became NaN or infinite."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}. Resume the run, which goes on from the last checkpoint, with a lower learning rate, gradient "
            "clipping (max_grad_norm=1.0), a longer warm-up or, for ILQL, bounded advantage weights (clip_weight). If "
            "that does not help, start a new run with float32 activations if these are bfloat16, or with rewards of "
            "another scale."
        )


class Pace:
    """Measure how fast steps follow each other: what the metrics say of tokens per second, and of time lost to data.

    Steps count from the end of the one that follows `restart`, so that compilation, evaluations and checkpoints stay
    out.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; `clock` gives seconds."""
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Leave out what went by since the last step, and the step that comes next."""
        self._since: float | None = None
        self._steps: list[tuple[float, float, float]] = []

    def count(self, *, tokens: float, waited: float, flops: float) -> None:
        """Count a step that has just ended: its tokens, seconds it waited for its batch, operations of its products."""
        if self._since is None:
            self._since = self._clock()
        else:
            self._steps.append((tokens, waited, flops))

    def read(self) -> dict[str, float]:
        """Return the means since the last reading, and begin again; nothing where no step was counted."""
        if not self._steps:
            return {}
        now = self._clock()
        seconds, n_steps = max(now - self._since, 1e-9), len(self._steps)
        tokens, waited, flops = map(sum, zip(*self._steps, strict=True))
        self._since, self._steps = now, []
        return {
            "tokens_per_second": tokens / seconds,
            "step_seconds": seconds / n_steps,
            "data_wait_seconds": waited / n_steps,
            "flops_per_second": flops / seconds,
        }


class ProgressBar(contextlib.AbstractContextManager):
    """Show step, loss, tokens and operations per second, and time left on stderr.

    A terminal gets a bar; anything else (a log file, CI) a line now and then. The rates are those of the last updates,
    from the end of the first one on, so that neither compilation nor a pause distorts them for long.
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        initial: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at `initial` of `total` steps; `stream` stands in for stderr, and `clock` gives seconds."""
        self._total, self._description, self._clock = total, description, clock
        self._stream = sys.stderr if stream is None else stream
        self._done = np.zeros(2)  # tokens and operations
        self._recent: collections.deque[np.ndarray] = collections.deque(maxlen=50)  # time, step, tokens, operations
        self._last_line, self._line_at = "", clock()
        how = {"desc": description, "bar_format": LAYOUT, "disable": not self._stream.isatty()}
        self._bar = tqdm(total=total, initial=initial, file=self._stream, **how)

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if self._last_line:
            self.message(self._last_line)

    def update(self, step: int, *, tokens: float, loss: float, flops: float) -> None:
        """Show that `step` steps are done, the latest of which had so many tokens and operations."""
        self._done += (tokens, flops)
        self._recent.append(np.array([self._clock(), step, *self._done]))
        status = f"loss {loss:.4g}"
        seconds, steps, tokens, flops = self._recent[-1] - self._recent[0]
        if seconds > 0:
            rates = (tqdm.format_sizeof(tokens / seconds), tqdm.format_sizeof(flops / seconds))
            left = tqdm.format_interval((self._total - step) * seconds / steps)
            status += ", {} tokens/s, {}FLOP/s, {} left".format(*rates, left)
        if not self._bar.disable:
            self._bar.set_postfix_str(status, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        self._last_line = f"{self._description}: {step}/{self._total}, {status}"
        if self._clock() >= self._line_at + SECONDS_BETWEEN_LINES:
            self.message(self._last_line)
            self._last_line, self._line_at = "", self._clock()

    def message(self, text: str) -> None:
        """Print a line of text without tearing the bar."""
        tqdm.write(text, file=self._stream)
        self._stream.flush()


class Recorder:
    """Take a training's metrics to its writers and its progress bar.

    A step's stay on the device until the next step is under way, so that fetching them never stalls the loop.

    | call               | records | on the device meanwhile |
    |--------------------|---------|-------------------------|
    | `push(1, metrics)` | nothing | step 1                  |
    | `push(2, metrics)` | step 1  | step 2                  |
    | `flush()`          | step 2  | nothing                 |

    Either raises a `NonFiniteError` where a loss of the step that it would record is NaN or infinite.
    """

    def __init__(
        self,
        settings: TrainConfig,
        *,
        writers: Sequence[MetricWriter],
        bar: ProgressBar,
        compilations: CompilationCounter,
    ) -> None:
        """Begin; the settings say which steps are written."""
        self.settings, self.writers, self.bar, self.compilations = settings, writers, bar, compilations
        self.pace = Pace()
        self._held: tuple[int, Mapping[str, Any]] | None = None
        self._losses: list[float] = []

    def push(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Take over a step's scalars, and record those of the step before."""
        for value in metrics.values():
            if hasattr(value, "copy_to_host_async"):
                value.copy_to_host_async()
        self.flush()
        self._held = (step, metrics)

    def flush(self) -> None:
        """Record the metrics still held, if any; waits for the device."""
        if self._held is None:
            return
        (step, metrics), self._held = self._held, None
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        for name, value in values.items():
            if (name == "loss" or name.endswith("_loss")) and not math.isfinite(value):
                raise NonFiniteError(f"{name} is {value} at step {step}")
        self._losses.append(values["loss"])
        work = {"tokens": values["tokens"], "flops": values.pop("flops")}
        self.bar.update(step, loss=values["loss"], **work)
        self.pace.count(waited=values.pop("data_wait"), **work)
        if step % self.settings.log_every == 0 or step == self.settings.total_steps:
            found = values | self.pace.read() | self.compilations.read()
            self.write(step, {f"train/{name}": value for name, value in found.items()})

    def take_mean_loss(self) -> dict[str, float]:
        """Return the mean training loss of the steps recorded since the last call, by name; {} where there is none."""
        losses, self._losses = self._losses, []
        return {"train/loss": sum(losses) / len(losses)} if losses else {}

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Have all writers write."""
        for writer in self.writers:
            writer.write(step, metrics)
