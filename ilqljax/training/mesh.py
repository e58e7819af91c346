"""The device mesh, and which axis of which array lies on which mesh axis.

Rows of a batch are dealt out over the mesh axes `data` and `fsdp`. Parameters are replicated over `data`, split over
`fsdp` for memory, and over `tensor` for matrix products that are too large for one device.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from ilqljax.data.types import BATCH_AXES
from ilqljax.errors import UserError

P, R = ParamSpec("P"), TypeVar("R")

AXES = ("data", "fsdp", "tensor")

# What a parameter's name (searched in its path) says of its *last* axes, so that a leading layer axis L stays whole.
# The first layout that divides evenly is taken; if none does, the first one without the axes that do not.
# Column-parallel layers split their outputs over `tensor`, the row-parallel ones after them their inputs. A vocabulary
# is often odd: then the other axis takes both mesh axes.
PARTITION_RULES: tuple[tuple[str, tuple[PartitionSpec, ...]], ...] = (
    (r"(^|/)(c_proj|o_proj|down_proj|ff2)/kernel$", (PartitionSpec("tensor", "fsdp"),)),
    (r"(^|/)(c_proj|o_proj|down_proj|ff2)/lora_a$", (PartitionSpec("tensor", None),)),
    (r"(^|/)(c_proj|o_proj|down_proj|ff2)/lora_b$", (PartitionSpec(None, "fsdp"),)),
    (r"(^|/)lora_a$", (PartitionSpec("fsdp", None),)),
    (r"(^|/)lora_b$", (PartitionSpec(None, "tensor"),)),
    (r"(^|/)dense_out/kernel$", (PartitionSpec("fsdp", "tensor"), PartitionSpec(("fsdp", "tensor"), None))),
    (r"(^|/)kernel$", (PartitionSpec("fsdp", "tensor"),)),
    (r"(^|/)(wte|lm_head)$", (PartitionSpec("tensor", "fsdp"), PartitionSpec(None, ("fsdp", "tensor")))),
    (r"(^|/)wpe$", (PartitionSpec(None, "fsdp"),)),
)


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 (on one axis at most) takes what is left.

    Attributes:
        data: devices that share a batch's rows.
        fsdp: devices that share the rows and the parameters.
        tensor: devices that share each layer.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Make the mesh, with axes `data`, `fsdp`, `tensor`, of all devices of all processes unless others are given.

    If the product of the sizes is below the number of devices, the first are used; if above, it is a `UserError`.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _fill_sizes(config, len(devices))
    n_used = math.prod(sizes)
    if n_used < len(devices) and jax.process_count() > 1:
        raise UserError(
            f"config.mesh takes {n_used} of {len(devices)} devices, but with {jax.process_count()} processes each must "
            "take part. Set config.mesh.data=-1."
        )
    # make_mesh defaults to explicit axes, under which flax's embedding look-up fails.
    mesh = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices[:n_used])
    check_owners(np.vectorize(lambda device: device.process_index)(mesh.devices))
    return mesh


def check_owners(processes: Int[np.ndarray, "data fsdp tensor"]) -> None:
    """Refuse a mesh in which processes would share rows: each gives rows of its own to its own devices."""
    if (processes != processes[..., :1]).any():
        n_processes, n_tensor = len(np.unique(processes)), processes.shape[2]
        raise UserError(
            f"config.mesh.tensor={n_tensor} spans several processes: {processes.size} devices are of {n_processes}. "
            f"Use a number that divides the {processes.size // n_processes} devices of a process, and "
            "config.mesh.fsdp to split parameters further."
        )


def _fill_sizes(config: MeshConfig, n_devices: int) -> tuple[int, ...]:
    sizes = {axis: getattr(config, axis) for axis in AXES}
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise UserError(
                f"config.mesh.{axis}={size} is not a number of devices. Use 1 or more, or -1 for what is left."
            )
    fills = [axis for axis, size in sizes.items() if size == -1]
    if len(fills) > 1:
        raise UserError(
            f"config.mesh.{fills[0]} and config.mesh.{fills[1]} are both -1. Give a number for one of them."
        )
    given = {axis: size for axis, size in sizes.items() if size != -1}
    product = math.prod(given.values())
    if fills and n_devices % product:
        needs, rule, remedy = f"a multiple of {product}", f"divides {n_devices}", f"{fills[0]} instead of -1"
    elif not fills and product > n_devices:
        needs, rule, remedy = product, f"is at most {n_devices}", "data=-1"
    else:
        return tuple(n_devices // product if size == -1 else size for size in sizes.values())
    named = " x ".join(f"{axis}={size}" for axis, size in given.items())
    raise UserError(
        f"config.mesh {named} needs {needs} devices, and there are {n_devices}. "
        f"Use sizes whose product {rule}, or set config.mesh.{remedy}."
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch's arrays: rows over `data` and `fsdp`, other axes whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise a `UserError` unless the devices on `data` and `fsdp` can share the rows of all processes evenly."""
    n_data, n_fsdp = (mesh.shape[axis] for axis in BATCH_AXES)
    n = n_data * n_fsdp
    if batch_size > 0 and batch_size % n == 0:
        return
    axes = "mesh axis 'data'" if n_fsdp == 1 else "mesh axes 'data' and 'fsdp'"
    fitting = [d for d in range(1, n_data) if n_data % d == 0 and batch_size > 0 and batch_size % (d * n_fsdp) == 0]
    remedy = f" or set config.mesh.data={fitting[-1]}" if fitting else ""
    raise UserError(
        f"batch_size={batch_size} is not divisible by the {n} devices on {axes}. Use a multiple of {n}{remedy}."
    )


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Put a pytree of NumPy arrays [B ...] on the mesh, rows over `data` and `fsdp`; errors are `check_batch_size`'s.

    With many processes each gives its own B / processes rows, in the order of the processes.
    """
    sharding = batch_sharding(mesh)
    for n_rows in {np.shape(x)[0] for x in jax.tree.leaves(batch)}:
        check_batch_size(n_rows * jax.process_count(), mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def trace_on(mesh: Mesh, function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that is compiled for a mesh know it, so that trunks keep their rows where they were dealt to.

    See `ilqljax.models.chunks.keep_rows`.
    """

    @wraps(function)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*args, **kwargs)

    return traced


