"""``phi4ppl doctor``: what is installed, and a test of the whole path."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from ..sampling.memory import available_bytes, readable
from .compile_cache import cache_folder, cached_files, clear_cache
from .status import FAILED, PASSED

__all__ = ["doctor"]


def doctor(arguments) -> int:
    """Say what is installed, and test the whole path on one site against the exact answer."""
    if arguments.clear_cache:
        files = cached_files()
        print(f"{cache_folder()}: {len(files)} files removed, {readable(clear_cache())}")
        return PASSED
    import jax

    print(f"python      {platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores, "
          f"{readable(available_bytes())} of memory available")  # fmt: skip
    print(f"devices     {', '.join(str(device) for device in jax.devices())}")
    print(f"precision   {'float64' if jax.config.jax_enable_x64 else 'float32 (JAX_ENABLE_X64=1 for float64)'}")  # type: ignore[attr-defined]
    files = cached_files()
    print(f"cache       {cache_folder()}: {len(files)} files, {readable(sum(path.stat().st_size for path in files))} "
          "of compiled programs (--clear-cache removes them)")  # fmt: skip
    packages = ("phi4ppl", "jax", "jaxlib", "numpyro", "blackjax", "arviz-base", "arviz-stats", "arviz-plots", "xarray",
                "networkx", "jinja2", "matplotlib", "numpy", "scipy", "h5netcdf")  # fmt: skip
    for name in packages:
        try:
            print(f"{name:<12}{version(name)}")
        except PackageNotFoundError:
            print(f"{name:<12}MISSING: install phi4ppl again")
            return FAILED
    return _self_test()


def _self_test() -> int:
    from .. import lattice
    from ..energy.exact import gaussian as exact
    from ..model.families import phi4
    from ..results.estimates import estimate
    from ..results.figures import figures
    from ..results.run import sample

    model = phi4(lattice.chain(1), a=1.52425, b=0.175)
    truth = exact.quadrature(model, {"phi_squared": lambda phi: phi[0] ** 2})["phi_squared"]
    tree = sample(model, num_warmup=300, num_samples=1000, progress=False)
    row = estimate(tree, "phi_squared").loc["phi_squared"]
    good = abs(row["mean"] - truth) < 5 * row["error"]
    print(f"self-test   one site: <phi^2> = {row['mean']:.4f} ± {row['error']:.4f}, exact {truth:.4f}: "
          f"{'agrees' if good else 'DISAGREES: please report this'}")  # fmt: skip
    print(f"pictures    {len(figures(tree))} drawn")
    print("all well" if good else "not well", file=sys.stdout if good else sys.stderr)
    return PASSED if good else FAILED
