"""The repository of SLURP with its sounds: dataset/slurp with tables and metadata, audio/slurp_real and slurp_synth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.layouts.speech import write_lines, write_speech

Row = tuple[int, str, str, str, dict[str, float | None]]
REQUESTS: dict[str, list[Row]] = {
    "train": [
        (
            4489,
            "wake me up at eight o'clock",
            "alarm",
            "set",
            {"audio-15-headset": 0.2, "audio-15": 0.0, "audio-16": 0},
        ),
        (16421, "how many unread emails do i have", "email", "query", {"audio-17-headset": 0.0}),
        (13804, "what is one dollar in yen", "qa", "currency", {"audio--18": 0.5, "audio--18-headset": None}),
    ],
    "devel": [(4318, "wake me up at ten", "alarm", "set", {"audio-20": 0.1})],
    "test": [
        (3843, "Wake me up at eight o'clock", "alarm", "set", {"audio-30-headset": 0.0, "audio-30": 0.4}),
        (3296, "order me chinese food", "takeaway", "order", {"audio-31": 0.0}),
        (7000, "any new mail", "email", "query", {"audio-32": 0.0}),
    ],
    "train_synthetic": [(90000, "order me a pizza", "takeaway", "order", {"synth-1": 0.0})],
}
ODD_INTENT = 7000
SPEAKERS = {"audio-15.flac": "FO-460", "audio-30-headset.flac": "UNK-323"}


def write_slurp(root: Path) -> None:
    """Write tables, metadata and sounds; one request calls its intent otherwise than by scenario and action."""
    tables = root / "dataset" / "slurp"
    for name, rows in REQUESTS.items():
        write_lines(tables / f"{name}.jsonl", [json.dumps(_entry(*row)) for row in rows])
        for *_, sounds in rows:
            for sound in sounds:
                folder = "slurp_synth" if name == "train_synthetic" else "slurp_real"
                write_speech(root / "audio" / folder / f"{sound}.flac")
    entry = {"recordings": {name: {"usrid": who, "status": "correct"} for name, who in SPEAKERS.items()}}
    (tables / "metadata.json").write_text(json.dumps({"4489": entry}))


def _entry(number: int, sentence: str, scenario: str, action: str, sounds: dict[str, float | None]) -> dict[str, Any]:
    recordings = [{"file": f"{name}.flac", "wer": rate, "ent_wer": None, "status": "correct"}
                  for name, rate in sounds.items()]  # fmt: skip
    intent = "query" if number == ODD_INTENT else f"{scenario}_{action}"
    return {"slurp_id": number, "sentence": sentence, "sentence_annotation": sentence, "intent": intent,
            "action": action, "tokens": [], "scenario": scenario, "recordings": recordings, "entities": []}  # fmt: skip
