"""The kernels of this library, in the order in which they are listed."""

from .chees import CHEES
from .cluster import CLUSTER
from .gradient import KERNELS
from .kernel import register
from .latent_nuts import NUTS_CURVATURE
from .learned_mass import KERNELS as LEARNED
from .local_hmc import LOCAL_HMC
from .tempering import HOUDAYER, TEMPERING

for _kernel in (*KERNELS, *LEARNED, NUTS_CURVATURE, CHEES, LOCAL_HMC, CLUSTER, TEMPERING, HOUDAYER):
    register(_kernel)
