# %% [markdown]
# # Your own lemma: measured on many instances, and refuted if false
#
# The gradient of the loss in p is at most G R / 4, where G is the range of the values E_s.v and R the largest distance
# of two embeddings: a covariance under the attention is at most (G/2)(R/2). And two bounds on the Hessian: the true
# one, G^2 R^2 / 64 + G R^2 / 4, and the same without its second term, which is false. The figure has one point
# per instance; below the diagonal a statement holds. (docs/your-own-lemma.md; docs/derivations/smoothness.md)

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np

import attnembed as ae
from attnembed import testing as t
from attnembed.plotting import new_figure, save_figure, style


# %% The ranges in all three bounds
def ranges(model: ae.AttentionModel) -> tuple[float, float]:
    differences = model.E[:, None] - model.E[None]
    return float(np.ptp(model.token_values)), float(np.linalg.norm(differences, axis=2).max())


# %% A true statement, with a negative control that must fail
@ae.claim(
    "example/gradient-bound",
    statement="the gradient of the loss in p is at most G R / 4",
    hypotheses=("G R > 0",),
    control="a hundredth of that bound",
)
def gradient_bound(problem: t.Problem) -> ae.Evidence:
    G, R = ranges(problem.model)
    measured = float(np.linalg.norm(problem.model.loss_and_grads(problem.data)[1].p))
    return ae.Evidence(
        measured=measured,
        bound=G * R / 4,
        control=measured,
        control_bound=G * R / 400,
        hypotheses={"G R > 0": G * R > 0},
    )


# %% A false statement: ||Hessian|| over G^2 R^2 / 64, None where that is zero
def hessian_without_second_term(problem: t.Problem) -> float | None:
    G, R = ranges(problem.model)
    bound = G**2 * R**2 / 64
    return float(np.linalg.norm(problem.model.hessian_p(problem.data), 2)) / bound if bound > 1e-6 else None


# %% Three numbers: the tightness of the true bound, the violation of the false one, and the size of the instance
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Measure the true statement, search for a counterexample to the false one, and draw both on random instances."""
    report = ae.verify("example", instances=10 if quick else 40, rng=rng)
    found = t.falsify(hessian_without_second_term, max_examples=100 if quick else 1000, rng=rng)
    assert report.passed, str(report)
    assert found is not None
    print(found)

    generator, points = np.random.default_rng(rng), []
    for scale in np.geomspace(0.1, 10.0, 60):
        data = ae.make_balanced_dataset(n_samples=8, length=4, rng=generator)
        model = ae.AttentionModel.random(data.vocab_size, 4, embedding_scale=scale, cls_scale=0.1, rng=generator)
        G, R = ranges(model)
        norm = np.linalg.norm(model.hessian_p(data), 2)
        points.append((G**2 * R**2 / 64, G**2 * R**2 / 64 + G * R**2 / 4, norm))
    false, true, norms = np.array(points).T
    with style():
        figure, axes = new_figure()
        ax = axes[0, 0]
        ax.loglog(true, norms, "o", label="$G^2R^2/64 + GR^2/4$: true")
        ax.loglog(false, norms, "s", label="$G^2R^2/64$: false")
        ax.axline((1.0, 1.0), (10.0, 10.0), color="grey", linestyle="--", label="equality")
        ax.set(xlabel="bound (log)", ylabel="norm of the Hessian in p (log)", title="60 random instances, one each")
        ax.legend(fontsize=10)
        save_figure(figure, Path(out_dir) / "11_your_own_lemma.png", show=True)
    return {
        "best ratio of the true bound": report.results[0].best_ratio,
        "ratio of the counterexample": found.ratio,
        "sequences in the counterexample": float(found.problem.data.n_samples),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
