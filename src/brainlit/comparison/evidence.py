"""Runs of several regimes and seeds, read into states: what each model showed, ready to be set beside the others.

Before tuning stands the first probe and downstream's 'untuned'; after it the last probe and downstream's 'tuned'. A
state has numbers of the probe, of downstream tasks, and of what it made of the same spoken words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np

from brainlit.comparison.effects import (
    ALIGNMENT,
    BRAIN,
    LANGUAGE_MODEL,
    LATE_MINUS_EARLY,
    PERMUTED,
    PRETRAINED,
    PROBE,
    REGIMES,
    REGION,
    STIMULUS,
    WORDS,
    Change,
    Evidence,
    Key,
    SeedEvidence,
)
from brainlit.comparison.runs import SAME_START, FinishedRun, runs_by_seed
from brainlit.downstream.pairs import DEMO_MEANING, TokenPairs
from brainlit.downstream.preference import CONTRASTS, preference, preference_change
from brainlit.downstream.representation import WordMap, category_separation, word_map, word_means
from brainlit.downstream.result import TUNED, UNTUNED, TaskResult, find_results, model_folder
from brainlit.downstream.scores import BootstrapConfig, clusters_of, replicates, score_of, widening
from brainlit.downstream.word_lists import WordListMissingError
from brainlit.downstream.words import WordStates, find_words
from brainlit.encoding.arrays import FloatArray
from brainlit.encoding.similarity import linear_cka, standardised
from brainlit.encoding.statistics import LEVEL, Score, mean_score
from brainlit.hints import did_you_mean
from brainlit.results.record import ProbeRecord, fitted_on_tuned_said
from brainlit.results.summary import regions_of
from brainlit.results.tables import simulated_said

RATIO, SEPARATION, CKA = "ratio", "separation", "cka"
WORD_BOOTSTRAP = BootstrapConfig(n_boot=500)
"""Few, because the interval that decides is that over seeds."""
CHANGES = ((BRAIN, PRETRAINED), (BRAIN, PERMUTED))
N_PERMUTATIONS = 100
FEWEST_WORDS = 4

Heard: TypeAlias = Mapping[str, Sequence[WordStates | None]]
"""The words of each state, by regime."""
TASK_BOOTSTRAP = BootstrapConfig()
SPOKEN_ANEW = "demo/"
"""Beginning of the tasks whose clips a seed of their own makes."""
TASKS = "tasks"
_EXPECTED = (PRETRAINED, BRAIN, PERMUTED, STIMULUS, LANGUAGE_MODEL)
_LOOKED_FOR = {ALIGNMENT: "probe", TASKS: "downstream tasks", WORDS: "words"}

_State: TypeAlias = dict[Key, dict[str, Score]]


@dataclass
class _Collected:
    """What is gathered beside the numbers."""

    tasks: dict[tuple[str, str], None] = field(default_factory=dict)
    controls: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    maps: dict[str, WordMap] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_evidence(runs: Sequence[FinishedRun], region: str | None = None) -> Evidence:
    """Gather the numbers of all runs.

    Parameters
    ----------
    runs : sequence of FinishedRun
        From `comparison.read_finished` with the same region.
    region : str, optional
        That of the first run's headline by default.

    Raises
    ------
    ValueError
        If no run has the region, one is there twice, or runs of one seed did not start from the same model or were not
        asked about the same clips or words.
    """
    from tqdm import tqdm

    if not runs:
        raise ValueError("no run is given; name the folders of finished runs.")
    name = region or str(runs[0].summary["headline_region"])
    known = {known for run in runs for known in regions_of(run.summary)}
    if name not in known:
        raise ValueError(f"no run has a region {name!r}. {did_you_mean(name, known)}")
    gathered = _Collected()
    groups = tqdm(runs_by_seed(runs).items(), desc="Tasks and words", unit="seed", leave=False, delay=3)
    seeds = tuple(_seed(model, seed, by_regime, name, gathered) for (model, seed), by_regime in groups)
    simulated = [bool(run.summary["run"].get("simulated")) for run in runs]
    return Evidence(
        region=name,
        seeds=seeds,
        tasks=tuple(gathered.tasks),
        controls=gathered.controls,
        maps=gathered.maps,
        notes=tuple(gathered.notes),
        missing=(*_missing(seeds, set(gathered.tasks)), *gathered.missing),
        runs=tuple(run.name for run in runs),
        simulated=all(simulated),
        partly_simulated="" if all(simulated) else simulated_said(simulated),
        fitted_on_tuned=_fitted_on_tuned(runs),
    )


def _fitted_on_tuned(runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """What the records say about encoding models fitted on stories that the model was tuned on, each sentence once."""
    records = [record for run in runs for record in run.after.values()]
    return tuple(dict.fromkeys(said for record in records if (said := fitted_on_tuned_said(record.facts))))


def _seed(
    model: str, seed: int, by_regime: Mapping[str, Sequence[FinishedRun]], region: str, gathered: _Collected
) -> SeedEvidence:
    runs = [run for regime in REGIMES for run in by_regime.get(regime, ())]
    runs += [run for regime, some in by_regime.items() if regime not in REGIMES for run in some]
    before = _before(runs, region)
    prints = {subject: record.fingerprint for subject, record in before.items()}
    untuned = next((run for run in runs if run.path and model_folder(run.path, UNTUNED).is_dir()), None)
    moments = [(PRETRAINED, untuned, UNTUNED, before)] if before or untuned else []
    moments += [(run.regime, run, TUNED, run.after) for run in runs if run.regime != PRETRAINED]
    states: dict[str, list[_State]] = {}
    heard: dict[str, list[WordStates | None]] = {}
    clips: dict[tuple[str, str], tuple[str, ...]] = {}
    data = _listeners(runs)
    for regime, run, folder, records in moments:
        path = model_folder(run.path, folder) if run is not None and run.path is not None else None
        results = find_results(path) if path else {}
        data |= {f"{one.task} {part}": _clips_of(one, part) for one in results.values() for part in one.parts}
        tasks = _task_state(results.values(), clips, f"{run.name} ({folder})" if run else "", gathered)
        if regime == BRAIN and not gathered.notes:
            gathered.notes |= {f"{one.task}: {text}": None for one in results.values() for text in one.warnings}
        states.setdefault(regime, []).append({**_brain_state(records, region, prints), **tasks})
        heard.setdefault(regime, []).append(find_words(path) if path else None)
    changes = _add_words(states, heard, f"{model}, seed {seed}", gathered)
    words = next((words for several in heard.values() for words in several if words is not None), None)
    if words is not None and PROBE in data and words.meaning == DEMO_MEANING:
        data[WORDS] = _hash(words.words, words.speakers, words.facts.get("clips"), data[PROBE])
    if model not in gathered.maps and (found := _map_of(heard)) is not None:
        gathered.maps[model] = found
    return SeedEvidence(model, seed, {r: tuple(s) for r, s in states.items()}, changes, data)


def _listeners(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """The settings of the store of a seed, which hold those of the listeners; nothing where these are real people.

    Real people and what they heard are the same whatever a store takes of them; simulated ones are drawn anew.
    """
    said = {str((run.summary["run"].get("data_module") or {}).get("store_fingerprint") or "") for run in runs}
    simulated = all(run.summary["run"].get("simulated") for run in runs)
    return {PROBE: said.pop()} if simulated and len(said) == 1 and said != {""} else {}


def _clips_of(result: TaskResult, part: str) -> str:
    """What was asked: clips of a published corpus are the same people's, whichever of them were drawn."""
    if not result.task.startswith(SPOKEN_ANEW):
        return result.task
    return _hash(result.clips[part], result.speakers[part], np.asarray(result.truth[part]).tolist())


