"""Messages of the library in the words of the command line: options where they name arguments.

Advice that no option of the command can follow is left out.
"""

from __future__ import annotations

import re
from dataclasses import replace

from ..results.verdict import ConvergenceReport

__all__ = ["OPTIONS", "for_command_line", "verdict_for"]

_CHAINS = {"num_warmup": "--warmup", "num_samples": "--samples", "num_chains": "--chains", "seed": "--seed"}
OPTIONS = {  # by command, the options by the arguments that they stand for
    "run": _CHAINS | {
        "thinning": "--thinning", "kernel": "--kernel", "checkpoint": "--checkpoint", "symmetry_moves": "--no-symmetry-moves",
        "keep_field": "--no-field", "progress": "--quiet", "num_realizations": "--realizations", "num_replicas": "--replicas",
    },
    "fit": {"method": "--method", "seed": "--seed", "data": "--data", "target": "--target", "num_steps": "--steps",
            "progress": "--quiet"},
    "infer": _CHAINS | {"normalizer": "--normalizer", "num_auxiliary": "--num-auxiliary", "priors": "--prior",
                        "data": "--data", "progress": "--quiet"},
    "scan": _CHAINS | {"vary": "--vary", "sizes": "--sizes", "omega": "--omega", "progress": "--quiet"},
    "renormalize": _CHAINS | {"levels": "--levels", "rule": "--rule", "check": "--no-check", "run": "--samples",
                              "progress": "--quiet"},
    "cascade": {"start": "--start", "levels": "--to", "fields": "--fields", "lift": "--lift", "seed": "--seed",
                "progress": "--quiet"},
    "spectrum": {"points": "DATA", "source": "DATA", "target": "--target", "baseline": "--baseline", "seed": "--seed",
                 "progress": "--quiet"},
    "lens": {"seed": "--seed", "progress": "--quiet"},
    "evolve": {"time": "--time", "step_size": "--step-size", "every": "--every", "start": "--start", "seed": "--seed",
               "num_replicas": "--replicas", "checkpoint": "--checkpoint", "step": "--step", "progress": "--quiet"},
    "compare": {"seed": "--seed", "priors": "--prior", "data": "--data", "models": "MODEL", "progress": "--quiet"},
}  # fmt: skip
OPTIONS["report"] = OPTIONS["run"]  # its advice is for the next run
SWITCHES = ("symmetry_moves", "keep_field", "progress", "check")  # options that say no to them
ELSEWHERE = (
    "model_kwargs",
    "observables",
    "devices",
    "batch_size",
    "average_last",
    "fields_per_step",
    "optimizer",
    "initial",
)
WORDS = {  # arguments that are plain words as well
    "models", "data", "vary", "sizes", "omega", "levels", "rule", "check", "run", "start", "fields", "lift", "time",
    "every", "step",
}  # fmt: skip
ARGUMENTS = sorted({*ELSEWHERE, *(name for options in OPTIONS.values() for name in options)} - WORDS)
VALUE = r"(?:'([^']*)'|([\w.+-]+))"
PHRASES = (  # what nobody can type, and what to type instead
    (r"(?:kernel=)?phi4ppl\.sampling\.tempering\((\d+)\)", r"kernel='tempering:\1'"),
    (r"infer_couplings\(…, ([^()]*)\)", r"\1"),
    (r"[^.;]*\bPartitionSurface\b[^.;]*[.;]", " Try normalizer='exchange', which needs no surface."),
    (r" Increase num_(?:samples|steps)[^.]*\.", ""),  # of an estimate of log Z
    (r"(?i:continue) the fit from this result", "run the fit again with num_steps=1000 or so"),
    (r"(Use 'sign' or 'majority'), or second=\.", r"\1."),
    (r"expected None with", "is not an option with"),
    (
        r"give the bare array: .*?\.(?:csv|parquet|nc)\.(?:to_numpy\(\)|values)\.",
        "save the numbers alone as a .npy file and give that.",
    ),
    (r"Transpose it: .*?\.(?:csv|parquet)\.T\.", "Transpose the table."),
    (r"Rename them, for example .*?\.nc\.rename\(\.\.\.\)\.", "Rename them in the file."),
    (r", or fill them in, or observe the rest in a NumPyro model\.", ", or fill them in."),
)


def for_command_line(text: str, command: str) -> str:
    """``text`` for somebody who typed ``phi4ppl command``.

    Examples
    --------
    >>> for_command_line("num_chains: expected an integer of at least 1, got 0.", "run")
    '--chains: expected an integer of at least 1, got 0.'
    >>> for_command_line("Too few draws (num_samples=4000, or thinning=2 for the same memory). Take kernel='nuts'.", "infer")
    'Too few draws (--samples 4000).'
    """
    for pattern, words in PHRASES:
        text = re.sub(pattern, words, text)
    options = OPTIONS.get(command, {})
    missing = [name for name in ARGUMENTS if name not in options]
    text = _without(text, missing)
    for name, option in options.items():
        if name in SWITCHES:
            text = re.sub(rf"\b[Ww]ith {name}=True", f"without {option}", text)
            text = re.sub(rf"\b{name}=True", f"no {option}", text)
            text = re.sub(rf"\b{name}=False", option, text)
        text = re.sub(rf"\b{name}=(?!=){VALUE}", lambda m, o=option: f"{o} {m[1] or m[2]}", text)  # type: ignore[misc]
        text = re.sub(rf"^{name}\b(?=[:\[])", option, text)
        if "_" in name:
            text = re.sub(rf"(?<![\w-]){name}(?![\w=])", option, text)
    return text


def _without(text: str, names: list[str]) -> str:
    """Leave out what advises arguments without an option: a part of a list of ways, or a sentence after the first."""
    if not names:
        return text
    wanted = rf"\b(?:{'|'.join(names)})="
    text = re.sub(rf",? or (?:\w+ )?{wanted}[^),.;]*", "", text)
    lines = []
    for line in text.split("\n"):
        sentences = re.split(r"(?<=\.) +(?=\S)", line)
        lines.append(" ".join(s for k, s in enumerate(sentences) if k == 0 or not re.search(wanted, s)))
    return "\n".join(lines)


def verdict_for(verdict: ConvergenceReport, command: str) -> ConvergenceReport:
    """The same verdict, with advice for the command line."""
    checks = tuple(replace(check, advice=for_command_line(check.advice, command)) for check in verdict.checks)
    return replace(verdict, checks=checks)
