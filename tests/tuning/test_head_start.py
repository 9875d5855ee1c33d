"""The head begins with a ridge on the untouched backbone's states, whatever its kind and however it looks back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from brainlit.tuning.head_start import FEWEST_ROWS, HeardBatch, LinearMap, Moments, ridge_map, set_maps, start_head
from brainlit.tuning.heads import HEADS, HeadConfig, build_head
from tests.tuning.conftest import FakeData

HIDDEN, N_TRS, CONTEXT, TR_S, BIN_S = 6, 10, 10, 2.0, 0.5
SIZES = {"S1": 4, "S2": 4}
ALPHAS = np.logspace(-3, 4, 15)


def noisy_rows(n_stories=5, n_rows=40, n_inputs=8, n_targets=3, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_stories * n_rows, n_inputs)) * np.linspace(0.1, 2, n_inputs) + 3
    Y = X @ rng.standard_normal((n_inputs, n_targets)) + noise * rng.standard_normal((len(X), n_targets)) * 4 - 7
    return X.astype(np.float32), Y.astype(np.float32), np.repeat(np.arange(n_stories), n_rows)


def best_ridge(X, Y, folds):
    """scikit-learn's ridge for each target, with the alpha that errs least on the held-out rows of all folds."""
    centred = X - X.mean(0)
    size = np.sqrt((centred**2).sum(1).mean())
    weight, bias = np.zeros((X.shape[1], Y.shape[1])), np.zeros(Y.shape[1])
    for v in range(Y.shape[1]):
        y = Y[:, v] - Y[:, v].mean()
        errors = []
        for alpha in ALPHAS:
            fits = [(f, Ridge(alpha=alpha, fit_intercept=False).fit(centred[~f] / size, y[~f])) for f in folds]
            errors.append(np.mean([((fit.predict(centred[f] / size) - y[f]) ** 2).mean() for f, fit in fits]))
        last = Ridge(alpha=ALPHAS[int(np.argmin(errors))], fit_intercept=False).fit(centred / size, y)
        weight[:, v] = last.coef_ / size
        bias[v] = Y[:, v].mean() - X.mean(0) @ weight[:, v]
    return weight, bias


@pytest.mark.parametrize("noise", [0.05, 3.0])
def test_the_map_is_the_ridge_that_errs_least_on_stories_left_out(noise):
    X, Y, stories = noisy_rows(n_stories=4, noise=noise)
    weight, bias = best_ridge(X, Y, [stories == story for story in range(4)])
    found = ridge_map(torch.from_numpy(X), torch.from_numpy(Y), stories)
    np.testing.assert_allclose(found.weight, weight, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.bias, bias, rtol=2e-3, atol=2e-2)


def test_noise_gives_a_map_of_nearly_nothing():
    X, _, stories = noisy_rows()
    noise = torch.randn(len(X), 50, generator=torch.Generator().manual_seed(1))
    found = ridge_map(torch.from_numpy(X), noise, stories)
    predicted = torch.from_numpy(X) @ found.weight + found.bias
    assert float(predicted.std(0).mean()) < 0.15


# --- kinds of heads ---


def two_maps(n_inputs=HIDDEN, n_targets=4):
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {name: LinearMap(draw(n_inputs, n_targets), draw(n_targets)) for name in SIZES}, draw(30, n_inputs) + 1


def built(kind="linear", rank=2, over="tr", sizes=SIZES, **settings):
    config = HeadConfig(kind=kind, rank=rank, delays_trs=(0, 2), dropout=0.5, **settings)
    return build_head(config, HIDDEN, sizes, over, 0)


def nearest(values, rank):
    """The nearest matrix of this rank, rows centred."""
    middle = values.mean(0)
    u, s, v = np.linalg.svd(values - middle, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank] + middle


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_a_head_predicts_what_the_maps_do_as_far_as_it_can(kind):
    maps, rows = two_maps()
    wanted = {name: (rows @ one.weight + one.bias).numpy() for name, one in maps.items()}
    if kind == "bottleneck":
        both = nearest(np.concatenate(list(wanted.values()), axis=1), 2)
        wanted = {"S1": both[:, :4], "S2": both[:, 4:]}
    elif kind != "linear":
        wanted = dict.fromkeys(SIZES, (wanted["S1"] + wanted["S2"]) / 2)
    head = built(kind)
    set_maps(head, maps, rows)
    for name, values in head.predict(rows[None]).items():
        np.testing.assert_allclose(values[0].detach(), wanted[name], atol=1e-4)


def test_a_bottleneck_wider_than_the_maps_holds_them_whole():
    maps, rows = two_maps()
    head = built("bottleneck", rank=20)
    set_maps(head, maps, rows)
    for name, one in maps.items():
        torch.testing.assert_close(head.predict(rows[None])[name][0], rows @ one.weight + one.bias, atol=1e-4, rtol=0)
    assert all(torch.isfinite(values).all() for values in head.parameters())


def test_a_subject_without_a_map_keeps_its_weights():
    maps, rows = two_maps()
    head, before = built(), built()
    set_maps(head, {"S2": maps["S2"]}, rows)
    torch.testing.assert_close(head.linear.weight[:4], before.linear.weight[:4])
    torch.testing.assert_close(head.linear.weight[4:], maps["S2"].weight.T)


