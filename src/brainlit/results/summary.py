"""summary.json: every number of the report with its region, layer, voxels and interval, and the result in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.files import write_json_by_row
from brainlit.results.band_names import bands_of, formulas
from brainlit.results.group import entering, group_keys, group_score, of_tables
from brainlit.results.layer_curve import TABLE_FILE as LAYER_CURVE_FILE
from brainlit.results.layer_curve import curve_of
from brainlit.results.members import members_said
from brainlit.results.metrics import (
    METRICS_FILE,
    Validation,
    learning_warnings,
    read_metrics,
    validations,
    worse_than_mean_said,
)
from brainlit.results.record import (
    ProbeRecord,
    find_held_out,
    find_records,
    fitted_on_tuned_said,
)
from brainlit.results.run_directory import PROVENANCE_FILE, RunDirectory, read_json_if_there
from brainlit.results.scores import (
    ALL_VOXELS,
    FITTED_WORDS,
    SEEN_WORDS,
    UNFITTED_WORDS,
    UNSEEN_WORDS,
)
from brainlit.results.tables import SIMULATED, count_said

SUMMARY_FILE = "summary.json"
RUN_FILE = "run.json"
CHOSEN_FILE = "chosen.json"
"""Which checkpoint was chosen, and by what; of the callback ChooseCheckpoint."""
ALL_SUBJECTS = "all"
SCHEMA = 1
LEARNING_METRICS = ("r_backbone", "r_over_ceiling", "low_level_share")

Summary = dict[str, Any]


def build_summary(run: RunDirectory, records: Sequence[ProbeRecord] | None = None, state: str | None = None) -> Summary:
    """Gather the numbers of a run from its probe records.

    Parameters
    ----------
    run : RunDirectory
    records : sequence of ProbeRecord, optional
        Read from the run where not given.
    state : str, optional
        What to call the run's state; read from status.json where not given.

    Returns
    -------
    dict of plain JSON: run, probe, stages, scores, learning, validation, layer_epochs, chosen, seconds, held_out,
    headline, limits, formulas, warnings. Subjects who were probed and not tuned on have tuned_on false in
    probe.subjects.

    Raises
    ------
    ValueError
        If records of one subject come from probes with different settings, data or voxels.
    """
    records = find_records(run.probes) if records is None else list(records)
    _check_comparable(records)
    stages = _stages(records)
    held_out = find_held_out(run.probes)
    everything = [*records, *(record for group in held_out.values() for record in group)]
    facts, found = _run_facts(run), validations(read_metrics(run.path / METRICS_FILE))
    summary: Summary = {
        "schema": SCHEMA,
        "run": {**facts, "state": state or run.state},
        "probe": _probe_facts(records, (facts.get("data_module") or {}).get("held_out_subjects") or ()),
        "stages": {name: _stage_facts(group) for name, group in stages.items()},
        "scores": _score_rows(stages) if stages else [],
        "learning": _learning(records),
        "validation": [asdict(one) for one in found],
        "layer_epochs": curve_of(run.path / LAYER_CURVE_FILE, records),
        "chosen": read_json_if_there(run.path / CHOSEN_FILE),
        "seconds": _seconds(facts, everything),
        "held_out": {name: _held_out_part(group) for name, group in held_out.items()},
    }
    summary["formulas"] = formulas(bands_of(summary))
    summary["headline_region"] = headline_region(summary)
    summary["headline"] = headline_sentences(summary)
    summary["limits"] = limit_sentences(summary)
    summary["warnings"] = [*learning_warnings(found, facts), *_warnings(everything)]
    return summary


def _warnings(records: Iterable[ProbeRecord]) -> list[str]:
    """Of each subject's last probe; those that differ in their numbers only come once, with how many say so."""
    last = {(record.facts.get("data_set"), record.subject): record for record in records}
    alike: dict[str, list[str]] = {}
    for record in last.values():
        for text in dict.fromkeys(record.facts.get("warnings", [])):
            alike.setdefault(re.sub(r"\d+", "0", text), []).append(text)
    return sorted(
        texts[0] if len(texts) == 1 else f"{texts[0]} (So, with other numbers, for {len(texts)} subjects.)"
        for texts in alike.values()
    )


def write_summary(run: RunDirectory, summary: Mapping[str, Any]) -> Path:
    """Write summary.json, a line for each number."""
    return write_json_by_row(run.path / SUMMARY_FILE, summary, allow_nan=False)


