"""One self-contained HTML page per run: what was done, what came out, how sure that is, and what it does not show.

The page is the template run_report.html.j2; here are the numbers and words that it shows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.results.figures import summary_figures
from brainlit.results.members import agreement_said, members_said, subject_said
from brainlit.results.metrics import METRICS_FILE, read_metrics
from brainlit.results.pages import render_page
from brainlit.results.record import ProbeRecord, find_records, fitted_on_tuned_said, folds_said
from brainlit.results.run_directory import PROVENANCE_FILE, RunDirectory, read_json_if_there, write_text_atomic
from brainlit.results.scores import FITTED_WORDS, LABELS, SEEN_WORDS, UNFITTED_WORDS, UNSEEN_WORDS
from brainlit.results.style import Figure, band_label
from brainlit.results.summary import (
    build_summary,
    find_score,
    not_tuned_on,
    regions_of,
    word_sentences,
    write_summary,
)
from brainlit.results.tables import count_said

REPORT_FILE = "report.html"
MAX_BRAINS = 3
TILES = {"r_backbone": "alignment r", "r_over_ceiling": "r / ceiling", "low_level_share": "low-level share"}
PLACED = (
    "r_backbone",
    "r_together",
    "r_over_ceiling",
    "ceiling",
    "r2_",
    "split_",
    "partition_",
    "low_level_share",
    "impact_",
)
"""Beginnings of the numbers that have a section of their own, or stand in the printed table only."""
_log = logging.getLogger(__name__)


def write_report(run_dir: RunDirectory | Path | str, state: str | None = None) -> Path:
    """Write summary.json, figures/ and report.html of a run; also of one that has not finished.

    Parameters
    ----------
    run_dir : RunDirectory or path
        Only what lies in the folder is read.
    state : str, optional
        What to call the run's state; read from status.json where not given.

    Returns
    -------
    Path
        The page. A figure that cannot be drawn is left out with a sentence, and its traceback is logged.

    Raises
    ------
    FileNotFoundError
        If the folder is not a run directory.
    """
    run = run_dir if isinstance(run_dir, RunDirectory) else RunDirectory.open(run_dir)
    records = find_records(run.probes)
    summary = build_summary(run, records, state)
    figures, sentences = draw_figures(run, summary, records)
    for figure in figures.values():
        figure.save(run.figures)
    write_summary(run, summary)
    provenance = read_json_if_there(run.path / PROVENANCE_FILE)
    turning = _turning_maps(summary, records)
    return write_text_atomic(run.path / REPORT_FILE, render_report(summary, figures, sentences, provenance, turning))


def draw_figures(
    run: RunDirectory, summary: Mapping[str, Any], records: Sequence[ProbeRecord], brains: bool = True
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Figures by name, and a sentence for each that there is not."""
    jobs = [*summary_figures(summary, read_metrics(run.path / METRICS_FILE))]
    sentences: dict[str, str] = {}
    simulated = bool(summary["run"].get("simulated"))
    for subject in list(summary["probe"]["subjects"])[: MAX_BRAINS if brains else 0]:
        pair = [record for record in records if record.subject == subject]
        if pair[0].vertices is None:
            sentences[f"brain-{subject}"] = f"No map for {subject}: its voxels have no places on fsaverage5."
        else:
            jobs.append((f"brain-{subject}", lambda pair=pair: record_brain(pair, simulated)))  # type: ignore[misc]
    figures = {}
    for name, job in jobs:
        try:
            figure = job()
        except Exception:  # noqa: BLE001 - a picture that fails must not cost the run its report
            _log.warning("figure %s of %s could not be drawn:", name, run.path, exc_info=True)
            sentences[name] = f"The figure '{name}' could not be drawn; the log holds the reason."
            continue
        if figure is not None:
            figures[name] = figure
    return figures, sentences


