"""Exact answers: Gaussian moments and log Z by linear algebra, small graphs by quadrature and variable elimination."""

from .gaussian import *  # noqa: F403
from .gaussian import __all__  # noqa: F401
