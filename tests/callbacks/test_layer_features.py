from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainlit.callbacks.layer_features import layer_features, n_rows
from brainlit.datamodules import StoryDataModule
from brainlit.encoding.roles import Span
from tests.callbacks.toy_module import ToyModule, toy_data

SPANS = (Span("toy2", 3, 40), Span("toy5", 0, 17))


@pytest.fixture(scope="module")
def data(toy_store_path: Path) -> StoryDataModule:
    module = toy_data(toy_store_path)
    module.prepare_data()
    module.setup()
    return module


def test_rows_are_in_order_and_match_the_sound(data: StoryDataModule) -> None:
    features = layer_features(ToyModule(), data, SPANS, [0, 2], progress=False)
    assert features[0].shape == (n_rows(SPANS), 3) == (54, 3)
    np.testing.assert_allclose(features[2], 3 * features[0], rtol=1e-6)
    for span, start in zip(SPANS, (0, 37), strict=True):
        for row in (0, 9, 10, span.n_trs - 1):
            first = (span.start_tr + row) * 32_000
            sound = data.store.audio(span.story, first, first + 32_000).astype(np.float64)
            assert features[0][start + row, 0] == pytest.approx(np.log1p(np.abs(sound).mean()), rel=1e-4)


def test_the_model_is_in_eval_mode_only_meanwhile(data: StoryDataModule) -> None:
    module = ToyModule()
    module.train()
    module.backbone.frozen.eval()
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    layer_features(module, data, SPANS, [1], progress=False)
    assert torch.rand(()) == expected
    assert module.modes_seen
    assert not any(module.modes_seen)
    assert module.head.training
    assert not module.backbone.frozen.training


def test_a_row_without_states_is_an_error(data: StoryDataModule) -> None:
    class Short:
        story_names = data.story_names

        def evaluation_batches(self, spans: Any) -> Iterator[Any]:
            yield from list(data.evaluation_batches(spans))[:1]

    with pytest.raises(RuntimeError, match="rows have no hidden state"):
        layer_features(ToyModule(), Short(), SPANS, [1], progress=False)


def test_states_that_are_not_finite_are_an_error(data: StoryDataModule) -> None:
    module = ToyModule()
    with torch.no_grad():
        module.backbone.gain[0] = float("nan")
    with pytest.raises(RuntimeError, match="training has diverged"):
        layer_features(module, data, SPANS, [1], progress=False)


def test_layers_count_from_zero(data: StoryDataModule) -> None:
    with pytest.raises(ValueError, match="count them from 0"):
        layer_features(ToyModule(), data, SPANS, [-1], progress=False)
