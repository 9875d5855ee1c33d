"""One self-contained HTML page per run: what was done, what came out, how sure that is, and what it does not show.

The page is the template run_report.html.j2; here are the numbers and words that it shows.
"""

from __future__ import annotations

import gc
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from brainlit.results.brain_figures import brain_figures
from brainlit.results.citations import DATA_SETS, METHOD
from brainlit.results.figures import summary_figures
from brainlit.results.members import agreement_said, subject_said
from brainlit.results.methods import (
    METHODS_FILE,
    bibtex_of,
    done_said,
    methods_markdown,
    methods_paragraphs,
    read_settings,
    works_of,
)
from brainlit.results.metrics import METRICS_FILE, read_metrics
from brainlit.results.pages import render_page
from brainlit.results.probe_words import bands_said, interval_said, spans_said, time_of_bands_said, voxels_said
from brainlit.results.record import PROBES_BEFORE, READ_FROM, ProbeRecord, find_records, fitted_on_tuned_said
from brainlit.results.run_directory import PROVENANCE_FILE, RunDirectory, read_json_if_there, write_text_atomic
from brainlit.results.scores import FITTED_WORDS, LABELS, SEEN_WORDS, UNFITTED_WORDS, UNSEEN_WORDS
from brainlit.results.style import Figure
from brainlit.results.summary import (
    Summary,
    build_summary,
    find_score,
    not_tuned_on,
    regions_of,
    word_sentences,
    write_summary,
)
from brainlit.results.tables import count_said

REPORT_FILE = "report.html"
LIMITS_TITLE = "What this run does not show"
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
Drawn = TypeVar("Drawn")


def write_report(run_dir: RunDirectory | Path | str, state: str | None = None) -> Path:
    """`report_run`, for whoever needs the page alone."""
    return report_run(run_dir, state)[0]


def report_run(run_dir: RunDirectory | Path | str, state: str | None = None) -> tuple[Path, Summary]:
    """Write summary.json, figures/, methods.md and report.html of a run; also of one that has not finished.

    Parameters
    ----------
    run_dir : RunDirectory or path
        Only what lies in the folder is read.
    state : str, optional
        What to call the run's state; read from status.json where not given.

    Returns
    -------
    page : Path
        A figure that cannot be drawn is left out with a sentence, and its traceback is logged.
    summary : dict
        What summary.json holds.

    Raises
    ------
    FileNotFoundError
        If the folder is not a run directory.
    """
    run = run_dir if isinstance(run_dir, RunDirectory) else RunDirectory.open(run_dir)
    with _no_collections():
        return _report(run, state)


@contextmanager
def _no_collections() -> Iterator[None]:
    """What a report makes is needed until it is written: looking for garbage in it takes a twentieth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _report(run: RunDirectory, state: str | None) -> tuple[Path, Summary]:
    records = find_records(run.probes)
    summary = build_summary(run, records, state)
    figures, sentences = draw_figures(run, summary, records)
    for figure in figures.values():
        figure.save(run.figures)
    write_summary(run, summary)
    provenance = read_json_if_there(run.path / PROVENANCE_FILE)
    methods = methods_paragraphs(summary, read_settings(run.path), provenance)
    pasted = methods_markdown(done_said(summary), methods, bibtex_of(summary, provenance), cite_also(summary))
    write_text_atomic(run.path / METHODS_FILE, pasted)
    turning = _attempted("brain-turning", run, lambda: _turning_maps(summary, records), sentences)
    page = render_report(summary, figures, sentences, provenance, turning, methods)
    return write_text_atomic(run.path / REPORT_FILE, page), summary


def draw_figures(
    run: RunDirectory, summary: Mapping[str, Any], records: Sequence[ProbeRecord], brains: bool = True
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Figures by name, and a sentence for each that there is not."""
    jobs: list[tuple[str, Callable[[], Figure | None]]] = [
        *summary_figures(summary, read_metrics(run.path / METRICS_FILE))
    ]
    sentences: dict[str, str] = {}
    simulated = bool(summary["run"].get("simulated"))
    for subject in list(summary["probe"]["subjects"])[: MAX_BRAINS if brains else 0]:
        own, lacking = brain_figures([one for one in records if one.subject == subject], simulated=simulated)
        jobs += own
        if lacking:
            sentences[f"brain-{subject}"] = lacking
    if brains and len(summary["probe"]["subjects"]) > MAX_BRAINS:
        others = f"{MAX_BRAINS} of {len(summary['probe']['subjects'])} subjects"
        sentences["brain-others"] = f"Pictures of the first {others}; brainlit maps writes the numbers of all voxels."
    figures = {}
    for name, job in jobs:
        figure = _attempted(name, run, job, sentences)
        if figure is not None:
            figures[name] = figure
    return figures, sentences


def _attempted(
    name: str, run: RunDirectory, job: Callable[[], Drawn | None], sentences: dict[str, str]
) -> Drawn | None:
    """What the job draws; where it fails, None and a sentence in its place."""
    try:
        return job()
    except Exception:  # noqa: BLE001 - a picture that fails must not cost the run its report
        _log.warning("figure %s of %s could not be drawn:", name, run.path, exc_info=True)
        sentences[name] = f"The figure '{name}' could not be drawn; the log holds the reason."
        return None


