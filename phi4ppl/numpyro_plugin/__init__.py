"""Fields inside NumPyro, and NumPyro models as potentials.

A model comes in and a NumPyro distribution goes out (`GibbsField`), or any NumPyro model comes in and a compiled potential
goes out (`compile`). Read `gibbs_field` first.
"""

from .gibbs_field import GibbsField
from .numpyro_model import compile

__all__ = ["GibbsField", "compile"]
