"""Optimizers: AdamW as torch.optim.AdamW computes it, and Muon; with a learning-rate schedule and clipped gradients."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int
from optax.contrib import MuonDimensionNumbers, muon

from ilqljax.data.types import Array
from ilqljax.errors import UserError, check_known, check_range
from ilqljax.models import cpu
from ilqljax.models.cpu import use_cpu_tricks


@dataclass(frozen=True)
class OptimConfig:
    """Which optimizer, its options and its schedule.

    Attributes:
        optimizer: "adamw" (Loshchilov & Hutter 2019), or "muon" (Jordan et al. 2024) for hidden layers' kernels.
        lr: peak learning rate.
        schedule: what follows the warm-up: "constant", "cosine" or "linear" (both down to `lr * end_lr_fraction`).
        warmup_steps: updates over which the rate rises linearly to `lr`; 0 is off.
        total_steps: updates of the whole run; needed by "cosine" and "linear".
        end_lr_fraction: share of `lr` left at `total_steps`.
        weight_decay: decoupled decay of *all* parameters, multiplied by the learning rate.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        max_grad_norm: global norm to which gradients are clipped; 0 is off.
    """

    optimizer: str = "adamw"
    lr: float = 1e-4
    schedule: str = "constant"
    warmup_steps: int = 0
    total_steps: int = 0
    end_lr_fraction: float = 0.0
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 0.0

    def __post_init__(self) -> None:
        check_known(("adamw", "muon"), optimizer=self.optimizer)
        check_known(("constant", "cosine", "linear"), schedule=self.schedule)
        check_range(self, "[0, inf)", "lr", "warmup_steps", "total_steps", "weight_decay", "eps")
        check_range(self, "[0, inf]", "max_grad_norm")
        check_range(self, "[0, 1)", "b1", "b2")
        check_range(self, "[0, 1]", "end_lr_fraction")
        if self.schedule != "constant" and self.total_steps <= self.warmup_steps:
            raise UserError(
                f"schedule={self.schedule!r} with total_steps={self.total_steps} and warmup_steps={self.warmup_steps} "
                "leaves no step after the warm-up. Set warmup_steps=-1 (a twentieth), or schedule='constant'."
            )


def make_schedule(config: OptimConfig) -> optax.Schedule:
    """Make the function from updates done so far to the learning rate of the next one.

    With lr 1, warmup_steps 2, total_steps 6 and end_lr_fraction 0:

    | updates done | 0   | 1 | 2 | 3    | 4   | 5    | 6 |
    |--------------|-----|---|---|------|-----|------|---|
    | constant     | 0.5 | 1 | 1 | 1    | 1   | 1    | 1 |
    | linear       | 0.5 | 1 | 1 | 0.75 | 0.5 | 0.25 | 0 |
    | cosine       | 0.5 | 1 | 1 | 0.85 | 0.5 | 0.15 | 0 |

    The first update already has a rate above 0, and every rate of the table but the last one is used.
    """
    decay_steps = max(config.total_steps - config.warmup_steps, 1)

    def schedule(count: Int[Array, ""] | int) -> Float[Array, ""]:
        warmup = jnp.minimum(1.0, (count + 1) / max(config.warmup_steps, 1))
        progress = jnp.clip((count - config.warmup_steps) / decay_steps, 0.0, 1.0)
        left = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * progress))}
        share = config.end_lr_fraction + (1.0 - config.end_lr_fraction) * left[config.schedule]
        return config.lr * warmup * share

    return schedule


def global_norm(tree: Any) -> Float[Array, ""]:
    """Compute the Euclidean norm over all leaves."""
    if use_cpu_tricks():
        return cpu.global_norm(tree)
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def clip_by_norm(limit: float) -> optax.GradientTransformation:
    """Scale gradients down to a global norm of `limit` where it is above (torch's `clip_grad_norm_`); 0 is off."""

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        if not limit:
            return cpu.await_gradients(updates) if use_cpu_tricks() else updates, state
        norm = global_norm(updates)
        return jax.tree.map(lambda g: jnp.where(norm > limit, g / norm * limit, g), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Make the optimizer. Its state's structure depends on its name alone, so a resumed run may change other options.

    Gradients are clipped before the moments see them, as torch's `clip_grad_norm_` before `step` does.
    """
    adam = {"b1": config.b1, "b2": config.b2, "eps": config.eps, "weight_decay": config.weight_decay}
    rule = _make_muon(config) if config.optimizer == "muon" else optax.adamw(make_schedule(config), **adam)
    return optax.chain(clip_by_norm(config.max_grad_norm), rule)


def _make_muon(config: OptimConfig) -> optax.GradientTransformation:
    """Make Muon (Jordan et al. 2024) for the kernels of blocks and of heads' hidden layers, and for the rest AdamW.

    Muon moves a kernel by its momentum made orthogonal, all singular values about 1, so that directions whose gradients
    are small move as far as the others. Updates are scaled to a root mean square of 0.2 `config.lr` (Liu et al. 2025,
    arXiv 2502.16982), about AdamW's, so that one learning rate serves both. This AdamW looks ahead (Nesterov's
    momentum), unlike "adamw", as optax pairs the two.
    """

    def find_axes(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: _kernel_axes([key.key for key in path]), params)

    return muon(
        make_schedule(config),
        weight_decay=config.weight_decay,
        eps=config.eps,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=find_axes,
        consistent_rms=0.2,
    )


def _kernel_axes(path: list[str]) -> MuonDimensionNumbers | None:
    """Return which axes of a hidden layer's kernel are inputs and outputs; None for any other parameter."""
    if path[-1] != "kernel" or path[-2] == "dense_out":
        return None
    return MuonDimensionNumbers(1, 2) if "h" in path else MuonDimensionNumbers(0, 1)  # [L I O] of all blocks, [I O]
