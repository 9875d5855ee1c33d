"""Half precision that is slower than single precision is said."""

from __future__ import annotations

import pytest
import torch

from brainlit.tuning.precision import slow_precision

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