def render_report(
    summary: Mapping[str, Any],
    figures: Mapping[str, Figure],
    sentences: Mapping[str, str],
    provenance: Mapping[str, Any],
    turning: str | None = None,
) -> str:
    """The page as text; all its numbers come from the summary."""
    run, score = summary["run"], partial(find_score, summary)
    return render_page(
        "run_report.html.j2",
        f"{run['experiment']} / {run['id']}",
        summary=summary,
        figures=figures,
        sentences=sentences,
        about=" · ".join(str(part) for part in (run.get("model"), run.get("data"), f"run {run['id']}") if part),
        tiles=[] if run.get("trial") else list(_tiles(summary)),
        run_facts=_run_facts(summary),
        by_subject=_by_subject(summary),
        partition_rows=_partition_rows(summary),
        words=word_sentences(summary),
        word_rows=[
            (LABELS[metric].removeprefix("r, "), name, row)
            for metric in (UNSEEN_WORDS, SEEN_WORDS, UNFITTED_WORDS, FITTED_WORDS)
            for name in regions_of(summary)
            if (row := score(name, metric))
        ],
        others={name: label for name, label in LABELS.items() if not name.startswith(PLACED)},
        turning=turning,
        brains=list(dict.fromkeys(name for name in (*figures, *sentences) if name.startswith("brain-"))),
        provenance=json.dumps(provenance, indent=2) if provenance else "",
        provenance_facts=_provenance_facts(provenance),
        score=score,
        rows_of=lambda metric: [(name, row) for name in regions_of(summary) if (row := score(name, metric))],
        spans=_spans,
        fitted_said=fitted_on_tuned_said,
    )


