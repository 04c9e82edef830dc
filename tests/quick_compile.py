"""Little work for XLA, where programs compile for much longer than they run.

``jax_disable_most_optimizations`` turns the optimizer of LLVM off. XLA's fusion emitters, which go through MLIR, then take half
of the time to compile: the older emitters make the same programs, so a quick process uses those.
"""

import functools

import jax

EMITTERS = "xla_cpu_use_fusion_emitters"


@functools.cache
def old_emitters() -> dict:
    """The option of XLA, if this version knows it."""
    try:
        jax.jit(lambda x: x).lower(1.0).compile(compiler_options={EMITTERS: False})
    except jax.errors.JaxRuntimeError:
        return {}
    return {EMITTERS: False}


def environment() -> dict[str, str]:
    """Variables by which another process compiles quickly."""
    flags = {"XLA_FLAGS": f"--{EMITTERS}=false"} if old_emitters() else {}
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **flags}


def switch(quick: bool) -> None:
    """Compile quickly from now on, or as a user would, and not with programs of the other kind."""
    if jax.config.read("jax_disable_most_optimizations") != quick:
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", quick)


def install() -> None:
    """Compile with ``old_emitters`` in this process whenever it compiles quickly: options of all programs are JAX's own."""
    compiler = jax._src.compiler
    library = compiler.get_compile_options

    @functools.wraps(library)
    def get_compile_options(*args, **options):
        made = library(*args, **options)
        if jax.config.read("jax_disable_most_optimizations"):
            made.env_option_overrides = [*made.env_option_overrides, *chosen.items()]
        return made

    chosen = old_emitters()
    compiler.get_compile_options = get_compile_options
