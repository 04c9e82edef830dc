"""Fields inside NumPyro, and NumPyro models as potentials.

A model comes in and a NumPyro distribution goes out (`GibbsField`), or any NumPyro model comes in and a compiled potential
goes out (`compile`). Fields of disease mapping are in `areal`. Read `gibbs_field` first.
"""

from .areal import IntrinsicField, bym2, leroux, proper_car, scaling_factors
from .gibbs_field import GibbsField
from .numpyro_model import compile
from .partly_observed import observe_field

__all__ = [
    "GibbsField",
    "IntrinsicField",
    "bym2",
    "compile",
    "leroux",
    "observe_field",
    "proper_car",
    "scaling_factors",
]
