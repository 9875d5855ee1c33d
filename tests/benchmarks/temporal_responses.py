"""What each temporal choice can follow of a voxel's response: `python -m tests.benchmarks.temporal_responses`.

Three voxels as the demo draws them (early, typical and late peak) and, by least squares, the nearest response that
means per TR at delays of 1 to 4 TRs, the canonical response, and that with its derivatives can take. Draws
docs/images/temporal_responses.svg and prints the share of each response that is followed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainlit.demo.haemodynamics import VoxelResponses
from brainlit.encoding import HaemodynamicResponse

Array = npt.NDArray[np.float64]
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "temporal_responses.svg"
TR_S, READ = 2.0, 0.5
LAGS_S = np.arange(0.0, 30.0, 0.05)
PEAKS_S = {"early (4.2 s)": 4.2, "typical (5.5 s)": 5.5, "late (6.8 s)": 6.8}


def voxel(peak_s: float) -> Array:
    """The response of a voxel of the demo with this peak and middling width and undershoot."""
    one = np.ones(1)
    shape = VoxelResponses(one * peak_s, 0.95 * one * peak_s, 0.15 * one, 9.0 * one)
    return np.asarray(shape.at(LAGS_S)).reshape(-1)


def delayed_means() -> Array:
    """A column for each delay d: how likely an event some lag before the moment of reading lies in the TR d rows back.

    The moment is a part of the TR (READ) after its start; a row d earlier holds lags from (d - 1 + READ) to (d + READ)
    TRs, whatever the place of the event in it.
    """
    inside = [((d - 1 + READ) * TR_S <= LAGS_S) & ((d + READ) * TR_S > LAGS_S) for d in (1, 2, 3, 4)]
    return np.stack(inside, axis=1).astype(np.float64)


def nearest(response: Array) -> dict[str, Array]:
    """The least-squares fit of every choice to a response, (n_lags,) each."""
    h = HaemodynamicResponse()
    canonical = h.at(LAGS_S)[:, None]
    derivatives = np.stack([h.by_onset(LAGS_S), h.by_dispersion(LAGS_S)], axis=1)
    bases = {
        "fir": delayed_means(),
        "hrf": canonical,
        "hrf_derivatives": np.concatenate([canonical, derivatives], axis=1),
    }
    return {name: basis @ np.linalg.lstsq(basis, response, rcond=None)[0] for name, basis in bases.items()}


def followed(response: Array, fit: Array) -> float:
    """Share of the sum of squares that a fit follows."""
    return float(1 - np.square(response - fit).sum() / np.square(response).sum())


def draw(path: Path) -> None:
    """A panel for each voxel."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"svg.hashsalt": "responses", "font.size": 8}):
        figure, panels = plt.subplots(1, len(PEAKS_S), figsize=(9, 2.6), sharey=True, layout="constrained")
        for panel, (title, peak_s) in zip(panels, PEAKS_S.items(), strict=True):
            response = voxel(peak_s)
            panel.plot(LAGS_S, response, color="black", lw=2.2, label="voxel")
            for name, fit in nearest(response).items():
                panel.plot(LAGS_S, fit, lw=1.3, label=f"{name} ({followed(response, fit):.0%})")
            panel.set(title=f"peak {title}", xlabel="seconds after an event")
            panel.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    draw(PICTURE)
    for title, peak_s in PEAKS_S.items():
        response = voxel(peak_s)
        print(title, {name: round(followed(response, fit), 3) for name, fit in nearest(response).items()})


if __name__ == "__main__":
    main()
