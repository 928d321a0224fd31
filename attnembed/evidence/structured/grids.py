"""Claims about grids, checked by enumeration: mean field and the objectives."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from scipy.special import entr, logsumexp, softmax

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.reference import enumerate_grid
from attnembed.structured.grid import contrast_weights, grid_icm, grid_map, grid_mean_field, grid_score
from attnembed.structured.grid_objectives import grid_objective


def _grid(rng: np.random.Generator, k: int, spread: float) -> tuple[Doubles, Doubles, tuple[Doubles, Doubles]]:
    """Potentials of one 2 x 3 image with weights of its edges."""
    weights = rng.uniform(0.2, 2.0, size=(1, 2, 2)), rng.uniform(0.2, 2.0, size=(1, 1, 3))
    return rng.normal(size=(1, 2, 3, k)), spread * rng.normal(size=(2, k, k)), weights


def _edges(
    pairwise: Doubles, weights: tuple[Doubles, Doubles]
) -> list[tuple[tuple[int, int], tuple[int, int], Doubles]]:
    """(first end, second end, c W) of every edge of the 2 x 3 image."""
    across = [((r, c), (r, c + 1), weights[0][0, r, c] * pairwise[0]) for r in range(2) for c in range(2)]
    return across + [((0, c), (1, c), weights[1][0, 0, c] * pairwise[1]) for c in range(3)]


@claim(
    "structured/mean-field",
    statement="mean field ends in a fixed point q with bound E_q[F] + entropy(q) <= log Z, with equality for W = 0",
    tex=r"q_u = \mathrm{softmax}(U_u + \textstyle\sum_v c_{uv} W q_v),\quad E_q[F] + H(q) \le \log Z",
    reference="derived here",
    control="W ten percent larger in the fixed point and in the bound",
    derivation="derivations/min-cut.md",
)
def mean_field(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for k, spread in ((2, 0.5), (3, 0.5), (2, 0.0), (3, 0.0)):
        unary, pairwise, weights = _grid(rng, k, spread)
        found = grid_mean_field(unary, pairwise, weights, tolerance=1e-13, max_sweeps=1000)
        q, bound = found.node[0], float(found.bound[0])

        def off(factor: float, at: tuple[Any, ...] = (unary, pairwise, weights, q, bound)) -> float:
            u, w, c, q, bound = at
            field, energy = u[0].copy(), float(np.sum(u[0] * q) + entr(q).sum())
            for a, b, cw in _edges(factor * w, c):
                field[a] += cw @ q[b]
                field[b] += cw.T @ q[a]
                energy += float(q[a] @ cw @ q[b])
            return largest(float(np.abs(softmax(field, axis=-1) - q).max()), abs(float(bound) - energy))

        # One sweep from softmax(U), the pixels of one colour first.
        swept = grid_mean_field(unary, pairwise, weights, tolerance=1e-13, max_sweeps=1).node[0]
        worst = largest(worst, min(float(np.abs(_swept(unary, pairwise, weights, k) - swept).max()) for k in (0, 1)))
        truth = enumerate_grid(unary[0], *_matrices(pairwise, weights)).log_partition
        worst = largest(worst, off(1.0), bound - truth if spread else abs(bound - truth))
        control = min(control, off(1.1)) if spread else control
    return Evidence(measured=worst, tolerance=1e-10, control=control)


def _swept(unary: Doubles, pairwise: Doubles, weights: tuple[Doubles, Doubles], first: int) -> Doubles:
    """q after one sweep from softmax(U) that begins with the pixels of the colour ``first``."""
    q: Doubles = np.asarray(softmax(unary[0], axis=-1))
    for colour in (first, 1 - first):
        field = unary[0].copy()
        for a, b, cw in _edges(pairwise, weights):
            field[a] += cw @ q[b]
            field[b] += cw.T @ q[a]
        chosen = np.indices((2, 3)).sum(axis=0) % 2 == colour
        q = np.where(chosen[..., None], softmax(field, axis=-1), q)
    return q


def _matrices(pairwise: Doubles, weights: tuple[Doubles, Doubles]) -> list[Doubles]:
    return [weights[d][0][..., None, None] * pairwise[d] for d in (0, 1)]


@claim(
    "structured/grid-objectives",
    statement="objectives of grids agree with their definitions over all labelings, and their gradients are correct",
    tex=r"-\sum_u\log P(y_u\mid y_{-u}),\quad \max_{Y'}[\Delta(Y, Y') + F(Y')] - F(Y)",
    reference="derived here",
    control="W ten percent larger; a gradient off by one part in a thousand",
    derivation="derivations/min-cut.md",
)
def grid_objectives(rng: np.random.Generator) -> Evidence:
    worst, control = 0.0, np.inf
    for name, k in (("pseudolikelihood", 3), ("unary", 3), ("ssvm", 2), ("mean_field", 3), ("mean_field", 2)):
        unary, pairwise, weights = _grid(rng, k, 0.4)
        labels = rng.integers(0, k, size=(1, 2, 3))

        def value(u: Doubles, w: Doubles, at: tuple[Any, ...] = (name, labels, weights)) -> float:
            return grid_objective(at[0], u, w, at[1], at[2]).value

        truth = _defined(name, unary, pairwise, weights, labels)
        # Mean field ends near its fixed point; the other objectives are finite sums.
        scale = 1e5 if name == "mean_field" else 1e7
        worst = largest(worst, scale * abs(value(unary, pairwise) - truth))
        if name != "unary":
            control = min(control, scale * abs(value(unary, 1.1 * pairwise) - truth))
        out = grid_objective(name, unary, pairwise, labels, weights)
        # The mean over two images.
        both, other = [np.concatenate([x, x[:, ::-1]]) for x in (unary, labels)], (name, unary[:, ::-1], pairwise)
        mean = (grid_objective(name, unary, pairwise, labels).value + grid_objective(*other, labels[:, ::-1]).value) / 2
        joint = grid_objective(name, both[0], pairwise, both[1])
        worst = largest(worst, scale * abs(joint.value - mean))
        halves = [grid_objective(name, unary, pairwise, labels), grid_objective(*other, labels[:, ::-1])]
        off_mean = [joint.unary - np.concatenate([half.unary / 2 for half in halves])]
        off_mean.append(joint.pairwise - (halves[0].pairwise + halves[1].pairwise) / 2)
        # Two images end together, at the later of their last sweeps.
        unit = 1e1 if name == "mean_field" else 1e4
        worst = largest(worst, *(unit * float(np.abs(x).max()) for x in off_mean))
        # One W for both directions has the sum of both gradients.
        shared, apart = (grid_objective(name, unary, w, labels) for w in (pairwise[0], pairwise[[0, 0]]))
        same = float(np.abs(shared.pairwise - apart.pairwise.sum(axis=0)).max())
        worst = largest(worst, scale / 1e3 * same, scale / 1e3 * abs(shared.value - apart.value))
        for gradient in (out.unary, out.pairwise):
            d = rng.normal(size=gradient.shape)
            steps = (h * d if gradient is out.unary else 0 * unary for h in (1e-5, -1e-5))
            moves = (h * d if gradient is out.pairwise else 0 * pairwise for h in (1e-5, -1e-5))
            forward, backward = (value(unary + a, pairwise + b) for a, b in zip(steps, moves))
            slope = (forward - backward) / 2e-5

            def off(factor: float, exact: float = slope, found: float = float(np.vdot(gradient, d))) -> float:
                return abs(factor * found - exact) / max(0.1, abs(exact))

            worst = largest(worst, off(1.0))
            control = min(control, off(1.001)) if abs(slope) > 0.01 else control
    return Evidence(measured=worst, tolerance=3e-5, control=control)


def _defined(name: str, unary: Doubles, pairwise: Doubles, weights: tuple[Doubles, Doubles], labels: Any) -> float:
    """An objective of one image by its definition; for mean field, from its bound."""
    k, y = unary.shape[-1], labels[0].ravel()
    edges = [(3 * a[0] + a[1], 3 * b[0] + b[1], cw) for a, b, cw in _edges(pairwise, weights)]

    def score(every: Any) -> Any:
        total = unary[0].reshape(6, k)[np.arange(6), every].sum(axis=-1)
        return total + sum(cw[every[..., a], every[..., b]] for a, b, cw in edges)

    if name == "mean_field":
        bound = grid_mean_field(unary, pairwise, weights, tolerance=1e-12, max_sweeps=1000).bound[0]
        return float(bound - score(y))
    if name == "unary":
        return float(np.sum(logsumexp(unary[0].reshape(6, k), axis=1) - unary[0].reshape(6, k)[np.arange(6), y]))
    if name == "ssvm":
        every = np.indices((k,) * 6).reshape(6, -1).T
        return float((score(every) + (every != y).mean(axis=1)).max() - score(y))
    total = 0.0
    for u in range(6):
        changed = np.tile(y, (k, 1))
        changed[:, u] = np.arange(k)
        total += float(logsumexp(score(changed)) - score(y))
    return total


@claim(
    "structured/grid-icm",
    statement="changing a single pixel never improves the result of iterated conditional modes",
    tex=r"F(\hat Y) \ge F(\hat Y \text{ with one label changed})",
    reference="Besag 1986",
    control="the best label of each pixel separately",
    derivation="derivations/min-cut.md",
)
def icm(rng: np.random.Generator) -> Evidence:
    worst = control = 0.0
    for k in range(16):
        unary, pairwise, weights = _grid(rng, 3, 1.0 + 2.0 * (k % 2))
        # It starts from the best label of each pixel, and only climbs.
        start, end = (
            grid_score(unary, pairwise, y, weights)[0]
            for y in (unary.argmax(axis=3), grid_icm(unary, pairwise, weights))
        )
        worst = largest(worst, (start - end) / max(1.0, abs(start)))
        for labels, local in ((grid_icm(unary, pairwise, weights), True), (unary.argmax(axis=3), False)):
            field = unary[0].copy()
            for a, b, cw in _edges(pairwise, weights):
                field[a] += cw[:, labels[0][b]]
                field[b] += cw[labels[0][a]]
            own = np.take_along_axis(field, labels[0][..., None], axis=2)[..., 0]
            gain = float((field.max(axis=2) - own).max())
            worst, control = (largest(worst, gain), control) if local else (worst, max(control, gain))
    return Evidence(measured=worst, tolerance=1e-14, control=control)


@claim(
    "structured/grid-map",
    statement="minimum cuts find a best labeling in exact arithmetic, for potentials of any size and sign, and the gap "
    "covers the rounding of its score",
    tex=r"F(\hat Y) = \max_YF(Y),\quad |F(\hat Y) - \mathrm{score}| \le \mathrm{gap}",
    reference="derived here; compared with fractions over all labelings",
    control="potentials rounded to 24 bits; and a hundredth of the gap",
    derivation="derivations/min-cut.md",
)
def exact_map(rng: np.random.Generator) -> Evidence:
    worst = rounded = 0.0
    gaps = []
    for kind in range(8):
        # Sizes over 40 binary digits, ties by construction, W attractive or not in each direction.
        sizes = 2.0 ** rng.integers(-20, 20, size=(1, 2, 3, 1)) if kind % 2 else np.ones((1, 2, 3, 1))
        unary = sizes * rng.standard_normal((1, 2, 3, 2))
        pairwise = 2.0 ** rng.integers(-10, 10) * rng.standard_normal((2, 2, 2))
        weights = rng.uniform(0.2, 2.0, size=(1, 2, 2)), rng.uniform(0.2, 2.0, size=(1, 1, 3))
        if kind == 5:  # parts of very different size, and some as small that cancel
            pairwise = pairwise * 2.0 ** rng.integers(-60, 20, size=(2, 2, 2))
            unary = 2.0 ** rng.integers(-60, 20, size=(1, 2, 3, 2)) * rng.standard_normal((1, 2, 3, 2))
            unary[0, 0, 0, 0], unary[0, 0, 1, 1] = 2.0**40 + 2.0**-10, 2.0**40
            pairwise[0] = 2.0**45 * np.eye(2)
        if kind >= 6:  # one label as good as the other but for units in the last place, which add up
            unary = 2.0 ** rng.integers(0, 5, size=(1, 2, 3, 1)) * rng.uniform(1, 1.5, size=(1, 2, 3, 1)) + np.zeros(2)
            units = rng.integers(-3, 4, size=(1, 2, 3))
            unary[..., 0] += np.spacing(unary[..., 0]) * (units if kind == 7 else 1 + np.abs(units))
            pairwise = np.array([np.eye(2)] * 2) * 1e6
        scores = _exact_scores(unary, pairwise, weights)
        best = max(scores.values())
        found = grid_map(unary, pairwise, weights)
        own = scores[tuple(found.labels.ravel().tolist())]
        worst = largest(worst, float(best - own) / float(abs(best)))
        off = float(abs(Fraction(float(found.score[0])) - own)) / found.gap
        worst = largest(worst, off if off > 1 else 0.0)
        # Not more than it must be: eps times the number of terms times the sum of their sizes.
        y = found.labels[0]
        size = float(np.abs(np.take_along_axis(unary[0], y[..., None], axis=2)).sum())
        size += sum(abs(float(cw[y[a], y[b]])) for a, b, cw in _edges(pairwise, weights))
        gaps.append(found.gap / (13 * float(np.finfo(float).eps) * size))
        coarse = grid_map(unary.astype(np.float32), pairwise.astype(np.float32), weights).labels
        rounded = max(rounded, float(best - scores[tuple(coarse.ravel().tolist())]) / float(abs(best)))
    worst = largest(worst, 0.0 if largest(abs(gap - 1) for gap in gaps) < 1e-12 else np.inf)
    return Evidence(measured=worst, tolerance=0.0, control=rounded, note=f"gaps {min(gaps):.2g} to {max(gaps):.2g}")


def _exact_scores(
    unary: Doubles, pairwise: Doubles, weights: tuple[Doubles, Doubles]
) -> dict[tuple[int, ...], Fraction]:
    """F of every labeling of a 2 x 3 image with two labels, as a fraction."""
    U = [[Fraction(float(x)) for x in row] for row in unary[0].reshape(6, 2)]
    W = [[[Fraction(float(x)) for x in row] for row in matrix] for matrix in pairwise]
    edges = [(3 * r + c, 3 * r + c + 1, 0, Fraction(float(weights[0][0, r, c]))) for r in range(2) for c in range(2)]
    edges += [(c, 3 + c, 1, Fraction(float(weights[1][0, 0, c]))) for c in range(3)]
    found = {}
    for y in np.ndindex(*(2,) * 6):
        own = sum((U[u][label] for u, label in enumerate(y)), Fraction(0))
        found[y] = own + sum((c * W[d][y[a]][y[b]] for a, b, d, c in edges), Fraction(0))
    return found


@claim(
    "structured/contrast-weights",
    statement="edge weights are exp(-||I_u - I_v||^2 / (2 width^2)), by default with the mean square difference",
    tex=r"c_{uv} = \exp(-\|I_u - I_v\|^2 / 2\sigma^2),\quad \sigma^2 = \operatorname{mean}_{uv}\|I_u - I_v\|^2",
    reference="Boykov, Jolly 2001",
    control="a width ten percent larger",
    derivation="derivations/min-cut.md",
)
def contrast(rng: np.random.Generator) -> Evidence:
    images = 3 * rng.random((2, 3, 4, 2))
    pairs = {0: [], 1: []}  # type: dict[int, list[float]]
    for image in images:
        for r in range(3):
            pairs[0] += [float(((image[r, c] - image[r, c + 1]) ** 2).sum()) for c in range(3)]
    for image in images:
        for r in range(2):
            pairs[1] += [float(((image[r, c] - image[r + 1, c]) ** 2).sum()) for c in range(4)]
    mean = float(np.mean(pairs[0] + pairs[1]))

    def off(variance: float, found: tuple[Any, Any]) -> float:
        wanted = [np.exp(-np.array(pairs[d]) / (2 * variance)) for d in (0, 1)]
        return largest(float(np.abs(a.ravel() - b).max()) for a, b in zip(found, wanted))

    default, given = contrast_weights(images), contrast_weights(images, 0.7)
    return Evidence(
        measured=largest(off(mean, default), off(0.49, given)), tolerance=1e-14, control=off(1.21 * mean, default)
    )
