"""What W&B shows of a project: one plan, from the names that its runs log, for a workspace and for a report.

The plan is plain values (`plan_dashboard`), so that it can be printed and tested without an account. wandb-workspaces
turns it into W&B's own (`workspace_of`, `report_of`); it is imported only there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brainlit.results.run_directory import RunDirectory

NAME = "brainlit"
STEP, PROBE_TABLE, REGIME = "trainer/global_step", "probe/table", "data.regime"
CLAIMS = {
    "alignment": "Alignment (r) of the headline's region",
    "alignment_over_ceiling": "Alignment over the noise ceiling",
    "low_level_share": "Share of what sound alone predicts",
    "alignment_auditory": "Alignment (r) of auditory voxels",
    "alignment_null": "Alignment (r) of voxels that follow nothing",
}
"""The five results, in the order in which a report gives them."""
STAGES = ("before", "after")
ENDS = ("_low", "", "_high")
"""The 95 % interval of a change, with the change in the middle."""
COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 3, 8, 6
"""Panels beside each other, and the size of one: W&B's page is 24 units wide."""
_LAYER = re.compile(r"probe/(before|after)/([^/]+)/layer-(\d+)/r_backbone")
_LOSS, _RATE, _FIGURE = re.compile(r"train/\w+_epoch$|val/"), re.compile("lr-"), re.compile("figures/")
_DRIFT = re.compile(r"drift/(\w+)/layer-(\d+)")


@dataclass(frozen=True)
class Panel:
    """One panel.

    Parameters
    ----------
    kind : str
        bars: one bar a key and run, of the summary; regimes: the mean of the runs of each regime; lines: keys over `x`;
        media: pictures and pages; table.
    title : str
    keys : tuple of str
        What runs log.
    x : str
        Of lines: the key of the axis.
    """

    kind: Literal["bars", "regimes", "lines", "media", "table"]
    title: str
    keys: tuple[str, ...]
    x: str = ""


@dataclass(frozen=True)
class Section:
    """Panels under one heading, with words on how to read them."""

    title: str
    words: str
    panels: tuple[Panel, ...]


def logged_keys(folders: Iterable[Path]) -> set[str]:
    """The names under which W&B has something of these runs, read from their folders.

    Numbers and tables are in the journal of rows, pictures in figures/.

    Raises
    ------
    RunError
        If a folder is no run.
    """
    from brainlit.results.wandb_logger import FOLDER, JOURNAL_FILE, RowJournal

    keys: set[str] = set()
    for folder in folders:
        run = RunDirectory.open(folder)
        rows = RowJournal(run.path / FOLDER / JOURNAL_FILE).read()
        keys.update(key for row in rows for key in row)
        if any(key.startswith("headline/") for row in rows for key in row):
            keys.update(f"figures/{path.stem}" for path in run.figures.glob("*.png"))
            keys.add("report")
    return keys


def plan_dashboard(keys: Collection[str]) -> list[Section]:
    """The sections of a dashboard; panels name only keys that are there, and sections without a panel are left out.

    Parameters
    ----------
    keys : collection of str
        What runs of the project log.
    """
    losses, rates, figures = (tuple(key for key in sorted(keys) if kind.match(key)) for kind in (_LOSS, _RATE, _FIGURE))
    planned = [
        (
            "Five results",
            "After minus before tuning, with the ends of the 95 % interval, on the stories that are only scored. Do not"
            " choose settings by them: val/loss is of the stories that choose.",
            [
                Panel("bars", f"{title}: change, 95 % interval", _change(claim, *ENDS))
                for claim, title in CLAIMS.items()
            ],
        ),
        (
            "Regimes side by side",
            "The mean over the runs of each regime; the whisker goes from the lowest run to the highest. It is no"
            " interval: brainlit compare judges regimes over seeds.",
            [Panel("regimes", f"{title}: change", _change(claim, "")) for claim, title in CLAIMS.items()],
        ),
        (
            "Layers by regions",
            "r of held-out stories for each layer that W&B was given (at most 40 scalars a probe; the table has all).",
            [*_layer_panels(keys), Panel("table", "All numbers of the last probe", (PROBE_TABLE,))],
        ),
        (
            "Training",
            "Losses and learning rates over optimiser steps, and how far layers have moved from where they began.",
            [
                Panel("lines", "Losses", losses, STEP),
                Panel("lines", "Learning rates", rates, STEP),
                *_drift_panels(keys),
            ],
        ),
        (
            "Figures and reports",
            "The figures of each report, and the report itself.",
            [Panel("media", "Figures", figures), Panel("media", "Report", ("report",))],
        ),
    ]
    sections = [Section(title, words, _present(keys, panels)) for title, words, panels in planned]
    return [section for section in sections if section.panels]


