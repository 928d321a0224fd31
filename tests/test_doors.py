"""Every public function beside attention and structured, given another kind of argument, says so by name."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

import attnembed as ae
from attnembed import gradcheck, optim, schedules
from tests.doors import Calls, check_doors

FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "counts.feat").write_text("1 0:1\n-1 1:1\n")
PARAMS = {"w": np.ones(2)}
ADAM = ae.Adam(step_size=0.1)


def square(x: int, rng: np.random.Generator) -> int:
    return x * x


CLAIM = ae.claims("structured")[0]

CALLS: Calls = {
    # --- margins
    "max_margin": (ae.max_margin, {"differences": np.eye(2)}),
    "max_margin_pairs": (ae.margins.max_margin_pairs, {"E": np.eye(3), "pairs": [[0, 1], [0, 2]]}),
    "kkt_residual": (ae.margins.kkt_residual, {"differences": np.eye(2), "p": [1, 1], "dual": [1, 1]}),
    # --- descent
    "Adam": (ae.Adam, {"step_size": 0.1}),
    "SGD": (ae.SGD, {"step_size": 0.1}),
    "Adam.init": (ADAM.init, {"params": PARAMS}),
    "Adam.update": (
        lambda params, grads, state, step_size=None: ADAM.update(params, grads, state, step_size),
        {"params": PARAMS, "grads": {"w": np.ones(2)}, "state": ADAM.init(PARAMS)},
    ),
    "Adam.rescale": (ADAM.rescale, {"state": ADAM.init(PARAMS), "name": "w", "factor": 2.0}),
    "state_arrays": (optim.state_arrays, {"state": ADAM.init(PARAMS)}),
    "state_from_arrays": (
        optim.state_from_arrays,
        {"arrays": optim.state_arrays(ADAM.init(PARAMS)), "like": ADAM.init(PARAMS)},
    ),
    "Constant": (schedules.Constant, {}),
    "Cosine": (schedules.Cosine, {"total": 4}),
    "StepDecay": (schedules.StepDecay, {"every": 2}),
    "InverseTime": (schedules.InverseTime, {"scale": 2.0}),
    # --- gradients
    "check_gradient": (
        gradcheck.check_gradient,
        {"function": lambda x: float((x * x).sum()), "gradient": lambda x: 2 * x, "x": np.ones(2), "directions": 1},
    ),
    "check_gradient_complex_step": (
        gradcheck.check_gradient_complex_step,
        {"function": lambda x: (x * x).sum(), "gradient": lambda x: 2 * x, "x": np.ones(2)},
    ),
    # --- sweeps, threads, evidence
    "sweep": (ae.sweep, {"function": square, "grid": {"x": [1, 2]}, "workers": 1}),
    "set_threads": (ae.set_threads, {"n": None}),
    "Evidence": (ae.Evidence, {"measured": 0.0, "control": 1.0, "bound": 0.5}),
    "by_construction": (lambda text, code: ae.by_construction(text, code=code), {"text": "a", "code": "b"}),
    "claim": (ae.claim, {"id": "doors/one", "statement": "a", "control": "b"}),
    "claims": (ae.claims, {}),
    "verify": (ae.verify, {"subject": [CLAIM], "rng": 0}),
    "reproduce": (ae.reproduce, {"name": "alignment", "out": FOLDER / "out", "quick": True}),
    "load_counts": (ae.load_counts, {"path": FOLDER / "counts.feat"}),
}

SLOW = {"reproduce", "sweep", "verify"}  # start processes, or measure

# What is documented and fine: (a call, a parameter, what it takes).
FINE = {
    ("check_gradient", "gradient", "NaN in an array"),  # reported, as a function's NaN is
    ("check_gradient_complex_step", "gradient", "NaN in an array"),
    ("set_threads", "n", "None"),
    ("Evidence", "measured", "NaN"),  # fails
    ("Evidence", "control", "NaN"),
    ("Evidence", "bound", "NaN"),
    ("Evidence", "control_bound", "NaN"),
    ("Evidence", "hypotheses", "an empty list"),
    ("Evidence", "note", "text"),
    ("by_construction", "text", "text"),
    ("by_construction", "code", "text"),
    ("verify", "rng", "None"),
    ("check_gradient", "x", "too many axes"),  # any shape
    ("check_gradient_complex_step", "x", "too many axes"),
    ("sweep", "store", "text"),
    ("reproduce", "out", "text"),
    ("reproduce", "data", "text"),  # the synthetic ones need none
    *(("claim", name, "text") for name in ("statement", "control", "tex", "reference", "derivation")),
    ("claim", "hypotheses", "an empty list"),
}


@pytest.mark.parametrize("name", [name for name in CALLS if name not in SLOW])
def test_the_good_call_is_good(name: str) -> None:
    function, good = CALLS[name]
    function(**good)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CALLS])
def test_another_kind_of_argument_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.chdir(tmp_path)  # some are names of files
    check_doors(CALLS, name, fine={(p, wrong) for call, p, wrong in FINE if call == name})
