"""One self-contained HTML page per run: what was done, what came out, how sure that is, and what it does not show."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from brainlit.files import atomic_path
from brainlit.results.figures import summary_figures
from brainlit.results.record import ProbeRecord, find_records, find_score, not_tuned_on, read_metrics, regions_of
from brainlit.results.run_directory import PROVENANCE_FILE, RunDirectory, read_json, write_text_atomic
from brainlit.results.style import BAND_COLOURS, BAND_LABELS, Figure, part_label
from brainlit.results.summary import build_summary, write_summary

# --- region_table
# The numbers of one probe as a table to print: what was measured down the page, regions across it.


REGIONS_ACROSS = 5
MEASURES = {
    "r_backbone": "r",
    "ceiling": "ceiling",
    "r_over_ceiling": "r / ceiling",
    "r2_backbone": "R2",
    "r2_joint": "R2 of all bands",
    **{f"split_{band}": f"split: {label}" for band, label in BAND_LABELS.items()},
    **{f"partition_{part}": f"part: {part_label(part)}" for part in BAND_COLOURS},
    "low_level_share": "low-level share",
    "impact_residual_lag0": "impact % (residual, lag 0)",
    "impact_residual_lags": "impact % (residual, lags)",
    "impact_banded_ridge": "impact % (banded ridge)",
}


def region_table(summary: Mapping[str, Any]) -> str:
    """Markdown: the compared layer's numbers of every region, with their intervals, what they rest on and formulas.

    Parameters
    ----------
    summary : mapping
        Of `summary.build_summary`, with the probe of one moment: of several, the last one is shown.
    """
    regions = regions_of(summary)
    shown = {
        metric: label
        for metric, label in MEASURES.items()
        if any(find_score(summary, region, metric) for region in regions)
    }
    lines: list[str] = []
    for start in range(0, len(regions), REGIONS_ACROSS):
        lines += [*_block(summary, regions[start : start + REGIONS_ACROSS], shown), ""]
    return "\n".join([*lines, *(f"- {line}" for line in (*_rest_on(summary), *_formulas(summary, shown)))])


def _block(summary: Mapping[str, Any], regions: Sequence[str], shown: Mapping[str, str]) -> Iterator[str]:
    yield f"| | {' | '.join(region.replace('_', ' ') for region in regions)} |"
    yield "|---" * (len(regions) + 1) + "|"
    counts = [find_score(summary, region, "r_backbone") for region in regions]
    yield f"| voxels | {' | '.join('-' if row is None else str(row['n_voxels']) for row in counts)} |"
    for metric, label in shown.items():
        cells = [_cell(find_score(summary, region, metric)) for region in regions]
        yield f"| {label} | {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any] | None) -> str:
    score = {} if row is None else row.get("after", row.get("before", {}))
    if score.get("value") is None:
        return "-"
    digits = 1 if row is not None and row["metric"].startswith("impact") else 3
    if score.get("low") is None:
        return f"{score['value']:.{digits}f}"
    return f"{score['value']:.{digits}f} [{score['low']:.{digits}f}, {score['high']:.{digits}f}]"


def _rest_on(summary: Mapping[str, Any]) -> Iterator[str]:
    probe, boot = summary["probe"], summary["probe"].get("bootstrap", {})
    subjects = list(probe["subjects"])
    whose = subjects[0] if len(subjects) == 1 else f"mean over {len(subjects)} subjects ({', '.join(subjects)})"
    yield f"{whose}; layer {probe['layer']}; voxels of all subjects together"
    for role, done in (("score", "scored on"), ("fit", "fitted on")):
        yield f"{done} {', '.join(probe.get(f'{role}_spans', []))} ({probe.get(f'n_{role}_trs')} TRs used)"
    yield (
        f"[low, high]: 95 % interval, block bootstrap over time within the scored stories, {boot.get('block_trs')}-TR"
        f" blocks, {boot.get('n_bootstraps')} draws, seed {boot.get('seed')}, widened for the number of blocks; it says"
        " nothing about other stories or people"
    )


def _formulas(summary: Mapping[str, Any], shown: Mapping[str, str]) -> Iterator[str]:
    """Each formula once, under the name that its rows begin with."""
    said = set()
    for metric, label in shown.items():
        name = metric if metric in summary["formulas"] else metric.partition("_")[0]
        if name in summary["formulas"] and name not in said:
            said.add(name)
            yield f"{label if name == metric else name}: {summary['formulas'][name]}"


# --- html
# Small pieces of a page that needs nothing from the network.


DASH = "\N{EN DASH}"
CSS = """
:root{--ink:#1F2733;--faint:#667080;--rule:#E3E6EB;--paper:#fff;--ground:#F5F6F8;--after:#C8385A;--before:#A3A9B3}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);line-height:1.55;font-size:15.5px;
 font-family:Inter,-apple-system,"Segoe UI","Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 24px 64px}
header.card{background:linear-gradient(135deg,#1F2733,#2C3A52);color:#fff;border-radius:14px;padding:28px 32px}
header h1{font-size:24px;margin:0 0 4px;letter-spacing:-.01em}
header .meta{color:#B9C2D0;font-size:13.5px}
header .headline{margin:18px 0 0;padding:0;list-style:none;font-size:16.5px}
header .headline li{margin:8px 0}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:20px}
.tile{background:rgba(255,255,255,.09);border-radius:10px;padding:12px 16px;min-width:170px;flex:1}
.tile .what{font-size:12px;color:#B9C2D0;text-transform:uppercase;letter-spacing:.05em}
.tile .number{font-size:25px;font-weight:650;white-space:nowrap;font-variant-numeric:tabular-nums}
.tile .small{font-size:12.5px;color:#D4DAE4}
.badge{display:inline-block;border-radius:99px;padding:2px 11px;font-size:12.5px;font-weight:600;margin-right:6px}
.badge.control{background:#F4C95D;color:#3b2f05}.badge.plain{background:rgba(255,255,255,.16);color:#fff}
section.card{background:var(--paper);border:1px solid var(--rule);border-radius:14px;padding:22px 28px;margin-top:18px}
h2{font-size:18.5px;margin:0 0 10px;letter-spacing:-.01em}h3{font-size:15px;margin:18px 0 6px}
figure{margin:10px 0 4px}figure img{max-width:100%;height:auto;display:block;margin:0 auto}
figcaption,.note{color:var(--faint);font-size:13px;margin-top:8px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:13.5px;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--faint);font-weight:600;border-bottom:2px solid var(--rule);padding:6px 10px 6px 0}
td{border-bottom:1px solid var(--rule);padding:5px 10px 5px 0;vertical-align:top}
th.num,td.num{text-align:right}.ci{color:var(--faint);font-size:12px;white-space:nowrap}
tr.focus td{background:#FBF1F3;font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0;font-size:14px}
dt{color:var(--faint)}dd{margin:0;overflow-wrap:anywhere}
details summary{cursor:pointer;color:var(--faint);font-size:13.5px;margin-top:8px}
pre{background:var(--ground);padding:12px;border-radius:8px;font-size:12px;overflow:auto;max-height:380px}
.limits li{margin:6px 0}
@media print{body{background:#fff}section.card,header.card{break-inside:avoid}}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page with its style inside."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A titled card; empty parts are left out."""
    return f'<section class="card"><h2>{escape(title)}</h2>\n' + "\n".join(p for p in parts if p) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def bullets(texts: Iterable[str], kind: str = "") -> str:
    """A list of plain texts."""
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def figure_tag(figure: Figure) -> str:
    """The picture inside the page, with its words."""
    kind, data = ("svg+xml", figure.svg) if figure.svg is not None else ("png", figure.png)
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<figure><img src="{address}" alt="{escape(figure.alt, quote=True)}">'
        f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
    )


def facts(pairs: Mapping[str, Any]) -> str:
    """Names and values; None and empty ones are left out."""
    shown = {name: value for name, value in pairs.items() if value not in (None, "", [], {})}
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in shown.items()) + "</dl>"


def table(heads: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], n_text: int = 1) -> str:
    """A table; the first n_text columns are text, the rest numbers (cells are HTML). True marks a row as the focus."""
    head = "".join(f'<th class="{"" if k < n_text else "num"}">{escape(h)}</th>' for k, h in enumerate(heads))
    body = "".join(
        f'<tr class="{"focus" if focus else ""}">'
        + "".join(f'<td class="{"" if k < n_text else "num"}">{cell}</td>' for k, cell in enumerate(cells))
        + "</tr>"
        for cells, focus in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number(score: Mapping[str, Any] | None, signed: bool = False, digits: int = 3) -> str:
    """A value with its interval in small type; a dash where it is not defined."""
    if not score or score.get("value") is None:
        return DASH
    sign = "+" if signed else ""
    text = f"{score['value']:{sign}.{digits}f}"
    if score.get("low") is None:
        return text
    return f'{text} <span class="ci">[{score["low"]:{sign}.{digits}f}, {score["high"]:{sign}.{digits}f}]</span>'


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
        return figure_tag(figures[name]) if name in figures else paragraph(sentences.get(name, ""), "note")

    brains = [name for name in (*figures, *sentences) if name.startswith("brain-")]
    has_scores = bool(summary["scores"])
    body = [
        _header(summary),
        section("What was run", _run_section(summary)),
        section("Alignment with the brain", shown("alignment"), _alignment_table(summary), _by_subject(summary))
        if has_scores
        else "",
        *[_held_out_section(summary, name, part) for name, part in summary.get("held_out", {}).items()],
        section("What explains the responses", shown("partition"), _partition_table(summary))
        if "partition" in figures or "partition" in sentences
        else "",
        _low_level_section(summary),
        section("Noise ceiling", shown("ceilings"), _ceiling_table(summary)) if "ceilings" in figures else "",
        section("Layers", *[shown(name) for name in ("layers", "layer_epochs") if name in figures])
        if {"layers", "layer_epochs"} & set(figures)
        else "",
        section("Learning", shown("learning")) if "learning" in figures else "",
        section("On the cortex", *[shown(name) for name in dict.fromkeys(brains)]) if brains else "",
        section("What this run does not show", bullets(summary["limits"], "limits")),
        section("Warnings", bullets(summary["warnings"])) if summary["warnings"] else "",
        section("Provenance", _provenance(provenance)),
    ]
    run = summary["run"]
    return page(f"{run['experiment']} / {run['id']}", [part for part in body if part])


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
        f"{bullets(summary['headline'], 'headline')}{_tiles(summary)}</header>"
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
    return facts(pairs)


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
            cells = [str(row["n_voxels"]), *_three(row), DASH if up is None else f"{100 * up:.0f} %"]
            rows.append(([escape(region.replace("_", " ")), *cells], region == summary["headline_region"]))
    return table(heads, rows) + paragraph(
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
    return f"<h3>By subject, {escape(region.replace('_', ' '))}</h3>{table(heads, cells)}"


def _subject_words(summary: Mapping[str, Any], name: str) -> str:
    return f"{name} (not tuned on)" if name in not_tuned_on(summary) else name


def _held_out_section(summary: Mapping[str, Any], name: str, part: Mapping[str, Any]) -> str:
    """Alignment with another data set, none of which was tuned on."""
    rows = [row for row in part["scores"] if row["metric"] == "r_backbone"]
    cells = [([escape(row["region"].replace("_", " ")), str(row["n_voxels"]), *_three(row)], False) for row in rows]
    return section(
        f"Held-out data: {name}",
        table(["region", "voxels", "before", "after", "difference"], cells),
        paragraph(
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
    numbers = table(
        ["R² part", "before", "after", "difference"],
        [([escape(row["metric"].replace("partition_", "part: ").replace("r2_", "R² of ")), *_three(row, 4)], False)
         for row in named],
    )  # fmt: skip
    return f"<details><summary>numbers with intervals, {escape(region)}</summary>{numbers}</details>"


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
    return section(
        "How much of it is low-level",
        table(heads, share),
        paragraph(f"Low-level share: {formulas['low_level_share']}. In brackets: 95 % interval.", "note"),
        "<h3>Low-level impact three ways, percent of r lost (before → after)</h3>",
        table(["region", *IMPACTS.values()], impact),
        paragraph(
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
            cells = [escape(region), _arrow(raw, 3), number(ceiling.get("before")), _arrow(ratio, 3)]
            rows.append((cells, region == summary["headline_region"]))
    return table(["region", "r, before → after", "mean ceiling", "r / ceiling, before → after"], rows)


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return paragraph("provenance.json is missing from the run directory.", "note")
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
    return facts(short) + f"<details><summary>provenance.json</summary><pre>{full}</pre></details>"


def _brain(records: Sequence[ProbeRecord]) -> Figure:
    from brainlit.results.brainmap import brain_figure

    first, last = records[0], records[-1]
    vertices = np.asarray(first.vertices, dtype=np.int64)
    return brain_figure(vertices, first.r, last.r if last.epoch > first.epoch else None, first.subject)


def _three(row: Mapping[str, Any], digits: int = 3) -> list[str]:
    before, after = (number(row.get(stage), digits=digits) for stage in ("before", "after"))
    return [before, after, number(row.get("difference"), signed=True, digits=digits)]


def _arrow(row: Mapping[str, Any] | None, digits: int = 1) -> str:
    known = [(row or {}).get(stage, {}).get("value") for stage in ("before", "after")]
    return " → ".join(f"{value:.{digits}f}" for value in known if value is not None) or DASH
