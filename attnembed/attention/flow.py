"""Gradient flow on the <cls> embedding, dp/dt = -grad_p L(E, p, v), with E and v fixed ([WSOM25], Section 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import numpy as np
from numpy.typing import NDArray

from attnembed._notebook import CLOCK_LABELS, Curve
from attnembed._options import with_options
from attnembed._sparse import with_values
from attnembed._typing import Doubles
from attnembed._validation import check_choice, check_function, check_integer, check_positive, check_share, freeze
from attnembed.attention.data import TokenDataset, check_data
from attnembed.attention.dense_passes import DenseField, is_small
from attnembed.attention.geometry import Geometry, check_geometry, follow_geometry
from attnembed.attention.model import AttentionModel
from attnembed.attention.parameters import check_model, check_scores, check_sizes
from attnembed.attention.passes import AnchoredPass, TokenPasses, is_wide, loss_gap
from attnembed.attention.selection import TokenValues, select, top_tokens
from attnembed.attention.theory.rates import asymptotics
from attnembed.clocks import CLOCKS, Clock, check_clock
from attnembed.errors import InputError
from attnembed.gibbs import probabilities
from attnembed.integration import FlowPath, FlowPoint, FlowState, Trajectory, follow
from attnembed.losses import Loss, check_loss, logistic
from attnembed.results import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FlowResult", "FlowState", "gradient_flow"]


# The gradient counts as cancelled below this share of its terms.
_CANCELLED = 1e-8
# Where p diverges, a difference of scores grows by at least one per unit of log time (F2: p_mm.d >= 1). It rests where
# no score can change by more than this.
_AT_REST = 0.1
# A selection has been made where each sequence gives one token this much attention, and is judged (by its margin
# program) where its rows have no more entries than this.
_SELECTED = 0.99
_JUDGED = 2_000_000
# From this many nonzero counts on, points of a path are observed by one exponential per token.
_MANY = 2**14


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FlowResult(FlowPath):
    """The path of p; all arrays run over the k accepted steps, including the start.

    Attributes
    ----------
    p : (d,) the last point
    path : (k, d) the points
    log_time : (k,) log t; -inf at the start, t = 0
    arclength : (k,) length of the path so far, in the norm of the geometry
    loss_gap : (k,) L - L*, L* = mean_i l(gamma_i*), computed without cancellation
    top_attention : (k,) the smallest over sequences of the attention on the top token
    selection : (n,) the token with the largest score in each sequence, at the last point
    model : the model at the last point
    clock : "log_time", "time" or "arclength", the variable of the integration
    geometry : "l2", "linf", "l1" or ("mirror", q)
    nfev, njev : evaluations of the gradient and of its Jacobian
    """

    loss_gap: Doubles
    top_attention: Doubles
    selection: NDArray[np.integer[Any]]
    model: AttentionModel
    geometry: Geometry = "l2"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw L - L* and the attention missing from the top tokens against the clock, on a logarithmic axis.

        Draws on new axes if none are given; returns the axes.
        """
        from attnembed import figures

        return figures.plot_flow(self.reading, self.loss_gap, 1 - self.top_attention, clock=self.clock, ax=ax)

    def _curves(self) -> list[Curve]:
        with np.errstate(divide="ignore"):
            gap = np.log10(self.loss_gap)
        clock = CLOCK_LABELS[self.clock]
        return [
            Curve(self.reading, gap, clock, "log10 (L - L*)"),
            Curve(self.reading, self.top_attention, clock, "least attention on a top token"),
        ]


class FlowOptions(TypedDict, total=False):
    """The options of `gradient_flow` for its accuracy and its early stops."""

    score_step: float
    rtol: float
    atol: float
    stop_attention: float | None
    stop_norm: float | None
    max_nfev: int


