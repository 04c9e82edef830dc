"""Tangent kernels of networks: K = J Jᵀ of the derivatives J of the outputs by the parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import LinearOperator

from ..errors import ArgumentError
from ..errors.arguments import call_checked, one_of
from .matrices import require_bytes, told

__all__ = ["Network", "TangentOperator", "network_of", "ntk"]

OUTPUTS = ("mean", "each", "joint")
METHODS = ("gradients", "matrix_free")
BLOCK_BYTES = 256_000_000  # of gradients that are held at a time, unless more memory is given
COLUMNS = 16_384  # of gradients that are in double precision at a time
COPIES = 3  # of a block of gradients: itself, its double on the way, the other one of a pair
PROBED = 4  # examples by which outputs are checked not to see each other


class Form(NamedTuple):
    """What is compiled for: the function, its parameters as a tree, and which of their leaves are real."""

    apply: Callable
    structure: jax.tree_util.PyTreeDef
    real: tuple[bool, ...]
    num_outputs: int

    def __call__(self, parameters, fixed, batch):
        """Outputs of a batch, shape ``(batch, num_outputs)``."""
        real, others = iter(parameters), iter(fixed)
        leaves = [next(real if one else others) for one in self.real]
        return jnp.reshape(self.apply(jax.tree.unflatten(self.structure, leaves), batch), (len(batch), -1))


class Network(NamedTuple):
    """A network at its parameters, with the examples; leaves that are not real are ``fixed``."""

    form: Form
    parameters: list
    fixed: list
    x: jax.Array

    @property
    def num_outputs(self) -> int:
        return self.form.num_outputs

    @property
    def num_parameters(self) -> int:
        return sum(leaf.size for leaf in self.parameters)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(jnp.result_type(*self.parameters))

    def gradients(self, block: slice) -> np.ndarray:
        """Of all outputs of some examples, shape ``(examples, outputs, parameters)``."""
        return np.asarray(_gradients(self.form, self.parameters, self.fixed, self.x[block]))


@functools.partial(jax.jit, static_argnums=0)
def _gradients(form: Form, parameters, fixed, batch):
    def of_one(example):
        found = jax.jacrev(lambda p: form(p, fixed, example[None])[0])(parameters)
        return jnp.concatenate([jnp.reshape(leaf, (form.num_outputs, -1)) for leaf in found], axis=1)

    return jax.vmap(of_one)(batch)


@functools.partial(jax.jit, static_argnums=0)
def _product(form: Form, parameters, fixed, batch, v):
    """J Jᵀ v of values ``(n, outputs)``."""
    (direction,) = jax.vjp(lambda p: form(p, fixed, batch), parameters)[1](v)
    return jax.jvp(lambda p: form(p, fixed, batch), (parameters,), (direction,))[1]


@call_checked
def ntk(
    apply: Callable, params, x, *, outputs: str = "mean", method: str = "gradients", memory_limit: int | None = None
) -> np.ndarray | TangentOperator:
    """The empirical neural tangent kernel K(x, x′) = ∇f(x)·∇f(x′), with the gradients by all parameters.

    Parameters
    ----------
    apply : callable
        ``apply(params, x)`` of shape ``(n, …)``: the outputs of n examples, none of which sees another one.
    params : pytree of arrays
        Real arrays are parameters; others, such as counters, are held fixed.
    x : array, shape ``(n, …)``
    outputs : str
        ``"mean"``: the mean over the C outputs, (1/C) Σ_c J_c J_cᵀ. ``"each"``: the kernel of each output. ``"joint"``: the
        kernel of all outputs of all examples, which moves them under gradient descent; the outputs of an example are together.
    method : str
        ``"gradients"``: from blocks of gradients of single examples. ``"matrix_free"``: an operator v ↦ J(Jᵀv), one backward
        and one forward derivative of the network a product (times C for ``"mean"``), which never holds J or K.
    memory_limit : int, optional
        Bytes that kernel and gradients may take; by default most of the free memory for the kernel, and 256 MB for gradients,
        which are computed again for every pair of blocks if they do not all fit.

    Returns
    -------
    array of float64, shape ``(n, n)``, ``(C, n, n)`` or ``(n C, n C)``, or TangentOperator
        The gradients have the precision of the parameters. Their products are summed in double precision, so that K is
        positive semidefinite to its rounding.

    Raises
    ------
    ArgumentError
        If outputs of an example depend on other examples (as with batch normalization), are not real, or have another shape.
    MemoryLimitError
        Before anything is computed.

    Notes
    -----
    Source: A. Jacot, F. Gabriel and C. Hongler, arXiv:1806.07572.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from phi4ppl.spectral.tangent import ntk
    >>> x = jnp.array([[1.0, 0.0], [1.0, 2.0]])
    >>> ntk(lambda w, x: x @ w, jnp.ones(2), x)
    array([[1., 1.],
           [1., 5.]])
    """
    one_of("outputs", outputs, OUTPUTS), one_of("method", method, METHODS)
    network = network_of(apply, params, x)
    if method == "matrix_free":
        if outputs == "each" and network.num_outputs > 1:
            fix = 'Give apply with one output, as in lambda p, x: apply(p, x)[:, 0], or method="gradients".'
            raise ArgumentError("outputs", "'mean' or 'joint', if matrix-free", repr(outputs), fix, reason="unused")
        return TangentOperator(network, "mean" if outputs == "each" else outputs)
    return _by_gradients(network, outputs, memory_limit)


def network_of(apply: Callable, params, x) -> Network:
    """The network and its examples, after an evaluation of a few of them.

    Raises
    ------
    ArgumentError
    """
    if not callable(apply):
        raise ArgumentError("apply", "a function apply(params, x)", f"a {type(apply).__name__}")
    leaves, structure = jax.tree.flatten(params)
    with told("params", "a tree of arrays"):
        real = tuple(bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating)) for leaf in leaves)
    if not any(real):
        raise ArgumentError("params", "a tree with real arrays", f"{len(leaves)} leaves, none of them real")
    with told("x", "an array of examples"):
        x = jnp.asarray(x)
    if not x.ndim or not len(x):
        raise ArgumentError("x", "at least one example", f"shape {x.shape}", reason="shape")
    some = x[:PROBED]
    with told("apply", f"a function apply(params, x) that takes x of shape {some.shape}"):
        together = jnp.asarray(apply(params, some))
    if together.shape[:1] != (len(some),) or not jnp.issubdtype(together.dtype, jnp.floating):
        got = f"{together.dtype} of shape {together.shape} for {len(some)} examples"
        raise ArgumentError("apply", "a function with real outputs of shape (n, …)", got, reason="returns")
    num_outputs = int(np.prod(together.shape[1:], dtype=int))
    alone = np.concatenate([np.asarray(apply(params, one[None]), float) for one in some])
    together = np.asarray(together, float)
    if not (np.isfinite(alone).all() and np.isfinite(together).all()):
        fix = "Look for missing values in x and params."
        raise ArgumentError("apply", "finite outputs", "nan or infinity", fix, reason="finite")
    if not num_outputs:
        raise ArgumentError("apply", "at least one output", f"shape {together.shape}", reason="returns")
    if not np.allclose(alone, together, rtol=1e-3, atol=1e-3 * np.abs(together).max()):
        fix = "Fix the averages of batch normalization, as for predictions."
        got = f"outputs that change by {np.abs(alone - together).max():.2g} when others leave the batch"
        raise ArgumentError("apply", "a function whose examples do not see each other", got, fix, reason="coupled")
    parameters = [jnp.asarray(leaf) for one, leaf in zip(real, leaves, strict=True) if one]
    fixed = [leaf for one, leaf in zip(real, leaves, strict=True) if not one]
    form = Form(apply, structure, real, num_outputs)
    with told("apply", "a function that JAX can differentiate", "Write it with jax.numpy."):
        jax.eval_shape(jax.jacrev(lambda p: form(p, fixed, some[:1])), parameters)
    return Network(form, parameters, fixed, x)


def _blocks(network: Network, limit: int) -> list[slice]:
    """Slices of examples whose gradients, with their copies, take at most ``limit`` bytes."""
    rows, number = max(int(limit // _row_bytes(network)), 1), len(network.x)
    rows = -(-number // -(-number // rows))  # blocks of one size
    return [slice(first, min(first + rows, number)) for first in range(0, number, rows)]


def _row_bytes(network: Network) -> int:
    return COPIES * network.num_outputs * network.num_parameters * network.dtype.itemsize


def _by_gradients(network: Network, outputs: str, memory_limit: int | None) -> np.ndarray:
    number, num_outputs = len(network.x), network.num_outputs
    size = number * num_outputs if outputs == "joint" else number
    kernel_bytes = 8 * size**2 * (num_outputs if outputs == "each" else 1)
    fix = 'Take fewer examples or outputs, or method="matrix_free".'
    needed = kernel_bytes + _row_bytes(network)
    limit = (
        require_bytes(needed, memory_limit, f"the tangent kernel of {number} examples", fix, "memory_limit")
        - kernel_bytes
    )
    limit = limit if memory_limit is not None else max(min(limit, BLOCK_BYTES), _row_bytes(network))
    blocks = _blocks(network, limit)
    kernel = np.zeros((num_outputs, number, number) if outputs == "each" else (size, size))
    for first, one in enumerate(blocks):
        left = network.gradients(one)
        for other in blocks[: first + 1]:
            right = left if other == one else network.gradients(other)
            _add_products(kernel, outputs, one, other, left, right)
    return kernel


def _add_products(kernel, outputs: str, one: slice, other: slice, left: np.ndarray, right: np.ndarray) -> None:
    """The block of the kernel of two blocks of gradients, and its transpose."""
    num_outputs = left.shape[1]
    if outputs == "joint":
        one, other = (slice(s.start * num_outputs, s.stop * num_outputs) for s in (one, other))
        kernel[one, other] = _products(left.reshape(-1, left.shape[2]), right.reshape(-1, left.shape[2]))
        kernel[other, one] = kernel[one, other].T
        return
    for c in range(num_outputs):
        found = _products(left[:, c], right[:, c])
        target = kernel[c] if outputs == "each" else kernel
        target[one, other] += found if outputs == "each" else found / num_outputs
    for matrix in kernel if outputs == "each" else [kernel]:
        matrix[other, one] = matrix[one, other].T


def _products(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A Bᵀ in double precision, a range of columns at a time."""
    total = np.zeros((len(left), len(right)))
    for first in range(0, left.shape[1], COLUMNS):
        part = left[:, first : first + COLUMNS].astype(float)
        total += part @ (part if right is left else right[:, first : first + COLUMNS].astype(float)).T
    return total