def headline_region(summary: Mapping[str, Any]) -> str:
    """The region that the headline is about, by a rule fixed before the numbers: the one asked for, 'semantic', all."""
    regions = regions_of(summary)
    wanted = (summary["probe"].get("headline_region"), "semantic")
    return next((str(name) for name in wanted if name in regions), ALL_VOXELS)


def _stages(records: Sequence[ProbeRecord]) -> dict[str, list[ProbeRecord]]:
    """'before' and 'after' records; the last epoch stands for 'after' in a run that has not finished."""
    before = [record for record in records if record.epoch == 0]
    last = max((record.epoch for record in records), default=0)
    after = [record for record in records if record.epoch == last and last > 0]
    return {name: group for name, group in (("before", before), ("after", after)) if group}


def _check_comparable(records: Sequence[ProbeRecord]) -> None:
    by_subject: dict[str, set[str]] = {}
    for record in records:
        by_subject.setdefault(record.subject, set()).add(record.fingerprint)
    mixed = [subject for subject, prints in by_subject.items() if len(prints) > 1]
    if mixed:
        raise ValueError(
            f"the probes of {', '.join(mixed)} were made with different settings or data and cannot be compared."
            " Move the older files out of probes/ and probe again."
        )
    for subject in by_subject:
        left_out = {r.stage: r.facts.get("thinned") for r in records if r.subject == subject and r.stage != "during"}
        if {"before", "after"} <= set(left_out) and left_out["before"] != left_out["after"]:
            raise ValueError(
                f"the probes of {subject} before and after training leave out different layers, voxels or mixtures and"
                " cannot be compared. Probe again with one max_seconds_per_probe."
            )


def _score_rows(stages: Mapping[str, Sequence[ProbeRecord]]) -> list[dict[str, Any]]:
    by_stage = {stage: {record.subject: record for record in group} for stage, group in stages.items()}
    subjects = list(next(iter(by_stage.values())))
    rows = []
    for subject in [ALL_SUBJECTS, *subjects]:
        members = subjects if subject == ALL_SUBJECTS else [subject]
        keys = group_keys(group[m].table for group in by_stage.values() for m in members if m in group)
        found = (_score_row(by_stage, members, key) for key in keys)
        rows += [{"subject": subject, **row} for row in found if row is not None]
    return rows


def _held_out_part(records: Sequence[ProbeRecord]) -> dict[str, Any]:
    """The main numbers of a held-out data set, mean over its subjects, and what they rest on."""
    _check_comparable(records)
    first, stages = records[0], _stages(records)
    kept = ("data_set", "fit_spans", "score_spans", "n_score_trs", "fitted_on_tuned", "n_fit_stories")
    of_folds = ("folds", "n_fit_trs_by_fold", "n_score_trs_by_fold")
    scores = [row for row in _score_rows(stages) if row["subject"] == ALL_SUBJECTS and row["layer"] == first.layer]
    return {
        **{key: first.facts[key] for key in (*kept, *of_folds) if key in first.facts},
        "layer": first.layer,
        "subjects": list(dict.fromkeys(record.subject for record in records)),
        "stages": {name: _stage_facts(group) for name, group in stages.items()},
        "scores": [row for row in scores if row["metric"] in LEARNING_METRICS],
    }


def _score_row(
    by_stage: Mapping[str, Mapping[str, ProbeRecord]], members: Sequence[str], key: tuple[str, int, str]
) -> dict[str, Any] | None:
    """Before, after and paired difference of one number, over the members who enter it at every stage."""
    region, layer, metric = key
    lookups = {
        stage: of_tables({m: group[m].table for m in members if m in group}, region, layer)
        for stage, group in by_stage.items()
    }
    found = {stage: entering(metric, of) for stage, of in lookups.items()}
    everywhere = [m for m in members if all(m in names for names in found.values())]
    groups = {stage: group_score(metric, of, everywhere or found[stage]) for stage, of in lookups.items()}
    scores = {stage: group.score for stage, group in groups.items() if group is not None}
    if not scores:
        return None
    counted = everywhere or [m for m in members if any(m in names for names in found.values())]
    n_voxels = sum(_n_voxels(by_stage, m, region) for m in counted)
    where = {"region": region, "layer": layer, "metric": metric, "n_voxels": n_voxels, "n_subjects": len(counted)}
    row: dict[str, Any] = where | {stage: score.json() for stage, score in scores.items()}
    if {"before", "after"} <= set(scores):
        row["difference"] = (scores["after"] - scores["before"]).json()
        if metric == "r_backbone" and all(by_stage["after"][m].layer == layer for m in everywhere):
            row["voxels_up"] = _share_up(by_stage, everywhere, region)
    return row


