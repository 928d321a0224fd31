"""Claims on many instances, and claims of others: files, problems, the command line; nothing half registered."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import attnembed as ae
from attnembed import testing as t
from attnembed.__main__ import main
from attnembed.errors import InputError
from attnembed.evidence import Claim, Evidence, instances, verify
from attnembed.evidence import registry as module
from attnembed.evidence.run import instance_seeds

LEMMAS = """
import numpy as np
import attnembed as ae
from attnembed import testing as t


@ae.claim("SUBJECT/descent", statement="a small step never raises the loss",
          hypotheses=("the gradient is not negligible",), control="the same step uphill")
def descent(problem: t.Problem) -> ae.Evidence:
    model, data = problem.model, problem.data
    loss, grads = model.loss_and_grads(data)
    def rise(step):
        return model.replace(p=model.p - step * grads.p).loss(data) - loss
    eta = 1 / max(model.smoothness_p(data), 1.0)
    fine = {"the gradient is not negligible": bool(np.linalg.norm(grads.p) > 1e-3)}
    return ae.Evidence(measured=rise(eta), tolerance=1e-12, control=rise(-eta), hypotheses=fine)


def convex(problem):
    return bool(np.linalg.eigvalsh(problem.model.hessian_p(problem.data))[0] > -1e-6)


def says_text(problem):
    return "yes"


def takes_rng(rng):
    return True


def raises(problem):
    return 1 / 0
"""


@pytest.fixture(autouse=True)
def registry_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ae.claims()
    monkeypatch.setattr(module, "_registry", dict(module._registry))
    return


@pytest.fixture
def lemmas(tmp_path: Path) -> str:
    path = tmp_path / f"lemmas_{tmp_path.name.replace('-', '_')}.py"
    path.write_text(LEMMAS.replace("SUBJECT", f"s{abs(hash(str(tmp_path)))}"))
    return str(path)


def made_up(measure: object) -> Claim:
    return Claim("mine/m", "mine", "s", "", "", (), "c", "", measure)  # type: ignore[arg-type]


def test_instances_are_counted_and_the_worst_is_shown_and_repeated() -> None:
    def measure(rng: np.random.Generator) -> Evidence:
        x = float(rng.random())
        return Evidence(measured=x, bound=1.0, control=3 * x, hypotheses={"h": x > 0.25})

    (found,) = verify([made_up(measure)], instances=40, rng=5).results
    assert found.held + found.skipped == found.instances == 40
    assert 0 < found.skipped < 30
    assert found.verdict == "passed"
    assert found.ratio == found.best_ratio == found.measured > 0.8
    (again,) = verify([made_up(measure)], instances=1, rng=found.instance).results
    assert again.measured == found.measured
    assert verify([made_up(measure)], instances=1, rng=5).results[0].instance == 5
    assert len(set(instance_seeds(5, 300))) == 300


def test_verdicts_over_instances() -> None:
    def verdict(measure: object) -> str:
        return verify([made_up(measure)], instances=20).results[0].verdict

    assert verdict(lambda rng: Evidence(measured=rng.random(), bound=0.9, control=9)) == "failed"
    assert verdict(lambda rng: Evidence(measured=0, bound=1, control=rng.random())) == "blind"
    assert verdict(lambda rng: Evidence(measured=0, bound=1, control=9 * (rng.random() > 0.5))) == "passed"
    assert verdict(lambda rng: Evidence(measured=0, bound=1, control=9, hypotheses={"h": False})) == "vacuous"

    def sometimes(rng: np.random.Generator) -> Evidence:
        return Evidence(measured=1 / int(rng.integers(0, 3)), bound=2, control=9)

    (found,) = verify([made_up(sometimes)], instances=20).results
    assert (found.verdict, found.error) == ("failed", "ZeroDivisionError: division by zero")
    assert 0 < found.held < 20


def test_a_file_is_verified_and_shown(lemmas: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", lemmas, "--instances", "4"]) == 0
    assert "1 of 1 claims hold on 4 instances each" in capsys.readouterr().out
    assert main(["show", ae.claims()[-1].id, "--claims", lemmas]) == 0
    shown = capsys.readouterr().out
    assert "A small step never raises the loss." in shown
    assert ":7 descent" in shown


def test_falsify_prints_a_script_and_exits_with_1(lemmas: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["falsify", f"{lemmas}::convex"]) == 1
    out = capsys.readouterr().out
    printed: list[object] = []
    exec(compile(out, "script", "exec"), {"print": printed.append})
    assert printed == [False]
    assert main(["falsify", f"{lemmas}::descent", "--max-examples", "15"]) == 0


def test_show_names_the_code_that_a_claim_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "attention/step-in-span"]) == 0
    out = capsys.readouterr().out
    assert "docs/derivations/one-step.md" in out
    line = next(line for line in out.splitlines() if line.endswith(" one_step"))
    file, _, number = line.split()[1].partition(":")
    root = Path(ae.__file__).parents[1]
    assert "def one_step(" in (root / file).read_text().splitlines()[int(number) - 1]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nowhere_at_all", "line 1: cannot be imported: ModuleNotFoundError"),
        ("import nowhere_at_all", "fix the file until `python wrong_lemmas.py` runs"),
        ("x = (", "cannot be imported: SyntaxError"),
        ("import attnembed as ae\n\nraise SystemExit", "line 3: cannot be imported: SystemExit"),
        ("x = 1", "declares no claim"),
        (LEMMAS.replace("SUBJECT", "half") + "\nraise ValueError('late')", "cannot be imported: ValueError: late"),
        (LEMMAS.replace("SUBJECT", "attention"), "must not use a subject of the package"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_registers_nothing(
    source: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong_lemmas.py").write_text(source)
    before = ae.claims()
    for name, told in (("wrong_lemmas.py", words), ("absent.py", "does not exist; name a Python file")):
        assert main(["verify", str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert told in err
    assert ae.claims() == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("::raises", "got ZeroDivisionError: division by zero; return None where the statement does not apply"),
        ("::nothing", "must be a function of"),
        ("", "must be FILE.py::NAME"),
        ("::says_text", "must return True, False, a ratio, Evidence or None; got 'yes'"),
        ("::takes_rng", "a search needs a function of `problem`"),
    ],
)
def test_what_cannot_be_falsified_is_one_line(
    name: str, words: str, lemmas: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["falsify", f"{lemmas}{name}"]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_an_id_in_the_place_of_a_file_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "attention/hessian-bound"]) == 2
    assert "is a claim, not a file; use --ids attention/hessian-bound" in capsys.readouterr().err


def test_a_strategy_that_draws_nothing_is_vacuous_and_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its conditions are asked (three times a draw) a limited number of times."""
    monkeypatch.setattr(instances, "_TRIES", 40)
    asked = 0

    def never(pair: object) -> bool:
        nonlocal asked
        asked += 1
        return False

    def measure(problem: object) -> Evidence:
        return Evidence(measured=0, bound=1, control=2)

    measure.__annotations__["problem"] = Annotated[object, t.potentials(length=(1, 2)).filter(never)]
    (found,) = verify([made_up(measure)], instances=1).results
    assert found.verdict == "vacuous"
    assert found.reason.endswith("let it make them hold by construction")
    assert 40 < asked <= 120