def infer_param_shardings(shapes: Any, mesh: Mesh) -> Any:
    """Derive the sharding of every array of a tree from its name and shape, by `PARTITION_RULES`.

    Moments of an optimizer and target networks end in the names of their parameters, so a whole training state can be
    given, or its `jax.eval_shape`. Names without a rule (biases, norms, scalars, keys) and axes that do not divide
    evenly are replicated.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, _partition(path_name(path), leaf.shape, mesh)), shapes
    )


def make_placer(mesh: Mesh) -> Callable[[str, np.ndarray], jax.Array]:
    """Make the function that puts a parameter, given by its path and values, on the mesh as `PARTITION_RULES` say.

    With many processes each is given the values whole, and keeps its own part.
    """

    def place(path: str, array: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, _partition(path, array.shape, mesh))
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return place


def path_name(path: tuple) -> str:
    """Join a key path of `jax.tree_util` with slashes: "opt_state/1/mu/trunk/wte"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _partition(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:

    def count(axes: str | tuple[str, ...] | None) -> int:
        return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))

    layouts = next((layouts for pattern, layouts in PARTITION_RULES if re.search(pattern, name)), ())
    if not layouts or len(shape) < len(layouts[0]):
        return PartitionSpec()
    specs = [(None,) * (len(shape) - len(layout)) + tuple(layout) for layout in layouts]
    kept = [
        tuple(axes if size % count(axes) == 0 else None for size, axes in zip(shape, spec, strict=True))
        for spec in specs
    ]
    whole = [fit for fit, spec in zip(kept, specs, strict=True) if fit == spec]
    return PartitionSpec(*(whole or kept)[0])
