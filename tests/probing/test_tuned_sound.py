from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brainlit.encoding import ProbeConfig, TemporalBand
from brainlit.probing.engine import ProbeEngine
from brainlit.probing.inputs import probe_data
from brainlit.probing.tuned_sound import _components, predicted_from_sound, tuned_sound_result, with_predictions
from brainlit.splits import Span
from brainlit.store import StoryStore, build_store
from brainlit.stories import Responses
from tests.callbacks.toy_module import toy_data
from tests.toy import ToySource

TUNE = [Span(f"toy{k}", 0, 150) for k in (0, 1)]
FIT, SCORE = [Span("toy2", 0, 150)], [Span("toy5", 0, 150)]
CONFIG = ProbeConfig(temporal="fir", matched_filter=False, delays_trs=(1, 2, 3), n_folds=3, tuned_sound=True)


class Noisy(ToySource):
    """So much noise that one story does not teach a ridge what three do."""

    def responses(self, subject: str, story: str) -> Responses | None:
        found = super().responses(subject, story)
        noise = self._rng(story, 9, subject).standard_normal(found.values.shape) if found is not None else 0.0
        return None if found is None else Responses((found.values + 2.0 * noise).astype(np.float32))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StoryStore:
    source = Noisy(n_trs=150, everyone_heard_all=True)
    return build_store(source, tmp_path_factory.mktemp("sound") / "store", progress=False)


def test_predictions_come_from_the_tuning_stories_alone(store: StoryStore) -> None:
    spans = [*FIT, *SCORE]
    predicted = predicted_from_sound(store, "sub-A", TUNE, spans, CONFIG)
    assert predicted is not None
    assert len(predicted) == 300
    assert not predicted[[*range(5), *range(150, 155)]].any()
    # by least squares on the tuning stories, row by row: the level two rows before
    level = np.concatenate([store.band(span.story, "low_level")[:, 0] for span in spans])
    late = np.concatenate([np.zeros(2), level[:-2]])
    assert abs(np.corrcoef(predicted[10:150, 0], late[10:150])[0, 1]) > 0.95
    assert predicted_from_sound(store, "sub-A", [], spans, CONFIG) is None


def test_a_backbone_that_learned_the_map_of_sound_has_nothing_of_its_own(store: StoryStore) -> None:
    """It holds what the tuning stories teach of these voxels from sound: to few rows the plain control looks weak."""
    data = probe_data(store, "sub-A", FIT, SCORE, CONFIG)
    many = ToySource(n_trs=150, everyone_heard_all=True)
    level = np.concatenate([many._level(span.story) for span in (*FIT, *SCORE)])
    noise = np.random.default_rng(0).standard_normal((300, 40))
    # the plain control: the level among forty columns that say nothing
    data = replace(data, stimulus={"low_level": np.column_stack([level, noise]).astype(np.float32)})
    backbone = level[:, None].astype(np.float32)
    predicted = predicted_from_sound(store, "sub-A", TUNE, [*FIT, *SCORE], CONFIG)
    assert predicted is not None
    follow = np.arange(12) < 4

    def own_part(result: object) -> float:
        r2 = result.r2_by_model  # type: ignore[attr-defined]
        return float((r2["backbone+low_level"] - r2["low_level"])[follow].mean())

    from brainlit.encoding import run_probe

    bands = {"backbone": backbone, **data.stimulus}
    plain = run_probe(bands, data.responses, data.groups, data.fit, data.score, CONFIG)
    fair = tuned_sound_result(data, backbone, predicted, CONFIG)
    assert own_part(plain) > 0.02
    assert own_part(fair) < 0.4 * own_part(plain)


def test_predictions_get_no_delays() -> None:
    predicted = np.ones((6, 2), dtype=np.float32)
    per_tr = with_predictions(np.zeros((6, 3), dtype=np.float32), predicted)
    assert {part: rows.shape[1] for part, rows in per_tr.parts.items()} == {"hrf": 2, "fir": 3}
    convolved = with_predictions(TemporalBand({"hrf": np.zeros((6, 3))}), predicted)
    np.testing.assert_array_equal(convolved.parts["hrf"][:, 3:], predicted)


def test_it_stands_beside_the_plain_numbers(store: StoryStore, tmp_path: Path) -> None:
    source = Noisy(n_trs=150, everyone_heard_all=True)
    data = toy_data(store.path, source=source)
    data.prepare_data()
    data.setup()
    engine = ProbeEngine(replace(CONFIG, n_gammas={1: 1, 2: 2, 3: 2}), [0], 0)
    rows = sum(span.n_trs for span in engine.spans(data))
    features = {0: np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)}
    (record,) = engine.measure_features(features, data, ["sub-A"], tmp_path)
    plain, fair = (record.table.get("low_level", 0, f"r_low_level{name}") for name in ("", "_tuned_sound"))
    assert plain is not None
    assert fair is not None
    assert fair.score.value > plain.score.value - 0.05
    assert record.table.get("low_level", 0, "partition_backbone_tuned_sound") is not None


@pytest.mark.filterwarnings("error")
def test_predictions_that_are_all_constant_leave_a_column_of_zeros() -> None:
    placed = _components(np.full((4, 3), 2.0), np.array([True, True, False, True, True]))
    assert placed.shape == (5, 1)
    assert not placed.any()
