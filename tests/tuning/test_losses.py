"""Losses: against slow loops over real rows, and what must not reach them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brainlit.tuning.losses import LOSSES, SMALLEST_SD, LossConfig, TargetLoss, ceiling_weights

Parts = dict[str, Tensor]
CEILINGS = {"S1": [0.2, np.nan, 0.4, 0.0], "S2": [0.5, 0.5, -0.1, 0.3, 0.1]}
NAMES = list(LOSSES)


def masked_mse(predicted: Parts, targets: Parts, masks: Parts) -> Tensor:
    """The loss that brain-tuning began with, as it was written then."""
    device = next(iter(predicted.values())).device
    total, n_subjects = torch.zeros((), device=device), torch.zeros((), device=device)
    for subject, prediction in predicted.items():
        mask = masks[subject]
        error = torch.where(mask[:, :, None], prediction.float() - targets[subject].float(), 0.0)
        n_rows = mask.sum()
        total = total + error.square().mean(2).sum() / n_rows.clamp(min=1)
        n_subjects = n_subjects + (n_rows > 0)
    return total / n_subjects.clamp(min=1)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def slow(name: str, subject: str, p: np.ndarray, y: np.ndarray) -> float:
    """Of one subject's real rows, (n_rows, n_targets) each."""
    weights = [max(0.0, float(np.nan_to_num(c))) ** 2 for c in CEILINGS[subject]]
    if name == "mse":
        return float(np.mean([(a - b) ** 2 for a, b in zip(p.flat, y.flat, strict=True)]))
    if name == "ceiling_mse":
        return float(np.mean([np.average((a - b) ** 2, weights=weights) for a, b in zip(p, y, strict=True)]))
    if name == "temporal_correlation":
        return 1 - float(np.mean([pearson(p[:, v], y[:, v]) for v in range(p.shape[1])]))
    if name == "spatial_correlation":
        return 1 - float(np.mean([pearson(a, b) for a, b in zip(p, y, strict=True)]))
    angle = 1 - float(np.mean([cosine(a, b) for a, b in zip(p, y, strict=True)]))
    if name == "cosine_l2":
        return slow("mse", subject, p, y) + 0.5 * angle
    errors = np.abs(p - y).ravel()
    return float(np.mean([e**2 / 2 if e < 0.6 else 0.6 * (e - 0.3) for e in errors])) + angle


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Parts, Parts, Parts]:
    """Three windows of five rows; S2 did not hear the second, and some rows are padding."""
    rng = torch.Generator().manual_seed(seed)
    predicted, targets, masks = {}, {}, {}
    for subject, size in (("S1", 4), ("S2", 5)):
        targets[subject] = torch.randn(3, 5, size, generator=rng, dtype=dtype)
        predicted[subject] = targets[subject] + 0.8 * torch.randn(3, 5, size, generator=rng, dtype=dtype) + 0.3
        masks[subject] = torch.ones(3, 5, dtype=torch.bool)
    masks["S1"][0, :2] = False
    masks["S2"][1] = False
    return predicted, targets, masks


def make(name: str, **changes: Any) -> TargetLoss:
    return TargetLoss(LossConfig(name=name, **changes), CEILINGS if name == "ceiling_mse" else None)


def value_and_gradients(loss: Any, predicted: Parts, targets: Parts, masks: Parts) -> tuple[Tensor, Parts]:
    leaves = {name: part.detach().clone().requires_grad_() for name, part in predicted.items()}
    value = loss(leaves, targets, masks)
    gradients = torch.autograd.grad(value, list(leaves.values()))
    return value.detach(), dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_equals_a_slow_loop_over_the_real_rows_of_each_subject(name: str) -> None:
    predicted, targets, masks = batch()
    expected = [slow(name, s, predicted[s][masks[s]].numpy(), targets[s][masks[s]].numpy()) for s in predicted]
    assert make(name)(predicted, targets, masks).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert make(name, over_subjects="sum")(predicted, targets, masks).item() == pytest.approx(sum(expected), rel=1e-5)