def test_a_strategy_that_cannot_be_read_is_not_ignored() -> None:
    """A postponed annotation sees the names of its module, not those of the function around it."""
    own = t.potentials()

    def measure(problem: Annotated[object, own]) -> Evidence:
        return Evidence(measured=0, bound=1, control=2)

    assert own is not None
    with pytest.raises(InputError, match="name 'own' is not defined; define the strategy at the top level"):
        made_up(measure).takes_problem  # noqa: B018


# Without Hypothesis.


@contextmanager
def no_hypothesis() -> Iterator[None]:
    """An import of hypothesis, or of what needs it, fails as it does where it is not installed."""
    with pytest.MonkeyPatch.context() as patch:  # no fixture: the plugin of Hypothesis itself runs around the test
        patch.setitem(sys.modules, "hypothesis", None)
        for name in [name for name in sys.modules if (name + ".").startswith("attnembed.testing.")]:
            patch.delitem(sys.modules, name)
        patch.delattr(ae, "testing", raising=False)
        yield


WITHOUT = """
import attnembed as ae

@ae.claim("w/drawn", statement="a loss is positive", control="its negative")
def drawn(problem):
    loss = problem.model.loss(problem.data)
    return ae.Evidence(measured=-loss, bound=0.0, control=loss)

@ae.claim("w/own", statement="a number of [0, 1) is below one", control="two")
def own(rng):
    return ae.Evidence(measured=rng.random(), bound=1.0, control=2.0)
"""
INSTALL = "install it with: python -m pip install 'attnembed[test]'"


def test_without_hypothesis_the_rest_works_and_one_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "without_hypothesis.py"
    file.write_text(WITHOUT)
    with no_hypothesis():
        with pytest.raises(ImportError, match="needs the package hypothesis; install it with"):
            importlib.import_module("attnembed.testing")
        assert main(["list"]) == 0
        assert main(["verify", "--ids", "attention/hessian-bound", "--instances", "1"]) == 0
        capsys.readouterr()
        assert main(["falsify", f"{file}::drawn"]) == 2
        err = capsys.readouterr().err
        assert main(["verify", str(file), "--instances", "2"]) == 1
        out = capsys.readouterr().out
    assert len(err.splitlines()) == 1
    assert INSTALL in err
    assert INSTALL in out
    assert "1 of 2 claims hold" in out
