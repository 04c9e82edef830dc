"""The kernels of this library, in the order in which they are listed."""

from .chees import CHEES
from .cluster import CLUSTER
from .gradient import KERNELS
from .kernel import register
from .local_hmc import METROPOLIS
from .tempering import TEMPERING

for _kernel in (*KERNELS, CHEES, METROPOLIS, CLUSTER, TEMPERING):
    register(_kernel)
