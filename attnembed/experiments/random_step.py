"""One large step from random starts: the share that enters the basin, and the predicted window of step sizes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attnembed._progress import Progress
from attnembed._typing import Floats, Ints
from attnembed.attention.data import TokenDataset, make_balanced_dataset
from attnembed.attention.first_step import one_step
from attnembed.attention.model import AttentionModel
from attnembed.attention.theory import basin_condition, random_step_window
from attnembed.attention.theory.window import RandomStepWindow, rotated_start
from attnembed.experiments.registry import Outcome, Request, experiment
from attnembed.losses import logistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# The share of the largest number above which a difference is no matter of rounding.
_CLEAR = 1e-9


@dataclass(frozen=True)
class WindowOptions:
    """The data, the widths, and the step sizes as multiples of the threshold, of `random_step`."""

    n_samples: int = 16
    length: int = 4
    n_irrelevant: int = 6
    dims: tuple[int, ...] = tuple(round(10 ** (k / 2)) for k in range(3, 21))
    ratios: tuple[float, ...] = tuple(2 ** (k / 2) for k in range(-2, 21))
    delta: float = 0.05
    draws: int = 50

    @classmethod
    def of(cls, request: Request) -> WindowOptions:
        """The options of a full or a quick run."""
        if not request.quick:
            return cls()
        return cls(dims=tuple(10**k for k in range(2, 11)), ratios=tuple(2.0**k for k in range(-1, 11)), draws=5)


@experiment(
    "random-step-window",
    "one large step from a random start selects in a window of step sizes, which opens with the width",
    ignores=("data", "repetitions"),
)
def random_step(request: Request) -> Outcome:
    """The share of draws after which a step leads into the basin, over d and eta, and the predicted window."""
    options = WindowOptions.of(request)
    rng = np.random.default_rng(request.seed)
    data = make_balanced_dataset(
        n_samples=options.n_samples,
        length=options.length,
        n_irrelevant=options.n_irrelevant,
        n_positive=1,
        n_negative=1,
        rng=rng,
    )
    windows = [random_step_window(data, dim, delta=options.delta) for dim in options.dims]
    threshold = windows[0].threshold
    step_sizes = threshold * np.array(options.ratios)
    shares = np.empty((len(options.dims), step_sizes.size))
    with Progress("widths", total=len(options.dims)) as progress:
        for k, dim in enumerate(options.dims):
            shares[k] = _shares(data, dim, step_sizes, options.draws, rng)
            progress.update(k + 1)
    inside = [
        shares[k, (step_sizes >= window.low) & (step_sizes <= window.high)]
        for k, window in enumerate(windows)
        if window.holds
    ]
    numbers = {
        "threshold": threshold,
        "smallest_share_inside_the_window": float(min((x.min() for x in inside if x.size), default=np.nan)),
        "smallest_width_with_a_window": next((dim for dim, w in zip(options.dims, windows) if w.holds), None),
        "smallest_width_at_which_every_draw_selects": next(
            (dim for dim, share in zip(options.dims, shares) if share.max() == 1), None
        ),
        "window_low": [w.low if w.holds else None for w in windows],
        "window_high": [w.high if w.holds else None for w in windows],
        "shares": shares.tolist(),
    }

    def draw() -> Figure:
        from attnembed.plotting import new_figure

        figure, axes = new_figure(panel=(7.6, 5.4))
        draw_window(axes[0, 0], options, shares, windows)
        return figure

    return Outcome(asdict(options), numbers, {"random-step-window": draw})


def _shares(data: TokenDataset, dim: int, step_sizes: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """The share of draws after which a step of each size leads into the basin, all sizes from the same draws."""
    inside = np.zeros(step_sizes.size)
    for _ in range(draws):
        start = AttentionModel(*rotated_start(rng, data.vocab_size, dim, dim**-0.5, dim**-0.5))
        inside += _leads_into_the_basin(start, data, step_sizes)
    return inside / draws


def _leads_into_the_basin(start: AttentionModel, data: TokenDataset, step_sizes: Floats) -> NDArray[np.bool_]:
    """Whether `basin_condition` holds after one step on E, for every step size, (k,).

    Clear cases are decided for all step sizes at once: the embeddings move along one gradient, and a vector that scores
    every top token highest shows that their margin program is feasible. `basin_condition` decides the others.
    """
    counts = data.counts.toarray()
    absent = counts == 0
    E = start.E - step_sizes[:, None, None] * start.loss_and_grads(data)[1].E
    values = np.where(absent, -np.inf, data.labels[:, None] * (E @ start.v)[:, None, :])
    scores = np.where(absent, -np.inf, (E @ start.p)[:, None, :])
    top = values.argmax(axis=2)
    gamma = values.max(axis=2)
    others = values.copy()
    np.put_along_axis(others, top[..., None], -np.inf, axis=2)
    gap = gamma - others.max(axis=2)
    weights = counts * np.exp(scores - scores.max(axis=2, keepdims=True))
    below = np.where(absent, 0.0, gamma[..., None] - values)
    left = logistic.rise(gamma, (weights * below).sum(axis=2) / weights.sum(axis=2)).sum(axis=1)
    right = logistic.rise(gamma, gap).min(axis=1)

    unique = (gap > _CLEAR * np.abs(E @ start.v).max(axis=1)[:, None]).all(axis=1)
    inside: NDArray[np.bool_] = (left < right * (1 - _CLEAR)) & unique
    inside &= _separated(E, top, absent)
    for k in np.flatnonzero(~inside & (left < right * (1 + _CLEAR))):
        inside[k] = basin_condition(one_step(start, data, float(step_sizes[k])).model, data).holds
    return inside


def _separated(E: Floats, top: Ints, absent: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether E w is clearly larger at every top token than elsewhere in its sequence, for some w found at once.

    Shapes (k, V, d), (k, n), (n, V) -> (k,). The w tried has the scores E w = 1 at tokens that are the top one of some
    sequence, and 0 elsewhere, but for rounding, which the scores computed from it show.
    """
    wanted = np.zeros(E.shape[:2])
    np.put_along_axis(wanted, top, 1.0, axis=1)
    w = np.linalg.pinv(E) @ wanted[..., None]
    scores = (E @ w)[:, None, :, 0]
    lead = np.where(absent, np.inf, np.take_along_axis(scores, top[:, None, :], axis=2).swapaxes(1, 2) - scores)
    np.put_along_axis(lead, top[..., None], np.inf, axis=2)
    size = np.abs(E) @ np.abs(w)
    clear: NDArray[np.bool_] = lead.min(axis=(1, 2)) > _CLEAR * size.max(axis=(1, 2))
    return clear


