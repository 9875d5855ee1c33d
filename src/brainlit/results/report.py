"""One self-contained HTML page per run: what was done, what came out, how sure that is, and what it does not show."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.results import html
from brainlit.results.figures import summary_figures
from brainlit.results.look import Figure
from brainlit.results.lookup import find_score, not_tuned_on, regions_of
from brainlit.results.provenance import PROVENANCE_FILE
from brainlit.results.record import ProbeRecord, find_records
from brainlit.results.run_directory import RunDirectory, read_json, write_text_atomic
from brainlit.results.summary import build_summary, write_summary
from brainlit.results.tables import read_metrics
from brainlit.store.atomic import atomic_path

REPORT_FILE = "report.html"
MAX_BRAINS = 3
IMPACTS = {
    "impact_residual_lag0": "residual, lag 0",
    "impact_residual_lags": "residual, lags -k..k",
    "impact_banded_ridge": "banded ridge",
}
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
    save_figures(run, figures)
    write_summary(run, summary)
    provenance = read_json(run.path / PROVENANCE_FILE) if (run.path / PROVENANCE_FILE).exists() else {}
    return write_text_atomic(run.path / REPORT_FILE, render_report(summary, figures, sentences, provenance))


def draw_figures(
    run: RunDirectory, summary: Mapping[str, Any], records: Sequence[ProbeRecord], brains: bool = True
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Figures by name, and a sentence for each that there is not."""
    jobs = [*summary_figures(summary, read_metrics(run.path / "metrics.csv"))]
    sentences: dict[str, str] = {}
    for subject in list(summary["probe"]["subjects"])[: MAX_BRAINS if brains else 0]:
        pair = [record for record in records if record.subject == subject]
        if pair[0].vertices is None:
            sentences[f"brain-{subject}"] = f"No map for {subject}: its voxels have no places on fsaverage5."
        else:
            jobs.append((f"brain-{subject}", lambda pair=pair: _brain(pair)))  # type: ignore[misc]
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


def save_figures(run: RunDirectory, figures: Mapping[str, Figure]) -> None:
    """Write each figure to figures/<name>.png, and .svg where it has one."""
    for name, figure in figures.items():
        for suffix, data in ((".png", figure.png), (".svg", figure.svg)):
            if data is not None:
                with atomic_path(run.figures / f"{name}{suffix}") as temporary:
                    temporary.write_bytes(data)