class TangentOperator(LinearOperator):
    """v ↦ J(Jᵀv) of a network, a scipy ``LinearOperator`` of shape ``(n, n)``, or ``(n C, n C)`` of joint outputs.

    Products have the precision of the parameters: eigenvalues below their rounding times the largest one are noise.
    """

    def __init__(self, network: Network, outputs: str):
        self.network, self.outputs = network, outputs
        self.num_points = len(network.x)
        size = self.num_points * (network.num_outputs if outputs == "joint" else 1)
        super().__init__(np.dtype(float), (size, size))

    def _matvec(self, v):
        shape = (self.num_points, self.network.num_outputs)
        v = np.asarray(v, float).reshape(-1)
        if self.outputs == "joint":
            return self._product(v.reshape(shape)).reshape(-1)
        total = np.zeros(self.num_points)
        for c in range(shape[1]):
            one = np.zeros(shape)
            one[:, c] = v
            total += self._product(one)[:, c]
        return total / shape[1]

    def _adjoint(self):
        return self

    def _product(self, values: np.ndarray) -> np.ndarray:
        form, *rest = self.network
        return np.asarray(_product(form, *rest, jnp.asarray(values, self.network.dtype)), float)

    def diagonal(self) -> np.ndarray:
        """The diagonal of the kernel, exactly, from gradients in blocks; its sum is the trace."""
        network = self.network
        blocks = _blocks(network, max(BLOCK_BYTES, _row_bytes(network)))
        norms = np.concatenate([(network.gradients(block).astype(float) ** 2).sum(axis=2) for block in blocks])
        return norms.reshape(-1) if self.outputs == "joint" else norms.mean(axis=1)
