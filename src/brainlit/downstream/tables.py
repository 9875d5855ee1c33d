"""What `brainlit downstream` says about a run: tables in Markdown and scores.csv, both from the files in its folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brainlit.downstream.evaluate import compare
from brainlit.downstream.preference import CONTRASTS, PreferenceChange, preference, preference_change
from brainlit.downstream.recognise import RecognitionResult, Unit, compare_recognition, find_recognition
from brainlit.downstream.result import FOLDER, UNTRAINED, UNTUNED, TaskResult, find_results, model_folders
from brainlit.downstream.scores import drawn_units, format_score, score_row
from brainlit.downstream.tasks import WORDS
from brainlit.downstream.words import WordStates, find_words
from brainlit.encoding.statistics import Score
from brainlit.files import write_csv

_METRICS = {
    "accuracy": "share of clips that are right",
    "macro_f1": "mean over labels of F1 = 2 hits / (clips that have the label + clips that are said to)",
}
_RATES: Mapping[Unit, str] = {"words": "WER", "characters": "CER"}
_HOW = """\
Scores are of clips that decided nothing: layer and regularisation were chosen on others. [low, high] is the 95 %
interval of 1000 bootstrap draws, with replacement, of the speakers or clips under 'drawn', widened for their number;
drawing clips says nothing about other speakers, and neither says what another training run would give. Controls are
scores on the same clips without the model; their intervals, and those of all layers, are in scores.csv."""
_PAIRED = "Paired: both models answer for the same draws. p: McNemar's exact test, which takes clips as independent."


def report(root: Path, names: Collection[str]) -> str:
    """Tables of these tasks, as Markdown, with every warning once.

    Parameters
    ----------
    root : Path
        The run's folder, or that of a model without a run.
    names : collection of str
        Tasks, 'words' among them or not.
    """
    folders = model_folders(root)
    probed = _by_task({model: find_results(folder) for model, folder in folders.items()}, names)
    read = _by_task({model: find_recognition(folder) for model, folder in folders.items()}, names)
    found = {model: find_words(folder) for model, folder in folders.items()} if WORDS in names else {}
    heard = {model: states for model, states in found.items() if states is not None}
    parts: list[Iterable[str]] = [[f"## {root}"], *(_task_lines(task, results) for task, results in probed.items())]
    parts += [_recognition_lines(task, results) for task, results in read.items()]
    parts += [[_HOW]] if probed else []
    parts += [_word_lines(heard)] if heard else []
    warnings = list(_warnings(probed))
    parts += [["### Warnings", "", *warnings]] if warnings else []
    return "\n\n".join(map("\n".join, parts))


def write_scores(root: Path) -> Path:
    """Every score of every model and layer of a run, and its controls, with intervals: <run>/downstream/scores.csv."""
    rows: list[dict[str, Any]] = []
    for folder in model_folders(root).values():
        for result in find_results(folder).values():
            rows += result.rows()
        for written in find_recognition(folder).values():
            common = {"task": written.task, "model": written.model}
            rows += [
                {**common, "metric": name, "part": part, **score_row(written.error_rate(part, unit))}
                for unit, name in _RATES.items()
                for part in written.said
            ]
    return write_csv(root / FOLDER / "scores.csv", list(dict.fromkeys(key for row in rows for key in row)), rows)


# --- Tasks ---


def _task_lines(task: str, results: Mapping[str, TaskResult]) -> Iterator[str]:
    metric = next(iter(results.values())).metric
    controls = list(dict.fromkeys(name for result in results.values() for name in result.controls))
    yield f"### {task}"
    yield f"\n{metric}: {_METRICS[metric]}\n"
    yield from _head("model", "part", "probe", f"{metric} [95 %]", "drawn", "layer", *controls)
    for model, result in results.items():
        for part in result.parts:
            found = [result.controls.get(name, {}).get(part) for name in controls]
            beside = ["" if score is None else f"{score.value:.3f}" for score in found]
            for probe in result.probes:
                score = result.score(part, probe)
                yield _row(model, part, probe, format_score(score), _drawn(score), result.chosen_layer(probe), *beside)
    base = results.get(UNTUNED)
    others = {
        model: result
        for model, result in results.items()
        if base is not None and model not in (UNTRAINED, UNTUNED) and result.clips == base.clips
    }
    if base is not None and others:
        yield f"\n{_PAIRED}\n"
        yield from _head("difference", "part", "probe", "[95 %]", "drawn", "only one right", "p")
        for model, result in others.items():
            yield from _difference_rows(model, base, result)


def _difference_rows(model: str, base: TaskResult, result: TaskResult) -> Iterator[str]:
    for part in result.parts:
        for probe in [name for name in result.probes if name in base.probes]:
            found = compare(base, result, part, probe=probe)
            single = result.kind == "single"
            only = f"{model} {found.only_b:g}, {UNTUNED} {found.only_a:g}" if single else ""
            p = f"{found.mcnemar_p:.2g}" if single and found.mcnemar_p == found.mcnemar_p else ""
            said, drawn = format_score(found.difference, "+"), _drawn(found.difference)
            yield _row(f"{model} - {UNTUNED}", part, probe, said, drawn, only, p)


def _recognition_lines(task: str, results: Mapping[str, RecognitionResult]) -> Iterator[str]:
    yield f"### {task}"
    yield "\nWER, CER: insertions, deletions and substitutions per word or letter that was said\n"
    yield from _head("model", "part", "WER [95 %]", "CER [95 %]", "drawn", "best epoch")
    base = results.get(UNTUNED)
    for model, result in results.items():
        for part in result.said:
            rates = [result.error_rate(part, unit) for unit in _RATES]
            yield _row(model, part, *map(format_score, rates), _drawn(rates[0]), result.facts.get("best_epoch", ""))
        if base is None or model in (UNTRAINED, UNTUNED) or result.said != base.said:
            continue
        for part in result.said:
            rates = [compare_recognition(base, result, part, unit) for unit in _RATES]
            yield _row(f"{model} - {UNTUNED}", part, *(format_score(one, "+") for one in rates), _drawn(rates[0]), "")


def _warnings(probed: Mapping[str, Mapping[str, TaskResult]]) -> Iterator[str]:
    """Every warning once, with the task and the models that it is about; an untrained model is a control itself."""
    about: dict[tuple[str, str], list[str]] = {}
    for task, results in probed.items():
        for model, result in results.items():
            for warning in result.warnings if model != UNTRAINED else ():
                about.setdefault((task, warning), []).append(model)
    yield from (f"- {task}, {', '.join(models)}: {warning}" for (task, warning), models in about.items())


# --- Words ---


def _word_lines(heard: Mapping[str, WordStates]) -> Iterator[str]:
    first = next(iter(heard.values()))
    tokens = first.token_pairs()
    counts = ", ".join(f"{n} {kind.replace('_', '-')}" for kind, n in tokens.pairs.counts().items())
    yield "### words: meaning or sound"
    yield f"\n{len(first.words)} spoken words of {', '.join(first.facts['stories'])}; pairs: {counts}."
    yield f"Semantic pairs are {first.meaning}."
    yield "Semantic likeness = mean cosine of semantic pairs - of random pairs; phonetic = of near-homophones - of"
    yield "random pairs; the mean over words is taken off first. 95 % intervals are for other words of the same sort."
    own = {model: tokens if one.same_tokens(first) else one.token_pairs() for model, one in heard.items()}
    for model, states in heard.items():
        yield f"\n{model}:\n"
        yield from (f"- {one.words()}" for one in preference(states.layers, own[model]))
    base = heard.get(UNTUNED)
    for model, states in heard.items():
        if base is not None and model not in (UNTRAINED, UNTUNED) and states.same_tokens(base):
            change = preference_change(base.layers, states.layers, own[UNTUNED])[-1]
            yield f"\n{model} - {UNTUNED}, last layer, the same words: {_change(change)}"


def _change(change: PreferenceChange) -> str:
    ratio = format_score(change.ratio, "+") if change.ratio else "cannot tell"
    contrasts = [f"{name} {format_score(getattr(change, name), '+')}" for name in CONTRASTS]
    return "; ".join([f"semantic / phonetic {ratio}", *contrasts])


# --- Cells ---


def _by_task(found: Mapping[str, Mapping[str, Any]], names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Results by task and model, in the order of the names."""
    by_task = {task: {model: results[task] for model, results in found.items() if task in results} for task in names}
    return {task: results for task, results in by_task.items() if results}


def _head(*names: str) -> Sequence[str]:
    return _row(*names), _row(*("---" for _ in names))


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _drawn(score: Score) -> str:
    units = drawn_units(score)
    n_clips = f" ({score.n_units['clips']} clips)" if units != "clips" else ""
    return f"{score.n_units[units]} {units}{n_clips}"
