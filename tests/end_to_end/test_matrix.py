"""Every family, full tuning and LoRA, in every regime: the loss falls, only what should learn does, probes run."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from brainlit.tuning.heads import build_head
from tests.matrix import FAMILIES, HOWS, TRAINED, Cell, Setting, mini_setting, train_cell

EPOCHS = 4
N_STEPS, N_WINDOWS = 12, 40
"""Of every cell: nine windows per epoch, four at a time."""
LOSS_AT_MOST = 0.97
"""Of the loss before, after training, over the same windows."""
MASKING = ("wav2vec", "hubert", "wavlm")
"""Families whose own loss hides frames; the others spell the transcript."""


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """Store, models and cache that all cells share."""
    folder = tmp_path_factory.mktemp("matrix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLIT_CACHE", str(folder / "cache"))
        yield mini_setting(folder, EPOCHS)


@pytest.mark.parametrize("regime", TRAINED)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_cell_trains_what_it_should_and_is_probed(family: str, how: str, regime: str, setting: Setting) -> None:
    cell = train_cell(family, how, regime, setting)
    assert cell.loss_after < LOSS_AT_MOST * cell.loss_before
    assert math.isfinite(cell.r_before)
    assert math.isfinite(cell.r_after)
    assert (cell.n_steps, cell.n_windows) == (N_STEPS, N_WINDOWS)
    assert cell.n_head_parameters == (0 if regime == "stimulus" else head_size(setting))
    check_what_changed(cell)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_probed_without_training(family: str, setting: Setting) -> None:
    cell = train_cell(family, "full", "pretrained", setting)
    assert math.isfinite(cell.r_before)
    assert math.isnan(cell.r_after)
    assert (cell.n_steps, cell.n_windows, cell.n_trained_parameters) == (0, 0, 0)


def head_size(setting: Setting) -> int:
    """Parameters of the head of regime brain: the regimes that it is compared with have as many."""
    sizes = {name: setting.source.subject(name).n_voxels for name in setting.source.subject_names()}
    head = build_head(setting.head, 16, sizes, "tr", 0)
    return sum(parameter.numel() for parameter in head.parameters())


def check_what_changed(cell: Cell) -> None:
    """All that is trained changed, and nothing else did; it is what family, how and regime say."""
    assert cell.changed == cell.trained
    assert cell.front_end
    assert not cell.front_end & cell.changed
    beside = "objectives." if cell.regime == "stimulus" else "head."
    assert {name.split(".")[0] + "." for name in cell.changed} == {"backbone.", beside}
    backbone = {name for name in cell.changed if name.startswith("backbone.")}
    lora = {name for name in backbone if ".lora_" in name}
    mask = {name for name in backbone if name.endswith("masked_spec_embed")}
    assert len(mask) == (cell.regime == "stimulus" and cell.family in MASKING)
    if cell.how == "lora":
        assert backbone == lora | mask
        assert len(lora) == 2 * 2 * 4, "A and B in two layers, of queries, keys, values and outputs"
    else:
        assert not lora
        for layer in (".layers.0.", ".layers.1."):
            assert sum(layer in name for name in backbone) >= 15, (
                "weights and biases, of which Whisper's keys have none"
            )
