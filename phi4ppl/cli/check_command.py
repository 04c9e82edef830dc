"""``phi4ppl check``."""

from __future__ import annotations

from .model_files import load_model_file
from .status import FAILED, PASSED

__all__ = ["check"]


def check(arguments) -> int:
    """Check a model against the Hammersley–Clifford theorem."""
    from ..model.field import MarkovRandomField
    from ..numpyro_plugin.areal import IntrinsicField
    from ..numpyro_plugin.gibbs_field import field_of
    from ..numpyro_plugin.numpyro_model import compile as compile_model
    from ..numpyro_plugin.numpyro_model import trace_of

    file = load_model_file(arguments.model, arguments.set)
    print(f"{file.name}: {file.summary}")
    if isinstance(file.model, MarkovRandomField):
        print(file.model.describe())
        report = file.model.check()
        print(report)
        return PASSED if report.satisfied else FAILED
    compiled = compile_model(file.model)
    print(
        f"NumPyro model with {compiled.num_dimensions} unconstrained dimensions; fields: {', '.join(compiled.fields) or 'none'}"
    )
    satisfied, sites = True, trace_of(file.model, (), {})
    for name, field in compiled.fields.items():
        report = field.check()
        print(f"\n{name}: {field.describe()}\n{report}")
        satisfied &= report.is_markov and report.is_positive
        if isinstance(field_of(sites[name]["fn"]), IntrinsicField):
            print("  The prior of bym2 is proper: means of components have normal distributions of their own.")
        elif report.null_directions:
            print("  An improper field can be a prior: the likelihood must fix the direction named above.")
    return PASSED if satisfied else FAILED