@with_options(FlowOptions, score_step=0.1, rtol=1e-8, atol=1e-10, stop_attention=None, stop_norm=None, max_nfev=20_000)
def gradient_flow(
    model: AttentionModel,
    data: TokenDataset,
    *,
    clock: Clock = "log_time",
    until: float = 40.0,
    loss: Loss | str = logistic,
    geometry: Geometry = "l2",
    callback: Callable[[FlowState], bool | None] | None = None,
    **options: Unpack[FlowOptions],
) -> FlowResult:
    """Follow dp/dt = -grad_p L from the model's p, or steepest descent in another geometry.

    The path stays in p_0 + span of the embeddings, so the integration runs in min(V, d) coordinates of that span.
    In norms other than l2 the flow is dp/dr = argmax_{||x|| <= 1} <-grad_p L, x>, with r the length of its path in that
    norm: "linf" moves every coordinate by the sign of its gradient, "l1" the coordinate with the largest gradient.
    Mirror descent with the potential |p|_q^q / q, ("mirror", q), is parametrised by its length in the q-norm.

    Parameters
    ----------
    clock : "log_time" (log t; the right choice for limits, and the default), "time" (t) or "arclength" (length of the
        path), which is the default, and the only clock, of geometries other than "l2"
    until : final value of the clock: log t, t or arc length
    loss : a `losses.Loss`, or the name of one
    geometry : "l2", "linf", "l1" or ("mirror", q) with q > 1
    rtol, atol : tolerances of the integrator, per coordinate, for the geometry "l2"
    score_step : for the others, the largest change of a score difference in one step; the error falls with its square
    stop_attention : stop where every sequence gives its top token at least this attention
    stop_norm : stop where ||p|| reaches this value; at the start if it is already that large
    callback : called with a `FlowState` at the start and after each step; stops the flow by returning True
    max_nfev : give up after this many evaluations of the gradient

    Raises
    ------
    InputError
        for an unknown clock or geometry, a clock that the geometry does not have, a final value, tolerance or stopping
        value out of range, a ``model`` or ``callback`` of the wrong type, or a model whose scores overflow.

    Source: [WSOM25], Section 4, for gradient flow; [JTA24] for the other geometries. Statements F1-F8 are predictions
    about this path (`attnembed.theory`).

    >>> from attnembed.attention.data import make_balanced_dataset
    >>> data = make_balanced_dataset(n_samples=8, length=3, n_irrelevant=4, rng=0)
    >>> model = AttentionModel(np.eye(8), np.zeros(8), [1, 1, -1, -1, 0, 0, 0, 0])
    >>> flow = gradient_flow(model, data, until=20.0)
    >>> flow.success, bool(flow.top_attention[-1] > 0.999), bool(np.all(np.diff(flow.loss_gap) < 0))
    (True, True, True)
    """
    check_model(model)
    check_data(data, len(model.E))
    check_function("callback", callback)
    kind, shape = check_loss(loss), check_geometry(geometry)
    euclidean = shape[0] == "l2"
    check_choice("clock", clock, CLOCKS)
    if not euclidean and clock == "time":
        raise InputError("clock", f"must be 'arclength' for geometry={geometry!r}", got=repr(clock))
    clock, until = check_clock("arclength" if clock == "log_time" and not euclidean else clock, until)
    options = _checked(options)
    field = _ClsField(model, data, kind, span=euclidean)
    if euclidean and clock == "arclength" and not np.any(field.force(np.zeros(field.rank))[0]):
        raise InputError(
            "model", "must have a nonzero gradient in p for clock='arclength'", got="zero", hint="use clock='log_time'"
        )

    start = np.zeros(field.rank) if euclidean else field.start
    ending: dict[str, Any] = {
        "until": until,
        "stops": _stops(field, options["stop_norm"], options["stop_attention"]),
        "callback": _listening(field, callback),
        "max_nfev": options["max_nfev"],
    }
    if euclidean:
        ending |= {"rtol": options["rtol"], "atol": options["atol"], "title": "gradient flow"}
        run = follow(field, start, clock=clock, **ending)
    else:
        run = follow_geometry(field, start, shape, score_step=options["score_step"], **ending)
    gaps, attention = field.observe_path(run.x)
    path = field.lift(run.x)
    end = model.replace(p=path[-1])
    status, message = _judge(field, run)
    message += _attained(field, run, end, float(attention[-1]), kind)
    return FlowResult(
        status=status,
        message=message,
        p=freeze(path[-1].copy()),
        path=freeze(path),
        log_time=freeze(run.log_time),
        arclength=freeze(run.arclength),
        loss_gap=freeze(gaps),
        top_attention=freeze(attention),
        selection=select(end, data).tokens,
        model=end,
        clock=clock,
        geometry=geometry if isinstance(geometry, str) else shape,
        nfev=run.nfev,
        njev=run.njev,
    )


def _checked(options: FlowOptions) -> FlowOptions:
    positive = {name: check_positive(name, options[name]) for name in ("score_step", "rtol", "atol")}
    if (share := options["stop_attention"]) is not None:
        check_share("stop_attention", share, closed="neither")
    if (norm := options["stop_norm"]) is not None:
        check_positive("stop_norm", norm)
    check_integer("max_nfev", options["max_nfev"], minimum=1)
    return cast(FlowOptions, {**options, **positive})


def _stops(field: _ClsField, norm: float | None, attention: float | None) -> dict[str, Callable[[Doubles], float]]:
    """The early stops of the flow, keyed by the text of the message."""
    stops: dict[str, Callable[[Doubles], float]] = {}
    if norm is not None:
        stops[f"||p|| = {norm:g}"] = lambda x: float(np.linalg.norm(field.lift(x)) - norm)
    if attention is not None:
        stops[f"top attention = {attention:g}"] = lambda x: field.observe(x)[1] - attention
    return stops


