"""Claims about training: an epoch consists of the steps of its optimiser, and online scaling keeps its bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnembed._typing import Doubles
from attnembed.evidence.measurement import largest
from attnembed.evidence.registry import Evidence, claim
from attnembed.optim import SGD
from attnembed.structured.data import ChainDataset, make_chain_dataset
from attnembed.structured.model import ChainCRF
from attnembed.structured.networks import mlp
from attnembed.structured.scaling import OnlineScaling
from attnembed.structured.theory import component_norms
from attnembed.structured.training import train_structured


@claim(
    "structured/training-epochs",
    statement="an epoch is one step per batch, and its row of the history has the norms at its end",
    tex=r"\theta \leftarrow \theta - \eta\nabla f(\theta),\quad n_U = n(aU),\ n_W = n(bW),\ n_U / n_W",
    reference="derived here",
    control="a step ten percent longer",
    derivation="derivations/effective-steps.md",
)
def training_epochs(rng: np.random.Generator) -> Evidence:
    data, eta = make_chain_dataset(5, 4, 3, 4, rng=rng), 0.1
    model = ChainCRF(mlp(4, (), 3, rng=rng), rng.normal(size=(3, 3)), 0.7, -1.3)
    options: dict[str, Any] = {"learned_scales": ("unary_scale", "pairwise_scale"), "rng": 0}
    found = train_structured(model, data, optimizer=SGD(step_size=eta), n_epochs=2, batch_size=None, **options)

    def off(factor: float) -> float:
        params, gaps = model.parameters(), []
        for row in found.history:
            loss, grads = model.with_parameters(params).loss_and_grads(data)
            params = {name: params[name] - factor * eta * g for name, g in grads.to_dict().items()}
            after = model.with_parameters(params)
            n_u, n_w = component_norms(after.unary_scale * after.unary(data), after.pairwise_scale * after.pairwise)
            exact = (loss, after.unary_scale, after.pairwise_scale, n_u, n_w, n_u / n_w, 0.0)
            names = ("loss", "unary_scale", "pairwise_scale", "unary_norm", "pairwise_norm", "ratio", "stage")
            gaps += [abs(float(row[name]) - float(value)) for name, value in zip(names, exact)]
        last = found.last_model.parameters()
        return largest(*gaps, *(float(np.abs(last[name] - value).max()) for name, value in params.items()))

    # Batches of two, two and one: without a step the mean is that of all sequences.
    still = train_structured(model, data, optimizer=SGD(step_size=1e-300), n_epochs=1, batch_size=2, rng=0)
    mean = abs(float(still.history.loss[0]) - model.loss(data))
    return Evidence(measured=largest(off(1.0), mean), tolerance=1e-12, control=off(1.1))


@claim(
    "structured/online-bound",
    statement="online scaling keeps n_U / n_W at or above its least ratio from the start, for any multiplier of W",
    tex=r"n_U / n_W \ge \rho_{\min}",
    reference="reconstructed from [SO19]",
    control="a least ratio ten percent larger",
    derivation="derivations/online-scaling.md",
)
def online_bound(rng: np.random.Generator) -> Evidence:
    # Neighbours decide and inputs say nothing: the fit wants W larger than the bound allows, which is attained.
    data = make_chain_dataset(12, 12, 3, 4, emission=0.05, transition=4.0, rng=rng)
    network, pairwise = mlp(4, (), 3, rng=rng), _log_bigrams(data)
    ratios, traces = [], []
    for least, learned in ((0.8, ()), (2.5, ("pairwise_scale",)), (2.5, ())):
        rows = []
        for c in (1e-3, -50.0):
            model = ChainCRF(network, np.sign(c) * pairwise, pairwise_scale=c)
            scaling = OnlineScaling(subset=12, least_ratio=least, period=10 if least < 1 else 1)
            optimizer = SGD(step_size=1e-9)
            result = train_structured(
                model, data, scaling=scaling, optimizer=optimizer, n_epochs=1, learned_scales=learned, rng=0
            )
            ratios += [least / float(ratio) for ratio in result.history.ratio]
            rows.append([float(x) for row in result.history for x in (row.loss, row.unary_norm, row.pairwise_norm)])
            # What W was multiplied by in all, the sign included, is reported.
            total = float(result.history.pairwise_scale[-1]) * float(np.linalg.norm(model.pairwise))
            seen = abs(total) / float(np.linalg.norm(model.pairwise * c))
            last = result.last_model
            moved = float(np.linalg.norm(last.pairwise_scale * last.pairwise) / np.linalg.norm(c * pairwise))
            traces.append(abs(seen / moved - 1) + float(total * c < 0))
        # Whatever it started with.
        traces.append(float(np.abs(np.array(rows) / rows[0] - 1).max()))
    # Stages trust the network: no bound, but again whatever W's multiplier was, on data that W alone cannot explain.
    noisy, rows = make_chain_dataset(12, 8, 3, 4, emission=0.5, transition=1.0, rng=rng), []
    for c in (0.1, -5.0):
        model = ChainCRF(network, np.sign(c) * _log_bigrams(noisy), pairwise_scale=c)
        staged = train_structured(
            model,
            noisy,
            strategy="stage",
            scaling=OnlineScaling(subset=12),
            optimizer=SGD(step_size=1e-9),
            n_epochs=3,
            rng=0,
        )
        rows.append([float(x) for x in (staged.history.loss[-1], staged.history.pairwise_norm[-1])])
    traces.append(float(np.abs(np.array(rows) / rows[0] - 1).max()))
    nothing = train_structured(ChainCRF(network, np.zeros((3, 3))), data, scaling=OnlineScaling(), n_epochs=1, rng=0)
    fits = largest(*traces, 0.0 if nothing.success else np.inf) < 1e-3
    return Evidence(
        measured=largest(ratios) if fits else np.inf,
        bound=1 + 1e-6,
        control=1.1 * min(ratios),
        note=f"traces of the start {largest(traces):.1g}",
    )


def _log_bigrams(data: ChainDataset) -> Doubles:
    """The logarithms of how often each label follows each other one, smoothed, with mean 0."""
    counts = np.ones((3, 3))
    for labels in data.split(data.known_labels):
        np.add.at(counts, (labels[:-1], labels[1:]), 1)
    found: Doubles = np.log(counts / counts.sum(axis=1, keepdims=True))
    found -= found.mean()
    return found
