"""The theory applied to one data set and model: the statements that apply, their predictions, and what fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._typing import Ints
from attnembed.attention.data import AssumptionReport, TokenDataset, TokenKind, check_data
from attnembed.attention.model import AttentionModel
from attnembed.attention.parameters import check_model
from attnembed.attention.selection import Selection, TokenValues, select
from attnembed.attention.theory import (
    Asymptotics,
    Divergence,
    Prediction,
    SmoothnessBound,
    divergence,
    local_optima,
    one_step_bound,
    small_step_condition,
    smoothness_bound,
)
from attnembed.attention.theory._inputs import parameters
from attnembed.attention.theory._program import MarginProgram, solve_program
from attnembed.attention.theory.basin import basin_of, large_step_of
from attnembed.attention.theory.rates import asymptotics_of
from attnembed.errors import InputError, NotSeparableError
from attnembed.losses import logistic
from attnembed.margin_norms import NORMS
from attnembed.margins import max_margin
from attnembed.results import Record, to_plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Diagnosis", "diagnose"]


# Local optima and margins in other norms are computed where that takes a fraction of a second: up to this many
# selections to examine, and this many entries in the rows.
_EXAMINED = 100
_ENTRIES = 2_000
_NOTHING_TO_SELECT = "every sequence has one token type: there is nothing to select, and p does not move"
_METHODS = {"l2": "gradient flow", "linf": "sign descent", "l1": "coordinate descent"}


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Record):
    """The table of `diagnose`; ``str`` prints it.

    Attributes
    ----------
    kinds : the numbers of positive, negative, irrelevant, mixed and absent tokens
    assumption : whether Assumption 1 holds, with its violations
    selection : the tokens that p selects now, and the top tokens
    feasible : whether the margin program of the top tokens has a solution; else ``asymptotics.certificate`` shows why
    conditions : the sufficient conditions F3 (basin), F4 (large step), F5 (small step), by name
    divergence, asymptotics, smoothness : predictions of F1, Section 5 and the smoothness bound; the asymptotics are
        those of a flow that selects every top token, see ``limits_hold``
    local_optima : the selections (n,) that open sets of flows end in (`theory.local_optima`); None for data with more
        than 100 to examine
    margins : the margin of the top tokens in the norms "l2", "linf" and "l1", which gradient flow, sign descent and
        coordinate descent maximise; only "l2" for programs of more than 2,000 entries, empty for infeasible ones
    attained : the share of each of these that the direction of p has now, at most 1 and negative where p lets another
        token win; empty for p = 0
    in_order : the number of sequences with exactly one completely positive or negative token type and no mixed token;
        all of them where Assumption 1 holds
    rests : whether the gradient at p is zero, so that neither flow nor descent ever moves p
    conflict : why no p selects every top token, in words; empty if the margin program is feasible
    slope : ||v||^2 / 2, the change of a token value per unit of eta alpha_s in one step on E of size eta
    step_error : a bound on the error of that prediction, per unit of eta phi_s (`theory.one_step_bound`)
    """

    kinds: dict[str, int]
    assumption: AssumptionReport
    selection: Selection
    feasible: bool
    conditions: dict[str, Prediction]
    divergence: Divergence
    asymptotics: Asymptotics
    smoothness: SmoothnessBound
    local_optima: tuple[Ints, ...] | None
    margins: dict[str, float]
    attained: dict[str, float]
    in_order: int
    rests: bool
    conflict: str
    slope: float
    step_error: float

    @property
    def current_optimum(self) -> int | None:
        """Index of the ``local_optima`` that p selects now; None if it selects none of them, or they are not known."""
        found = [
            k for k, optimum in enumerate(self.local_optima or ()) if np.array_equal(optimum, self.selection.tokens)
        ]
        return found[0] if found else None

    @property
    def limits_hold(self) -> bool:
        """Whether a theorem promises the predicted limits from this p: F3 or F4 holds, and the limits exist.

        Otherwise they are those of a flow that selects every top token, which no theorem promises: if the flow selects
        other tokens for good, they are wrong.
        """
        return bool(self._kept) and self.asymptotics.holds

    @property
    def ends_in(self) -> Ints | None:
        """The selection (n,) that a theorem says the flow from p ends in; None if none says so: see ``ends_because``.

        F3 and F4 say so for the top tokens. No theorem decides which other local optimum a flow ends in.
        """
        return self.selection.top if self._kept else None

    @property
    def ends_because(self) -> str:
        """Why ``ends_in`` is the end of the flow from p, or why nothing is known without running the flow."""
        if not len(self.asymptotics.pairs):
            return _NOTHING_TO_SELECT
        if self.rests:
            return "nowhere: the gradient at p is zero, so that the flow rests at p for ever"
        if self._kept:
            return f"in that of the top tokens: {self._kept[0]} holds, and inside the basin no flow turns away"
        if self._promising:
            return (
                "in that of the top tokens if p_t/||p_t|| converges, which F5 does not say: "
                "undecided without running the flow"
            )
        undecided = "undecided without running the flow (gradient_flow): "
        if not self.feasible:
            return undecided + "not in that of the top tokens, which no p selects; no theorem names another end"
        if self.local_optima is None or self.current_optimum is None:
            return undecided + "p is not in the basin of the top tokens (F3), and no theorem names another end"
        if np.array_equal(self.selection.tokens, self.selection.top):
            return undecided + (
                "p selects the top tokens, which are locally optimal, but is not far enough along for F3, "
                f"off by {-self._basin_slack:.3g}"
            )
        return undecided + (
            "p selects a local optimum, which keeps all flows that come near enough to its direction, "
            "but no theorem says that p is near enough"
        )

    @property
    def stable_steps(self) -> dict[str, float]:
        """The step sizes below which descent on p is known to be stable.

        "gradient": 2/beta, from any p, the loss never increases. "normalised": eta* of `Asymptotics.step_limit`, once p
        is late in a flow that selects every top token; NaN where that flow has no offset.
        """
        beta = self.smoothness.beta
        return {"gradient": 2 / beta if beta > 0 else np.inf, "normalised": self.asymptotics.step_limit}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how far each sufficient condition is from holding: its left side over its right side.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        shares = [
            found.left / found.right if found.right > 0 else np.inf  # type: ignore[attr-defined]
            for found in self.conditions.values()
        ]
        return figures.plot_limits(
            list(self.conditions),
            {"left / right side": shares},
            xlabel="share of the limit (log): holds below 1",
            ax=ax,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        return {
            "kinds": self.kinds,
            "assumption": {"holds": self.assumption.holds, "violations": self.assumption.violations},
            "selects_top": float(np.mean(self.selection.tokens == self.selection.top)),
            "feasible": self.feasible,
            "conditions": {name: prediction.to_dict() for name, prediction in self.conditions.items()},
            "divergence": self.divergence.to_dict(),
            "asymptotics": to_plain(self.asymptotics),
            "limits_hold": self.limits_hold,
            "local_optima": to_plain(self.local_optima),
            "current_optimum": self.current_optimum,
            "ends_in": to_plain(self.ends_in),
            "ends_because": self.ends_because,
            "margins": to_plain(self.margins),
            "attained": to_plain(self.attained),
            "in_order": self.in_order,
            "rests": self.rests,
            "conflict": self.conflict,
            "stable_steps": to_plain(self.stable_steps),
            "slope": to_plain(self.slope),
            "step_error": to_plain(self.step_error),
            "step_limit": to_plain(self.asymptotics.step_limit),
            "beta": to_plain(self.smoothness.beta),
        }

    def __str__(self) -> str:
        lines = ["data"]
        lines.append("  tokens: " + ", ".join(f"{count} {name}" for name, count in self.kinds.items() if count))
        lines += [f"  {line}" for line in str(self.assumption).split("\n")]
        if not self.assumption.holds:
            n = len(self.selection.tokens)
            share = "in none" if self.in_order == 0 else f"in {self.in_order}"
            lines.append(
                f"    it holds {share} of the {n} sequences: what rests on it, F5 among others, does not apply"
            )
        lines += ["selection", *(f"  {line}" for line in self._selection_lines())]
        lines.append("conditions for selecting every top token")
        for name, prediction in self.conditions.items():
            lines.append(f"  {name}: {'holds' if prediction.holds else 'does not hold'}")
            lines += [f"    {hypothesis}" for hypothesis in prediction.hypotheses]
        lines += ["where the flow from p ends", f"  {self.ends_because}"]
        lines += [*self._limit_lines(), *self._margin_lines(), *self._step_lines(), *self._sure_lines()]
        return "\n".join(lines)

    def _selection_lines(self) -> list[str]:
        agree, several = np.mean(self.selection.tokens == self.selection.top), np.sum(self.selection.top_ties > 1)
        lines = [f"p selects the top token in {100 * agree:.1f} % of the sequences"]
        if several:
            lines.append(f"{several} sequences have several top tokens: see theory.tie_invariant")
        if not len(self.asymptotics.pairs):
            lines.append(_NOTHING_TO_SELECT)
        elif not self.feasible:
            lines += ["the margin program of the top tokens is infeasible: no p selects all of them", self.conflict]
        elif np.isfinite(self.asymptotics.margin):
            lines.append(f"the margin program of the top tokens is feasible, margin {self.asymptotics.margin:.4g}")
        else:
            lines.append("the rows of the margin program differ too much in length to be solved")
        return lines + self._optimum_lines()

    def _optimum_lines(self) -> list[str]:
        """Lines on the selections that flows can end in, and on the flow from this p."""
        if not len(self.asymptotics.pairs):
            return []
        if self.local_optima is None:
            return [
                f"locally optimal selections: not listed (more than {_EXAMINED} to examine; see theory.local_optima)"
            ]
        count, now = len(self.local_optima), self.current_optimum
        lines = [f"locally optimal selections: {count}, those that an open set of flows ends in"]
        for k, optimum in enumerate(self.local_optima[:5]):
            # Where values tie, other selections of top tokens have the same loss.
            marks = ["top tokens"] * np.array_equal(optimum, self.selection.top) + ["p selects it now"] * (k == now)
            lines.append("  tokens " + " ".join(map(str, optimum[:12])) + " ..." * (len(optimum) > 12))
            lines[-1] += f" ({', '.join(marks)})" if marks else ""
        lines += [f"  and {count - 5} more"] if count > 5 else []
        if now is None and count:
            lines.append("p selects none of them now")
        if count == 1:
            lines.append("a flow that ends in a selection ends in this one; it may also rest, or leave tokens level")
        elif count == 0:
            lines.append("flows rest at a finite p or leave tokens level, borderline cases (C_k or lambda_k = 0) aside")
        return lines

    @property
    def _kept(self) -> list[str]:
        """The conditions that promise every top token to the flow from p itself, not only to its limit."""
        return [name for name in self._promising if not name.startswith("F5")]

    @property
    def _basin_slack(self) -> float:
        return self.conditions["F3 (basin)"].hypotheses[-1].slack

    @property
    def _promising(self) -> list[str]:
        return [name for name, prediction in self.conditions.items() if prediction.holds]

    def _limit_lines(self) -> list[str]:
        late, diverging = self.asymptotics, self.divergence.tokens.size
        promised = self._promising
        if not self.feasible:
            return ["predicted limits: none, because no p selects every top token"]
        if self.limits_hold:
            lines = [f"predicted limits ({promised[0]} promises that every top token is selected)"]
        elif promised:
            lines = ["predicted limits, if p_t/||p_t|| converges (F5 promises that every top token is selected then)"]
        else:
            lines = ["predicted limits, if every top token is selected (no condition above promises it)"]
        lines.append(
            f"  ||p|| diverges: {diverging} tokens are strictly top wherever they occur"
            if self.divergence.holds
            else "  ||p|| need not diverge: " + "; ".join(map(str, self.divergence.failures))
        )
        if late.holds:
            lines += [
                f"  t (L - L*) -> {late.loss_gap_constant:.6g}",
                f"  ||p|| - {1 / late.margin:.6g} log t -> {late.norm_constant:.6g}",
                f"  (1 - cos) log^2 t -> {late.angle_constant:.6g}" + ("" if late.angle_is_exact else " or more"),
                f"  transients decay like t^-{late.transient_rate:.4g}",
            ]
        else:
            lines += [f"  {failure}" for failure in late.failures]
        return lines

    def _margin_lines(self) -> list[str]:
        """The norms in which margins are maximal, and how far p is from it."""
        if not self.margins:
            return ["margins: none in any norm, because no p with a margin selects the top tokens"]
        lines = ["margins: the method decides the norm in which the direction of p gets the largest one"]
        lines[0] += ", here promised" if self._kept else ", if it selects every top token"
        lines[0] += ", which it does not from this p" if self.rests else ""
        for name, value in self.margins.items():
            share = self.attained.get(name, 0.0)
            now = f"p has {100 * share:.3g} % of it now" if share > 0 else "p has none now: another token wins"
            lines.append(f"  {value:.4g} in {name} ({_METHODS[name]})" + (f"; {now}" if self.attained else ""))
        if len(self.margins) == 1:
            lines.append("  linf (sign descent) and l1 (coordinate descent) not computed: see max_margin(D, norm=...)")
        return lines

    def _step_lines(self) -> list[str]:
        """The step sizes that are stable, and those that are only if every top token is selected."""
        late, gradient = self.asymptotics, self.stable_steps["gradient"]
        step = f"below a step of {gradient:.4g}" if gradient < np.inf else "at any step: the loss does not depend on p"
        lines = ["stable steps", f"  always: gradient descent on p never increases the loss {step}"]
        if not late.holds:
            return [*lines, "  normalised and Polyak steps: nothing is known, for want of the limits above"]
        bound = f"shorter than {late.step_limit:.4g}" if late.step_limit < np.inf else "of any length"
        verdict = "contracts it by 1/e" if late.curvature < 2 else "is not stable"
        return [
            *lines,
            f"  late, if every top token is selected: normalised steps {bound} contract L - L* by "
            f"e^(-{late.margin:.4g} eta)",
            f"    and Polyak's step {verdict} (lambda_max(H_perp) = {late.curvature:.4g}, stable below 2)",
        ]

    def _sure_lines(self) -> list[str]:
        """What holds whatever the flow does, and what does not."""
        lines = [
            "unconditional",
            f"  one step of size eta on E changes the token values by {self.slope:.4g} eta alpha_s (Lemma 4.1), "
            + ("exactly" if self.step_error == 0 else f"to within {self.step_error:.3g} eta phi_s")
            + (", which says little from this p" if self.step_error > self.slope else ""),
        ]
        if len(self.asymptotics.pairs) and not self.feasible:
            lines.append("  no p selects every top token, and no flow reaches the infimum L* by selecting them")
        if self._kept:
            return [*lines, "only conditional: normalised and Polyak steps (on being late enough)"]
        if not self.margins or self.rests:
            return [*lines, "nothing else is predicted"]
        conditional = "predicted limits, margins, normalised and Polyak steps (on selecting every top token)"
        return [*lines, f"only conditional: {conditional}"]

    def __repr__(self) -> str:
        return f"Diagnosis(assumption={self.assumption.holds}, feasible={self.feasible}, conditions={self._promising})"


def diagnose(model: AttentionModel, data: TokenDataset) -> Diagnosis:
    """Check every statement of the theory on this model and data: whether it applies, and what it predicts.

    A violated hypothesis is not an error: it is named with its measured and required values. No training and no flow is
    run. The predicted limits are conditional unless ``limits_hold``.

    Raises
    ------
    InputError
        if ``model`` is not an `AttentionModel`, ``data`` not a `TokenDataset` over its tokens, or the scores overflow.

    Source: [WSOM25]; statements F1-F5 and Section 5 (docs/derivations).

    >>> from attnembed.attention.data import make_balanced_dataset
    >>> data = make_balanced_dataset(n_samples=8, length=3, n_irrelevant=4, rng=0)
    >>> E = np.eye(8, 9)
    >>> E[:4, 8] = 0.1, 0.1, -0.1, -0.1
    >>> report = diagnose(AttentionModel(E, np.zeros(9), np.eye(9)[8]), data)
    >>> report.assumption.holds, report.feasible, report.conditions["F5 (small step)"].holds
    (True, True, True)
    """
    check_model(model)
    check_data(data, len(model.E))
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        return _diagnose(model, data)


def _diagnose(model: AttentionModel, data: TokenDataset) -> Diagnosis:
    """The table; extreme embeddings may leave some of its numbers infinite or undefined."""
    kinds = {kind.name.lower(): int(np.sum(data.token_kinds == kind)) for kind in TokenKind}
    # One solution of the margin program for all that rest on it: on real counts it has a million rows.
    _, p, v = parameters(model, data)
    values = TokenValues.of(model)
    selection = select(model, data)
    program = solve_program(model, data, selection.top)
    late = asymptotics_of(p, data, values, program, selection.top)
    margins, occurs = _margins(program, model.dim), data.frequency > 0
    return Diagnosis(
        kinds=kinds,
        assumption=data.check_assumption(limit=3),
        selection=selection,
        feasible=late.certificate is None,
        conditions={
            "F3 (basin)": basin_of(model, data, logistic, program),
            "F4 (large step)": large_step_of(model, data, logistic, program),
            "F5 (small step)": small_step_condition(model, data),
        },
        divergence=divergence(model, data),
        asymptotics=late,
        smoothness=smoothness_bound(model, data),
        local_optima=_optima(model, data),
        margins=margins,
        attained=program.attained(p, margins),
        in_order=_in_order(data),
        rests=not bool(model.loss_and_grads(data)[1].scaled_p.any()),
        conflict=program.conflict(data.vocab),
        slope=float(v @ v) / 2,
        step_error=float((one_step_bound(model, data, 1.0).value[occurs] / data.frequency[occurs]).max()),
    )


def _in_order(data: TokenDataset) -> int:
    """The number of sequences that obey Assumption 1."""
    kinds = data.token_kinds[data.counts.indices]
    decisive = (kinds == TokenKind.POSITIVE) | (kinds == TokenKind.NEGATIVE)
    mixed = data.segments.sum((kinds == TokenKind.MIXED).astype(np.int64))
    return int(np.sum((data.segments.sum(decisive.astype(np.int64)) == 1) & (mixed == 0)))


def _optima(model: AttentionModel, data: TokenDataset) -> tuple[Ints, ...] | None:
    """The local optima, or None where there are too many selections to examine."""
    if model.dim * data.counts.nnz > 10 * _ENTRIES:
        return None
    try:
        return local_optima(model, data, limit=_EXAMINED)
    except InputError:
        return None


def _margins(program: MarginProgram, dim: int) -> dict[str, float]:
    """The margin of the top tokens in each norm, as far as it is cheap."""
    if not (0 < program.margin < np.inf):
        return {}
    margins = {"l2": program.margin}
    if len(program.pairs) * dim <= _ENTRIES:
        for norm in NORMS[1:]:
            try:
                result = max_margin(program.differences, norm=norm)
            except (NotSeparableError, InputError):  # margins at the limit of what a solver can certify
                continue
            if result.success:
                margins[norm] = result.margin
    return margins