def draw_window(ax: Axes, options: WindowOptions, shares: Floats, windows: list[RandomStepWindow]) -> Axes:
    """Draw the shares as tiles over width and step size, both logarithmic, and both ends of the window as lines."""
    from matplotlib.patheffects import withStroke

    dims, ratios = np.array(options.dims, dtype=float), np.array(options.ratios)
    tiles = ax.pcolormesh(_edges(dims), _edges(ratios), shares.T, cmap="cividis", vmin=0.0, vmax=1.0)
    ax.figure.colorbar(tiles, ax=ax, label=f"share of {options.draws} draws in the basin", pad=0.02)
    known = [k for k, window in enumerate(windows) if window.holds]
    if known:
        low, high = (
            np.array([getattr(windows[k], end) / windows[k].threshold for k in known]) for end in ("low", "high")
        )
        outline: Any = {
            "color": "black",
            "linewidth": 3.0,
            "path_effects": [withStroke(linewidth=5, foreground="white")],
        }
        ax.plot(dims[known], high, "--", label="predicted window, upper end", **outline)
        ax.plot(dims[known], low, "-", label="predicted window, lower end", **outline)
        ax.plot([dims[known[0]]] * 2, [low[0], high[0]], "-", **outline)
    ax.axhline(
        1.0,
        color="white",
        linestyle=":",
        label=r"threshold for $p_0 = 0$, $E^0 v = 0$",
        path_effects=[withStroke(linewidth=4, foreground="#767676")],
    )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="width d",
        ylabel=r"step size $\eta$ / threshold",
        ylim=_edges(ratios)[[0, -1]],
        title=f"One step from a random start, n = {options.n_samples} sequences of {options.length}, "
        + rf"$\delta$ = {options.delta:g}",
    )
    ax.grid(visible=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), handlelength=3.5)
    return ax


def _edges(centres: Floats) -> Floats:
    """The ends of tiles around centres on a logarithmic axis, (k,) -> (k + 1,)."""
    logs = np.log(centres)
    middle = (logs[1:] + logs[:-1]) / 2
    value: Floats = np.exp(np.r_[2 * logs[0] - middle[0], middle, 2 * logs[-1] - middle[-1]])
    return value
