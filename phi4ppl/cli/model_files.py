"""Model files: Python files that declare a model, given by path or by the name of one shipped with the library."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import ModelFileError, Phi4pplError
from ..model.field import MarkovRandomField

__all__ = ["ModelFile", "failure_in_model", "field_of", "load_model_file", "names_in", "shipped_models"]

MODULE = "phi4ppl_model_"  # and the name of the file: what a model file is imported as
CONVENTION = (
    "A model file defines `model` (a MarkovRandomField or a NumPyro model function), or a function `build(...)` whose "
    "arguments all have defaults and which returns one."
)


class ModelFile(NamedTuple):
    """A loaded declaration: ``model`` is a `MarkovRandomField` or a NumPyro model function without arguments.

    Where a process of `phi4ppl.dynamics` is asked for, it may be one, and ``start`` is the field that the file starts it from.
    ``disorder`` holds distributions of couplings by name, or a NumPyro model that draws them, where the file declares some.
    """

    name: str
    path: Path
    summary: str
    model: object
    parameters: dict
    start: object = None
    disorder: dict | Callable | None = None


def shipped_models() -> dict[str, Path]:
    """Files of the shipped models by name: the source tree's ``models/`` where there is one, else the installed copy."""
    here = Path(__file__).parents[1]
    for folder in (here.parent / "models", here / "_models"):
        found = {path.stem: path for path in sorted(folder.glob("*.py"))}
        if "phi4_square" in found:
            return found
    raise ModelFileError(
        "installation", "no shipped models were found; the installation is incomplete: install phi4ppl again."
    )


def summary_of(path: Path) -> str:
    """First line of the docstring of a model file, without running it."""
    try:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except (SyntaxError, UnicodeDecodeError):
        return ""
    return (doc or "").split("\n")[0]


def load_model_file(spec: str, settings: dict[str, str] | None = None, also: tuple[type, ...] = ()) -> ModelFile:
    """Load a model by path or shipped name, with parameters replaced by ``settings`` (texts, as from a command line).

    A file may also declare an object of the classes ``also``, by the name of ``process``.

    Raises
    ------
    ModelFileError
        If there is no such file or name, the file fails, declares no model, or does not take a setting; one message that
        names the file, and the line where it failed.
    """
    path = _find(spec)
    module = _execute(path)
    settings = settings or {}
    if hasattr(module, "build"):
        model, parameters = _build(path, module.build, settings)
    elif also and isinstance(getattr(module, "process", None), also):
        model, parameters = module.process, {}
    elif hasattr(module, "model"):
        model, parameters = _with_couplings(path, module.model, settings)
    else:
        raise ModelFileError("no_model", f"{path}: declares no model. {CONVENTION}")
    if not isinstance(model, (MarkovRandomField, *also)) and not callable(model):
        raise ModelFileError("type", f"{path}: the model is a {type(model).__name__}. {CONVENTION}")
    return ModelFile(
        path.stem, path, summary_of(path), model, parameters, getattr(module, "start", None), _disorder(path, module)
    )


def names_in(spec: str, needed: tuple[str, ...], also: tuple[str, ...]) -> tuple[Path, dict]:
    """The path of a Python file, and what it defines under these names.

    Raises
    ------
    ModelFileError
        If there is no such file, it fails, or it lacks one of the names that are needed.
    """
    path = Path(spec)
    if not path.is_file():
        raise ModelFileError("missing", f"{spec}: no such file. It defines {', '.join(needed)}.")
    module = _execute(path)
    missing = [name for name in needed if not hasattr(module, name)]
    if missing:
        listed = ", ".join(f"`{name}`" for name in needed)
        may = ", ".join(f"`{name}`" for name in also)
        raise ModelFileError("no_names", f"{path}: lacks `{missing[0]}`. Define {listed}; {may} are optional.")
    return path, {name: getattr(module, name) for name in (*needed, *also) if hasattr(module, name)}