def _tiles(summary: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The headline numbers, large."""
    for metric, what in TILES.items():
        row = find_score(summary, summary["headline_region"], metric)
        if row is None:
            continue
        ends = [f"{row[s]['value']:.3f}" for s in ("before", "after") if row.get(s, {}).get("value") is not None]
        change = row.get("difference") or {}
        small = f"{count_said(row['n_voxels'], 'voxel')}, {count_said(row['n_subjects'], 'subject')}"
        if change.get("low") is not None:
            small = f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}] · {small}"
        yield {"what": f"{what}, {summary['headline_region']}", "ends": " → ".join(ends), "small": small}


def _run_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    run, probe = summary["run"], summary["probe"]
    boot = probe.get("bootstrap", {})
    return {
        "regime": run.get("regime_words") or run.get("regime"),
        "model": run.get("model"),
        "data": run.get("data"),
        **{f"data: {key}": words for key, words in run.get("data_facts", {}).items()},
        "subjects": ", ".join(_subject_words(summary, name) for name in probe["subjects"]),
        "training": run.get("training"),
        "went on from": run.get("went_on_from"),
        "tuned on": run.get("tune"),
        "seed": run.get("seed"),
        "encoding models fitted on": _spans(probe, "fit"),
        "fitted and tuned": fitted_on_tuned_said(probe) or None,
        "scored on": _spans(probe, "score"),
        "layer compared": f"{probe.get('layer')} (fixed before training)" if summary["scores"] else None,
        "bands": _bands_said(probe),
        "features at the volumes": _time_of_bands(probe),
        "filter": probe.get("filter"),
        "ridge": probe.get("ridge"),
        "uncertainty": boot
        and f"95 % intervals: block bootstrap over time, {boot.get('block_trs')}-TR blocks or longer drawn within each"
        f" held-out {'fold' if probe.get('folds') else 'story'}, {boot.get('n_bootstraps')} draws, seed"
        f" {boot.get('seed')}, widened for the number of blocks and what their borders hide"
        f"{', and for the rows that the fits of the folds share' if probe.get('folds') else ''};"
        " before and after share the draws",
        "left out to save time": probe.get("thinned_words"),
        "time": _time_words(summary),
        "best checkpoint": _chosen_words(summary),
        "between members": agreement_said(probe["subjects"], summary["headline_region"]),
        "voxels": "; ".join(_voxel_words(name, facts) for name, facts in probe["subjects"].items()),
    }


def _bands_said(probe: Mapping[str, Any]) -> str | None:
    """The feature spaces of each band; None for those of a probe for which nobody chose any."""
    of_band = (probe.get("bands") or {}).items()
    return "; ".join(f"{band_label(band)}: {', '.join(spaces) or 'nothing'}" for band, spaces in of_band) or None


def _time_of_bands(probe: Mapping[str, Any]) -> str | None:
    """How features reach the volumes: the parts of every band, with their shares where they were chosen by subject."""
    delays = probe.get("delays_trs") and f"means per TR, {', '.join(map(str, probe['delays_trs']))} TRs late"
    names = {"fir": str(delays), "hrf": "haemodynamic response", "derivatives": "its derivatives"}
    said: dict[str, list[str]] = {}
    for subject, facts in probe["subjects"].items():
        bands = [
            f"{band_label(band)} " + " + ".join(f"{share:.0%} {names[part]}" for part, share in parts.items())
            for band, parts in (facts.get("temporal") or {}).items()
        ]
        said.setdefault("; ".join(bands), []).append(subject)
    chosen = [parts for facts in probe["subjects"].values() for parts in (facts.get("temporal") or {}).values()]
    if all(parts == {"fir": 1.0} for parts in chosen):
        return delays or None
    if len(said) == 1:
        return next(iter(said))
    return ". ".join(f"{', '.join(subjects)}: {words}" for words, subjects in said.items())


def _voxel_words(name: str, facts: Mapping[str, Any]) -> str:
    fewest, most = facts.get("n_repeats"), facts.get("most_repeats")
    repeats = f"{fewest} to {most}" if fewest and most and most > fewest else fewest
    heard = f"{repeats} repeats" if repeats else "no repeats"
    heard = f"mean of {members_said(facts)}" if facts.get("members") else heard
    words = f"{name}: {facts.get('n_used')} of {facts.get('n_voxels')} ({facts.get('n_dropped', 0)} dropped as constant"
    left_out = f", {facts['n_left_out']} left out to save time" if facts.get("n_left_out") else ""
    return words + f" or missing{left_out}), {heard}"


def _time_words(summary: Mapping[str, Any]) -> str | None:
    seconds = summary.get("seconds") or {}
    if not seconds.get("training"):
        return None
    share = f"{100 * seconds['share']:.0f} % of training"
    return f"training {seconds['training']:.0f} s, probes {seconds['probes']:.0f} s ({share})"


def _chosen_words(summary: Mapping[str, Any]) -> str | None:
    chosen = summary.get("chosen")
    if not chosen:
        return None
    return (
        f"{Path(chosen['checkpoint']).name}, after epoch {chosen['epoch']}: highest {chosen['by']}"
        f" ({chosen['value']:.3f}, layer {chosen['layer']}) on {', '.join(chosen['choose_spans'])}, which are neither"
        " tuned on nor scored"
    )


def _spans(probe: Mapping[str, Any], role: str) -> str | None:
    spans = probe.get(f"{role}_spans")
    if folds := folds_said(probe):
        return f"{', '.join(spans or ())} ({folds})" if role == "score" else None
    return f"{', '.join(spans)} ({probe.get(f'n_{role}_trs')} TRs used)" if spans else None


def _by_subject(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Alignment of each subject, where some were not tuned on."""
    if not not_tuned_on(summary):
        return []
    rows = (
        (name, find_score(summary, summary["headline_region"], "r_backbone", name))
        for name in summary["probe"]["subjects"]
    )
    return [(_subject_words(summary, name), row) for name, row in rows if row]


def _subject_words(summary: Mapping[str, Any], name: str) -> str:
    facts = summary["probe"]["subjects"].get(name) or {}
    return subject_said(name, facts, *(["not tuned on"] if name in not_tuned_on(summary) else []))


def _partition_rows(summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """R2 of the models and its parts, in the compared layer."""
    return [
        row
        for row in summary["scores"]
        if row["subject"] == "all"
        and row["region"] == summary["headline_region"]
        and row["layer"] == summary["probe"]["layer"]
        and row["metric"].startswith(("partition_", "r2_"))
    ]


def _provenance_facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    git, machine = provenance.get("git", {}), provenance.get("machine", {})
    changed = " with uncommitted changes" if git.get("dirty") else ""
    return {
        "command": provenance.get("command"),
        "source": f"{git.get('revision')}{changed}",
        "data store": f"SHA-256 {provenance.get('store', {}).get('sha256')}",
        "machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items()),
    }


def _turning_maps(summary: Mapping[str, Any], records: Sequence[ProbeRecord]) -> str | None:
    from brainlit.results.turning_maps import turning_maps

    of_subject = {name: [one for one in records if one.subject == name] for name in summary["probe"]["subjects"]}
    return turning_maps(of_subject, simulated=bool(summary["run"].get("simulated")))


def record_brain(records: Sequence[ProbeRecord], simulated: bool) -> Figure:
    """The maps of one subject with places on fsaverage5: r of the first record, of the last, and their difference."""
    from brainlit.results.brainmap import brain_figure

    first, last = records[0], records[-1]
    vertices = np.asarray(first.vertices, dtype=np.int64)
    after = last.r if last.epoch > first.epoch else None
    return brain_figure(vertices, first.r, after, first.subject, simulated=simulated)
