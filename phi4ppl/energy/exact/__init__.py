"""Exact answers: Gaussian moments and log Z by linear algebra, small graphs by quadrature and variable elimination."""

from .gaussian import gaussian_log_partition, gaussian_mean, gaussian_precision, quadrature

__all__ = ["gaussian_log_partition", "gaussian_mean", "gaussian_precision", "quadrature"]
