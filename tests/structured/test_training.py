"""Training: strategies, scalings, checkpoints, selection and equal budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from attnembed.compare import compare_arms
from attnembed.errors import InputError
from attnembed.optim import SGD, Adam
from attnembed.results import Status
from attnembed.structured.data import GridDataset, make_chain_dataset, make_grid_dataset
from attnembed.structured.layers import LayerNorm
from attnembed.structured.model import ChainCRF, GridCRF
from attnembed.structured.networks import Network, conv_net, identity, mlp
from attnembed.structured.scaling import (
    OfflineScaling,
    OnlineScaling,
    bigram_potentials,
    normalised,
    normalised_gradient,
)
from attnembed.structured.theory import component_norms
from attnembed.structured.training import train_structured

DATA = make_chain_dataset(120, 5, 3, 4, rng=0)
TRAIN, VALIDATION, TEST = (DATA.subset(range(i, i + 40)) for i in (0, 40, 80))


def make_model(rng=1):
    pairwise = 0.1 * np.random.default_rng(2).normal(size=(3, 3))
    return ChainCRF(mlp(4, (6,), 3, rng=rng), pairwise)


def assert_same(a, b):
    for name, value in a.parameters().items():
        assert_array_equal(value, b.parameters()[name])


def assert_same_history(a, b):
    """All but the seconds."""
    assert_array_equal(a.history.epoch, np.arange(len(a.history)))
    for name in set(a.history.dtype.names) - {"seconds"}:
        assert_array_equal(a.history[name], b.history[name])


@pytest.mark.parametrize("objective", ChainCRF.objectives[:-1])
@pytest.mark.parametrize("strategy", ["joint", "stage"])
def test_training_lowers_the_objective(strategy, objective):
    result = train_structured(
        make_model(), TRAIN, strategy=strategy, objective=objective, n_epochs=6, optimizer=Adam(step_size=1e-2), rng=0
    )
    assert result.status is Status.REACHED_END
    assert result.model.loss(TRAIN, objective) < 0.9 * make_model().loss(TRAIN, objective)
    assert_array_equal(result.history.stage, [0, 0, 1, 1, 2, 2] if strategy == "stage" else [0] * 6)
    assert_array_equal(result.history["loss"], result.history.loss)


def test_grids_train():
    data = make_grid_dataset(6, 5, 5, 2, transition=1.2, rng=0)
    model = GridCRF(conv_net(2, (3,), 2, size=3, rng=0), 0.1 * np.eye(2), contrast=True)
    for objective in ("ssvm", "pseudolikelihood", "mean_field"):
        result = train_structured(
            model, data, objective=objective, scaling=OnlineScaling(), n_epochs=3, optimizer=Adam(step_size=1e-2), rng=0
        )
        assert result.model.loss(data, objective) < model.loss(data, objective)


def test_stages_train_what_they_say():
    snapshots = []
    train_structured(
        make_model(),
        TRAIN,
        strategy="stage",
        n_epochs=3,
        callback=lambda state: snapshots.append(state.model.parameters()),
        rng=0,
    )
    start = make_model().parameters()

    def moved(before, after):
        return {name.split(".")[0] for name in before if not np.array_equal(before[name], after[name])}

    assert moved(start, snapshots[0]) == {"network"}
    assert moved(snapshots[0], snapshots[1]) == {"pairwise"}
    assert moved(snapshots[1], snapshots[2]) == {"network", "pairwise"}


def test_first_step_by_hand():
    """One batch, SGD: parameters minus the step size times the gradient, times the rate of the component."""
    model, (_, grads) = make_model(), make_model().loss_and_grads(TRAIN)
    options: dict[str, Any] = {"optimizer": SGD(step_size=0.1), "batch_size": 40, "n_epochs": 1, "rng": 0}
    after = train_structured(model, TRAIN, rates={"pairwise": 5.0}, learned_scales=("pairwise_scale",), **options).model
    assert_allclose(after.pairwise, model.pairwise - 0.5 * grads.pairwise, rtol=1e-12)
    assert_allclose(after.pairwise_scale, 1 - 0.1 * grads.pairwise_scale, rtol=1e-12)
    for name, value in model.network.params.items():
        assert_allclose(after.network.params[name], value - 0.1 * grads.network[name], rtol=0, atol=1e-14)
    assert after.unary_scale == 1.0


@pytest.mark.parametrize("scaling", [None, OnlineScaling(subset=20), OfflineScaling(ratio=2.0)])
@pytest.mark.parametrize("strategy", ["joint", "stage"])
def test_resuming_changes_nothing(tmp_path, scaling, strategy):
    options: dict[str, Any] = {
        "strategy": strategy,
        "scaling": scaling,
        "n_epochs": 6,
        "validation": VALIDATION,
        "learned_scales": ("unary_scale",),
        "optimizer": Adam(step_size=1e-2),
        "stage_unary_norm": 2.0,
    }
    whole = train_structured(make_model(), TRAIN, rng=3, **options)
    path = tmp_path / "run.npz"
    # Stops at the end of an epoch, once within a stage and once at its end.
    for last in (0, 3):
        part = train_structured(
            make_model(),
            TRAIN,
            checkpoint=path,
            callback=lambda state, last=last: state.epoch == last,
            rng=3,
            **options,
        )
        assert part.status is Status.STOPPED
        assert len(part.history) == last + 1
    resumed = train_structured(make_model(), TRAIN, checkpoint=path, rng=3, **options)
    assert_same(whole.model, resumed.model)
    assert_same(whole.last_model, resumed.last_model)
    assert whole.best_epoch == resumed.best_epoch
    assert_same_history(whole, resumed)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox])
def test_resuming_takes_up_the_generator_of_the_run(tmp_path, kind):
    """Generators with arrays in their state, and a run resumed with a generator of another kind."""
    path = tmp_path / "run.npz"
    whole = train_structured(make_model(), TRAIN, n_epochs=3, rng=np.random.Generator(kind(3)))
    train_structured(
        make_model(),
        TRAIN,
        n_epochs=3,
        rng=np.random.Generator(kind(3)),
        checkpoint=path,
        callback=lambda state: state.epoch == 0,
    )
    resumed = train_structured(make_model(), TRAIN, n_epochs=3, checkpoint=path)
    assert len(resumed.history) == 3
    assert_same(whole.model, resumed.model)


def test_validation_selects_the_model():
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.8])
    seen = []
    result = train_structured(
        make_model(),
        TRAIN,
        n_epochs=5,
        validation=VALIDATION,
        metric=lambda model, data: next(scores),
        callback=lambda state: seen.append(state.model),
        patience=2,
        rng=0,
    )
    assert result.status is Status.STOPPED
    assert "patience after epoch 3" in result.message
    assert result.best_epoch == 1
    assert_same(result.model, seen[1])
    assert_same(result.last_model, seen[3])
    assert (result.model.pairwise != result.last_model.pairwise).any()
    assert (result.model.network.params["0.W"] != result.last_model.network.params["0.W"]).any()


def test_same_seed_same_run():
    runs = [train_structured(make_model(), TRAIN, scaling=OnlineScaling(), n_epochs=2, rng=5).model for _ in range(2)]
    assert_same(*runs)
    other = train_structured(make_model(), TRAIN, scaling=OnlineScaling(), n_epochs=2, rng=6).model
    assert (other.pairwise != runs[0].pairwise).any()


def test_the_given_model_is_left_alone():
    model = make_model()
    before = model.parameters()
    train_structured(model, TRAIN, n_epochs=1, scaling=OnlineScaling(), rng=0)
    for name, value in before.items():
        assert_array_equal(value, model.parameters()[name])


@pytest.mark.parametrize("rates", [None, {"pairwise": 1e300}])
def test_overflow_is_a_status(rates):
    result = train_structured(
        make_model(), TRAIN, optimizer=SGD(step_size=1e300 if rates is None else 1e10), rates=rates, n_epochs=3, rng=0
    )
    assert result.status is Status.NOT_FINITE
    assert not result.success
    assert np.isfinite(result.model.pairwise).all()


def test_interruption_keeps_the_epochs_done():
    def interrupt(state):
        if state.epoch == 1:
            raise KeyboardInterrupt

    result = train_structured(make_model(), TRAIN, n_epochs=4, callback=interrupt, rng=0)
    assert result.status is Status.INTERRUPTED
    assert len(result.history) == 2


def test_online_scaling_finds_the_scale_in_one_epoch():
    """A pairwise part a hundred times too small or too large is brought back within a few epochs."""
    for factor in (0.01, 100.0):
        model = make_model()
        model = ChainCRF(model.network, factor * np.random.default_rng(0).normal(size=(3, 3)))
        result = train_structured(model, TRAIN, scaling=OnlineScaling(low=-7, high=7), n_epochs=1, rng=0)
        assert 0.1 < result.history.ratio[-1] < 10
    # The factors folded in are part of the recorded scale.
    assert result.history.pairwise_scale[-1] != 1.0
    assert result.model.pairwise_scale == 1.0


@pytest.mark.parametrize("objective", ["mean_field", "pseudolikelihood"])
@pytest.mark.parametrize("strength", [0.01, 100.0])
def test_online_scaling_does_not_starve_an_untrained_network(strength, objective):
    """Neighbours that always agree want a large W; before, between and after the fits it is held to the bound."""
    data = GridDataset(np.random.default_rng(0).normal(size=(4, 4, 4, 1)), np.repeat([0, 1], 32).reshape(4, 4, 4))
    model = GridCRF(conv_net(1, (), 2, size=3, rng=1), strength * np.eye(2))
    frozen = {"rates": {"network": 1e-9, "pairwise": 1e-9}, "n_epochs": 2}
    for ratio in (1.0, 2.0):
        scaling = OnlineScaling(least_ratio=ratio)
        result = train_structured(model, data, objective=objective, scaling=scaling, rng=0, **frozen)
        assert_allclose(result.history.ratio, ratio, rtol=1e-5)
    growing = {"rates": {"network": 1e-9, "pairwise": 100.0}, "n_epochs": 2}
    result = train_structured(model, data, objective=objective, scaling=OnlineScaling(), rng=0, **growing)
    assert result.history.ratio.min() > 1 - 1e-5


def test_online_scaling_trusts_the_network_of_a_later_stage():
    """The fit before stage 2 goes both ways: unary scores that say little there will not say more."""
    network = make_model().network
    quiet = network.with_params({name: 0.1 * value for name, value in network.params.items()})
    model = ChainCRF(quiet, 0.01 * bigram_potentials(TRAIN, 3))
    options: dict[str, Any] = {
        "strategy": "stage",
        "stage_epochs": (0, 1, 0),
        "n_epochs": 1,
        "rates": {"pairwise": 1e-9},
        "rng": 0,
    }
    result = train_structured(model, TRAIN, scaling=OnlineScaling(period=9), **options)
    assert result.history.ratio[-1] < 0.2


def test_online_scaling_does_not_see_the_multiplier():
    """The same functions, written with different multipliers, are trained to the same model."""
    trained = []
    for c in (1.0, 0.05, 20.0):
        model = ChainCRF(make_model().network, make_model().pairwise / c, pairwise_scale=c)
        trained.append(train_structured(model, TRAIN, scaling=OnlineScaling(), n_epochs=3, rng=0))
    first = trained[0].model
    for result in trained[1:]:
        assert result.model.pairwise_scale == 1.0
        assert_allclose(result.model.pairwise, first.pairwise, rtol=1e-3, atol=1e-4)
        assert_allclose(result.history.ratio, trained[0].history.ratio, rtol=1e-3)
    # A multiplier alone leaves no trace at all, not even in the last digits.
    for c in (0.01, 0.3, 100.0):
        model = ChainCRF(make_model().network, make_model().pairwise, pairwise_scale=c)
        result = train_structured(model, TRAIN, scaling=OnlineScaling(), n_epochs=3, rng=0)
        assert_array_equal(result.model.pairwise, first.pairwise)
    naive = [
        train_structured(
            ChainCRF(make_model().network, make_model().pairwise / c, pairwise_scale=c), TRAIN, n_epochs=3, rng=0
        ).history.ratio[-1]
        for c in (1.0, 20.0)
    ]
    assert abs(np.log(naive[0] / naive[1])) > 0.1


def test_offline_ratio_holds_throughout():
    ratios = []
    train_structured(
        make_model(),
        TRAIN,
        scaling=OfflineScaling(ratio=3.0, decay=0.0),
        batch_size=40,
        n_epochs=5,
        optimizer=Adam(step_size=1e-3),
        callback=lambda state: ratios.append(
            component_norms(state.model.unary(TRAIN), state.model.pairwise_scale * state.model.pairwise)
        ),
        rng=0,
    )
    # Without averaging the norm is that of the batch, before the step of the epoch.
    assert_allclose([u / w for u, w in ratios], 3.0, rtol=0.02)
    assert_allclose(component_norms(np.zeros((1, 1)), train_offline(3.0).pairwise)[1], 1.0, rtol=1e-14)


def test_first_offline_step_by_hand():
    model, eta, ratio = make_model(), 0.1, 3.0
    unit, n = normalised(model.pairwise)
    scale = component_norms(model.unary(TRAIN), np.zeros((1, 1)))[0] / ratio
    gradient = ChainCRF(model.network, unit, pairwise_scale=scale).loss_and_grads(TRAIN)[1].pairwise
    expected = normalised(model.pairwise - eta * normalised_gradient(gradient, unit, n))[0]
    result = train_structured(
        model,
        TRAIN,
        scaling=OfflineScaling(ratio=ratio),
        optimizer=SGD(step_size=eta),
        batch_size=40,
        n_epochs=1,
        rng=0,
    )
    assert_allclose(result.model.pairwise, expected, rtol=1e-10)


def train_offline(ratio):
    return train_structured(make_model(), TRAIN, scaling=OfflineScaling(ratio=ratio), n_epochs=1, rng=0).model


def test_multiplier():
    result = train_structured(make_model(), TRAIN, scaling=OfflineScaling(multiplier=7.0), n_epochs=1, rng=0)
    assert result.model.pairwise_scale == 7.0


def test_stage_unary_norm():
    result = train_structured(
        make_model(),
        TRAIN,
        strategy="stage",
        objective="ssvm",
        stage_epochs=(2, 1, 0),
        stage_unary_norm=0.5,
        n_epochs=3,
        rng=0,
    )
    assert_allclose(result.history.unary_norm[-1], 0.5, rtol=1e-12)


def test_equal_budgets():
    arms = {
        "joint": {},
        "stage": {"strategy": "stage"},
        "the same": {},
        "small": {"prepare": lambda model: ChainCRF(model.network, 0 * model.pairwise)},
    }
    comparison = compare_arms(
        arms, lambda rng: make_model(rng), TRAIN, VALIDATION, TEST, n_epochs=3, step_sizes=(1e-3, 1e-2), repetitions=2
    )
    assert [arm.name for arm in comparison.arms] == list(arms)
    for arm in comparison.arms:
        assert len(arm.results) == 2
        assert all(len(result.history) == 3 for result in arm.results)
        assert_allclose(arm.mean, np.mean([r.model.accuracy(TEST) for r in arm.results]), rtol=1e-15)
    # Equal arms get equal results: same initial models, same batches.
    assert_array_equal(comparison["joint"].test_scores, comparison["the same"].test_scores)
    assert_same(comparison["joint"].results[1].model, comparison["the same"].results[1].model)
    assert "4 runs per arm" in str(comparison)
    for option in ({"n_epochs": 9}, {"batch_size": 1}, {"optimizer": Adam(step_size=1.0)}, {"rng": 0}):
        with pytest.raises(InputError, match="`arms` must leave the budget alone"):
            compare_arms({"greedy": option}, make_model, TRAIN, VALIDATION, TEST, n_epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "both"}, "`strategy` must be one of"),
        ({"objective": "mse"}, "`objective` must be one of"),
        ({"n_epochs": 0}, "`n_epochs` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"stage_epochs": (1, 1, 1)}, "`stage_epochs` belongs to strategy 'stage'"),
        ({"strategy": "stage", "stage_epochs": (1, 1, 1)}, "sum to n_epochs = 30"),
        ({"rates": {"unary": 2.0}}, "`rates` must be one of"),
        ({"learned_scales": ("pairwise",)}, "`learned_scales` must be one of"),
        ({"patience": 3}, "`patience` needs validation data"),
        ({"resume": "yes"}, "`resume` must be True or False"),
        ({"rng": -1}, "`rng` must be a non-negative"),
        ({"scaling": "online"}, "`scaling` must be None, an OnlineScaling or an OfflineScaling; got str"),
        ({"validation": 3}, "`validation` must be a ChainDataset; got int"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        train_structured(make_model(), TRAIN, **options)


def test_models_and_data_of_another_kind_are_named():
    grids = make_grid_dataset(2, 3, 3, 4, rng=0)
    for arguments, message in (
        ((3, TRAIN), "`model` must be a ChainCRF or a GridCRF; got int"),
        ((make_model(), grids), "`data` must be a ChainDataset; got GridDataset"),
        ((GridCRF(identity(), np.eye(4)), TRAIN), "`data` must be a GridDataset; got ChainDataset"),
    ):
        with pytest.raises(InputError, match=message):
            train_structured(*arguments, n_epochs=1)
    with pytest.raises(InputError, match="`data` must be a ChainDataset"):
        make_model().predict(grids)


def near_the_start(model, data):
    start = make_model().parameters()
    return -sum(float(np.abs(value - start[name]).sum()) for name, value in model.parameters().items())


def test_a_run_stopped_by_patience_stays_stopped(tmp_path):
    options: dict[str, Any] = {"validation": VALIDATION, "metric": near_the_start, "patience": 2, "n_epochs": 5}
    options["checkpoint"] = tmp_path / "run.npz"
    whole = train_structured(make_model(), TRAIN, rng=3, **options)
    resumed = train_structured(make_model(), TRAIN, rng=3, **options)
    for result in (whole, resumed):
        assert result.status is Status.STOPPED
        assert "patience after epoch 2" in result.message
        assert len(result.history) == 3
    assert_same(whole.last_model, resumed.last_model)


def test_an_epoch_that_was_cut_short_is_done_again(tmp_path, monkeypatch):
    """The interruption comes in the middle of the third epoch, after half of its batches."""
    options: dict[str, Any] = {"n_epochs": 4, "validation": VALIDATION, "scaling": OnlineScaling()}
    whole = train_structured(make_model(), TRAIN, rng=3, **options)
    options["checkpoint"] = tmp_path / "run.npz"
    update, taken = Adam.update, []

    def interrupted(*arguments):
        taken.append(None)
        if len(taken) == 6:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(Adam, "update", interrupted)
    part = train_structured(make_model(), TRAIN, rng=3, **options)
    assert part.status is Status.INTERRUPTED
    assert "in epoch 2" in part.message
    assert len(part.history) == 2
    resumed = train_structured(make_model(), TRAIN, rng=3, **options)
    assert len(taken) == 6 + 4
    assert_same(whole.last_model, resumed.last_model)
    assert_same_history(whole, resumed)


def test_layer_norm_can_be_folded():
    network = Network.create([*mlp(4, (6,), 3, rng=0).layer.layers, LayerNorm(3)], rng=0)
    result = train_structured(
        ChainCRF(network, np.zeros((3, 3))),
        TRAIN,
        strategy="stage",
        stage_epochs=(1, 1, 0),
        stage_unary_norm=0.5,
        n_epochs=2,
        rng=0,
    )
    assert_allclose(result.history.unary_norm[-1], 0.5, rtol=1e-12)
    with pytest.raises(InputError, match="`network` must end in a Dense"):
        train_structured(
            ChainCRF(identity(), np.zeros((4, 4))),
            DATA,
            strategy="stage",
            stage_epochs=(1, 1, 0),
            stage_unary_norm=0.5,
            n_epochs=2,
            rng=0,
        )


def test_resuming_keeps_the_best_model(tmp_path):
    """The best epoch lies before the interruption."""
    options: dict[str, Any] = {"n_epochs": 4, "validation": VALIDATION, "metric": near_the_start}
    whole = train_structured(make_model(), TRAIN, rng=3, **options)
    assert whole.best_epoch == 0
    path = tmp_path / "run.npz"
    train_structured(make_model(), TRAIN, rng=3, checkpoint=path, callback=lambda state: state.epoch == 1, **options)
    resumed = train_structured(make_model(), TRAIN, rng=3, checkpoint=path, **options)
    assert resumed.best_epoch == 0
    assert_same(resumed.model, whole.model)


@pytest.mark.parametrize("empty", ["arms", "step_sizes", "repetitions"])
def test_what_is_empty_in_a_comparison_is_named(empty):
    options: dict[str, Any] = {
        "arms": {"joint": {}},
        "step_sizes": (0.1,),
        "repetitions": np.arange(1),
        empty: np.arange(0),
    }
    arms = options.pop("arms") if empty != "arms" else {}
    options.pop("arms", None)
    with pytest.raises(InputError, match=f"^`{empty}` must not be empty; give at least one$"):
        compare_arms(arms, make_model, TRAIN, VALIDATION, TEST, n_epochs=1, **options)