def workspace_of(sections: Sequence[Section], entity: str, project: str) -> Any:
    """The plan as a Workspace of wandb-workspaces, which lists the runs and sorts them by their alignment."""
    import wandb_workspaces.workspaces as ws

    claims = [key for section in sections for panel in section.panels if panel.kind == "regimes" for key in panel.keys]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=section.title, panels=[_panel(panel) for panel in section.panels], is_open=True)
            for section in sections
        ],
        runset_settings=ws.RunsetSettings(pinned_columns=["run:displayName", *(f"summary:{key}" for key in claims)]),
    )


def report_of(sections: Sequence[Section], entity: str, project: str) -> Any:
    """The plan as a Report of wandb-workspaces: each section with its words."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for section in sections:
        panels = [_panel(panel) for panel in section.panels]
        for k, panel in enumerate(panels):
            x, y = k % COLUMNS * PANEL_WIDTH, k // COLUMNS * PANEL_HEIGHT
            panel.layout = wr.Layout(x=x, y=y, w=PANEL_WIDTH, h=PANEL_HEIGHT)
        runs = wr.Runset(entity=entity, project=project, name="Runs")
        blocks += [wr.H1(section.title), wr.P(section.words), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{NAME}: {project}",
        description="Made by brainlit dashboard.",
        blocks=blocks,
    )


def spec_of(made: Any) -> dict[str, Any]:
    """What W&B is sent of a workspace or a report, as JSON."""
    spec: dict[str, Any] = json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    return spec


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    keys = list(panel.keys)
    if panel.kind == "bars":
        return wr.BarPlot(title=panel.title, metrics=keys)
    if panel.kind == "regimes":
        by = wr.Config(REGIME)
        return wr.BarPlot(
            title=panel.title, metrics=keys, groupby=by, groupby_aggfunc="mean", groupby_rangefunc="minmax"
        )
    if panel.kind == "lines":
        return wr.LinePlot(title=panel.title, x=panel.x, y=keys)
    if panel.kind == "table":
        return wr.WeavePanelSummaryTable(table_name=keys[0])
    return wr.MediaBrowser(title=panel.title, media_keys=keys)


def _change(claim: str, *ends: str) -> tuple[str, ...]:
    return tuple(f"headline/{claim}/difference{end}" for end in ends)


def _present(keys: Collection[str], panels: Iterable[Panel]) -> tuple[Panel, ...]:
    """Panels with the keys that are there; none without any."""
    found = (Panel(one.kind, one.title, tuple(key for key in one.keys if key in keys), one.x) for one in panels)
    return tuple(panel for panel in found if panel.keys and (not panel.x or panel.x in keys))


def _layer_panels(keys: Collection[str]) -> Iterable[Panel]:
    """One panel a region and stage: r of its layers, from below."""
    matches = [match for match in map(_LAYER.fullmatch, keys) if match]
    for region in sorted({match[2] for match in matches}):
        for stage in STAGES:
            layers = sorted(int(match[3]) for match in matches if (match[1], match[2]) == (stage, region))
            named = tuple(f"probe/{stage}/{region}/layer-{layer}/r_backbone" for layer in layers)
            if named:
                yield Panel("bars", f"{region.replace('_', ' ')}, {stage} tuning: r by layer", named)


def _drift_panels(keys: Collection[str]) -> Iterable[Panel]:
    matches = [match for match in map(_DRIFT.fullmatch, keys) if match]
    for measure in sorted({match[1] for match in matches}):
        layers = sorted(int(match[2]) for match in matches if match[1] == measure)
        named = tuple(f"drift/{measure}/layer-{layer}" for layer in layers)
        yield Panel("lines", f"Drift by layer: {measure.replace('_', ' ')}", named, STEP)
