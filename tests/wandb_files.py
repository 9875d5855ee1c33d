"""Read W&B's offline files back: what a run would be on the server."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32_768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What one .wandb file says.

    Parameters
    ----------
    run : RunRecord
        Id, name, group, job type, tags, notes, git.
    rows : list of dict
        The history, in order.
    summary : dict
        The last value of each key.
    config : dict
    axes : dict
        Key -> the metric that it is drawn over.
    artifacts : list of (name, type, aliases, files)
    console : str
    """

    run: Any = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    artifacts: list[tuple[str, str, list[str], list[str]]] = field(default_factory=list)
    console: str = ""


def read_offline(path: Path) -> OfflineRun:
    """Read a .wandb file."""
    from wandb.proto import wandb_internal_pb2 as proto

    found = OfflineRun()
    for data in _records(path.read_bytes()):
        record = proto.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            found.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            found.rows.append({})
            for item in record.history.item:
                _put(found.rows[-1], item)
        elif kind == "summary":
            for item in record.summary.update:
                _put(found.summary, item)
        elif kind == "metric":
            found.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact" or (kind == "request" and record.request.HasField("log_artifact")):
            artifact = record.artifact if kind == "artifact" else record.request.log_artifact.artifact
            files = sorted(entry.path for entry in artifact.manifest.contents)
            found.artifacts.append((artifact.name, artifact.type, list(artifact.aliases), files))
        elif kind in ("output", "output_raw"):
            found.console += getattr(record, kind).line
    return found


def _put(values: dict[str, Any], item: Any) -> None:
    """Set a value, which may lie in a dictionary: those of pictures and tables are given part by part."""
    *above, name = [item.key] if item.key else item.nested_key
    for part in above:
        values = values.setdefault(part, {})
    values[name] = json.loads(item.value_json)


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's framing, after the header; what was cut short at the end is left out."""
    assert data[:4] == b":W&B"
    at, parts = HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind not in (FULL, FIRST, MIDDLE, LAST):
            return
        parts = (
            data[at + HEADER : at + HEADER + length] if kind in (FULL, FIRST) else parts + data[at + HEADER :][:length]
        )
        at += HEADER + length
        if kind in (FULL, LAST):
            yield parts
