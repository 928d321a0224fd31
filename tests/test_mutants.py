"""The tool that changes the package in small ways: what it changes, and that it tells caught from survived."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tools.mutants import Check, Outcome, Sandbox, checks_of, examine, failing, main, table
from tools.mutation_reach import Reach, first_lines
from tools.mutation_rules import Mutant, chosen, mutants_of
from tools.mutation_targets import EQUIVALENT, INTERNAL, TARGETS, Target

PACKAGE = Path(__file__).parents[1] / "attnembed"

TOY = '''"""A toy."""


def area(a: float, b: float) -> float:
    """a * b, once 1 + 1."""
    if a < 0 or b < 0:
        return 0.0
    if a > 9 + 1:
        raise ValueError("not below " + "0")
    return a * b


def margin(a: float) -> float:
    return max(a, 0.0) + 1.0


class Box:
    def turned(self, x):
        return -x.sum(axis=0)
'''


def only(source: str = TOY, **wanted: str) -> list[Mutant]:
    return [m for m in mutants_of(source, "toy.py") if all(getattr(m, key) == value for key, value in wanted.items())]


def test_each_mutant_is_one_change_of_one_expression() -> None:
    original = ast.unparse(ast.parse(TOY))
    mutants = mutants_of(TOY, "toy.py")
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        # The rest of the module is as it was, and the change is on one line.
        before, after = original.splitlines(), mutant.source.splitlines()
        assert len(before) == len(after)
        assert sum(a != b for a, b in zip(before, after)) == 1, mutant.name
    # What is said to the caller is no value.
    assert not any("not below" in mutant.before for mutant in mutants)
    # Nor is what is refused.
    assert not any("9" in mutant.before for mutant in mutants)
    assert not any("1 + 1" in mutant.before for mutant in mutants)


@pytest.mark.parametrize(
    ("function", "before", "after"),
    [
        ("area", "a * b", "a / b"),
        ("area", "a * b", "a"),
        ("area", "a < 0", "a <= 0"),
        ("area", "a < 0", "a > 0"),
        ("area", "a < 0 or b < 0", "a < 0 and b < 0"),
        ("margin", "max(a, 0.0)", "min(a, 0.0)"),
        ("margin", "max(a, 0.0) + 1.0", "max(a, 0.0)"),
        ("Box.turned", "-x.sum(axis=0)", "x.sum(axis=0)"),
        ("Box.turned", "axis=0", "axis=1"),
    ],
)
def test_the_rules(function: str, before: str, after: str) -> None:
    (found,) = only(function=function, before=before, after=after)
    namespace: dict[str, object] = {}
    exec(found.source, namespace)
    assert after.replace("axis=1", "x.sum(axis=1)") in found.source


def test_names_do_not_depend_on_what_stands_elsewhere() -> None:
    moved = TOY.replace("def margin", "def other(a):\n    return a - 2\n\n\ndef margin")
    before, after = ({m.name for m in only(text) if m.function != "other"} for text in (TOY, moved))
    assert before == after
    picked = {m.name for m in chosen(only(), 2)}
    assert picked == {m.name for m in chosen(only(moved), 2) if m.function != "other"}
    assert len(picked) == 6
    # Of different rules, where there are any.
    assert len({m.rule for m in chosen(only(function="area"), 4)}) == 4


def test_caught_and_survived(tmp_path: Path) -> None:
    """One mutant that the claim sees, one that only the test sees, one that nobody sees; the copy is put back."""
    root, copy = tmp_path / "root", tmp_path / "copy"
    (root / "toy").mkdir(parents=True)
    copy.mkdir()
    (root / "toy" / "toy.py").write_text(TOY)
    (root / "see.py").write_text(
        "import sys\nfrom toy.toy import area, margin\n"
        "ok = area(2, 4) == 8 if sys.argv[1] == 'claim' else margin(1) == 2\nprint('seen by', sys.argv[1])\n"
        "sys.exit(not ok)\n"
    )
    sandbox = Sandbox(copy, root, ("toy", "see.py"))
    checks = [Check("claims", ("{python}", "see.py", "claim")), Check("tests", ("{python}", "see.py", "test"))]
    assert failing([*checks, *checks], sandbox, 2) == []
    wrong = Check("tests", ("{python}", "-c", "print('wrong'); exit(1)"))
    assert failing([*checks, wrong, wrong], sandbox, 2) == ["wrong"]

    def outcome(**wanted: str) -> Outcome:
        (mutant,) = only(**wanted)
        return examine(mutant, checks, sandbox, package="toy")

    product = outcome(before="a * b", after="a / b")
    assert (product.caught_by, product.detail) == ("claims", "seen by claim")
    extreme = outcome(rule="extreme")
    assert (extreme.caught_by, extreme.detail) == ("tests", "seen by test")
    strict = outcome(before="a < 0", after="a <= 0")
    assert (strict.caught_by, strict.reason) == ("", "")
    assert (copy / "toy" / "toy.py").read_text() == TOY
    assert (root / "toy" / "toy.py").read_text() == TOY
    rows = table([product, extreme, strict]).splitlines()
    assert rows[-1] == "| all | 3 | 0 | 0 | 1 | 1 | 1 |"


def test_a_check_that_does_not_end_has_failed(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, tmp_path, ())
    said = sandbox.fails(Check("claims", ("{python}", "-c", "while True: pass"), timeout=0.3))
    assert said == "no answer in 0.3 s"


def test_the_list_fits_the_package() -> None:
    """Every function that is named exists, so do the claims and tests beside it, and what is excused is a mutant."""
    from attnembed.evidence import claims

    ids, every, count = {entry.id for entry in claims()}, [], 0
    for target in TARGETS:
        found = mutants_of((PACKAGE / target.module).read_text(encoding="utf-8"), target.module, target.functions)
        count += len(chosen(found, 2))
        every += found
        assert {f"{target.subject}/{name}" for name in target.claims} <= ids, target
        assert all((PACKAGE.parent / path).is_file() for path in target.tests), target
    assert count >= 150
    assert set(EQUIVALENT) <= {mutant.name for mutant in every}
    assert set(INTERNAL) <= {f"{mutant.module}:{mutant.function}: {mutant.line}" for mutant in every}
    with pytest.raises(ValueError, match="has no function 'nothing'"):
        mutants_of(TOY, "toy.py", ("nothing",))


def test_a_mutant_is_shown_to_the_claims_that_call_its_function() -> None:
    lines = first_lines(TOY)
    assert lines == {"area": 4, "margin": 13, "Box.turned": 18}
    calls = {
        "toy/slow": ["toy.py", 4],
        "toy/fast": ["toy.py", 4],
        "toy/near": ["toy.py", 4],
        "toy/other": ["toy.py", 13],
    }
    seconds = {"toy/slow": 3.0, "toy/fast": 1.0, "toy/near": 2.0, "toy/other": 0.1}
    reach = Reach(
        {id: {"passed": id != "toy/other", "seconds": seconds[id], "calls": [at]} for id, at in calls.items()}
    )
    assert reach.not_passed == ["toy/other"]
    assert reach.claims(TOY, "toy.py", "area") == ["toy/fast", "toy/near", "toy/slow"]
    (mutant,) = only(before="a * b", after="a / b")

    class Toy(Target):
        subject = "toy"

    target = Toy("toy.py", ("area",), ("near", "other"), ("tests/test_toy.py",))
    claims, tests = checks_of(mutant, target, reach, 2)
    assert claims.command[3:] == ("toy", "2", "toy/near", "toy/fast", "toy/slow")
    assert tests.command[-1] == "tests/test_toy.py"
    # A function that no claim calls is left to the tests.
    (extreme,) = only(rule="extreme")
    assert [check.name for check in checks_of(extreme, target, Reach({}), 2)] == ["tests"]


def test_a_file_of_a_run_makes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Outcome("toy.py:area: x [sign: a -> b]", "toy.py", "claims", "toy/area", 2.0),
        Outcome("toy.py:area: y [sign: a -> b]", "toy.py", "tests", "FAILED", 4.0),
        Outcome(next(iter(EQUIVALENT)), "toy.py", "", "", 3.0),
        Outcome("toy.py:area: z [sign: a -> b]", "toy.py", "", "", 3.0),
        # Not excused by having been caught.
        Outcome(f"{next(iter(INTERNAL))} [sign: a -> b]", "toy.py", "claims", "toy/area", 3.0),
    ]
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"outcomes": [row.to_dict() for row in rows]}))
    assert main(["--table", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "| all | 5 | 1 | 1 | 1 | 1 | 1 |" in printed
    assert "Of 3 mutants that change a public result the claims alone catch 1 (33 %)." in printed
    assert "Of 1 that change none the claims catch 1 and the tests 0 more." in printed
    assert "Survived:\n- `toy.py:area: z [sign: a -> b]`" in printed