def _n_voxels(by_stage: Mapping[str, Mapping[str, ProbeRecord]], member: str, region: str) -> int:
    """Voxels of a subject in a region."""
    tables = (group[member].table for group in by_stage.values() if member in group)
    return next(table.n_voxels[region] for table in tables if region in table.n_voxels)


def _share_up(by_stage: Mapping[str, Mapping[str, ProbeRecord]], members: Sequence[str], region: str) -> float:
    """Share of the region's voxels, over all members, whose r is higher after than before."""
    before, after = by_stage["before"], by_stage["after"]
    higher = [(after[m].r > before[m].r)[before[m].regions[region]] for m in members]
    return float(np.concatenate(higher).mean())


def _learning(records: Sequence[ProbeRecord]) -> list[dict[str, Any]]:
    """The numbers of the headline kind at every probed epoch, of all subjects together."""
    rows: list[dict[str, Any]] = []
    for epoch in sorted({record.epoch for record in records}):
        group = [record for record in records if record.epoch == epoch]
        tables = {record.subject: record.table for record in group}
        keys = [key for key in group_keys(tables.values()) if key[2] in LEARNING_METRICS]
        when = {"epoch": epoch, "step": group[0].step}
        for region, layer, metric in keys:
            found = group_score(metric, of_tables(tables, region, layer)) if layer == group[0].layer else None
            if found is not None:
                where = {"region": region, "layer": layer, "metric": metric, "n_subjects": len(found.subjects)}
                rows.append({**when, **where, **found.score.json()})
    return rows


def _stage_facts(group: Sequence[ProbeRecord]) -> dict[str, Any]:
    return {"epoch": group[0].epoch, "step": group[0].step, "subjects": [record.subject for record in group]}


def _probe_facts(records: Sequence[ProbeRecord], held_out_subjects: Sequence[str] = ()) -> dict[str, Any]:
    """What all probes of the run share, and what differs by subject."""
    if not records:
        return {"subjects": {}}
    per_subject = (
        *("n_voxels", "n_used", "n_dropped", "n_left_out", "n_repeats", "most_repeats"),
        *("ceiling_stories", "ceiling_carried_to", "alpha_at_edge", "has_vertices", "temporal", "words"),
        *("members", "between_members"),
    )
    last = {record.subject: record for record in records}
    shared = {k: v for k, v in records[0].facts.items() if k not in (*per_subject, "warnings", "seconds", "warm_start")}
    return {
        **shared,
        "layer": records[0].layer,
        "subjects": {
            name: {key: record.facts[key] for key in per_subject if key in record.facts}
            | ({"tuned_on": False} if name in held_out_subjects else {})
            for name, record in last.items()
        },
        "seconds": float(np.sum([record.facts.get("seconds", 0.0) for record in records])),
    }


def _seconds(facts: Mapping[str, Any], records: Sequence[ProbeRecord]) -> dict[str, Any]:
    """Time of all probes and of training, and the first as a share of the second where both are known."""
    probes = float(np.sum([record.facts.get("seconds", 0.0) for record in records]))
    training = facts.get("training_seconds")
    return {"probes": round(probes, 1), "training": training, "share": probes / training if training else None}


def _run_facts(run: RunDirectory) -> dict[str, Any]:
    return {
        "experiment": run.experiment,
        "id": run.run_id,
        "starts": len(run.status.get("starts", [])),
        "seed": read_json_if_there(run.path / PROVENANCE_FILE).get("seed"),
        **read_json_if_there(run.path / RUN_FILE),
    }


# --- Looking numbers up ---


def find_score(
    summary: Mapping[str, Any], region: str, metric: str, subject: str = ALL_SUBJECTS, layer: int | None = None
) -> dict[str, Any] | None:
    """One row of the summary's scores (by default at the partition layer, mean over subjects); None if absent."""
    wanted = summary["probe"].get("layer") if layer is None else layer
    for row in summary["scores"]:  # what differs most often is compared first: a page looks hundreds of numbers up
        if row["metric"] == metric and row["region"] == region and row["layer"] == wanted and row["subject"] == subject:
            return dict(row)
    return None


def stage_value(row: Mapping[str, Any] | None, stage: str) -> float | None:
    """The number of a row before or after tuning; None where it is not defined, or there is no row."""
    value = (row or {}).get(stage, {}).get("value")
    return None if value is None else float(value)


def regions_of(summary: Mapping[str, Any], subject: str = ALL_SUBJECTS) -> list[str]:
    """Regions in the order of the scores."""
    return list(dict.fromkeys(row["region"] for row in summary["scores"] if row["subject"] == subject))