def render_report(
    summary: Mapping[str, Any],
    figures: Mapping[str, Figure],
    sentences: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> str:
    """The page as text; all its numbers come from the summary."""

    def shown(name: str) -> str:
        return html.figure_tag(figures[name]) if name in figures else html.paragraph(sentences.get(name, ""), "note")

    brains = [name for name in (*figures, *sentences) if name.startswith("brain-")]
    has_scores = bool(summary["scores"])
    body = [
        _header(summary),
        html.section("What was run", _run_section(summary)),
        html.section("Alignment with the brain", shown("alignment"), _alignment_table(summary), _by_subject(summary))
        if has_scores
        else "",
        *[_held_out_section(summary, name, part) for name, part in summary.get("held_out", {}).items()],
        html.section("What explains the responses", shown("partition"), _partition_table(summary))
        if "partition" in figures or "partition" in sentences
        else "",
        _low_level_section(summary),
        html.section("Noise ceiling", shown("ceilings"), _ceiling_table(summary)) if "ceilings" in figures else "",
        html.section("Layers", *[shown(name) for name in ("layers", "layer_epochs") if name in figures])
        if {"layers", "layer_epochs"} & set(figures)
        else "",
        html.section("Learning", shown("learning")) if "learning" in figures else "",
        html.section("On the cortex", *[shown(name) for name in dict.fromkeys(brains)]) if brains else "",
        html.section("What this run does not show", html.bullets(summary["limits"], "limits")),
        html.section("Warnings", html.bullets(summary["warnings"])) if summary["warnings"] else "",
        html.section("Provenance", _provenance(provenance)),
    ]
    run = summary["run"]
    return html.page(f"{run['experiment']} / {run['id']}", [part for part in body if part])


def _header(summary: Mapping[str, Any]) -> str:
    run = summary["run"]
    badges = [f'<span class="badge plain">regime: {escape(str(run.get("regime", "unknown")))}</span>']
    if run.get("control"):
        badges.append('<span class="badge control">permuted control: responses shuffled in time</span>')
    if run.get("simulated"):
        badges.append('<span class="badge plain">simulated listeners</span>')
    if run["state"] != "finished":
        badges.append(f'<span class="badge control">{escape(run["state"])}, not finished</span>')
    about = " · ".join(str(part) for part in (run.get("model"), run.get("data"), f"run {run['id']}") if part)
    return (
        f'<header class="card"><h1>{escape(run["experiment"])}</h1><div class="meta">{escape(about)}</div>'
        f'<div style="margin-top:10px">{"".join(badges)}</div>'
        f"{html.bullets(summary['headline'], 'headline')}{_tiles(summary)}</header>"
    )


def _tiles(summary: Mapping[str, Any]) -> str:
    """The headline numbers, large."""
    region = summary["headline_region"]
    names = {
        "r_backbone": f"alignment r, {region}",
        "r_over_ceiling": f"r / ceiling, {region}",
        "low_level_share": f"low-level share, {region}",
    }
    tiles = []
    for metric, what in names.items():
        row = find_score(summary, region, metric)
        if row is None:
            continue
        ends = [f"{row[s]['value']:.3f}" for s in ("before", "after") if row.get(s, {}).get("value") is not None]
        change = row.get("difference") or {}
        small = f"{row['n_voxels']} voxels, {row['n_subjects']} subjects"
        if change.get("low") is not None:
            small = f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}] · {small}"
        tiles.append(
            f'<div class="tile"><div class="what">{escape(what)}</div><div class="number">{" → ".join(ends)}</div>'
            f'<div class="small">{escape(small)}</div></div>'
        )
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _run_section(summary: Mapping[str, Any]) -> str:
    run, probe = summary["run"], summary["probe"]
    boot = probe.get("bootstrap", {})
    pairs = {
        "regime": run.get("regime_words") or run.get("regime"),
        "model": run.get("model"),
        "data": run.get("data"),
        **{f"data: {key}": words for key, words in run.get("data_facts", {}).items()},
        "subjects": ", ".join(_subject_words(summary, name) for name in probe["subjects"]),
        "training": run.get("training"),
        "tuned on": run.get("tune"),
        "seed": run.get("seed"),
        "encoding models fitted on": _spans(probe, "fit"),
        "scored on": _spans(probe, "score"),
        "layer compared": f"{probe.get('layer')} (fixed before training)" if summary["scores"] else None,
        "delays": probe.get("delays_trs") and f"{', '.join(map(str, probe['delays_trs']))} TRs",
        "ridge": probe.get("ridge"),
        "uncertainty": boot
        and f"95 % intervals: block bootstrap over time, {boot.get('block_trs')}-TR blocks drawn within each held-out"
        f" story, {boot.get('n_bootstraps')} draws, seed {boot.get('seed')}, widened for the number of blocks;"
        " before and after share the draws",
        "left out to save time": probe.get("thinned_words"),
        "time": _time_words(summary),
        "best checkpoint": _chosen_words(summary),
        "voxels": "; ".join(_voxel_words(name, facts) for name, facts in probe["subjects"].items()),
    }
    return html.facts(pairs)


def _voxel_words(name: str, facts: Mapping[str, Any]) -> str:
    repeats = facts.get("n_repeats")
    words = f"{name}: {facts.get('n_used')} of {facts.get('n_voxels')} ({facts.get('n_dropped', 0)} dropped as constant"
    left_out = f", {facts['n_left_out']} left out to save time" if facts.get("n_left_out") else ""
    return words + f" or missing{left_out}), {f'{repeats} repeats' if repeats else 'no repeats'}"


def _time_words(summary: Mapping[str, Any]) -> str | None:
    seconds = summary.get("seconds") or {}
    if not seconds.get("training"):
        return None
    return (
        f"training {seconds['training']:.0f} s, probes {seconds['probes']:.0f} s ({100 * seconds['share']:.0f} % of"
        " training)"
    )


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
    return f"{', '.join(spans)} ({probe.get(f'n_{role}_trs')} TRs used)" if spans else None


def _alignment_table(summary: Mapping[str, Any]) -> str:
    heads = ["region", "voxels", "before", "after", "difference", "voxels up"]
    rows = []
    for region in regions_of(summary):
        row = find_score(summary, region, "r_backbone")
        if row is not None:
            up = row.get("voxels_up")
            cells = [str(row["n_voxels"]), *_three(row), html.DASH if up is None else f"{100 * up:.0f} %"]
            rows.append(([escape(region.replace("_", " ")), *cells], region == summary["headline_region"]))
    return html.table(heads, rows) + html.paragraph(
        f"{summary['formulas']['r_backbone']}. In brackets: 95 % interval. voxels up: share of voxels whose r is higher"
        " after than before (0.5 is chance).",
        "note",
    )


def _by_subject(summary: Mapping[str, Any]) -> str:
    """Alignment of each subject, where some were not tuned on."""
    if not not_tuned_on(summary):
        return ""
    region = summary["headline_region"]
    rows = [(name, find_score(summary, region, "r_backbone", name)) for name in summary["probe"]["subjects"]]
    cells = [
        ([escape(_subject_words(summary, name)), str(row["n_voxels"]), *_three(row)], False)
        for name, row in rows
        if row
    ]
    heads = ["subject", "voxels", "before", "after", "difference"]
    return f"<h3>By subject, {escape(region.replace('_', ' '))}</h3>{html.table(heads, cells)}"


