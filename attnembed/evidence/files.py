"""Loading files with the user's own claims, atomically."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from attnembed.errors import DataFileError, InputError
from attnembed.evidence.registry import Claim, claims, unchanged_on_error

__all__ = ["claims_file", "load_claims", "load_function"]


@dataclass(frozen=True)
class _Loaded:
    module: ModuleType
    claims: tuple[Claim, ...]


_files: dict[str, _Loaded] = {}


def load_claims(path: str | os.PathLike[str]) -> tuple[Claim, ...]:
    """The claims declared in a Python file, in its order; the file is loaded once.

    Raises
    ------
    DataFileError
        if it is not a Python file, cannot be imported (then none of its claims is registered) or declares none.
    """
    found = _load(path).claims
    if not found:
        raise DataFileError(path, "declares no claim; put @ae.claim(...) above a function that returns ae.Evidence")
    return found


def load_function(target: str) -> Callable[..., Any]:
    """The function named by FILE.py::NAME.

    Raises
    ------
    InputError
        if there is no such function in the file, or no ``::`` in the target.
    DataFileError
        if the file cannot be imported.
    """
    path, colons, name = target.rpartition("::")
    if not colons or not path or not name:
        raise InputError("TARGET", "must be FILE.py::NAME", got=repr(target), hint="as in my_lemmas.py::a_function")
    module = _load(path).module
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        functions = [key for key in own if callable(getattr(module, key)) and not key.startswith("_")]
        hint = f"it has {', '.join(functions[:8])}" if functions else "it defines none"
        raise InputError("NAME", f"must be a function of {path}", got=repr(name), hint=hint)
    found: Callable[..., Any] = function
    return found


def claims_file(entry: Claim) -> str | None:
    """The file from which a claim was loaded; None for claims declared otherwise."""
    return next((path for path, loaded in _files.items() if any(entry is other for other in loaded.claims)), None)


def _load(path: str | os.PathLike[str]) -> _Loaded:
    file = Path(path).absolute()
    if str(file) in _files:
        return _files[str(file)]
    if not file.is_file():
        raise DataFileError(path, "must be a Python file; it is a folder" if file.exists() else _absent(path))
    if file.suffix != ".py":
        raise DataFileError(path, "must be a Python file, with a name that ends in .py")
    # A name already in use (a module of the standard library, say) keeps its meaning.
    name = file.stem if file.stem.isidentifier() and file.stem not in sys.modules else f"claims_of_{len(_files)}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # its neighbours, which it may import later
    sys.modules[name] = module
    before = set(claims())
    try:
        with unchanged_on_error():
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise _cannot_import(path, file, error) from error
        raise
    loaded = _files[str(file)] = _Loaded(module, tuple(entry for entry in claims() if entry not in before))
    return loaded


def _cannot_import(path: str | os.PathLike[str], file: Path, error: BaseException) -> DataFileError:
    """The error in one line, at the last line of the file that was reached."""
    text = " ".join(str(error).split())
    line = None
    if isinstance(error, SyntaxError):
        text, inside = error.msg, error.filename in (None, str(file))
        line = error.lineno if inside else None
    else:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return DataFileError(path, f"cannot be imported: {told}; fix the file until `python {file.name}` runs", line=line)


def _absent(path: str | os.PathLike[str]) -> str:
    """Advice for a missing file, whose name may be a claim of the package."""
    if any(entry.id == str(path) for entry in claims()):
        return f"is a claim, not a file; use --ids {path}"
    return "does not exist; name a Python file with your own claims or functions"