def _disorder(path: Path, module) -> dict | Callable | None:
    found = getattr(module, "disorder", None)
    if found is not None and not isinstance(found, dict) and not callable(found):
        fix = "It is a dict of NumPyro distributions by name of a coupling, such as {'r': Normal(0, 0.5)}, or a NumPyro model."
        raise ModelFileError("disorder", f"{path}: `disorder` is a {type(found).__name__}. {fix}")
    return found


def _find(spec: str) -> Path:
    path = Path(spec)
    if path.is_file():
        return path
    shipped = shipped_models()
    if spec in shipped:
        return shipped[spec]
    what = "no such file" if path.suffix == ".py" or len(path.parts) > 1 else "neither a file nor a shipped model"
    raise ModelFileError("missing", f"{spec}: {what}. Shipped models: {', '.join(shipped)}.")


def _execute(path: Path):
    spec = importlib.util.spec_from_file_location(MODULE + path.stem, path)
    if spec is None:
        raise ModelFileError("not_python", f"{path}: not a Python file. {CONVENTION}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that dataclasses and pickling inside the file work
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(spec.name, None)
        raise _failure(path, error) from error
    return module


def failure_in_model(error: Exception) -> ModelFileError | None:
    """The message for an error of a NumPyro model, whose body runs after its file was loaded; None for any other."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith(MODULE):
            return _failure(Path(frame.f_code.co_filename), error)  # type: ignore[return-value]
    return None


def _failure(path: Path, error: BaseException) -> BaseException:
    """One message for whatever a model file raised; an interrupt stays an interrupt."""
    if isinstance(error, KeyboardInterrupt):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    kind = "" if isinstance(error, Phi4pplError) else f"{type(error).__name__}: "
    return ModelFileError("fails", f"{path}{f', line {line}' if line else ''}: {kind}{error}")


def _build(path: Path, build, settings: dict[str, str]):
    if not callable(build):
        raise ModelFileError("build", f"{path}: `build` is not a function. {CONVENTION}")
    defaults = {name: p.default for name, p in inspect.signature(build).parameters.items()}
    without = [name for name, default in defaults.items() if default is inspect.Parameter.empty]
    if without:
        raise ModelFileError("no_default", f"{path}: the argument {without[0]!r} of build has no default. {CONVENTION}")
    _require_known(path, settings, defaults)
    parameters = defaults | {n: _value(path, n, text, defaults[n]) for n, text in settings.items()}
    try:
        return build(**parameters), parameters
    except BaseException as error:
        raise _failure(path, error) from error


def _with_couplings(path: Path, model, settings: dict[str, str]):
    if not settings:
        return model, {}
    if not isinstance(model, MarkovRandomField):
        fix = "Give it a function build(...) with arguments."
        raise ModelFileError("no_settings", f"{path}: this NumPyro model takes no settings. {fix}")
    _require_known(path, settings, model.couplings)
    try:
        parameters = {name: _value(path, name, text, 1.0) for name, text in settings.items()}
        return model.replace(**parameters), parameters
    except Phi4pplError as error:
        raise _failure(path, error) from error


def _require_known(path: Path, settings, known) -> None:
    unknown = [name for name in settings if name not in known]
    if unknown:
        listed = ", ".join(known) or "none"
        raise ModelFileError("setting", f"{path}: no setting {unknown[0]!r}. This model takes: {listed}.")


def _value(path: Path, name: str, text: str, default):
    """``text`` as a value of the type of ``default``."""
    if isinstance(default, str):
        return text
    kind = type(default)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if default is not None and type(value) is not kind:
        raise ModelFileError(
            "setting_type", f"{path}: setting {name}={text!r} is not a {kind.__name__} (its default is {default!r})."
        )
    return value


def field_of(file) -> MarkovRandomField:
    """The field that a model file declares; a NumPyro model is refused."""
    if not isinstance(file.model, MarkovRandomField):
        raise ModelFileError(
            "numpyro", f"{file.path}: a NumPyro model; couplings of a MarkovRandomField can be fitted."
        )
    return file.model