def _subject_words(summary: Mapping[str, Any], name: str) -> str:
    return f"{name} (not tuned on)" if name in not_tuned_on(summary) else name


def _held_out_section(summary: Mapping[str, Any], name: str, part: Mapping[str, Any]) -> str:
    """Alignment with another data set, none of which was tuned on."""
    rows = [row for row in part["scores"] if row["metric"] == "r_backbone"]
    cells = [([escape(row["region"].replace("_", " ")), str(row["n_voxels"]), *_three(row)], False) for row in rows]
    return html.section(
        f"Held-out data: {name}",
        html.table(["region", "voxels", "before", "after", "difference"], cells),
        html.paragraph(
            f"{summary['formulas']['r_backbone']}. Data set {part.get('data_set')}, {', '.join(part['subjects'])};"
            f" layer {part['layer']}; scored on {_spans(part, 'score')}. In brackets: 95 % interval.",
            "note",
        ),
    )


def _partition_table(summary: Mapping[str, Any]) -> str:
    region = summary["headline_region"]
    rows = [row for row in summary["scores"] if row["subject"] == "all" and row["region"] == region]
    named = [row for row in rows if row["metric"].startswith(("partition_", "r2_"))]
    named = [row for row in named if row["layer"] == summary["probe"]["layer"]]
    table = html.table(
        ["R² part", "before", "after", "difference"],
        [([escape(row["metric"].replace("partition_", "part: ").replace("r2_", "R² of ")), *_three(row, 4)], False)
         for row in named],
    )  # fmt: skip
    return f"<details><summary>numbers with intervals, {escape(region)}</summary>{table}</details>"


def _low_level_section(summary: Mapping[str, Any]) -> str:
    regions = [name for name in regions_of(summary) if find_score(summary, name, "low_level_share")]
    if not regions:
        return ""
    heads = ["region", "low-level share, before", "after", "difference"]
    share = [
        (
            [escape(name), *_three(find_score(summary, name, "low_level_share") or {})],
            name == summary["headline_region"],
        )
        for name in regions
    ]
    impact = [
        ([escape(name), *[_arrow(find_score(summary, name, metric)) for metric in IMPACTS]], False) for name in regions
    ]
    formulas = summary["formulas"]
    return html.section(
        "How much of it is low-level",
        html.table(heads, share),
        html.paragraph(f"Low-level share: {formulas['low_level_share']}. In brackets: 95 % interval.", "note"),
        "<h3>Low-level impact three ways, percent of r lost (before → after)</h3>",
        html.table(["region", *IMPACTS.values()], impact),
        html.paragraph(
            f"Residual, lag 0: {formulas['impact_residual_lag0']}. Lags: {formulas['impact_residual_lags']}. Banded:"
            f" {formulas['impact_banded_ridge']}. Point values without intervals. Removal at lag 0 leaves delayed"
            " low-level signal in, so it tends to understate the impact.",
            "note",
        ),
    )


def _ceiling_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for region in regions_of(summary):
        ceiling = find_score(summary, region, "ceiling")
        raw, ratio = (find_score(summary, region, metric) for metric in ("r_backbone", "r_over_ceiling"))
        if ceiling is not None and raw is not None:
            cells = [escape(region), _arrow(raw, 3), html.number(ceiling.get("before")), _arrow(ratio, 3)]
            rows.append((cells, region == summary["headline_region"]))
    return html.table(["region", "r, before → after", "mean ceiling", "r / ceiling, before → after"], rows)


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return html.paragraph("provenance.json is missing from the run directory.", "note")
    git, machine = provenance.get("git", {}), provenance.get("machine", {})
    changed = " with uncommitted changes" if git.get("dirty") else ""
    short = {
        "command": provenance.get("command"),
        "source": f"{git.get('revision')}{changed}",
        "data store": f"SHA-256 {provenance.get('store', {}).get('sha256')}",
        "machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.get("versions", {}).items()),
    }
    full = escape(json.dumps(provenance, indent=2))
    return html.facts(short) + f"<details><summary>provenance.json</summary><pre>{full}</pre></details>"


def _brain(records: Sequence[ProbeRecord]) -> Figure:
    from brainlit.results.brainmap import brain_figure

    first, last = records[0], records[-1]
    vertices = np.asarray(first.vertices, dtype=np.int64)
    return brain_figure(vertices, first.r, last.r if last.epoch > first.epoch else None, first.subject)


def _three(row: Mapping[str, Any], digits: int = 3) -> list[str]:
    before, after = (html.number(row.get(stage), digits=digits) for stage in ("before", "after"))
    return [before, after, html.number(row.get("difference"), signed=True, digits=digits)]


def _arrow(row: Mapping[str, Any] | None, digits: int = 1) -> str:
    known = [(row or {}).get(stage, {}).get("value") for stage in ("before", "after")]
    return " → ".join(f"{value:.{digits}f}" for value in known if value is not None) or html.DASH
