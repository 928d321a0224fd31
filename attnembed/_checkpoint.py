"""The checkpoint of a training run: all that the rest of the run depends on, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attnembed._files import Member, PathLike, parse_json, read_checked, replacing
from attnembed._identity import fingerprint
from attnembed._typing import Floats
from attnembed.errors import DataFileError, InputError
from attnembed.optim import state_arrays, state_from_arrays
from attnembed.results import to_plain

if TYPE_CHECKING:
    from attnembed.fit import Log

__all__ = ["Checkpoint"]


class Checkpoint:
    """The checkpoint file, with all that the rest of the run depends on, without pickle."""

    def __init__(self, path: PathLike, identity: Mapping[str, object], rng: np.random.Generator):
        hint = "without a `checkpoint` it may be anything"
        self.path, self.found = path, False
        self.identity = {name: fingerprint(part, name=name, hint=hint) for name, part in identity.items()}
        self.rng_start = _rng_text(rng)

    def find(self, rng: np.random.Generator, *, seeded: bool) -> np.random.Generator:
        """If the file exists, check that it belongs to this run; returns the generator as at the start of that run.

        Without its own seed the run uses that of the file.
        """
        if not os.path.exists(self.path):
            return rng
        header = read_checked(self.path, {"identity": Member("U", ()), "rng_start": Member("U", ())})
        theirs = parse_json(self.path, str(header["identity"]), what="an identity")
        if not isinstance(theirs, dict):
            raise DataFileError(self.path, "is not a checkpoint")
        different = [name for name in self.identity if theirs.get(name) != self.identity[name]]
        if seeded and str(header["rng_start"]) != self.rng_start:
            different.append("rng")
        if different or theirs.keys() != self.identity.keys():
            raise InputError(
                "checkpoint",
                "must come from the same training",
                got=f"that of a run with other {', '.join(different) or 'options'} in {self.path}",
                hint="use another file, or resume=False to replace it",
            )
        self.found, self.rng_start = True, str(header["rng_start"])
        if seeded:
            return rng
        return _generator(self.path, self.rng_start)

    def restore(self, log: Log[Any], rng: np.random.Generator, n_epochs: int) -> dict[str, float]:
        """Restore everything as it was when the file was written; returns the trainee's numbers."""
        trainee = log.trainee
        texts = {"rng": Member("U", ()), "best_epoch": Member("iu", ()), "history": Member((log.dtype,), ("n",))}
        head = read_checked(self.path, texts)
        history = head["history"]
        done = len(history) - trainee.has_start
        if not self._plausible(history, int(head["best_epoch"]), log.validated) or done < 0:
            raise DataFileError(self.path, "holds no history of a training")
        if done > n_epochs:
            raise InputError("n_epochs", f"must be at least the {done} of the checkpoint", got=n_epochs)
        trainee.expect(history)
        numbers = {f"number.{name}": np.array(value, dtype=np.float64) for name, value in trainee.numbers().items()}
        state, targets = state_arrays(trainee.state), self._targets(log)
        schema = {name: Member((a.dtype,), a.shape) for name, a in (targets | numbers | state).items()}
        schema["optimizer.step"] = Member((state["optimizer.step"].dtype,), (), low=0)
        arrays = read_checked(self.path, schema)
        bits = _generator(self.path, str(head["rng"])).bit_generator
        if type(bits) is not type(rng.bit_generator):
            raise DataFileError(self.path, "holds the state of another kind of random generator")
        for name, target in targets.items():
            np.copyto(target, arrays[name], casting="no")
        trainee.state = state_from_arrays(arrays, trainee.state)
        rng.bit_generator.state = bits.state
        log.go_on(history.tolist(), int(head["best_epoch"]))
        return {name.removeprefix("number."): float(arrays[name]) for name in numbers}

    @staticmethod
    def _plausible(history: NDArray[Any], best_epoch: int, validated: bool) -> bool:
        return bool(
            len(history)
            and -1 <= best_epoch < len(history)
            and (best_epoch >= 0 or not validated)
            and np.array_equal(history["epoch"], np.arange(len(history)))
            and np.isfinite(history["loss"]).all()
            and np.isfinite(history["seconds"]).all()
            and (validated or np.isnan(history["validation_score"]).all())
        )

    def write(self, log: Log[Any], rng: np.random.Generator) -> None:
        """Replace the file with the current state."""
        arrays: dict[str, Any] = {
            "identity": np.array(json.dumps(self.identity)),
            "rng_start": np.array(self.rng_start),
            "rng": np.array(_rng_text(rng)),
            "history": log.history(),
            "best_epoch": np.array(log.best_epoch),
            **self._targets(log),
            **{f"number.{name}": np.array(value, dtype=np.float64) for name, value in log.trainee.numbers().items()},
            **state_arrays(log.trainee.state),
        }
        with replacing(self.path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # floats hardly compress, and trying would take longer than the epochs

    @staticmethod
    def _targets(log: Log[Any]) -> dict[str, Floats]:
        return {**log.trainee.arrays, **{f"best.{name}": array for name, array in log.best.items()}}


def _rng_text(rng: np.random.Generator) -> str:
    return json.dumps(to_plain(dict(rng.bit_generator.state)))


def _generator(path: PathLike, text: str) -> np.random.Generator:
    """The generator in the state written by `_rng_text`."""
    state = parse_json(path, text, what="the state of a random generator")
    try:
        kind = getattr(np.random, state["bit_generator"])
        if not issubclass(kind, np.random.BitGenerator):
            raise TypeError("not a kind of generator")
        bits = kind()
        bits.state = state
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise DataFileError(path, "holds no state of a random generator") from error
    return np.random.Generator(bits)
