"""Chains and lattice axes spread over devices and processes.

Every device runs the one-device program on its own chains (`jax.shard_map`), with no communication between devices, except
for kernels whose chains tune each other in warm-up. Lattice axes are spread by the compiler, which moves borders between
devices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..errors import ArgumentError, CheckpointError
from ..errors.arguments import positive_int
from ..kernels.adaptation import CHAIN_DEVICES
from .checkpoint import Saved, read_saved

if TYPE_CHECKING:
    from ..kernels.kernel import Kernel
    from .program import Program

__all__ = ["OneDevice", "Spread", "placement", "require_spreadable"]

SIMULATE = "XLA_FLAGS=--xla_force_host_platform_device_count=8 simulates eight on a CPU"


def placement(devices: dict | None, num_chains: int, dims: dict[str, int]) -> OneDevice | Spread:
    """Check the argument ``devices`` of `phi4ppl.sample`; ``dims`` are the sizes of the lattice dimensions by name.

    Raises
    ------
    ArgumentError
        For an unknown dimension, sizes that cannot be divided equally, or more devices than available.
    """
    if devices is None:
        return OneDevice()
    if not isinstance(devices, dict) or not devices:
        got = repr(devices)
        raise ArgumentError("devices", "a dict from dimensions to numbers of devices", got, 'For example {"chain": 4}.')
    sizes = {CHAIN_DEVICES: num_chains} | dims
    for name, number in devices.items():
        if name not in sizes:
            fix = "" if dims else "A NumPyro model can be spread by its chains only."
            raise ArgumentError(
                "devices", "dimensions among " + ", ".join(map(repr, sizes)), repr(name), fix, reason="name"
            )
        number = positive_int(f"devices[{name!r}]", number)
        if sizes[name] % number:
            fit = [n for n in range(1, sizes[name] + 1) if sizes[name] % n == 0]
            what = "num_chains" if name == CHAIN_DEVICES else f"the number of sites along {name}"
            fix = f"Use one of {', '.join(map(str, fit[:12]))}, or change {what}."
            raise ArgumentError(
                f"devices[{name!r}]", f"a divisor of {what} = {sizes[name]}", str(number), fix, reason="divisor"
            )
    shape = {CHAIN_DEVICES: 1} | {name: int(number) for name, number in devices.items()}
    spread = Spread({name: shape[name] for name in sizes if name in shape}, tuple(dims), tuple(dims.values()))
    _require_devices(spread.number)
    return spread


def require_spreadable(kernel: Kernel, spread: OneDevice | Spread) -> None:
    """Reject the kernels that XLA cannot spread over the lattice: its partitioner fails on some Fourier transforms."""
    if spread.shape is None or not any(spread.axes) or getattr(kernel.adaptation, "mass", None) != "fourier":  # type: ignore[union-attr]
        return
    got = ", ".join(repr(name) for name in spread.axes if name)  # type: ignore[union-attr]
    fix = "Spread its chains, or use another kernel: its Fourier transforms need whole fields."
    raise ArgumentError("devices", f"'chain' only, for kernel {kernel.name!r}", got, fix, reason="kernel")


def _require_devices(number: int) -> None:
    there, processes = jax.device_count(), jax.process_count()
    if number > there:
        fix = f"Use fewer, or start more processes and call jax.distributed.initialize() first; {SIMULATE}."
        raise ArgumentError(
            "devices", f"at most {there} in all, as many as JAX sees", str(number), fix, reason="too_many"
        )
    if processes > 1 and number != there:
        fix = f"Each of the {processes} processes uses all the devices that it sees; hide some of them to use fewer."
        raise ArgumentError("devices", f"all {there} devices", str(number), fix, reason="all")


class OneDevice:
    """Everything where JAX puts it."""

    shape, several, is_first = None, False, True

    def place(self, tree):
        return jax.tree.map(jnp.asarray, tree)

    copied = place

    def zeros(self, tree):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), tree)

    def fetch(self, tree):
        return tree

    def agree(self, *values: float) -> np.ndarray:
        return np.array([values], np.float64)

    def on_first(self, action, path):
        return action()

    def seen_by_all(self, saved: Saved, path) -> Saved:
        return saved

    def functions(self, program: Program, chains, record):
        return program.begin, program.flushed, program.advance


class Spread:
    """Which part of the arrays of a run is on which device.

    Attributes
    ----------
    shape : dict
        Devices by dimension, the chains first, so that neighboring parts of one field are near each other.
    number : int
        Devices in all.
    """

    def __init__(self, shape: dict[str, int], dims: tuple[str, ...], lattice: tuple[int, ...]):
        self.shape, self.lattice = shape, lattice
        self.number = int(np.prod(list(shape.values())))
        self.axes = tuple(name if name in shape else None for name in dims)
        self.several, self.is_first = jax.process_count() > 1, jax.process_index() == 0

    @property
    def mesh(self) -> Mesh:
        return Mesh(np.array(jax.devices()[: self.number]).reshape(*self.shape.values()), tuple(self.shape))

    def sharding(self, leaf, lead: int = 1) -> NamedSharding:
        """Of an array whose first axis are the chains, and whose axes from ``lead`` on may be those of the field."""
        spec = [CHAIN_DEVICES, *[None] * (lead - 1)]
        rest = leaf.shape[lead : lead + len(self.lattice)]
        if self.lattice and rest == self.lattice:
            spec += self.axes
        elif leaf.shape[lead : lead + 1] == (int(np.prod(self.lattice)),) and any(self.axes):
            spec.append(tuple(filter(None, self.axes)))  # type: ignore[arg-type]
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def place(self, tree):
        """Arrays of all chains that every process has whole, each part put on its device."""
        return jax.tree.map(lambda leaf: _put(leaf, self.sharding(leaf)), tree)

    def copied(self, tree):
        """Arrays, whole on every device."""
        return jax.tree.map(lambda leaf: _put(leaf, NamedSharding(self.mesh, PartitionSpec())), tree)

    def zeros(self, tree):
        """Zeros of these shapes and dtypes, with axes (chain, draw, …)."""
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype, device=self.sharding(s, 2)), tree)

    def fetch(self, tree):
        """The arrays whole on every process; all processes have to ask at the same time."""
        return jax.tree.map(self._fetched, tree) if self.several else tree

    def _fetched(self, leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            whole = self._fetched(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(np.asarray(whole), impl=jax.random.key_impl(leaf))  # type: ignore[arg-type]
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))

    def agree(self, *values: float) -> np.ndarray:
        """Numbers of every process, shape ``(processes, len(values))``, so that all decide the same by them."""
        mine = np.array([values], np.float32)
        return np.asarray(multihost_utils.process_allgather(mine, tiled=True)) if self.several else mine

    def on_first(self, action, path):
        """What ``action`` returns on the first process, None on the others; all fail if it does."""
        result = error = None
        try:
            result = action() if self.is_first else None
        except CheckpointError as failed:
            error = failed
        if error is None and self.agree(0)[:, 0].any():
            raise CheckpointError(
                path, "failed in the first process", "See its message for the reason.", "first_process"
            )
        if error is not None:
            self.agree(1)
            raise error
        return result

    def seen_by_all(self, saved: Saved | None, path) -> Saved:
        """The saved state that the first process has opened, read by the others too."""
        try:
            saved = read_saved(path) if saved is None else saved
        except CheckpointError:
            saved = None  # told below, to all
        told = self.agree(*[-1, -1] if saved is None else [saved.progress["warmed"], len(saved.files)])
        if (told != told[:1]).any():
            fix = "Choose a directory on a file system that all processes share."
            raise CheckpointError(path, "differs between processes", fix, "processes_differ")
        return saved

    def functions(self, program: Program, chains, record):
        """``begin``, ``flushed`` and ``advance`` of a program on these devices, for chains and a record of these shapes."""
        key = (tuple(self.shape.items()), self.axes, _shapes(chains), _shapes(record))
        if key not in program.spread:
            program.spread[key] = self._functions(program, chains, record)
        return program.spread[key]

    def _functions(self, program: Program, chains, record):
        mine, copy = PartitionSpec(CHAIN_DEVICES), PartitionSpec()
        chains_out = jax.tree.map(self.sharding, chains)
        number = self.shape[CHAIN_DEVICES]
        buffer = jax.tree.map(lambda s: jax.ShapeDtypeStruct((number, 1, *s.shape), s.dtype), record)
        buffer_out = jax.tree.map(lambda leaf: self.sharding(leaf, 2), buffer)

        def spread(function, inputs, outputs, shardings, **options):
            if not any(self.axes):
                function = jax.shard_map(function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False)
            # else devices that hold parts of different chains go in step too: exchanges of borders wait for all of them
            return jax.jit(function, out_shardings=shardings, **options)

        begin = spread(jax.vmap(program._begin, in_axes=(None, 0)), (copy, mine), mine, chains_out)
        flushed = spread(jax.vmap(program._flushed), (mine,), mine, chains_out)
        inputs = (copy, mine, mine, copy, copy, copy, mine, copy, copy)
        advance = spread(program._advance, inputs, (mine, mine), (chains_out, buffer_out), donate_argnums=6)
        return begin, flushed, advance


def _shapes(tree) -> tuple:
    return tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(tree))


def _put(leaf, sharding: NamedSharding):
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(_put(data, sharding), impl=jax.random.key_impl(leaf))
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
