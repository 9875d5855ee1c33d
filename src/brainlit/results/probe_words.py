"""How reports and methods say what a probe did: its bands, how these reach the volumes, rows, voxels, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainlit.results.members import members_said
from brainlit.results.record import folds_said
from brainlit.results.style import band_label


def bands_said(probe: Mapping[str, Any]) -> str | None:
    """The feature spaces of each band; None for those of a probe for which nobody chose any."""
    of_band = (probe.get("bands") or {}).items()
    return "; ".join(f"{band_label(band)}: {', '.join(spaces) or 'nothing'}" for band, spaces in of_band) or None


def time_of_bands_said(probe: Mapping[str, Any]) -> str | None:
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


def interval_said(probe: Mapping[str, Any]) -> str | None:
    """How intervals are made; None where there are none."""
    boot, folds = probe.get("bootstrap"), probe.get("folds")
    if not boot:
        return None
    blocks = f"{boot['block_trs']}-TR blocks or longer" if boot.get("block_trs") else "blocks"
    draws = [f"{boot['n_bootstraps']} draws"] if boot.get("n_bootstraps") else []
    draws += [f"seed {boot['seed']}"] if boot.get("seed") is not None else []
    shared = ", and for the rows that the fits of the folds share" if folds else ""
    return (
        f"95 % intervals: block bootstrap over time, {blocks} drawn within each held-out"
        f" {', '.join(['fold' if folds else 'story', *draws])}, widened for the number of blocks and what their borders"
        f" hide{shared}; before and after share the draws"
    )


def voxels_said(name: str, facts: Mapping[str, Any]) -> str:
    """Voxels of a subject: used, dropped and left out, and how often the scored stories were heard."""
    fewest, most = facts.get("n_repeats"), facts.get("most_repeats")
    repeats = f"{fewest} to {most}" if fewest and most and most > fewest else fewest
    heard = f"{repeats} repeats" if repeats else "no repeats"
    heard = f"mean of {members_said(facts)}" if facts.get("members") else heard
    words = f"{name}: {facts.get('n_used')} of {facts.get('n_voxels')} ({facts.get('n_dropped', 0)} dropped as constant"
    left_out = f", {facts['n_left_out']} left out to save time" if facts.get("n_left_out") else ""
    return words + f" or missing{left_out}), {heard}"


def spans_said(probe: Mapping[str, Any], role: str) -> str | None:
    """What encoding models were fitted on, or what was scored, with its rows; None where it is not known."""
    spans = probe.get(f"{role}_spans")
    if folds := folds_said(probe):
        return f"{', '.join(spans or ())} ({folds})" if role == "score" else None
    return f"{', '.join(spans)} ({probe.get(f'n_{role}_trs')} TRs used)" if spans else None
