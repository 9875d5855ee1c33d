"""What a dashboard of W&B shows: only what runs log; and wandb-workspaces makes the same of it."""

from __future__ import annotations

from typing import Any

import pytest

from brainlit.results.dashboard import REGIME, Section, plan_dashboard, spec_of, workspace_of

CLAIMS = ("alignment", "alignment_over_ceiling", "low_level_share", "alignment_auditory", "alignment_null")
KEYS = {
    *(f"headline/{claim}/{part}" for claim in CLAIMS for part in ("before", "after", "difference")),
    *(f"headline/alignment/difference_{bound}" for bound in ("low", "high")),
    *(f"probe/{stage}/semantic/layer-{k}/r_backbone" for stage in ("before", "during", "after") for k in (10, 2, 1)),
    *(
        "probe/after/all_voxels/layer-4/r_backbone",
        "probe/after/all_voxels/layer-4/ceiling",
        "probe/epoch",
        "probe/table",
    ),
    *("train/loss_step", "train/loss_epoch", "val/loss", "lr-head", "drift/cka/layer-1", "trainer/global_step"),
    *("figures/layers", "report", "my/own"),
}


def named(sections: list[Section]) -> dict[str, list[tuple[str, ...]]]:
    return {section.title: [panel.keys for panel in section.panels] for section in sections}


def test_the_five_results_and_the_layers_from_below() -> None:
    found = named(plan_dashboard(KEYS))
    assert found["Five results"] == [
        tuple(f"headline/alignment/difference{part}" for part in ("_low", "", "_high")),
        *((f"headline/{claim}/difference",) for claim in CLAIMS[1:]),
    ]
    assert found["Regimes side by side"] == [(f"headline/{claim}/difference",) for claim in CLAIMS]
    assert found["Layers by regions"] == [
        ("probe/after/all_voxels/layer-4/r_backbone",),
        tuple(f"probe/before/semantic/layer-{k}/r_backbone" for k in (1, 2, 10)),
        tuple(f"probe/after/semantic/layer-{k}/r_backbone" for k in (1, 2, 10)),
        ("probe/table",),
    ]
    assert found["Training"] == [("train/loss_epoch", "val/loss"), ("lr-head",), ("drift/cka/layer-1",)]
    assert found["Figures and reports"] == [("figures/layers",), ("report",)]


@pytest.mark.parametrize("gone", sorted(KEYS))
def test_what_is_not_logged_is_in_no_panel(gone: str) -> None:
    sections = plan_dashboard(KEYS - {gone})
    keys = {key for section in sections for panel in section.panels for key in (*panel.keys, panel.x) if key}
    assert keys <= KEYS - {gone}


def test_without_numbers_of_ours_there_is_nothing_to_show() -> None:
    assert plan_dashboard({"my/own", "epoch"}) == []


def values(spec: Any, name: str) -> list[Any]:
    """All values under a name, at any depth, in order."""
    if isinstance(spec, dict):
        return [found for key, one in spec.items() for found in ([one] if key == name else values(one, name))]
    return [found for one in spec for found in values(one, name)] if isinstance(spec, list) else []


def test_the_workspace_of_wandb_has_the_panels_of_the_plan() -> None:
    """A report has the same panels, and cannot be built without a login."""
    pytest.importorskip("wandb_workspaces", reason="make installs it, with the extra dashboard")
    sections = plan_dashboard(KEYS)
    panels = [panel for section in sections for panel in section.panels]
    spec = spec_of(workspace_of(sections, "lab", "stories"))
    drawn = [[key.removeprefix("summary:") for key in keys] for keys in values(spec, "metrics")]
    assert drawn == [list(panel.keys) for panel in panels if panel.kind in ("bars", "regimes", "lines")]
    assert values(spec, "mediaKeys") == [list(panel.keys) for panel in panels if panel.kind == "media"]
    axes = [axis for axis in values(spec, "xAxis") if axis != "_step"]  # which W&B writes for bars, too
    assert axes == [panel.x for panel in panels if panel.kind == "lines"]
    first, *rest = REGIME.split(".")
    assert [by for by in values(spec, "groupBy") if by not in (None, "None")] == [".".join([first, "value", *rest])] * 5
    assert "probe/table" in str(spec)
    assert all(section.title in str(spec) for section in sections)
