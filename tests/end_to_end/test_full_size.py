"""Each family at its published size: a training step, a checkpoint, an export that transformers opens, in 12 GB."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.benchmarks.full_size import MAX_GB, SIZE_OF, TOLERANCE, Job, fresh_process, measure

FROZEN = re.compile(r"conv_layers|encoder\.conv\d|encoder\.embed_positions\.weight|decoder|masked_spec_embed")
LAYER_WEIGHT = re.compile(r"\blayers\.(\d+)\..*weight$")
MILLIONS_OF_PARAMETERS = {"wav2vec": 94, "hubert": 94, "whisper": 242, "speecht5": 151, "wavlm": 94}


def layers(names: list[str]) -> set[int]:
    """Encoder layers that the tensors belong to."""
    found = (LAYER_WEIGHT.search(name) for name in names if "decoder" not in name)
    return {int(match[1]) for match in found if match}


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """One process for all families, off line."""
    with pytest.MonkeyPatch.context() as environment, fresh_process() as one:
        environment.setenv("HF_HUB_OFFLINE", "1")
        yield one


@pytest.mark.timeout(900)
@pytest.mark.parametrize("family", SIZE_OF)
def test_a_published_size_trains_and_is_exported(family: str, process: ProcessPoolExecutor) -> None:
    """In bfloat16 on a fifth of a second of sound: a processor without instructions for it takes seconds for that."""
    found = process.submit(measure, Job(family, "bf16", window_s=0.2, optimizer_state=False)).result()
    assert round(found.n_parameters / 1e6) == pytest.approx(MILLIONS_OF_PARAMETERS[family], abs=1)
    assert found.products == "torch.bfloat16"
    assert math.isfinite(found.loss)
    assert found.loss > 0
    assert layers(found.changed) == set(range(12))
    assert not [name for name in found.changed if FROZEN.search(name)]
    assert found.n_states == 13
    assert found.difference <= TOLERANCE
    assert found.peak_gb < MAX_GB / 2
