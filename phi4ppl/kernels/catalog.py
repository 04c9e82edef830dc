"""The kernels of this library, in the order in which they are listed."""

from .chees import CHEES
from .cluster import CLUSTER
from .gradient import KERNELS
from .kernel import register
from .local_hmc import LOCAL_HMC
from .tempering import HOUDAYER, TEMPERING

for _kernel in (*KERNELS, CHEES, LOCAL_HMC, CLUSTER, TEMPERING, HOUDAYER):
    register(_kernel)
