"""Shapes of arrays in signatures, by name: `Field`, `Theta` and the like.

An alias states the kind of numbers and the axes, in the notation of jaxtyping. Axes of one name have one length within a
call, ``*lattice`` and ``*batch`` stand for any number of axes. The tests check them: they import the package under
jaxtyping's import hook. Otherwise annotations are never evaluated, and type checkers see plain arrays.
"""

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Float, Inexact, Int, UInt32
from numpy.typing import ArrayLike as ArrayLike

Numbers: TypeAlias = Array | np.ndarray

# What users give: also lists, and objects of pandas and xarray, which are put in order by their labels.
Labeled: TypeAlias = Any
PathLike: TypeAlias = str | os.PathLike

# One field, several, and their energies. A result of JAX is an ``Array``, whatever its arguments were.
Scalar = Float[Array, ""]
Field = Float[Numbers, "*lattice"]
JaxField = Float[Array, "*lattice"]
Batch = Float[Array, "*batch"]
FlatField = Float[Numbers, " site"]
FlatFields = Float[np.ndarray, "sample site"]
Fields = Float[np.ndarray, "chain draw *lattice"]
SampledFields = Float[np.ndarray, "sample *lattice"]
PerClique = Float[Array, " clique"]
PerSite = Float[np.ndarray, "site sample"]
PerSlot = Float[np.ndarray, "slot sample"]
PerField = Inexact[np.ndarray, "sample *element"]
Color = Float[Array, "half *rest"]
WholeField = Float[Array, "row *rest"]
Precision = Float[Numbers, "site site"]
JaxPrecision = Float[Array, "site site"]
JaxFlatField = Float[Array, " site"]

# Couplings as one vector θ.
Theta = Float[Numbers, "*batch coupling"]
NumpyTheta = Float[np.ndarray, "*batch coupling"]
JaxTheta = Float[Array, "*batch coupling"]
OneTheta = Float[Numbers, " coupling"]
Thetas = Float[np.ndarray, "point coupling"]
PerPoint = Float[np.ndarray, " point"]
Statistics = Float[np.ndarray, "sample coupling"]

# Series of observables, in blocks or by lag, and weights.
Series = Float[np.ndarray, "chain draw *element"]
PerDraw = Inexact[np.ndarray, "draw *element"]
PerBlock = Inexact[np.ndarray, "block *element"]
Element = Inexact[np.ndarray, "*element"] | np.inexact
PerLag = Float[np.ndarray, "lag *element"]
Energies = Float[np.ndarray, "ensemble sample"]
PerEnsemble = Float[np.ndarray, " ensemble"]
Overlaps = Float[np.ndarray, "ensemble ensemble"]
PerSample = Float[np.ndarray, " sample"]
BlockOfSample = Int[np.ndarray, " sample"]
Ratios = Float[np.ndarray, "block ensemble"]
PerTarget = Inexact[np.ndarray, "sample target"]
SumsWithoutBlock = Inexact[np.ndarray, "block target column"]
Walkers = Float[np.ndarray, " walker"]
OtherWalkers = Float[np.ndarray, " other"]
Densities = Float[np.ndarray, "datum model"]
PerModel = Float[np.ndarray, " model"]
ModelWeights = Float[np.ndarray, "*batch model"]

# Random words and what is made of them; labels of clusters.
Words = UInt32[Array, "*shape"]
Drawn = Float[Array, "*shape"]
Bonds = Int[Array, "*bond"]
SiteLabels = Int[Array, " label"]

# Layers of a machine: couplings, values on any leading axes, chains at several levels.
UnitCouplings = Float[Array, " unit"]
Weights = Float[Array, "visible hidden"]
Layer = Float[Numbers, "*batch unit"]
JaxLayer = Float[Array, "*batch unit"]
VisibleLayer = Float[Array, "*batch visible"]
HiddenLayer = Float[Array, "*batch hidden"]
VisibleSamples = Float[Array, "sample visible"]
Levels = Float[Array, "level chain visible"]
JointPrecision = Float[Array, "unit unit"]


@runtime_checkable
class Optimizer(Protocol):
    """An ``optax.GradientTransformation``, or anything else with these two functions."""

    @property
    def init(self) -> Callable: ...

    @property
    def update(self) -> Callable: ...