# --- from batches ---


def planted_batches(response, over="tr", n_batches=6, size=4, s2_hears=True):
    """States of which the first decides all responses: with a haemodynamic response, or two rows later without one."""
    generator = torch.Generator().manual_seed(0)
    per_tr = 1 if response is None else round(TR_S / BIN_S)
    found = []
    for k in range(n_batches):
        n_rows, n_trs = (1, 1) if over == "window" else ((CONTEXT + N_TRS) * per_tr, N_TRS)
        pooled = torch.randn(size, n_rows, HIDDEN, generator=generator) * 3 + 5
        edges = torch.arange(n_rows + 1).float().expand(size, -1) * TR_S / per_tr
        read = (torch.arange(CONTEXT, CONTEXT + N_TRS).float() + 0.5).expand(size, -1) * TR_S
        if over == "window":
            signal = pooled[:, :, 0]
        elif response is None:
            signal = pooled[:, CONTEXT - 2 : CONTEXT - 2 + N_TRS, 0]
        else:
            signal = response(pooled, edges, read)[:, :, 0]
        found.append(
            HeardBatch(
                pooled=pooled,
                heard=torch.ones(size, n_rows, dtype=torch.bool),
                times=() if response is None else (edges, read),
                targets={name: ((signal - 5) / 3)[:, :, None].repeat(1, 1, 4) for name in SIZES},
                target_mask={"S1": torch.ones(size, n_trs, dtype=torch.bool)}
                | {"S2": torch.full((size, n_trs), s2_hears)},
                story=torch.full((size,), k),
                first_tr=torch.arange(size) * n_trs,
            )
        )
    return found


def error_of(head, batches, name="S1"):
    head.eval()
    errors, spread = [], []
    for batch in batches:
        predicted = head(batch.pooled, batch.heard, batch.targets[name].shape[1], *batch.times)[name]
        errors.append((predicted - batch.targets[name]).square().mean())
        spread.append(batch.targets[name].square().mean())
    return float((torch.stack(errors).mean() / torch.stack(spread).mean()).detach())


@pytest.mark.parametrize("kind", sorted(HEADS))
@pytest.mark.parametrize(
    ("over", "settings", "most"),
    [
        ("tr", {"delays": "fir"}, 0.05),
        ("tr", {"delays": "mix"}, 0.8),
        ("tr", {"delays": "fixed"}, 0.8),
        ("tr", {"haemodynamic": "hrf"}, 0.05),
        ("tr", {"haemodynamic": "hrf_derivatives"}, 0.05),
        ("tr", {"haemodynamic": "learned"}, 0.05),
        ("window", {}, 0.05),
    ],
)
def test_every_head_starts_better_than_the_mean(kind, over, settings, most):
    """The mean errs by 1; a mix of delays has the right row as one of two."""
    head = built(kind, over=over, **settings)
    fitted = planted_batches(head.response, over, n_batches=40 if over == "window" else 6)
    head.set_standardisation(*Moments.of(fitted).mean_and_sd())
    start_head(head, fitted)
    assert error_of(head, fitted) < most
    assert error_of(head, fitted, "S2") < most


def test_too_few_rows_leave_the_weights_of_the_seed(caplog):
    head, before = built(delays="fir"), built(delays="fir")
    few = planted_batches(None, n_batches=2)
    assert 2 * 4 * N_TRS < FEWEST_ROWS
    with caplog.at_level("INFO"):
        start_head(head, few)
    assert all(torch.equal(values, before.state_dict()[name]) for name, values in head.state_dict().items())
    assert f"head of S1 starts at random: 80 rows were heard, ridge needs {FEWEST_ROWS}" in caplog.text


def test_a_subject_who_heard_nothing_starts_at_random_and_the_other_does_not():
    head, before = built(delays="fir"), built(delays="fir")
    fitted = planted_batches(None, s2_hears=False)
    head.set_standardisation(*Moments.of(fitted).mean_and_sd())
    start_head(head, fitted)
    assert error_of(head, fitted) < 0.05
    assert torch.equal(head.linear.weight[4:], before.linear.weight[4:])


# --- in a run ---


def started(make_module, make_trainer, **settings):
    """Validation loss before the first step, that of the mean, and the module."""
    module, data = make_module(backbone_lr=0.0, head_lr=0.0, **settings), FakeData(n_windows=64)
    trainer = make_trainer(max_epochs=1, limit_train_batches=1)
    trainer.fit(module, datamodule=data)
    return float(trainer.callback_metrics["val/loss"]), float(trainer.callback_metrics["val/loss_of_mean"]), module


def test_a_run_begins_with_the_ridge_unless_random_weights_are_asked_for(make_module, make_trainer):
    ridge, of_mean, _ = started(make_module, make_trainer)
    assert ridge < 0.8 * of_mean
    random, _, module = started(make_module, make_trainer, head_start="random")
    assert random > ridge
    fresh = make_module(head_start="random")
    fresh.build_head(FakeData().target_sizes)
    torch.testing.assert_close(module.head.linear.weight, fresh.head.linear.weight)


def test_the_loss_of_the_mean_is_that_of_zeros(make_module, make_trainer):
    _, of_mean, _ = started(make_module, make_trainer)
    assert of_mean == pytest.approx(1.0)  # the planted responses are -1 and 1
