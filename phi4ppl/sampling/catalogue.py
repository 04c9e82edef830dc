"""The kernels of this library, in the order in which they are listed."""

from .cluster import CLUSTER
from .gradient import KERNELS
from .kernels import register
from .sites import METROPOLIS

for _kernel in (*KERNELS, METROPOLIS, CLUSTER):
    register(_kernel)
