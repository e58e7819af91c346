"""Metrics on their way out: fetched one step late, written to files and services, shown as progress."""

import collections
import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from tqdm import tqdm

from ilqljax.data.files import save_text
from ilqljax.errors import UserError

# --- Writers ----------------------------------------------------------------------------------------------------------


class MetricWriter(Protocol):
    """What all writers offer."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step."""

    def close(self) -> None:
        """Write out what is held back, and let go of files and connections."""


class JsonlWriter:
    """Append one JSON object per step to a file: `{"step": 10, "train/loss": 2.5}`. Every line is flushed.

    JSON has no NaN and no infinity; they are written as null.
    """

    def __init__(self, path: str | Path, *, resume_step: int | None = None) -> None:
        """Open the file, and create its folder where it is missing.

        Args:
            path: the file; an existing one is appended to.
            resume_step: the step a run continues from; records of later steps are dropped, for they will come again.

        Raises:
            UserError: the file has a line that is no record; a last line that was cut off is dropped instead.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _truncate_records(self.path, math.inf if resume_step is None else resume_step)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line."""
        values = {name: float(value) for name, value in metrics.items()}
        record = {"step": int(step)} | {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _truncate_records(path: Path, last_step: float) -> None:
    """Rewrite a file of records without those after a step, and without a last line that was cut off."""
    try:
        lines = path.read_bytes().decode("utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Mend or move the file, then resume.") from error
    kept = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n") and line.startswith("{"):
            break
        if _read_step(line, where=f"{path}:{number}") <= last_step:
            kept.append(line)
    if kept == lines:
        return
    save_text(path, "".join(kept))


def _read_step(line: str, *, where: str) -> int:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON ({error}). Mend or move the file, then resume.") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise UserError(f"{where}: no metric record with an integer 'step'. Mend or move the file, then resume.")
    return record["step"]


class TensorBoardWriter:
    """Write scalars for TensorBoard."""

    def __init__(self, directory: str | Path, *, resume_step: int | None = None) -> None:
        """Open a new event file in a folder; events after `resume_step` are hidden by TensorBoard."""
        # Imported here: it takes a while, and programs that only read metrics do not need it.
        from tensorboardX import SummaryWriter

        purge_step = None if resume_step is None else resume_step + 1
        self._writer = SummaryWriter(logdir=str(directory), purge_step=purge_step)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one scalar per metric."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), int(step))

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WandbWriter:
    """Log to Weights & Biases."""

    def __init__(
        self,
        project: str,
        *,
        directory: str | Path,
        name: str = "",
        run_id: str = "",
        mode: str = "",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Start, or with a known `run_id` continue, a run.

        Args:
            project: the project's name.
            directory: the folder that the run's local files go to.
            name: shown name; "" lets the service choose.
            run_id: identity for resuming; "" makes a new one.
            mode: "online", "offline" (sync later with `wandb sync`) or "disabled"; "" follows WANDB_MODE.
            config: plain values to show with the run.

        Raises:
            UserError: wandb is not installed, or the mode is unknown.
        """
        if mode not in ("", "online", "offline", "disabled"):
            raise UserError(
                f"config.wandb.mode={mode!r} is unknown. Known: online, offline, disabled, or '' (WANDB_MODE)."
            )
        try:
            import wandb
        except ModuleNotFoundError as error:
            if error.name != "wandb":
                raise
            raise UserError(
                "config.wandb.use_wandb is set, but wandb is not installed. "
                "Run: pip install 'ilqljax[wandb]', or set config.wandb.use_wandb=false."
            ) from error
        Path(directory).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project,
            dir=str(directory),
            name=name or None,
            id=run_id or None,
            resume="allow",
            mode=mode or None,
            config=dict(config or {}),
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log({name: float(value) for name, value in metrics.items()}, step=int(step))

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MultiWriter:
    """Write to several writers; a context manager that closes them all."""

    def __init__(self, writers: Sequence[MetricWriter]) -> None:
        self._writers = tuple(writers)

    def __enter__(self) -> "MultiWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step to all writers."""
        for writer in self._writers:
            writer.write(step, metrics)

    def close(self) -> None:
        """Close all writers."""
        for writer in self._writers:
            writer.close()


# --- From the device --------------------------------------------------------------------------------------------------


NON_FINITE_ADVICE = (
    "Resume the run, which goes on from the last checkpoint, with a lower learning rate, gradient clipping "
    "(max_grad_norm=1.0), a longer warm-up or, for ILQL, bounded advantage weights (clip_weight). If that does not "
    "help, start a new run with float32 activations if these are bfloat16, or with rewards of another scale."
)


class NonFiniteLossError(UserError, FloatingPointError):
    """Report a loss that became NaN or infinite.

    Attributes:
        step: the step whose loss it is.
        name: the metric's name.
        value: nan, inf or -inf.
    """

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f"{name} is {value} at step {step}. {NON_FINITE_ADVICE}")
        self.step, self.name, self.value = step, name, value


class NonFiniteParamsError(UserError, FloatingPointError):
    """Report parameters that became NaN or infinite in a step whose loss, which is that before the update, is finite.

    Attributes:
        step: the last step that was taken.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"parameters are NaN or infinite after step {step}. {NON_FINITE_ADVICE}")
        self.step = step


class DelayedMetrics:
    """Hold a step's device metrics until the next step is under way, so that fetching them never stalls the loop.

    | call               | returns              | on the device meanwhile |
    |--------------------|----------------------|-------------------------|
    | `push(1, metrics)` | None                 | step 1                  |
    | `push(2, metrics)` | (1, floats)          | step 2                  |
    | `flush()`          | (2, floats)          | nothing                 |
    """

    def __init__(self) -> None:
        self._held: tuple[int, Mapping[str, Any]] | None = None

    def push(self, step: int, metrics: Mapping[str, Any]) -> tuple[int, dict[str, float]] | None:
        """Take over a step's scalars and return those of the step before, if there is one.

        Raises:
            NonFiniteLossError: the loss of the step *before* is NaN or infinite.
        """
        for value in metrics.values():
            if hasattr(value, "copy_to_host_async"):
                value.copy_to_host_async()
        fetched = self.flush()
        self._held = (step, metrics)
        return fetched

    def flush(self) -> tuple[int, dict[str, float]] | None:
        """Return the metrics still held, if any; waits for the device.

        Raises:
            NonFiniteLossError: the step's loss is NaN or infinite.
        """
        if self._held is None:
            return None
        (step, metrics), self._held = self._held, None
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        for name, value in values.items():
            if (name == "loss" or name.endswith("_loss")) and not math.isfinite(value):
                raise NonFiniteLossError(step, name, value)
        return step, values


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
        self._n_steps, self._tokens, self._waited, self._flops = 0, 0.0, 0.0, 0.0

    def count(self, *, tokens: float, waited: float, flops: float = 0.0) -> None:
        """Count a step that has just ended: its tokens, seconds it waited for its batch, operations of its products."""
        if self._since is None:
            self._since = self._clock()
            return
        self._n_steps += 1
        self._tokens += tokens
        self._waited += waited
        self._flops += flops

    def read(self) -> dict[str, float]:
        """Return the means since the last reading, and begin anew; nothing where no step was counted."""
        if self._since is None or not self._n_steps:
            return {}
        now = self._clock()
        seconds = max(now - self._since, 1e-9)
        found = {
            "tokens_per_second": self._tokens / seconds,
            "step_seconds": seconds / self._n_steps,
            "data_wait_seconds": self._waited / self._n_steps,
            "flops_per_second": self._flops / seconds,
        }
        self._since, self._n_steps, self._tokens, self._waited, self._flops = now, 0, 0.0, 0.0, 0.0
        return found


# --- Progress ---------------------------------------------------------------------------------------------------------


class ProgressBar:
    """Show step, loss, tokens and operations per second, and time left on stderr.

    A terminal gets a bar; anything else (a log file, CI) a line now and then. The rates are those of the last updates,
    from the end of the first one on, so that neither compilation nor a pause distorts them for long.
    """

    def __init__(
        self,
        total: int,
        *,
        initial: int = 0,
        description: str = "",
        interval: float = 30.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin at `initial` of `total` steps.

        Args:
            total: steps of the whole run.
            initial: steps done before, where a run continues.
            description: shown in front.
            interval: seconds between lines where there is no terminal.
            stream: stands in for stderr.
            clock: seconds, for the rates.
        """
        stream = sys.stderr if stream is None else stream
        self._total, self._description, self._interval = total, description, interval
        self._stream, self._clock = stream, clock
        self._recent: collections.deque[tuple[float, int, int, float]] = collections.deque(maxlen=50)
        self._next_line = clock() + interval
        self._last_line = ""
        self._bar = None
        if stream.isatty():
            layout = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
            self._bar = tqdm(total=total, initial=initial, desc=description, file=stream, bar_format=layout)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def update(self, step: int, *, tokens: int, loss: float | None = None, flops: float = 0.0) -> None:
        """Show that `step` steps are done, the latest of which had so many tokens and operations (0: not shown)."""
        _, _, tokens_before, flops_before = self._recent[-1] if self._recent else (0, 0, -tokens, -flops)
        self._recent.append((self._clock(), step, tokens_before + tokens, flops_before + flops))
        status = self._describe(loss)
        if self._bar is not None:
            self._bar.set_postfix_str(status, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        title = f"{self._description}: " if self._description else ""
        self._last_line = ", ".join(filter(None, (f"{title}{step}/{self._total}", status)))
        if self._clock() >= self._next_line:
            self._write_line()

    def message(self, text: str) -> None:
        """Print a line of text without tearing the bar."""
        if self._bar is not None:
            tqdm.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def close(self) -> None:
        """End the bar, or write the last line if it was not shown yet."""
        if self._bar is not None:
            self._bar.close()
        elif self._last_line:
            self._write_line()

    def _write_line(self) -> None:
        self._stream.write(self._last_line + "\n")
        self._stream.flush()
        self._last_line = ""
        self._next_line = self._clock() + self._interval

    def _describe(self, loss: float | None) -> str:
        (start, first_step, first_tokens, first_flops), (now, step, tokens, flops) = self._recent[0], self._recent[-1]
        parts = [] if loss is None else [f"loss {loss:.4g}"]
        if now > start and step > first_step:
            parts.append(f"{format_count((tokens - first_tokens) / (now - start))} tokens/s")
            if flops > first_flops:
                parts.append(f"{format_count((flops - first_flops) / (now - start))}FLOP/s")
            seconds = (self._total - step) * (now - start) / (step - first_step)
            parts.append(f"{tqdm.format_interval(seconds)} left")
        return ", ".join(parts)


def format_count(value: float) -> str:
    """Write a number with three digits and a suffix: 950, 12.3k, 4.56M."""
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def peak_memory_gb() -> float:
    """Return the largest memory this process had, in GB (10^9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