def _hash(*parts: Any) -> str:
    return blake2b(json.dumps(parts, default=str).encode(), digest_size=16).hexdigest()


def _before(runs: Sequence[FinishedRun], region: str) -> Mapping[str, ProbeRecord]:
    """The probe before tuning, which all runs of a seed share."""
    first = next((run for run in runs if run.before), None)
    if first is None:
        return {}
    for run in runs:
        for subject, record in run.before.items():
            rows = [r.table.get(region, r.layer, ALIGNMENT) for r in (record, first.before.get(subject, record))]
            values = [row.score.value for row in rows if row is not None]
            if len(values) == 2 and abs(values[0] - values[1]) > SAME_START:
                raise ValueError(
                    f"{run.name} and {first.name} have one seed, but before tuning r is {values[0]:.4f} and"
                    f" {values[1]:.4f} for {subject} in {region}; they did not start from the same model, stories and"
                    " probe."
                )
    return first.before


def _brain_state(records: Mapping[str, ProbeRecord], region: str, prints: Mapping[str, str]) -> _State:
    """Numbers of a probe; without replicates where it was probed in another way than before tuning."""
    state: _State = {}
    for subject, record in records.items():
        paired = prints.get(subject) == record.fingerprint
        names = dict.fromkeys(row.region for row in record.table.rows)
        for where, name in ((REGION, region), *((name, name) for name in names)):
            rows = [row for row in record.table.rows if row.region == name]
            scores = {(row.metric, row.layer): row.score if paired else Score(row.score.value) for row in rows}
            curve = {layer: score for (metric, layer), score in scores.items() if metric == ALIGNMENT}
            found = {Key(metric, where): score for (metric, layer), score in scores.items() if layer == record.layer}
            found |= {Key(ALIGNMENT, where, layer): score for layer, score in curve.items()}
            if (slope := late_minus_early(curve)) is not None:
                found[Key(LATE_MINUS_EARLY, where)] = slope
            for key, score in found.items():
                state.setdefault(key, {})[subject] = score
    return state


