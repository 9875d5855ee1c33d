"""What features can say about each kind of simulated voxel: `python -m tests.benchmarks.demo_features --n 4`.

A ridge from features of the stimulus to one listener's responses, fitted on 8 stories and scored on 4 others, for each
of `--n` seeds from `--first` on. Features pass the canonical response and are read at the volumes. Low-level features
and word vectors are what a probe has; the states of the tiny text model are what the regime `language_model` learns to
predict; word identity (a column for each word) and the planted value itself say what could be known. Mean r over voxels
with its 95 % t interval over seeds, and the ceiling.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from brainlit.backbones.tiny_text import tiny_language_model
from brainlit.demo import DemoSource
from brainlit.demo.listeners import KINDS
from brainlit.demo.planted import brain_only_values
from brainlit.demo.text import category_of
from brainlit.encoding import EncodingModel, ProbeConfig
from brainlit.encoding.statistics import student_quantile
from brainlit.encoding.temporal import haemodynamic_rows
from brainlit.features import LanguageModel, LanguageModelConfig
from brainlit.stories import Story

Array = npt.NDArray[np.float64]
CONFIG = ProbeConfig(delays_trs=(0,))


def features_of(source: DemoSource, story: Story, text: LanguageModel | None) -> dict[str, Array]:
    """By name, (n_trs, n_columns)."""
    words, vocabulary = [word.lower() for word in story.words.labels], list(category_of())
    identity = np.array([[float(word == known) for known in vocabulary] for word in words])
    value = np.array([[brain_only_values().get(word, 0.0)] for word in words])
    spaces = source.feature_spaces(story)
    found = {"low-level features": np.hstack([space.values for space in spaces if space.kind == "low_level"])}
    events = {"word identity": identity, "the planted value": value}
    if text is not None:
        events["text model"] = text.states(story.words.labels, story.name)[0]
    read_s = story.timebase.tr_ends_s
    hrf = {name: haemodynamic_rows(values, story.words.middle_s, read_s)["hrf"] for name, values in events.items()}
    meaning = {"word vectors": next(space.values for space in spaces if space.kind == "semantic")}
    middles_s = (story.timebase.tr_starts_s + story.timebase.tr_ends_s) / 2
    for name, rows in {**found, **meaning}.items():
        hrf[name] = haemodynamic_rows(rows, middles_s, read_s)["hrf"]
    return {name: source.response_filter().apply(rows, story.timebase.tr_s) for name, rows in hrf.items()}


def measure(seed: int, text: LanguageModel | None, n_fit: int = 8, n_score: int = 4) -> dict[str, Array]:
    """Mean r over the voxels of each kind, by features; last the ceiling."""
    source = DemoSource(seed=seed, n_tune=0, n_choose=0, n_fit=n_fit, n_score=n_score, n_subjects=1)
    kind = source.subject("subject_01").truth["kind"]
    rows: dict[str, list[dict[str, Array]]] = {"fit": [], "score": []}
    responses: dict[str, list[Array]] = {"fit": [], "score": []}
    clean = []
    for role, names in source.default_roles().items():
        for name in names:
            rows[role].append(features_of(source, source.story(name), text))
            responses[role].append(source.responses("subject_01", name).values)
            if role == "score":
                clean.append(source.noise_free("subject_01", name))
    groups = {role: np.repeat(np.arange(len(own)), [len(story) for story in own]) for role, own in responses.items()}
    Y = {role: np.vstack(own) for role, own in responses.items()}
    found = {}
    for name in rows["fit"][0]:
        bands = {role: {"backbone": np.vstack([one[name] for one in own])} for role, own in rows.items()}
        model = EncodingModel(CONFIG).fit(bands["fit"], Y["fit"], groups["fit"])
        r = model.score(bands["score"], Y["score"], groups["score"])
        found[name] = by_kind(r, kind)
    found["ceiling"] = by_kind((np.vstack(clean) * Y["score"]).mean(axis=0), kind)
    return found


def by_kind(values: Array, kind: npt.NDArray[np.int64]) -> Array:
    """Means over the voxels of each kind."""
    return np.array([np.nanmean(values[kind == number]) for number in range(len(KINDS))])


def table(seeds: Sequence[Mapping[str, Array]]) -> str:
    """As Markdown, a row for each kind of features."""
    lines = [f"| r, {len(seeds)} seeds | {' | '.join(KINDS)} |", f"|{' --- |' * (len(KINDS) + 1)}"]
    for name in seeds[0]:
        values = np.stack([seed[name] for seed in seeds])
        half = student_quantile(max(len(values) - 1, 1), 0.95) * values.std(axis=0, ddof=min(1, len(values) - 1))
        half /= np.sqrt(len(values))
        cells = [f"{mean:.2f} ± {width:.2f}" for mean, width in zip(values.mean(axis=0), half, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=4, help="seeds")
    parser.add_argument("--first", type=int, default=2000, help="the first of them")
    options = parser.parse_args()
    settings = LanguageModelConfig(str(tiny_language_model()), layer=0)
    text = LanguageModel(settings, progress=False, choose_layers=_all_layers)
    print(table([measure(seed, text) for seed in range(options.first, options.first + options.n)]))


def _all_layers(n_layers: int) -> list[int]:
    return list(range(n_layers + 1))


if __name__ == "__main__":
    main()
