"""One forward pass for several people is worth as much as one for each of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from brainlit.tuning import BrainTuning
from brainlit.tuning.heads import HeadConfig
from brainlit.tuning.losses import LossConfig, OverSubjects
from tests.tuning.conftest import FakeData

SIZES = {"S1": 3, "S2": 5, "S3": 4}
HEAD = ("head.linear.weight", "head.linear.bias")


def make_batch() -> dict[str, Any]:
    """Windows that the three heard, of which S2 missed half and S3 some rows."""
    batch = FakeData().batch()
    n_windows, n_trs = batch["target_mask"]["S1"].shape
    generator = torch.Generator().manual_seed(2)
    batch["targets"]["S3"] = torch.randn(n_windows, n_trs, SIZES["S3"], generator=generator)
    batch["target_mask"]["S3"] = torch.rand(n_windows, n_trs, generator=generator) < 0.7
    return batch


def gradients(module: BrainTuning, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Of the whole loss, by parameter."""
    module.zero_grad()
    module.losses(batch)["loss"].backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def rows_of(subject: str) -> slice:
    """Where a subject's voxels are among those of all, which the linear head keeps in one map."""
    first = sum(SIZES[name] for name in list(SIZES)[: list(SIZES).index(subject)])
    return slice(first, first + SIZES[subject])


def alone(make_module: Any, everyone: BrainTuning, subject: str, **settings: Any) -> BrainTuning:
    """A module of one of the subjects, with the weights that it has in everyone's."""
    module: BrainTuning = make_module(**settings)
    module.build_head({subject: SIZES[subject]})
    weights = dict(everyone.state_dict())
    for name in HEAD:
        weights[name] = weights[name][rows_of(subject)]
    module.load_state_dict(weights)
    return module


@pytest.mark.parametrize(("over_subjects", "share"), [("sum", 1.0), ("mean", 1 / 3)])
@pytest.mark.parametrize("loss", ["mse", "cosine_huber"])
def test_gradients_are_those_of_each_subject_added(
    make_module: Any, loss: str, over_subjects: OverSubjects, share: float
) -> None:
    settings = {"head": HeadConfig(dropout=0.0), "loss": LossConfig(name=loss, over_subjects=over_subjects)}
    batch, everyone = make_batch(), make_module(**settings)
    everyone.build_head(SIZES)
    together = gradients(everyone, batch)
    added = {name: torch.zeros_like(gradient) for name, gradient in together.items()}
    for subject in SIZES:
        single = gradients(alone(make_module, everyone, subject, **settings), batch)
        assert set(single) == set(together)
        for name, gradient in single.items():
            added[name][rows_of(subject) if name in HEAD else ...] += share * gradient
    assert max(float(g.abs().max()) for name, g in together.items() if name.startswith("backbone")) > 1e-3
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, added[name], rtol=1e-6, atol=1e-6, msg=name)