def not_tuned_on(summary: Mapping[str, Any]) -> list[str]:
    """Probed subjects who were held out from tuning."""
    return [name for name, facts in summary["probe"]["subjects"].items() if not facts.get("tuned_on", True)]


# --- In words, no stronger than the intervals, and what cannot be said ---


def headline_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Two or three sentences built from the summary's numbers; the first begins with it where listeners are simulated.

    A change is called a rise or a fall only where its 95 % interval lies on one side of 0. A run whose training ended
    worse than predicting the mean says so. A trial run says what it was, and no number.
    """
    if trial := summary["run"].get("trial"):
        return [str(trial)]
    said = worse_than_mean_said([Validation(**one) for one in summary.get("validation", [])])
    return [*_probe_sentences(summary), *([said] if said else [])]


def _probe_sentences(summary: Mapping[str, Any]) -> list[str]:
    region = summary["headline_region"]
    row = find_score(summary, region, "r_backbone")
    if row is None:
        return ["No probe has been run yet: there is nothing to say about the brain."]
    control = "Permuted control: " if summary["run"].get("control") else ""
    listeners = "Simulated listeners. " if summary["run"].get("simulated") else ""
    sentences = [listeners + control + alignment_sentence(summary, row)]
    share = find_score(summary, region, "low_level_share")
    if share is not None:
        sentences.append(
            f"The share of what the model explains in {place_words(region)} that low-level features explain too"
            f" {change_words(share)}, over {count_said(share['n_subjects'], 'subject')}."
        )
    other = next((name for name in ("auditory", "null") if name in regions_of(summary) and name != region), None)
    compared = find_score(summary, other, "r_backbone") if other else None
    if compared is not None and "difference" in compared:
        sentences.append(f"For comparison, in {place_words(str(other))} alignment {change_words(compared)}.")
    return sentences


def alignment_sentence(summary: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What happened to alignment in one region, with everything needed to judge the number."""
    words = f"Alignment with {place_words(row['region'])} {change_words(row)}"
    held_out = f" ({len(names)} not tuned on)" if (names := not_tuned_on(summary)) else ""
    groups = [members_said(own) for own in summary["probe"]["subjects"].values() if own.get("members")]
    means = f" (mean of {', of '.join(groups)})" if groups else ""
    subjects = count_said(row["n_subjects"], "subject") + means + held_out
    n_voxels = count_said(row["n_voxels"], "voxel")
    fitted = "" if not summary["probe"].get("fitted_on_tuned") else "; encoding models fitted on stories tuned on"
    return (
        f"{words}: mean held-out correlation r of layer {row['layer']} over {n_voxels} of {subjects},"
        f" {_stimulus(summary)}{fitted}."
    )


def change_words(row: Mapping[str, Any]) -> str:
    """'rose from a to b (difference d, 95 % interval l to h)', or what fits the numbers instead.

    >>> side = {"low": None, "high": None}
    >>> change_words({"before": {"value": 0.2, **side}, "after": {"value": 0.3, **side},
    ...               "difference": {"value": 0.1, "low": 0.05, "high": 0.15}})
    'rose from 0.200 to 0.300 (difference +0.100, 95 % interval +0.050 to +0.150)'
    """
    if "difference" not in row or row["difference"]["value"] is None:
        return _single_words(row)
    before, after, change = row["before"]["value"], row["after"]["value"], row["difference"]
    numbers, difference = f"{before:.3f} to {after:.3f}", f"difference {change['value']:+.3f}"
    if change["low"] is None:
        return f"went from {numbers} ({difference}; no interval is available, so no claim is made)"
    interval = f"{difference}, 95 % interval {change['low']:+.3f} to {change['high']:+.3f}"
    if change["low"] > 0:
        return f"rose from {numbers} ({interval})"
    if change["high"] < 0:
        return f"fell from {numbers} ({interval})"
    return f"did not change beyond its uncertainty, {numbers} ({interval} includes 0)"


def word_sentences(summary: Mapping[str, Any]) -> list[str]:
    """How many content words tuning, or the fit, never heard, and how many scored rows rest on them and on the others.

    Subjects who heard other stories have sentences of their own. Nothing where words are not known.
    """
    said: dict[str, list[str]] = {}
    for name, facts in summary["probe"]["subjects"].items():
        for new, heard, what, verb in (
            (UNSEEN_WORDS, SEEN_WORDS, "Words that tuning never heard", "heard"),
            (UNFITTED_WORDS, FITTED_WORDS, "Words of no story that encoding models were fitted on", "met"),
        ):
            words = facts.get("words") or {}
            if new in words.get("n_trs", {}):
                text = f"{what}: {words['n_words'][new]} of {words['n_content_words']} content words of the scored"
                text += f" stories; {_rows_words(words, new)} on them, and {_rows_words(words, heard)} on words {verb}"
                said.setdefault(f"{text} there.", []).append(name)
    whole = len(summary["probe"]["subjects"])
    return [text if len(names) == whole else f"{', '.join(names)}: {text}" for text, names in said.items()]