def _listening(
    field: _ClsField, callback: Callable[[FlowState], bool | None] | None
) -> Callable[[FlowPoint], bool | None] | None:
    """The callback, called with p instead of its coordinates."""
    if callback is None:
        return None
    return lambda point: callback(FlowState(field.lift(point.x), point.log_time, point.arclength, point.nfev))


def _attained(field: _ClsField, run: Trajectory, end: AttentionModel, level: float, loss: Loss) -> str:
    """The message on the attention at the end of a flow, where the least-attended top token has ``level``."""
    floor = _floor(level, field.missing(run.x[-1]))
    text = f"; attention on the top token is at least {floor} in every sequence"
    return text if level >= 0.5 else f"{text}: {_what_was_selected(end, field.data, loss)}"


def _floor(attention: float, missing: float) -> str:
    """Format a number no larger than the attention, which is 1 - missing; never 1 while something is missing.

    >>> _floor(1.0, 3.04e-17), _floor(0.25678, 0.74322), _floor(1.0, 0.0)
    ('1 - 3.1e-17', '0.2567', '1')
    """
    if attention > 0.9:
        return f"1 - {float(Context(2, ROUND_CEILING).create_decimal_from_float(missing)):.1e}" if missing > 0 else "1"
    return f"{float(Context(4, ROUND_FLOOR).create_decimal_from_float(attention)):.4g}"


def _what_was_selected(model: AttentionModel, data: TokenDataset, loss: Loss) -> str:
    """The outcome of a flow that gives some top token less than half: another selection, for good or not, or none."""
    chosen = select(model, data)
    # Tokens of equal value count together: the loss does not depend on how they share attention.
    alike = TokenValues.of(model).shortfalls(data, chosen.tokens) == 0
    least = float(data.segments.sum(model.attention(data).data * alike).min())
    others = np.flatnonzero(chosen.tokens != chosen.top)
    if least < _SELECTED or not others.size:
        return "selection has not happened (yet); see theory.basin_condition and a later `until`"
    i = int(others[0])
    text = (
        f"p selects another token in {others.size} of {data.n_samples} sequences (in sequence {i} token "
        f"{chosen.tokens[i]}, not {chosen.top[i]})"
    )
    if data.counts.nnz * model.dim > _JUDGED:
        return f"{text}; theory.asymptotics(model, data, selection) says whether that is for good"
    late = asymptotics(model, data, chosen, loss=loss)
    if late.holds:
        return (
            f"{text}, a locally optimal selection, which nearby flows keep for good: the loss then tends to "
            f"{late.loss_limit:.6g}, not to L*"
        )
    if late.hypotheses[0].measured < 0:
        return f"{text}, not a locally optimal selection: no flow ends in it; a later `until` shows where this one goes"
    return f"{text}; no theorem says whether that is for good ({late.failures[0]})"


def _judge(field: _ClsField, run: Trajectory) -> tuple[Status, str]:
    """Status and message; a flow stuck where the gradient cancels is distinguished from one stuck elsewhere.

    Where the terms of the gradient cancel, its rounding grows with t relative to the gradient itself, until no
    integrator can follow. Either nothing remains and p rests, or p rests in some directions and moves in others.
    """
    if run.status in (Status.MAX_ITERATIONS, Status.FAILED):
        share, log_rate = field.cancellation(run.x[-1])
        if share < _CANCELLED:
            if log_rate + run.log_time[-1] < np.log(_AT_REST):
                return Status.CONVERGED, f"p rests at a stationary point (the gradient is {share:.0e} of its terms)"
            return run.status, f"{run.message}; the gradient is {share:.0e} of its terms there: rounding hides the rest"
    return run.status, run.message