def late_minus_early(curve: Mapping[int, Score]) -> Score | None:
    """r of the last layer minus the mean of the first third of the layers (at least one; layer 0, the input, is none).

    None with fewer than two layers.
    """
    hidden = sorted(layer for layer in curve if layer > 0)
    if len(hidden) < 2:
        return None
    return curve[hidden[-1]] - mean_score([curve[layer] for layer in hidden[: max(1, len(hidden) // 3)]])


def _task_state(
    results: Iterable[TaskResult], clips: dict[tuple[str, str], tuple[str, ...]], name: str, gathered: _Collected
) -> _State:
    """Score of each task and part at the layer that was chosen for it, with replicates over speakers or clips."""
    state: _State = {}
    for result in results:
        for part in result.parts:
            if clips.setdefault((result.task, part), result.clips[part]) != result.clips[part]:
                raise ValueError(
                    f"{name} was not asked about the same clips of {result.task!r}, {part!r}, as other runs of its"
                    " seed; ask all with the same version of the data."
                )
            sums = result.sums(part)
            clusters, _ = clusters_of(result.speakers[part])
            value = float(score_of(result.metric, sums.sum(axis=1)).mean())
            drawn = replicates(result.metric, sums, clusters, TASK_BOOTSTRAP)
            state[Key(result.task, part)] = {"": Score(value, drawn).stretched(widening(clusters, LEVEL))}
            gathered.tasks[result.task, part] = None
            own = gathered.controls.setdefault((result.task, part), {})
            for control, parts in result.controls.items():
                if part in parts:
                    own.setdefault(control, parts[part].value)
    return state


def _missing(seeds: Sequence[SeedEvidence], tasks: Container[tuple[str, str]]) -> list[str]:
    """Which runs, tasks and words are not there (or not of every permutation), model by model."""
    sentences = []
    for model in dict.fromkeys(seed.model for seed in seeds):
        own = [seed for seed in seeds if seed.model == model]
        for regime in _EXPECTED:
            there = [seed for seed in own if regime in seed.states]
            without = {"run": [seed for seed in own if regime not in seed.states]}
            without |= {
                words: [seed for seed in there if not all(_has(state, what, tasks) for state in seed.states[regime])]
                for what, words in _LOOKED_FOR.items()
            }
            for what, some in without.items():
                if some:
                    named = f"seed{'s' if len(some) > 1 else ''} {', '.join(str(seed.seed) for seed in some)}"
                    which = "any seed" if len(some) == len(own) else named
                    sentences.append(f"{model}, {regime}: no {what} of {which}")
    return sentences


def _has(state: Mapping[Key, Any], what: str, tasks: Container[tuple[str, str]]) -> bool:
    """Whether a state has alignment, numbers of tasks, or numbers of words."""
    if what == TASKS:
        return any(key[:2] in tasks for key in state)
    return any((key.where if what == WORDS else key.what) == what for key in state)


# --- Words: preference, categories, likeness to the start ---


def _add_words(
    states: Mapping[str, Sequence[_State]], heard: Heard, name: str, gathered: _Collected
) -> dict[Change, tuple[Mapping[Key, Score], ...]]:
    """Put the numbers of words into the states; the changes of preference, where words allow one.

    Numbers are the CONTRASTS and RATIO of `downstream.preference` per layer, SEPARATION (accuracy of the nearest
    category with each word left out; last layer) and CKA (debiased, of word means with the same layer before tuning, in
    units of each dimension's sd then).

    Parameters
    ----------
    name : str
        Of the seed, for errors.

    Raises
    ------
    ValueError
        If two states heard other words.
    """
    first = next((words for several in heard.values() for words in several if words is not None), None)
    if first is None:
        return {}
    if any(words is not None and not words.same_tokens(first) for several in heard.values() for words in several):
        raise ValueError(f"the runs of {name} heard other words, so they cannot be paired; ask all of them again.")
    tokens = None
    try:
        tokens = first.token_pairs()
    except (ValueError, WordListMissingError) as error:
        gathered.missing.append(f"{name}: no semantic-phonetic preference: {error}")
    start = next(iter(heard.get(PRETRAINED, ())), None)
    for regime, several in heard.items():
        for state, words in zip(states[regime], several, strict=True):
            state.update({key: {"": Score(value)} for key, value in _numbers(words, tokens, start).items()})
    return _changes(heard, tokens) if tokens else {}


def _map_of(heard: Heard) -> WordMap | None:
    """Words before and after brain-tuning in the plane, where both are there and have categories."""
    before, after = (next(iter(heard.get(regime, ())), None) for regime in (PRETRAINED, BRAIN))
    if before is None or after is None:
        return None
    words, categories, vectors = _of_categories(before)
    if len(words) < FEWEST_WORDS:
        return None
    return word_map(vectors, _of_categories(after)[2], words, categories)


def _numbers(words: WordStates | None, tokens: TokenPairs | None, start: WordStates | None) -> dict[Key, float]:
    if words is None:
        return {}
    found: dict[Key, float] = {}
    for layer in preference(words.layers, tokens, bootstrap=WORD_BOOTSTRAP) if tokens else ():
        found |= {Key(contrast, WORDS, layer.layer): getattr(layer, contrast).value for contrast in CONTRASTS}
        if layer.ratio is not None:
            found[Key(RATIO, WORDS, layer.layer)] = layer.ratio.value
    if start is not None and list(start.layers) == list(words.layers):
        found |= {Key(CKA, WORDS, layer): _likeness(start, words, layer) for layer in words.layers}
    found = {key: value for key, value in found.items() if np.isfinite(value)}
    last = max(words.layers)
    found |= {key._replace(layer=None): value for key, value in found.items() if key.layer == last}
    names, categories, vectors = _of_categories(words)
    if len(names) >= FEWEST_WORDS:
        apart = category_separation(vectors, categories, n_permutations=N_PERMUTATIONS)
        found[Key(SEPARATION, WORDS)] = apart.accuracy
    return found


def _changes(heard: Heard, tokens: TokenPairs) -> dict[Change, tuple[Mapping[Key, Score], ...]]:
    """Changes of preference in the last layer with their intervals over words, one for each pair of states."""
    changes: dict[Change, tuple[Mapping[Key, Score], ...]] = {}
    for pair in CHANGES:
        ours, theirs = ([words for words in heard.get(regime, ()) if words is not None] for regime in pair)
        changes[pair] = tuple(_change(other, one, tokens) for one in ours for other in theirs)
    return changes


def _change(before: WordStates, after: WordStates, tokens: TokenPairs) -> dict[Key, Score]:
    """Of the last layer, which is what claims are about; comparing pairs of tokens takes the most time of all."""
    last = max(after.layers)
    (layer,) = preference_change(
        {last: before.layers[last]}, {last: after.layers[last]}, tokens, bootstrap=WORD_BOOTSTRAP
    )
    return {
        Key(what, WORDS): Score(effect.value, bounds=(effect.low, effect.high))
        for what in (*CONTRASTS, RATIO)
        if (effect := getattr(layer, what)) is not None
    }


def _likeness(one: WordStates, other: WordStates, layer: int) -> float:
    before, after = (word_means(words.layers[layer], words.words)[1] for words in (one, other))
    if len(before) < FEWEST_WORDS:
        return float("nan")
    return linear_cka(standardised(before), standardised(after, before), debiased=True)


def _of_categories(words: WordStates) -> tuple[tuple[str, ...], list[str], FloatArray]:
    """Words whose category has two or more of them (of two categories or more), and their means in the last layer."""
    names, vectors = word_means(words.layers[max(words.layers)], words.words)
    category = dict(zip(words.words, words.categories, strict=True))
    counts = Counter(category[name] for name in names)
    rows = [k for k, name in enumerate(names) if category[name] and counts[category[name]] > 1]
    if len({category[names[k]] for k in rows}) < 2:
        rows = []
    return tuple(names[k] for k in rows), [category[names[k]] for k in rows], vectors[rows]
