"""The squared error of all subjects, against loops."""

import pytest
import torch

from brainlit.tuning.heads import HeadConfig, build_head, masked_mse

SIZES = {"S1": 2, "S2": 3}


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
    pooled, heard = torch.randn(2, 7, 4), torch.ones(2, 7, dtype=torch.bool)
    targets = {name: torch.randn(2, 5, size) for name, size in SIZES.items()}
    masks = {name: torch.ones(2, 5, dtype=torch.bool) for name in SIZES}
    model = build_head(HeadConfig(delays_trs=(0, 2), dropout=0.0), 4, SIZES, "tr", seed=0)
    together = torch.autograd.grad(masked_mse(model(pooled, heard, 5), targets, masks), list(model.parameters()))
    total = sum(masked_mse({name: model(pooled, heard, 5)[name]}, targets, masks) for name in SIZES) / 2
    for mine, reference in zip(together, torch.autograd.grad(total, list(model.parameters())), strict=True):
        torch.testing.assert_close(mine, reference)
