"""What a run is called in W&B, and the names of its numbers there: plain values, without W&B itself.

probe/<stage>/<region>/layer-<k>/<measure>   one number of a probe (probe/<name>/... of held-out data)
headline/<claim>/<part>                      one number of the run's result, which a table of runs sorts by
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from brainlit.results.group import group_keys, group_score, of_tables
from brainlit.results.record import ProbeRecord
from brainlit.results.run_directory import PROVENANCE_FILE, RunDirectory, read_json_if_there
from brainlit.results.scores import ALL_VOXELS
from brainlit.results.summary import find_score, regions_of

MEASURES = ("r_backbone", "r_over_ceiling", "low_level_share", "r_joint", "r2_backbone", "ceiling")
"""What loggers are given of a probe, the most telling first."""
MOST_SCALARS = 40
"""Scalars that W&B is given of a probe, its epoch among them, where nothing else was asked for."""
PROBE_EPOCH = "probe/epoch"
"""The axis of all numbers of probes."""
COMPARED_WITH = ("auditory", "null")
"""Regions whose alignment stands beside the headline's."""
_LONGEST_TAG, _LONGEST_ID = 64, 40


# --- Runs ---


def run_name(config: Mapping[str, Any]) -> str:
    """Family, regime and seed; weights, presets and subjects where they are not the default.

    Parameters
    ----------
    config : mapping
        The resolved configuration of `brainlit fit`, and the files that it was merged from under `config_files`.

    >>> config = {"model": {"backbone": {"family": "wav2vec", "weights": "tiny"}}, "data": {"regime": "brain"}}
    >>> run_name({**config, "seed_everything": 0})
    'wav2vec-brain-s0'
    """
    backbone, weights = _backbone(config)
    files = [PurePath(said.partition(" (")[0]) for said in config.get("config_files") or []]
    presets = [path.stem for path in files if path.parent.name == "paper"]
    parts = [backbone, *([] if weights in ("", "tiny") else [weights]), _regime(config), *presets]
    subjects = (config.get("data") or {}).get("subjects") or []
    if subjects:
        parts.append("+".join(map(str, subjects)) if len(subjects) < 4 else f"{len(subjects)}-subjects")
    return "-".join([*filter(None, parts), f"s{_seed(config)}"])


def run_tags(config: Mapping[str, Any], code: Mapping[str, Any]) -> list[str]:
    """Family, weights, regime, data set and the state of the code, each where it is known.

    Parameters
    ----------
    code : mapping
        As `git_state` says it.
    """
    backbone, weights = _backbone(config)
    tags = [backbone, weights, _regime(config), data_set(config)]
    if code.get("dirty") is not None:
        tags.append(f"git-{str(code['revision'])[:7]}{'-dirty' if code['dirty'] else ''}")
    return list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags if tag))


def data_set(config: Mapping[str, Any]) -> str:
    """A word for the data set: its class, or the folder of its manifest.

    >>> data_set({"data": {"source": {"class_path": "brainlit.stories.lebel2023.LebelSource"}}})
    'lebel'
    """
    source = (config.get("data") or {}).get("source") or {}
    while "source" in (source.get("init_args") or {}):  # a group of the subjects of another data set
        source = source["init_args"]["source"] or {}
    kind = str(source.get("class_path") or "").rpartition(".")[2].removesuffix("Source").lower()
    path = (source.get("init_args") or {}).get("path")
    return PurePath(str(path)).parent.name or kind if kind == "manifest" and path else kind


def wandb_id(run: RunDirectory) -> str:
    """The id of a run (or of a probe's folder) in W&B: the same whenever it is gone on with, another in other folders.

    The run's own name is not enough: two laboratories may call a run `first` in one project, and W&B would go on with
    the other's. When it was first started tells them apart.
    """
    starts = run.status.get("starts") or [read_json_if_there(run.path / PROVENANCE_FILE).get("written")]
    digest = hashlib.sha256(f"{run.experiment}/{run.run_id} {starts[0]}".encode()).hexdigest()
    return f"{run.run_id[:_LONGEST_ID]}-{digest[:8]}"


def _backbone(config: Mapping[str, Any]) -> tuple[str, str]:
    backbone = (config.get("model") or {}).get("backbone") or {}
    weights = Path(str(backbone.get("weights") or "")).name
    return str(backbone.get("family") or ""), weights.replace(":", "-").replace("@", "-")


def _regime(config: Mapping[str, Any]) -> str:
    if (config.get("trainer") or {}).get("max_epochs") == 0:
        return "pretrained"
    return str((config.get("data") or {}).get("regime") or "")


def _seed(config: Mapping[str, Any]) -> Any:
    return config.get("seed_everything", 0)


# --- Numbers ---


def probe_prefix(name: str | None) -> str:
    """What the names of a probe's numbers begin with."""
    return "probe" if name is None else f"probe/{name}"


def probe_scalars(records: Sequence[ProbeRecord], name: str | None = None) -> dict[str, float]:
    """The finite main numbers of a probe, of all subjects together, the most telling first.

    That is: of the compared layer before all others; alignment of every region before the next measure; and the region
    of the headline before the others. The order does not depend on the numbers, so two probes show the same.

    Parameters
    ----------
    records : sequence of ProbeRecord
        Of one probe, one per subject.
    name : str, optional
        Of the held-out data set.
    """
    first, tables = records[0], {record.subject: record.table for record in records}
    keys = [key for key in group_keys(tables.values()) if key[2] in MEASURES]
    regions = list(dict.fromkeys(region for region, _, _ in keys))
    telling = dict.fromkeys((first.facts.get("headline_region"), "semantic", *COMPARED_WITH, ALL_VOXELS, *regions))
    rank = {region: k for k, region in enumerate(telling)}
    keys.sort(key=lambda key: (key[1] != first.layer, MEASURES.index(key[2]), rank[key[0]], key[1]))
    values: dict[str, float] = {}
    for region, layer, metric in keys:
        found = group_score(metric, of_tables(tables, region, layer))
        if found is not None and math.isfinite(found.score.value):
            place = f"{first.stage}/{region.replace(' ', '_')}/layer-{layer}/{metric}"
            values[f"{probe_prefix(name)}/{place}"] = found.score.value
    return values


def headline_scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """headline/<claim>/<part>: before, after, difference and its 95 % interval, as far as they are known.

    Claims are alignment, alignment_over_ceiling and low_level_share of the headline's region, and the alignment of the
    regions that it is compared with. A trial run has none.
    """
    if summary["run"].get("trial"):
        return {}
    region, regions = str(summary.get("headline_region")), regions_of(summary)
    claims = {
        "alignment": (region, "r_backbone"),
        "alignment_over_ceiling": (region, "r_over_ceiling"),
        "low_level_share": (region, "low_level_share"),
        **{f"alignment_{other}": (other, "r_backbone") for other in COMPARED_WITH if other in regions},
    }
    found: dict[str, float | None] = {}
    for claim, place in claims.items():
        row = find_score(summary, *place) or {}
        for stage in ("before", "after", "difference"):
            found[f"headline/{claim}/{stage}"] = row.get(stage, {}).get("value")
        for bound in ("low", "high"):
            found[f"headline/{claim}/difference_{bound}"] = row.get("difference", {}).get(bound)
    return {key: float(value) for key, value in found.items() if value is not None}
