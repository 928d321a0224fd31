# %% [markdown]
# # Selection in motion
#
# After one step on E, gradient flow on the <cls> embedding p raises the scores p . E_s of decisive tokens of either
# sign and lowers those of uninformative ones: a U over the posterior difference Delta_s = P(+|s) - P(-|s). The
# attention in a sequence, at first proportional to the counts, concentrates on the most decisive of its tokens.
# [WSOM25], Section 4.

# %%
from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from scipy.stats import spearmanr

import attnembed as ae
from attnembed.plotting import COLOURS, MUTED, new_figure, show_image, style

N_SHOWN = 24  # sequences in the right panel


# %% Equally frequent tokens that lean to the classes by -1 ... 1; one step on E; the flow on p
def follow(n_samples: int, rng: np.random.Generator) -> tuple[ae.TokenDataset, list[float], list[ae.AttentionModel]]:
    """The data, log t from 1 to 8, and the model at each of these times."""
    lean = np.linspace(-1, 1, 50)
    data = ae.make_iid_dataset(
        n_samples=n_samples, length=10, positive_probs=(1 + lean) / 50, negative_probs=(1 - lean) / 50, rng=rng
    )
    start = ae.AttentionModel.random(data.vocab_size, 512, cls_scale=0.0, rng=rng)
    model = ae.one_step(start, data, step_size=200.0).model
    flow = ae.gradient_flow(model, data, until=8.0)
    steps = np.searchsorted(flow.log_time, np.linspace(1, 8, 36))
    return data, flow.log_time[steps].tolist(), [model.replace(p=flow.path[k]) for k in steps]


# %% The animation. Left: one point per token. Right: one row per sequence, the area of a point being its attention
def animate(path: Path, data: ae.TokenDataset, log_times: list[float], models: list[ae.AttentionModel]) -> None:
    """Write a GIF with one frame per time."""
    delta, shown = data.posterior_difference, np.linspace(0, data.n_samples - 1, N_SHOWN).astype(int)
    columns = [data.counts[[i]].indices for i in shown]
    x, y = delta[np.concatenate(columns)], np.repeat(np.arange(N_SHOWN), [len(column) for column in columns])
    colour = np.where(data.labels[shown] > 0, COLOURS[1], COLOURS[0])[y]

    figure, axes = new_figure(1, 2)
    left, right = axes[0]
    left.axhline(0, color=MUTED, linewidth=0.8)
    tokens = left.scatter(delta, models[-1].token_scores, s=22, color=COLOURS[2])
    left.set(ylabel=r"score $p \cdot E_s$", title="log t")
    weights = right.scatter(x, y, c=colour, zorder=2.5)
    right.set(yticks=[N_SHOWN / 4, 3 * N_SHOWN / 4], yticklabels=["$+1$", "$-1$"], ylabel="sequences, by label")
    right.set_title(f"{N_SHOWN} of {data.n_samples} sequences; area: attention")
    for ax in axes[0]:
        ax.set(xlabel=r"posterior difference $\Delta_s$", xlim=(-1.12, 1.12))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout of the last frame is used for all frames

    writer = PillowWriter(fps=8)
    with writer.saving(figure, path, dpi=80):
        for log_time, model in zip(log_times, models):
            tokens.set_offsets(np.column_stack([delta, model.token_scores]))
            weights.set_sizes(150 * model.attention(data)[shown].data)
            left.set_title(rf"$\log t$ = {log_time:.1f}")
            writer.grab_frame()


# %% Three numbers: the scores are ordered by |Delta_s|, and attention concentrates
def main(out_dir: str | Path = "results", quick: bool = False, rng: int = 0) -> dict[str, float]:
    """Follow the flow and write the animation."""
    data, log_times, models = follow(500 if quick else 2000, np.random.default_rng(rng))
    if quick:
        log_times, models = log_times[::7], models[::7]

    path = Path(out_dir) / "03_selection_in_motion.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    with style():
        animate(path, data, log_times, models)
    show_image(path)
    first, last = (models[k].attention(data).max(axis=1).mean() for k in (0, -1))
    return {
        "Spearman(p . E_s, |Delta_s|) at the end": float(
            spearmanr(models[-1].token_scores, np.abs(data.posterior_difference)).statistic
        ),
        "largest attention in a sequence, mean at the start": float(first),
        "largest attention in a sequence, mean at the end": float(last),
    }


# %%
if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.4g}")
