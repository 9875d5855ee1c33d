"""Precisions: which are taken and which refused, what the optimiser is told, and half precision that is slow."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS

from brainlit.tuning.precision import ALIASES, REFUSED, TAKEN, fused_suits, require_precision, slow_precision
from tests.tuning.conftest import FakeData


def test_every_precision_of_lightning_is_taken_or_refused() -> None:
    assert {*TAKEN, *REFUSED} == set(get_args(_PRECISION_INPUT_STR))
    assert set(ALIASES) == set(get_args(_PRECISION_INPUT_STR_ALIAS))
    assert set(ALIASES.values()) <= {*TAKEN, *REFUSED}


@pytest.mark.parametrize("precision", [None, 32, "16", *TAKEN])
def test_what_trains_is_taken(precision: str | int | None) -> None:
    require_precision(precision)


@pytest.mark.parametrize("precision", [64, "fp8", *REFUSED])
def test_the_rest_is_refused_with_value_cause_and_cure(precision: str | int) -> None:
    with pytest.raises(ValueError, match=r"^--trainer\.precision .* cannot be used: .*\. Give 32-true, bf16-mix") as no:
        require_precision(precision)
    assert f"precision {ALIASES.get(str(precision), precision)} cannot" in str(no.value)


def test_a_module_refuses_a_trainer_of_that_precision(make_module, make_trainer):
    with pytest.raises(ValueError, match="precision bf16-true cannot be used"):
        make_trainer(precision="bf16-true").fit(make_module(), datamodule=FakeData())


def test_mixed_precisions_are_not_fused() -> None:
    assert [fused_suits(name) for name in TAKEN] == [True, False, False]


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_in_half_precision(make_module, make_trainer, algorithm):
    clipping = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": algorithm}
    trainer = make_trainer(precision="bf16-mixed", max_steps=1, **clipping)
    module = make_module()
    trainer.fit(module, datamodule=FakeData())
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    every = torch.cat([gradient.flatten() for gradient in gradients])
    size = every.abs().max() if algorithm == "value" else every.norm()
    assert 0 < float(size) <= 1e-3 * 1.001


# --- Half precision that is slower than single precision is said


CPU = torch.device("cpu")


def test_slow_bfloat16_is_said_with_the_ratio() -> None:
    sentence = slow_precision("bf16-mixed", CPU, {torch.float32: 1e-3, torch.bfloat16: 9e-2})
    assert sentence is not None
    assert "90 times" in sentence
    assert "--trainer.precision 32-true" in sentence


@pytest.mark.parametrize(
    ("precision", "device", "bfloat16_s"),
    [("bf16-mixed", "cpu", 4e-4), ("32-true", "cpu", 9e-2), ("bf16-mixed", "cuda", 9e-2)],
)
def test_nothing_to_say(precision: str, device: str, bfloat16_s: float) -> None:
    assert slow_precision(precision, torch.device(device), {torch.float32: 1e-3, torch.bfloat16: bfloat16_s}) is None


def test_it_measures_this_processor() -> None:
    sentence = slow_precision("bf16-true", CPU)
    assert sentence is None or "times as long" in sentence
