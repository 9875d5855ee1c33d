"""Each family at its published size: a training step, a checkpoint, an export that transformers opens, in 12 GB."""

from __future__ import annotations

import math
import re

import pytest

from tests.benchmarks.full_size import MAX_GB, SIZE_OF, TOLERANCE, Job, Measured, in_own_process

FROZEN = re.compile(r"conv_layers|encoder\.conv\d|embed_positions|pos_sinusoidal|decoder|masked_spec_embed")
LAYER_WEIGHT = re.compile(r"(?<!decoder\.)\blayers\.(\d+)\..*weight$")
MILLIONS_OF_PARAMETERS = {"wav2vec": 94, "hubert": 94, "whisper": 242, "speecht5": 151, "wavlm": 94}


def layers(names: list[str]) -> set[int]:
    """Encoder layers that the tensors belong to."""
    found = (LAYER_WEIGHT.search(name) for name in names if "decoder" not in name)
    return {int(match[1]) for match in found if match}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", SIZE_OF)
def test_a_published_size_trains_and_is_exported(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, on half a second of sound, which is all that processors without such instructions can do here."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found: Measured = in_own_process(Job(family, "bf16", window_s=0.5, optimizer_state=False))
    assert round(found.n_parameters / 1e6) == pytest.approx(MILLIONS_OF_PARAMETERS[family], abs=1)
    assert found.products == "torch.bfloat16"
    assert math.isfinite(found.loss)
    assert found.loss > 0
    assert layers(found.changed) == set(range(12))
    assert not [name for name in found.changed if FROZEN.search(name)]
    assert found.n_states == 13
    assert found.difference <= TOLERANCE
    assert found.peak_gb < MAX_GB / 2
