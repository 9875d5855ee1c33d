"""Delays, subjects and the loss, against loops."""

import pytest
import torch

from brainlit.tuning.heads import VoxelHead, initial_delay_weights, masked_mse

SIZES = {"S1": 2, "S2": 3}


def head(delays=(0, 2), **settings):
    return VoxelHead(4, SIZES, delays, **{"dropout": 0.0, **settings})


def rows(n_bins=7, seed=0):
    pooled = torch.randn(2, n_bins, 4, generator=torch.Generator().manual_seed(seed))
    return pooled, torch.ones(2, n_bins, dtype=torch.bool)


def test_mixes_the_rows_that_lie_back_and_maps_to_each_subject():
    model = head()
    pooled, heard = rows()
    predicted = model(pooled, heard, n_trs=5)
    weight, bias = model.linear.weight, model.linear.bias
    for b in range(2):
        for t in range(5):
            mixed = sum(w * pooled[b, 2 + t - d] for w, d in zip(model.delay_weights, (0, 2), strict=True))
            torch.testing.assert_close(predicted["S1"][b, t], weight[:2] @ mixed + bias[:2])
            torch.testing.assert_close(predicted["S2"][b, t], weight[2:] @ mixed + bias[2:])


def test_an_impulse_comes_out_at_its_delays_and_nowhere_else():
    model = head(delays=(1, 3))
    pooled, heard = torch.zeros(1, 9, 4), torch.ones(1, 9, dtype=torch.bool)
    pooled[0, 4] = 1.0
    out = model(pooled, heard, n_trs=6)["S2"][0].abs().sum(1)
    assert (out > 0).nonzero()[:, 0].tolist() == [2, 4]  # rows 3.. of the window are predicted: 4+1-3 and 4+3-3


def test_too_little_context_names_the_option():
    with pytest.raises(ValueError, match=r"2 TRs back.*1 rows of context.*--data\.window\.context_s"):
        head()(*rows(6), n_trs=5)


def test_without_delays_rows_map_one_to_one():
    model = head(delays=None)
    pooled, heard = rows(1)
    torch.testing.assert_close(model(pooled, heard, 1)["S1"], pooled @ model.linear.weight[:2].T)
    assert not hasattr(model, "delay_weights")


def test_standardises_and_counts_silent_rows_as_the_mean():
    model = head(delays=None)
    mean, sd = torch.tensor([1.0, 2, 3, 4]), torch.tensor([2.0, 1, 0, 4])
    model.set_standardisation(mean, sd)
    pooled, heard = rows(3)
    heard[0, 1] = False
    with torch.no_grad():
        predicted = model(pooled, heard, 3)["S1"]
        scaled = (pooled - mean) / torch.tensor([2.0, 1, 1, 4])
        torch.testing.assert_close(predicted[1], scaled[1] @ model.linear.weight[:2].T)
        assert (predicted[0, 1] == 0).all()
    assert set(model.state_dict()) >= {"pool_mean", "pool_sd"}


def test_weights_come_from_the_seed_and_the_global_state_is_not_touched():
    torch.manual_seed(0)
    one = head(seed=1).linear.weight
    torch.manual_seed(99)
    expected = torch.rand(2)
    torch.manual_seed(99)
    assert torch.equal(head(seed=1).linear.weight, one)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.equal(head(seed=2).linear.weight, one)


@pytest.mark.parametrize("delays", [(), (1, 1), (-1, 0)])
def test_impossible_delays_are_refused(delays):
    with pytest.raises(ValueError, match="delays_trs"):
        head(delays=delays)


@pytest.mark.parametrize("sizes", [{}, {"S1": 0}])
def test_no_voxels_are_refused(sizes):
    with pytest.raises(ValueError, match="at least one voxel"):
        VoxelHead(4, sizes, (0,))


def test_initial_delay_weights():
    torch.testing.assert_close(initial_delay_weights((0, 1, 2, 3, 4)), torch.tensor([0.05, 0.25, 0.35, 0.25, 0.1]))
    others = initial_delay_weights((2, 6))
    torch.testing.assert_close(others, torch.tensor([0.35, 0.05]) / 0.4)


def loss_example(seed=0):
    generator = torch.Generator().manual_seed(seed)
    predicted = {name: torch.randn(3, 4, size, generator=generator) for name, size in SIZES.items()}
    targets = {name: torch.randn(3, 4, size, generator=generator) for name, size in SIZES.items()}
    masks = {name: torch.rand(3, 4, generator=generator) > 0.4 for name in SIZES}
    return predicted, targets, masks


def test_loss_is_the_mean_over_subjects_of_the_mean_over_rows_and_voxels():
    predicted, targets, masks = loss_example()
    per_subject = []
    for name in SIZES:
        errors = [
            float((predicted[name][b, t, v] - targets[name][b, t, v]) ** 2)
            for b, t in masks[name].nonzero().tolist()
            for v in range(SIZES[name])
        ]
        per_subject.append(sum(errors) / len(errors))
    assert float(masked_mse(predicted, targets, masks)) == pytest.approx(sum(per_subject) / 2, rel=1e-5)


def test_rows_that_were_not_heard_may_hold_anything():
    predicted, targets, masks = loss_example()
    clean = masked_mse(predicted, targets, masks)
    dirty = {name: torch.where(masks[name][:, :, None], value, torch.nan) for name, value in targets.items()}
    torch.testing.assert_close(masked_mse(predicted, dirty, masks), clean)


def test_shuffling_rows_with_their_masks_changes_nothing_and_shuffling_masks_alone_does():
    predicted, targets, masks = loss_example()
    clean = masked_mse(predicted, targets, masks)
    order = torch.tensor([2, 0, 1])
    together = [{name: value[order] for name, value in part.items()} for part in (predicted, targets, masks)]
    torch.testing.assert_close(masked_mse(*together), clean)
    alone = {name: mask[order] for name, mask in masks.items()}
    assert not torch.isclose(masked_mse(predicted, targets, alone), clean)


def test_a_subject_who_heard_nothing_counts_for_nothing():
    predicted, targets, masks = loss_example()
    masks["S2"] = torch.zeros_like(masks["S2"])
    only = masked_mse({"S1": predicted["S1"]}, targets, masks)
    torch.testing.assert_close(masked_mse(predicted, targets, masks), only)


def test_nobody_heard_anything():
    predicted, targets, masks = loss_example()
    predicted = {name: value.requires_grad_() for name, value in predicted.items()}
    loss = masked_mse(predicted, targets, {name: torch.zeros_like(mask) for name, mask in masks.items()})
    loss.backward()
    assert float(loss.detach()) == 0
    assert all((value.grad == 0).all() for value in predicted.values())


def test_gradients_of_one_forward_are_those_of_the_summed_subjects():
    """One step for all subjects is the sum of theirs (up to the mean)."""
    pooled, heard = rows()
    _, targets, _ = loss_example()
    targets = {name: torch.randn(2, 5, size) for name, size in SIZES.items()}
    masks = {name: torch.ones(2, 5, dtype=torch.bool) for name in SIZES}
    model = head()
    together = torch.autograd.grad(masked_mse(model(pooled, heard, 5), targets, masks), list(model.parameters()))
    total = sum(masked_mse({name: model(pooled, heard, 5)[name]}, targets, masks) for name in SIZES) / 2
    for mine, reference in zip(together, torch.autograd.grad(total, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, reference)