def render_report(
    summary: Mapping[str, Any],
    figures: Mapping[str, Figure],
    sentences: Mapping[str, str],
    provenance: Mapping[str, Any],
    turning: str | None = None,
    methods: Sequence[str] = (),
) -> str:
    """The page as text; all its numbers come from the summary, and those of the methods from the run's settings."""
    run, score = summary["run"], partial(find_score, summary)
    brains = list(dict.fromkeys(name for name in (*figures, *sentences) if name.startswith("brain-")))
    return render_page(
        "run_report.html.j2",
        done_said(summary),
        summary=summary,
        figures=figures,
        sentences=sentences,
        about=_about(run, provenance),
        links=dict(_links(run)),
        limits_title=LIMITS_TITLE,
        methods=methods,
        works=works_of(summary),
        cite_also=cite_also(summary),
        bibtex=bibtex_of(summary, provenance),
        command=command_said(provenance),
        version=(provenance.get("versions") or {}).get("brainlit"),
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
        brains=brains,
        brains_title="In the brain" if any(name.endswith("-slices") for name in brains) else "On the cortex",
        provenance=json.dumps(provenance, indent=2) if provenance else "",
        provenance_facts=_provenance_facts(provenance),
        score=score,
        rows_of=lambda metric: [(name, row) for name in regions_of(summary) if (row := score(name, metric))],
        spans=spans_said,
        fitted_said=fitted_on_tuned_said,
    )


def _about(run: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """When, which run, and on what."""
    written = str(provenance.get("written") or "")[:16].replace("T", " ")
    named = f"run {run['experiment']}/{run['id']}"
    return [str(part) for part in (f"started {written} UTC" if written else None, named, run.get("data")) if part]


def _links(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is read elsewhere, if the reader wants to: the method, and the run in W&B where it is online."""
    yield f"method: arXiv {str(METHOD.address).rpartition('/')[2]}", str(METHOD.address)
    address = str(run.get("wandb_url") or "")
    if address.startswith("https://"):
        yield "this run in W&B", address


def command_said(provenance: Mapping[str, Any]) -> str:
    """The command as it is typed, without where brainlit lies on somebody's disk.

    >>> command_said({"command": "/home/me/.venv/bin/brainlit fit -c demo"})
    'brainlit fit -c demo'
    """
    return re.sub(r"^\S*brainlit(/cli/__main__\.py)?(?=\s|$)", "brainlit", str(provenance.get("command") or ""))


def cite_also(summary: Mapping[str, Any]) -> str:
    """How the data set wants to be cited, where that is no entry of ours."""
    run = summary["run"]
    known = str((run.get("data_module") or {}).get("store")) in DATA_SETS
    return "" if known else str((run.get("data_facts") or {}).get("citation") or "")


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
        "encoding models fitted on": spans_said(probe, "fit"),
        "fitted and tuned": fitted_on_tuned_said(probe) or None,
        "scored on": spans_said(probe, "score"),
        "layer compared": f"{probe.get('layer')} (fixed before training)" if summary["scores"] else None,
        "bands": bands_said(probe),
        "features at the volumes": time_of_bands_said(probe),
        "filter": probe.get("filter"),
        "ridge": probe.get("ridge"),
        "uncertainty": interval_said(probe),
        "left out to save time": probe.get("thinned_words"),
        "time": _time_words(summary),
        "best checkpoint": _chosen_words(summary),
        "between members": agreement_said(probe["subjects"], summary["headline_region"]),
        "voxels": "; ".join(voxels_said(name, facts) for name, facts in probe["subjects"].items()),
    }


def _time_words(summary: Mapping[str, Any]) -> str | None:
    seconds = summary.get("seconds") or {}
    if not seconds.get("training"):
        return None
    share = f"{100 * seconds['share']:.0f} % of training"
    was_read = any(source.startswith(READ_FROM) for source in (summary["run"].get(PROBES_BEFORE) or {}).values())
    read = "; that before training was made by another run, and read" if was_read else ""
    return f"training {seconds['training']:.0f} s, probes {seconds['probes']:.0f} s ({share}){read}"


def _chosen_words(summary: Mapping[str, Any]) -> str | None:
    chosen = summary.get("chosen")
    if not chosen:
        return None
    return (
        f"{Path(chosen['checkpoint']).name}, after epoch {chosen['epoch']}: highest {chosen['by']}"
        f" ({chosen['value']:.3f}, layer {chosen['layer']}) on {', '.join(chosen['choose_spans'])}, which are neither"
        " tuned on nor scored"
    )


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
        "source": f"{git.get('revision')}{changed}",
        "data store": f"SHA-256 {provenance.get('store', {}).get('sha256')}",
        "machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items()),
    }


def _turning_maps(summary: Mapping[str, Any], records: Sequence[ProbeRecord]) -> str | None:
    from brainlit.results.turning_maps import turning_maps

    of_subject = {name: [one for one in records if one.subject == name] for name in summary["probe"]["subjects"]}
    return turning_maps(of_subject, simulated=bool(summary["run"].get("simulated")))
