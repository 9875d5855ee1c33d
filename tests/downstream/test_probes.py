"""Probes against scikit-learn; the network learns what a line cannot; seeds mean what they say."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from brainlit.downstream.probes import LayerData, LayerProbeConfig, fit_linear, fit_mlp, standardised
from tests.downstream.planted import planted_features, planted_task


def problem(kind="single", signal=0.6, **shape):
    task = planted_task(kind, sizes={"train": 150, "choose": 80, "test": 120})
    features = standardised({part: layers[0] for part, layers in planted_features(task, {0: signal}, **shape).items()})
    return LayerData(features, task.targets, task.kind, len(task.labels))


@pytest.mark.parametrize("strength", [0.1, 0.003])
def test_the_linear_probe_is_logistic_regression(strength):
    mine = fit_linear(given := problem(), LayerProbeConfig(strengths=(strength,), max_steps=500))
    theirs = LogisticRegression(C=1 / (150 * strength), max_iter=2000, tol=1e-8)
    theirs.fit(given.features["train"], given.targets["train"])
    assert mine.predictions["test"].shape == (1, 1, 120)
    assert (mine.predictions["test"][0, 0] == theirs.predict(given.features["test"])).mean() >= 0.99


def test_with_several_labels_it_is_one_regression_for_each():
    mine = fit_linear(given := problem("multi"), LayerProbeConfig(strengths=(0.03,), max_steps=500))
    for k in range(given.n_labels):
        theirs = LogisticRegression(C=1 / (150 * 0.03), max_iter=2000, tol=1e-8)
        theirs.fit(given.features["train"], given.targets["train"][:, k])
        assert (mine.predictions["test"][0, 0, :, k] == theirs.predict(given.features["test"])).mean() >= 0.99


def test_settings_come_strongest_first_and_do_not_depend_on_their_order():
    given = problem()
    one = fit_linear(given, LayerProbeConfig(strengths=(0.001, 10.0, 0.1)))
    assert one.settings == (10.0, 0.1, 0.001)
    assert set(one.predictions) == {"choose", "test"}
    alone = fit_linear(given, LayerProbeConfig(strengths=(0.1,), max_steps=500))
    assert (one.predictions["test"][1] == alone.predictions["test"][0]).mean() >= 0.98


def test_the_scale_is_that_of_train_alone():
    rng = np.random.default_rng(0)
    train = rng.normal(5, 3, (50, 3)).astype(np.float32)
    train[:, 2] = 7
    test = rng.normal(-1, 9, (20, 3)).astype(np.float32)
    found = standardised({"train": train, "test": test})
    np.testing.assert_allclose(found["train"][:, :2].std(axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(found["test"][:, 0], (test[:, 0] - train[:, 0].mean()) / train[:, 0].std(), rtol=1e-4)
    assert (found["test"][:, 2] == 0).all()


def xor(n_clips, seed):
    x = np.random.default_rng(seed).uniform(-1, 1, (n_clips, 2)).astype(np.float32)
    return x, ((x[:, 0] > 0) != (x[:, 1] > 0)).astype(np.int64)


def test_the_network_learns_what_no_line_can():
    pairs = {"train": xor(400, 0), "choose": xor(200, 1), "test": xor(200, 2)}
    given = LayerData({p: x for p, (x, _) in pairs.items()}, {p: y for p, (_, y) in pairs.items()}, "single", 2)
    config = LayerProbeConfig(decays=(0.01,), seeds=(0, 1), max_epochs=60, rate=0.02)
    truth = given.targets["test"]
    network = fit_mlp(given, config).predictions["test"]
    assert network.shape == (1, 2, 200)
    assert (network == truth).mean() > 0.9
    assert (fit_linear(given, config).predictions["test"] == truth).mean() < 0.65


def test_a_seed_decides_the_network_and_nothing_global_does():
    given = problem(signal=0.3)
    drawn = torch.get_rng_state()
    both = fit_mlp(given, LayerProbeConfig(seeds=(4, 5), decays=(0.1,), max_epochs=6)).predictions["test"]
    assert torch.equal(torch.get_rng_state(), drawn)
    alone = fit_mlp(given, LayerProbeConfig(seeds=(5,), decays=(0.1,), max_epochs=6)).predictions["test"]
    assert (alone[0, 0] == both[0, 1]).mean() >= 0.98
    assert (both[0, 0] != both[0, 1]).any()


def test_the_network_stops_before_it_learns_noise():
    """With labels by lot its best epoch on 'choose' is an early one, so that more epochs change nothing."""
    given = problem(signal=0.0)
    config = LayerProbeConfig(seeds=(0,), decays=(0.01,), patience=3, rate=0.01)
    short, long = (
        fit_mlp(given, LayerProbeConfig(**{**vars(config), "max_epochs": n})).predictions["choose"] for n in (20, 60)
    )
    np.testing.assert_array_equal(short, long)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probes": ("linear_",)}, "Did you mean 'linear'"),
        ({"seeds": ()}, "probe seeds are empty"),
        ({"strengths": (-1.0,)}, "cannot be negative"),
        ({"patience": 0}, "probe patience is 0"),
        ({"rate": 0.0}, "probe rate is 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LayerProbeConfig(**settings)


def test_scores_that_are_not_finite_are_no_answer():
    given = problem()
    given.features["test"][3, 0] = np.inf
    with pytest.raises(ValueError, match="did not converge"):
        fit_linear(given, LayerProbeConfig(strengths=(0.1,), max_steps=5))