class _ClsField:
    """-grad_p L and its Jacobian in coordinates x of p = p_0 + Q x, with Q (d, r) a basis of the embeddings' span.

    With E^T = Q R the scores are u = E p_0 + R^T x; for V >= d the coordinates are those of p itself.
    """

    def __init__(self, model: AttentionModel, data: TokenDataset, loss: Loss = logistic, *, span: bool = True) -> None:
        self.data, self.p0, self.loss = data, model.p.astype(np.float64), loss
        self._passes = TokenPasses(data, loss)
        E = model.E.astype(np.float64)
        self.basis: Doubles | None = None
        self.embeddings = E
        if span and model.vocab_size < model.dim:
            self.basis, R = np.linalg.qr(E.T)
            self.embeddings = np.ascontiguousarray(R.T)
        with np.errstate(over="ignore", invalid="ignore"):
            self.scores, self.values = E @ self.p0, E @ model.v.astype(np.float64)
        # Without a span the coordinates are those of p itself, as norms other than l2 require.
        self.start = np.zeros(self.embeddings.shape[1])
        if not span:
            self.scores, self.start, self.p0 = np.zeros(len(E)), self.p0, np.zeros_like(self.p0)
        check_scores(self.scores, self.values)
        check_sizes(model)
        self.top, _, self.gamma, _ = top_tokens(data, TokenValues.of(model))
        dense = loss is logistic and is_small(data)
        self._dense = DenseField(data, self.embeddings, self.scores, self.values) if dense else None
        self._is_top = np.flatnonzero(data.counts.indices == data.segments.spread(self.top))

    @property
    def rank(self) -> int:
        return int(self.embeddings.shape[1])

    def lift(self, x: Doubles) -> Doubles:
        """p from its coordinates, (..., r) -> (..., d)."""
        return self.p0 + (x if self.basis is None else x @ self.basis.T)

    # A thousand small products: BLAS would wake its threads for each of them; these two loops never do.
    def _scores(self, x: Doubles) -> Doubles:
        value: Doubles = self.scores + np.vecdot(self.embeddings, x)
        return value

    def force(self, x: Doubles) -> tuple[Doubles, float]:
        if self._dense is not None and (force := self._dense.force(x)) is not None:
            return force, 0.0
        sums = self._passes.sums(self._scores(x), self.values)
        return np.einsum("s,sk->k", sums.scaled_B, self.embeddings), sums.log_scale

    def jacobian(self, x: Doubles) -> tuple[Any, float]:
        if self._dense is not None and (jacobian := self._dense.jacobian(x)) is not None:
            return jacobian, 0.0
        anchored = AnchoredPass(self.data, self._scores(x), self.values, self.loss)
        return -anchored.scaled_hessian(self.embeddings), anchored.log_scale

    def cancellation(self, x: Doubles) -> tuple[float, float]:
        """||grad_p L|| as a share of the norms of its terms, and the log of the change of scores it causes."""
        rows = AnchoredPass(self.data, self._scores(x), self.values, self.loss)
        E = self.embeddings - self.embeddings.mean(axis=0)
        sizes = np.linalg.norm(E, axis=1)
        terms = float(np.abs(rows.slope) @ sizes[self.data.counts.indices])
        norm = float(np.linalg.norm(E.T @ rows.scaled_B))
        with np.errstate(divide="ignore"):
            return norm / terms if terms else 0.0, float(np.log(norm * sizes.max())) + rows.log_scale

    def missing(self, x: Doubles) -> float:
        """The largest over sequences of the attention on tokens other than the top one; > 0 if there are any."""
        a = probabilities(self._scores(x)[self.data.counts.indices], self.data.segments, self.data.counts.data)
        a[self._is_top] = 0.0
        several = bool((np.diff(self.data.counts.indptr) > 1).any())
        return max(float(self.data.segments.sum(a).max()), np.finfo(np.float64).tiny * several)

    def observe_path(self, path: Doubles) -> Doubles:
        """`observe` at the points (k, r) of a path, (2, k)."""
        seen = None if self._dense is None else self._dense.observe(path, self.top, self.gamma)
        return np.array([self.observe(x) for x in path]).T if seen is None else seen

    def observe(self, x: Doubles) -> tuple[float, float]:
        """(L - L*, smallest attention on a top token)."""
        u = self._scores(x)
        if self.data.counts.nnz >= _MANY and not is_wide(u, self.values):
            return self._observe_by_tokens(u)
        a = probabilities(u[self.data.counts.indices], self.data.segments, self.data.counts.data)
        return loss_gap(self.data, self.values, self.top, self.gamma, a, self.loss), float(a[self._is_top].min())

    def _observe_by_tokens(self, u: Doubles) -> tuple[float, float]:
        """The same from one exponential per token, for scores that span little.

        With Z = C e, e = exp(u), the attention on the top token is n e / Z, and delta_i of `loss_gap` is C' e / Z with
        c'_is = n_is y_i (g_top - g_s) >= 0: nothing cancels.
        """
        e = np.exp(u - u.max())
        Z = self.data.counts @ e
        delta = self._shortfalls @ e / Z
        gap = float(self.loss.rise(self.gamma, delta).mean())
        return gap, float((self.data.counts.data[self._is_top] * e[self.top] / Z).min())

    @cached_property
    def _shortfalls(self) -> Any:
        """n_is y_i (g_top - g_s), (n, V) with the sparsity of the counts."""
        counts, spread = self.data.counts, self.data.segments.spread
        below = spread(self.data.labels) * (spread(self.values[self.top]) - self.values[counts.indices])
        return with_values(counts, counts.data * below)
