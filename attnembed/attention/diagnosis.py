"""The theory applied to one data set and one model: which statements apply, what each predicts, and what fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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
    small_step_condition,
    smoothness_bound,
)
from attnembed.results import Record, to_plain

__all__ = ["Diagnosis", "diagnose"]


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis(Record):
    """The table of `diagnose`; ``str`` prints it.

    Attributes
    ----------
    kinds : how many tokens are positive, negative, irrelevant, mixed, absent
    assumption : whether Assumption 1 holds, and what violates it
    selection : what p selects now, and the top tokens
    feasible : whether the margin program of the top tokens has a solution; else ``asymptotics.certificate`` tells why
    conditions : the sufficient conditions F3 (basin), F4 (large step), F5 (small step), by name
    divergence, asymptotics, smoothness : what F1, Section 5 and the smoothness bound predict; the asymptotics are those
        of a flow that selects every top token, see ``limits_hold``
    """

    kinds: dict[str, int]
    assumption: AssumptionReport
    selection: Selection
    feasible: bool
    conditions: dict[str, Prediction]
    divergence: Divergence
    asymptotics: Asymptotics
    smoothness: SmoothnessBound

    @property
    def limits_hold(self) -> bool:
        """Whether a theorem promises the predicted limits from this p: F3 or F4 holds, and the limits exist.

        Otherwise they are those of a flow that selects every top token, which no theorem promises: it may select other
        tokens for ever, and then they are wrong.
        """
        promised = any(self.conditions[name].holds for name in ("F3 (basin)", "F4 (large step)"))
        return promised and self.asymptotics.holds

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
        return lines

    def _limit_lines(self) -> list[str]:
        late, beta, diverging = self.asymptotics, self.smoothness.beta, self.divergence.tokens.size
        promised = [name for name, prediction in self.conditions.items() if prediction.holds]
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
        step = f"below a step of {2 / beta:.4g}" if beta > 0 else "at any step: the loss does not depend on p"
        return [*lines, f"always: gradient descent on p never increases the loss {step}"]

    def __repr__(self) -> str:
        holding = [name for name, prediction in self.conditions.items() if prediction.holds]
        return f"Diagnosis(assumption={self.assumption.holds}, feasible={self.feasible}, conditions={holding})"


def diagnose(model: AttentionModel, data: TokenDataset) -> Diagnosis:
    """Ask every statement of the theory whether it applies to this model and data, and what it predicts.

    Nothing here is an error: a violated hypothesis is named with its measured and its required value. Shapes: as the
    model and the data; no training and no flow is run. The predicted limits are conditional unless ``limits_hold``.

    Raises
    ------
    InputError
        if ``model`` is no `AttentionModel`, ``data`` no `TokenDataset` over its tokens, or the scores overflow.

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
    """The table; embeddings may be so large or small that some of its numbers are infinite or not defined."""
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
    )