def _rows_words(words: Mapping[str, Any], metric: str) -> str:
    n_trs, least = words["n_trs"][metric], words["least_trs"]
    few = "" if n_trs >= least else f" (too few for a number: {least} are needed)"
    return f"{count_said(n_trs, 'row')}{few} {'rests' if n_trs == 1 else 'rest'}"


def limit_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What cannot be claimed from this run."""
    probe, run = summary["probe"], summary["run"]
    if not summary["scores"]:
        return ["The run holds no probe, so nothing can be claimed."]
    stories = probe.get("score_stories", [])
    limits = [
        _story_limit(stories, probe),
        _people_limit(probe["subjects"]),
        "One run with one seed: the intervals do not cover how much a result moves between seeds. Repeat the run, and"
        " the permuted control, with several seeds before claiming an effect of tuning.",
    ]
    if said := fitted_on_tuned_said(probe):
        limits.append(said)
    if run.get("control"):
        limits.append(
            "This is the permuted control: the model was tuned on responses that do not belong to the sound. What"
            " rises here did not come from the match between sound and brain."
        )
    elif run.get("regime") == "brain":
        limits.append(
            "A rise alone does not show that the brain's match to the sound did it: compare with the permuted control,"
            " which is tuned in the same way on shuffled responses."
        )
    n_regions = len({row["region"] for row in summary["scores"]}) - 1
    if n_regions < 3:
        limits.append(
            f"{count_said(n_regions, 'named region')} only: nothing is shown about where in the brain this holds."
        )
    limits.append("Regions were fixed beforehand; intervals are not corrected for the number of regions and layers.")
    if not any(facts.get("n_repeats") for facts in probe["subjects"].values()):
        limits.append(
            "The scored stories were heard once, so there is no noise ceiling: r cannot be judged against one."
        )
    once = sorted({story for facts in probe["subjects"].values() for story in facts.get("ceiling_carried_to", ())})
    if once:
        limits.append(
            f"Of the scored stories {', '.join(once)} {'was' if len(once) == 1 else 'were'} heard once: ceilings take"
            " the signal per row there to be that of the stories heard repeatedly."
        )
    if run.get("simulated"):
        limits.append(SIMULATED)
    return limits


def _people_limit(subjects: Mapping[str, Mapping[str, Any]]) -> str:
    groups = [f"{name} is the mean of {members_said(own)}" for name, own in subjects.items() if own.get("members")]
    if groups:
        return (
            f"{'; '.join(groups)}, taken as fixed: nothing is shown about single people, or about others. Against its"
            " ceiling, what they share counts as signal and what is each one's own as noise."
        )
    if len(subjects) == 1:
        return "One subject: nothing is shown about other people."
    return f"{len(subjects)} subjects, taken as fixed: the intervals do not cover other people."


def _story_limit(stories: list[str], probe: Mapping[str, Any]) -> str:
    n_trs = probe.get("n_score_trs")
    if len(stories) == 1:
        return (
            f"One held-out story ({stories[0]}, {n_trs} TRs): the intervals are over time within it, and nothing is"
            " shown about generalisation over stories."
        )
    return (
        f"{len(stories)} held-out stories ({', '.join(stories)}; {n_trs} TRs together), taken as fixed: blocks of time"
        " are drawn within each, so the intervals say little about other stories."
    )


def _single_words(row: Mapping[str, Any]) -> str:
    stage = next((name for name in ("after", "before") if stage_value(row, name) is not None), None)
    if stage is None:
        return "is not defined"
    score = row[stage]
    interval = "" if score["low"] is None else f" (95 % interval {score['low']:.3f} to {score['high']:.3f})"
    return f"is {score['value']:.3f} {stage} tuning{interval}"


def place_words(region: str) -> str:
    """A region in words: 'semantic voxels'."""
    words = region.replace("_", " ")
    return words if words.endswith("voxels") else f"{words} voxels"


def _stimulus(summary: Mapping[str, Any]) -> str:
    probe = summary["probe"]
    n_stories = len(probe.get("score_stories", []))
    return f"{probe.get('n_score_trs')} TRs of {count_said(n_stories, 'held-out story', 'held-out stories')}"
