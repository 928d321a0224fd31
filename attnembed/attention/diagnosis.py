"""The theory applied to one data set and model: the statements that apply, their predictions, and what fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attnembed._typing import Ints
from attnembed.attention.data import AssumptionReport, TokenDataset, TokenKind, check_data
from attnembed.attention.model import AttentionModel
from attnembed.attention.parameters import check_model
from attnembed.attention.selection import Selection, select
from attnembed.attention.theory import (
    Asymptotics,
    Divergence,
    Prediction,
    SmoothnessBound,
    asymptotics,
    basin_condition,
    divergence,
    large_step_condition,
    local_optima,
    small_step_condition,
    smoothness_bound,
)
from attnembed.errors import InputError, NotSeparableError
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
        promised = any(self.conditions[name].holds for name in ("F3 (basin)", "F4 (large step)"))
        return promised and self.asymptotics.holds

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
            "margins": to_plain(self.margins),
            "step_limit": to_plain(self.asymptotics.step_limit),
            "beta": to_plain(self.smoothness.beta),
        }

    def __str__(self) -> str:
        lines = ["data"]
        lines.append("  tokens: " + ", ".join(f"{count} {name}" for name, count in self.kinds.items() if count))
        lines += [f"  {line}" for line in str(self.assumption).split("\n")]
        lines += ["selection", *(f"  {line}" for line in self._selection_lines())]
        lines.append("conditions for selecting every top token")
        for name, prediction in self.conditions.items():
            lines.append(f"  {name}: {'holds' if prediction.holds else 'does not hold'}")
            lines += [f"    {hypothesis}" for hypothesis in prediction.hypotheses]
        return "\n".join([*lines, *self._limit_lines()])

    def _selection_lines(self) -> list[str]:
        agree, several = np.mean(self.selection.tokens == self.selection.top), np.sum(self.selection.top_ties > 1)
        lines = [f"p selects the top token in {100 * agree:.1f} % of the sequences"]
        if several:
            lines.append(f"{several} sequences have several top tokens: see theory.tie_invariant")
        if not len(self.asymptotics.pairs):
            lines.append("every sequence has one token type: there is nothing to select, and p does not move")
        elif not self.feasible:
            lines.append("the margin program of the top tokens is infeasible: asymptotics.certificate has the weights")
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
            marks = ["top tokens"] * np.array_equal(optimum, self.selection.top) + ["p selects it now"] * (k == now)
            lines.append("  tokens " + " ".join(map(str, optimum[:12])) + " ..." * (len(optimum) > 12))
            lines[-1] += f" ({', '.join(marks)})" if marks else ""
        lines += [f"  and {count - 5} more"] if count > 5 else []
        if self.limits_hold:
            lines.append(f"the flow from p ends in that of the top tokens: {self._promising[0]} holds")
        elif count == 1:
            lines.append("if the flow from p ends in a selection, then in this one; it may rest, or leave tokens level")
        elif count:
            lines.append("no theorem says which one the flow from p ends in, or that it ends in one")
        return lines

    @property
    def _promising(self) -> list[str]:
        return [name for name, prediction in self.conditions.items() if prediction.holds]

    def _limit_lines(self) -> list[str]:
        late, beta, diverging = self.asymptotics, self.smoothness.beta, self.divergence.tokens.size
        promised = self._promising
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
                f"  normalised steps shorter than {late.step_limit:.4g} contract L - L* by e^(-{late.margin:.4g} eta)",
                "  Polyak's step "
                + ("contracts it by 1/e" if late.curvature < 2 else "is not stable")
                + f" (lambda_max(H_perp) = {late.curvature:.4g}, stable below 2)",
            ]
        else:
            lines += [f"  {failure}" for failure in late.failures]
        if len(self.margins) > 1:
            methods = {"l2": "gradient flow", "linf": "sign descent", "l1": "coordinate descent"}
            parts = [f"{value:.4g} in {name} ({methods[name]})" for name, value in self.margins.items()]
            lines.append("  the method decides the norm whose margin grows to its maximum: " + ", ".join(parts))
        step = f"below a step of {2 / beta:.4g}" if beta > 0 else "at any step: the loss does not depend on p"
        return [*lines, f"always: gradient descent on p never increases the loss {step}"]

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
    late = asymptotics(model, data)
    return Diagnosis(
        kinds=kinds,
        assumption=data.check_assumption(limit=3),
        selection=select(model, data),
        feasible=late.certificate is None,
        conditions={
            "F3 (basin)": basin_condition(model, data),
            "F4 (large step)": large_step_condition(model, data),
            "F5 (small step)": small_step_condition(model, data),
        },
        divergence=divergence(model, data),
        asymptotics=late,
        smoothness=smoothness_bound(model, data),
        local_optima=_optima(model, data),
        margins=_margins(model, late),
    )


def _optima(model: AttentionModel, data: TokenDataset) -> tuple[Ints, ...] | None:
    """The local optima, or None where there are too many selections to examine."""
    if model.dim * data.counts.nnz > 10 * _ENTRIES:
        return None
    try:
        return local_optima(model, data, limit=_EXAMINED)
    except InputError:
        return None


def _margins(model: AttentionModel, late: Asymptotics) -> dict[str, float]:
    """The margin of the top tokens in each norm, as far as it is cheap."""
    if not (0 < late.margin < np.inf):
        return {}
    margins = {"l2": late.margin}
    if len(late.pairs) * model.dim <= _ENTRIES:
        E = model.E.astype(np.float64)
        D = E[late.pairs[:, 0]] - E[late.pairs[:, 1]]
        for norm in NORMS[1:]:
            try:
                result = max_margin(D, norm=norm)
            except (NotSeparableError, InputError):  # margins at the limit of what a solver can certify
                continue
            if result.success:
                margins[norm] = result.margin
    return margins
