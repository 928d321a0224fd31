"""The share of random starts that one step leads into the basin, against counts reported for four widths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import attnembed as ae
from attnembed.attention.theory.window import rotated_start
from attnembed.experiments import random_step
from attnembed.experiments.random_step import _shares
from attnembed.experiments.registry import reproduce

# Two important and six irrelevant tokens in 16 sequences of four.
DATA = ae.make_balanced_dataset(n_samples=16, length=4, n_irrelevant=6, n_positive=1, n_negative=1, rng=0)
THRESHOLD = ae.theory.random_step_window(DATA, 10**7).threshold


def test_a_start_in_the_basis_of_its_span_has_the_same_law() -> None:
    """Means and variances of inner products against those of a Gaussian in all its coordinates."""
    rng, dim, V = np.random.default_rng(0), 12, 4
    products = []
    for _ in range(4000):
        E, p, v = rotated_start(rng, V, dim, 0.5, 2.0)
        products.append([E[0] @ E[1], E[0] @ E[0], E[0] @ p, E[3] @ v, p @ v, p @ p])
    mean, spread = np.mean(products, axis=0), np.std(products, axis=0)
    # x.y of independent N(0, a^2 I), N(0, b^2 I): variance d a^2 b^2; ||x||^2: mean d a^2, variance 2 d a^4.
    expected = np.sqrt([dim / 16, 2 * dim / 16, dim, 0.25, 4, 2 * dim * 16])
    np.testing.assert_allclose(spread, expected, rtol=0.06)
    np.testing.assert_allclose(mean, [0, dim / 4, 0, 0, 0, 4 * dim], atol=5 / np.sqrt(4000) * expected.max())


def test_shares_are_counted_from_the_same_draws_for_all_steps() -> None:
    shares = _shares(DATA, 10**8, THRESHOLD * np.array([0.5, 2.0, 20.0]), 6, np.random.default_rng(0))
    assert shares.tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("dim", [10, 60, 10**4, 10**9])
def test_all_step_sizes_at_once_are_the_condition_of_each(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, steps = np.random.default_rng(dim), THRESHOLD * np.array([0.3, 0.9, 1.2, 2.0, 8.0, 100.0, 1e4])
    starts = [ae.AttentionModel(*rotated_start(rng, DATA.vocab_size, dim, dim**-0.5, dim**-0.5)) for _ in range(4)]

    def each(start: ae.AttentionModel) -> list[bool]:
        models = [ae.one_step(start, DATA, eta).model for eta in steps.tolist()]
        return [ae.theory.basin_condition(model, DATA).holds for model in models]

    expected = [each(start) for start in starts]
    assert [random_step._leads_into_the_basin(start, DATA, steps).tolist() for start in starts] == expected
    # Dependent embeddings, so that no vector has the scores that are tried.
    flat = [start.replace(E=start.E[:, :3], p=start.p[:3], v=start.v[:3]) for start in starts]
    assert [random_step._leads_into_the_basin(start, DATA, steps).tolist() for start in flat] == list(map(each, flat))
    # Nothing is clear now: the condition itself is asked.
    monkeypatch.setattr(random_step, "_CLEAR", 1.0)
    assert [random_step._leads_into_the_basin(start, DATA, steps).tolist() for start in starts[:1]] == expected[:1]


def test_a_program_without_a_solution_is_not_called_separated() -> None:
    """Token 0 above 1 in one sequence and below it in another; and each above a third, which a vector shows."""
    E, top = np.eye(3, 5)[None], np.array([[0, 1]])
    assert not random_step._separated(E, top, np.array([[False, False, True], [False, False, True]]))[0]
    assert random_step._separated(E, top, np.array([[False, True, False], [True, False, False]]))[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dim", "factor", "counts"),
    [(50, 1.2, (3, 9)), (50, 4.0, (6, 7)), (500, 2.0, (9, 12)), (5000, 1.2, (13, 16)), (5000, 2.0, (19, 20)),
     (5000, 4.0, (17, 18)), (50_000, 2.0, (20, 20))],
)  # fmt: skip
def test_reported_counts_agree_within_their_error(dim: int, factor: float, counts: tuple[int, int]) -> None:
    """Counts of draws in 20 after which F4's condition and the basin's hold, reported for data of this kind.

    The share is that of 200 draws here; a count that a binomial variable takes with a probability of less than 1 in
    1,000 is a disagreement.
    """
    rng = np.random.default_rng(dim)
    large = basin = 0
    for _ in range(200):
        start = ae.AttentionModel(*rotated_start(rng, DATA.vocab_size, dim, dim**-0.5, dim**-0.5))
        after = ae.one_step(start, DATA, factor * THRESHOLD).model
        large += ae.theory.large_step_condition(after, DATA).holds
        basin += ae.theory.basin_condition(after, DATA).holds
    assert large <= basin  # F4's condition is the stronger one
    for count, found in zip(counts, (large, basin)):
        share = np.clip((found + 1) / 202, 0.005, 0.995)
        assert min(binom.cdf(count, 20, share), binom.sf(count - 1, 20, share)) > 5e-4


@pytest.mark.slow
def test_the_figure_and_its_numbers(tmp_path: Path) -> None:
    written = reproduce("random-step-window", out=tmp_path, quick=True)
    assert sorted(path.suffix for path in written.files) == [".json", ".png"]
    numbers = written.numbers
    assert numbers["smallest_share_inside_the_window"] == 1
    assert numbers["smallest_width_at_which_every_draw_selects"] < numbers["smallest_width_with_a_window"] == 10**7
    shares = np.array(numbers["shares"])
    assert (shares[:, 0] <= 0.6).all()  # half the threshold
    assert shares[-1, 2:].min() == 1