@pytest.mark.parametrize("heard", ["both", "one", "none"])
def test_mse_is_bit_for_bit_what_it_was(heard: str) -> None:
    predicted, targets, masks = batch(1)
    for subject in {"both": [], "one": ["S2"], "none": ["S1", "S2"]}[heard]:
        masks[subject][:] = False
    value, gradients = value_and_gradients(make("mse"), predicted, targets, masks)
    before, gradients_before = value_and_gradients(masked_mse, predicted, targets, masks)
    assert torch.equal(value, before)
    assert all(torch.equal(gradients[subject], gradients_before[subject]) for subject in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    predicted, targets, masks = batch(2, torch.float64)
    loss = make(name)
    inputs = [part.clone().requires_grad_() for part in predicted.values()]
    assert torch.autograd.gradcheck(lambda *p: loss(dict(zip(predicted, p, strict=True)), targets, masks), inputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_what_masked_rows_hold_does_not_matter(name: str, poison: float) -> None:
    clean = batch(3)
    value, gradients = value_and_gradients(make(name), *clean)
    predicted, targets, masks = batch(3)
    for subject in predicted:
        predicted[subject][~masks[subject]] = poison
        targets[subject][~masks[subject]] = poison
    value_now, gradients_now = value_and_gradients(make(name), predicted, targets, masks)
    assert torch.equal(value_now, value)
    for subject in predicted:
        assert torch.equal(gradients_now[subject], gradients[subject])
        assert not gradients[subject][~masks[subject]].any()
        assert gradients[subject][masks[subject]].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_subject_who_heard_nothing_counts_for_nothing(name: str) -> None:
    predicted, targets, masks = batch(4)
    masks["S2"][:] = False
    alone = make(name)({"S1": predicted["S1"]}, targets, masks)
    value, gradients = value_and_gradients(make(name), predicted, targets, masks)
    assert torch.equal(value, alone)
    assert not gradients["S2"].any()
    masks["S1"][:] = False
    value, gradients = value_and_gradients(make(name), predicted, targets, masks)
    assert value == 0
    assert not any(part.any() for part in gradients.values())


@pytest.mark.parametrize("name", NAMES)
def test_sum_gives_each_subject_the_gradient_that_it_has_alone(name: str) -> None:
    """Through weights that both share, as in a backbone; mean gives half of that for two subjects."""
    predicted, targets, masks = batch(5)
    shared = torch.ones(15, requires_grad=True)

    def gradient(subjects: list[str], over: str) -> Tensor:
        seen = {name: predicted[name] * shared.view(3, 5, 1) for name in subjects}
        return torch.autograd.grad(make(name, over_subjects=over)(seen, targets, masks), shared)[0]

    both = gradient(["S1"], "sum") + gradient(["S2"], "sum")
    torch.testing.assert_close(gradient(["S1", "S2"], "sum"), both)
    torch.testing.assert_close(gradient(["S1", "S2"], "mean"), both / 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["predicted", "targets", "both"])
@pytest.mark.parametrize("level", [0.0, 3.3, 60_000.0])
def test_what_is_constant_gives_finite_gradients(name: str, what: str, level: float) -> None:
    predicted, targets, masks = batch(6)
    for parts in {"predicted": [predicted], "targets": [targets], "both": [predicted, targets]}[what]:
        parts["S1"][:] = level
        parts["S2"][:, :, 1] = level
        parts["S2"][2] = level
    value, gradients = value_and_gradients(make(name), predicted, targets, masks)
    assert torch.isfinite(value)
    assert all(torch.isfinite(part).all() for part in gradients.values())


def test_a_constant_voxel_or_row_counts_as_uncorrelated() -> None:
    predicted, targets, masks = batch(7)
    one = {"S1": predicted["S1"][..., :3].clone()}, {"S1": targets["S1"][..., :3]}, masks
    one[0]["S1"][..., 1] = 2.0
    real = [pearson(one[0]["S1"][..., v][masks["S1"]], one[1]["S1"][..., v][masks["S1"]]) for v in (0, 2)]
    assert make("temporal_correlation")(*one).item() == pytest.approx(1 - sum(real) / 3, rel=1e-5)
    predicted["S1"][:] = 5.0
    assert make("spatial_correlation")({"S1": predicted["S1"]}, targets, masks).item() == pytest.approx(1.0, abs=1e-4)


def test_correlations_know_neither_level_nor_scale_and_a_constant_can_be_left() -> None:
    predicted, targets, masks = batch(8)
    temporal = make("temporal_correlation")
    moved = {name: 7 * part + torch.arange(part.shape[2]) for name, part in predicted.items()}
    torch.testing.assert_close(temporal(moved, targets, masks), temporal(predicted, targets, masks))
    spatial = make("spatial_correlation")
    moved = {name: 7 * part + torch.arange(5)[:, None] for name, part in predicted.items()}
    torch.testing.assert_close(spatial(moved, targets, masks), spatial(predicted, targets, masks))
    zero = {name: torch.zeros_like(part) for name, part in predicted.items()}
    _, gradients = value_and_gradients(temporal, zero, targets, masks)
    assert gradients["S1"].abs().max() < 1 / SMALLEST_SD
    better = {name: -gradients[name] for name in zero}
    assert temporal(better, targets, masks) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_values_are_computed_in_fp32_also_under_autocast(name: str) -> None:
    predicted, targets, masks = batch(9)
    half = {subject: (8_000 * part).half() for subject, part in predicted.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradients = value_and_gradients(make(name), half, targets, masks)
    assert value.dtype == torch.float32
    assert torch.equal(value, make(name)({s: part.float() for s, part in half.items()}, targets, masks))
    assert torch.isfinite(value)
    assert all(torch.isfinite(part).all() for part in gradients.values())


def test_many_voxels_at_the_end_of_half_precision_stay_finite() -> None:
    predicted = {"S1": torch.full((2, 4, 60_000), 65_504.0)}
    masks = {"S1": torch.ones(2, 4, dtype=torch.bool)}
    for name in set(NAMES) - {"ceiling_mse"}:
        value, gradients = value_and_gradients(make(name), predicted, {"S1": -predicted["S1"]}, masks)
        assert torch.isfinite(value)
        assert torch.isfinite(gradients["S1"]).all()


def test_too_few_rows_for_a_correlation_are_an_error_at_first_and_nothing_later() -> None:
    predicted, targets, masks = batch(10)
    small = [{"S1": parts["S1"][:1, :2]} for parts in (predicted, targets, masks)]
    small[2]["S1"][:] = True
    loss = make("temporal_correlation")
    with pytest.raises(ValueError, match=r"has 2; it needs at least 3.*--data\.batch_size"):
        loss(*small)
    loss(predicted, targets, masks)
    assert loss(*small) == 0
    masks["S2"][:] = False
    masks["S2"][0, :2] = True
    assert torch.equal(loss(predicted, targets, masks), loss({"S1": predicted["S1"]}, targets, masks))


def test_too_few_voxels_for_a_spatial_correlation_are_an_error() -> None:
    predicted, targets, masks = batch(11)
    with pytest.raises(ValueError, match="over voxels, and S1 has 2"):
        make("spatial_correlation")({"S1": predicted["S1"][..., :2]}, {"S1": targets["S1"][..., :2]}, masks)


def test_weights_are_ceilings_squared_with_mean_one_and_move_but_are_not_saved() -> None:
    weights = ceiling_weights("S1", CEILINGS["S1"])
    torch.testing.assert_close(weights, torch.tensor([0.8, 0.0, 3.2, 0.0]))
    loss = make("ceiling_mse")
    assert not loss.state_dict()
    assert all(buffer.device.type == "meta" for buffer in loss.to("meta").buffers())
    equal = TargetLoss(LossConfig(name="ceiling_mse"), {"S1": [0.3] * 4, "S2": [0.7] * 5})
    torch.testing.assert_close(equal(*batch()), make("mse")(*batch()))


def test_ceilings_that_are_missing_or_do_not_fit_are_errors_with_a_cure() -> None:
    config = LossConfig(name="ceiling_mse")
    for none in (None, {}):
        with pytest.raises(ValueError, match=r"there are none.*'choose'.*--data\.min_ceiling"):
            TargetLoss(config, none)
    with pytest.raises(ValueError, match="no voxel of subject 'S1' has a positive"):
        TargetLoss(config, {"S1": [np.nan, -0.1]})
    with pytest.raises(ValueError, match="no noise ceilings of subject 'S2'"):
        TargetLoss(config, {"S1": CEILINGS["S1"]})(*batch())
    with pytest.raises(ValueError, match="S1 has 2 noise ceilings, but 4 predicted"):
        TargetLoss(config, {"S1": [0.1, 0.2], "S2": [0.1]})(*batch())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "msee"}, "Did you mean 'mse'"),
        ({"over_subjects": "max"}, "choose mean or sum"),
        ({"huber_delta": 0.0}, "huber_delta is 0.0"),
        ({"cosine_weight": float("nan")}, "cosine_weight is nan"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossConfig(**settings)
