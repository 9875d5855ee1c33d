"""The HCP-MMP1 parcellation (Glasser et al. 2016, doi:10.1038/nature18933): its areas, and the groups papers score.

Two lists of language groups are published for brain-tuned speech models, and they differ: 'paper' is table A.1 of
arXiv 2510.21520, 'code' is what the code of that paper scores. A score can only be compared with another of the same
variant, so the variant is always named. docs/regions.md shows both as a table.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from brainlit.hints import did_you_mean, nearest
from brainlit.stories.base import BoolArray, SourceError

_AREAS = (
    "V1 MST V6 V2 V3 V4 V8 4 3b FEF PEF 55b V3A RSC POS2 V7 IPS1 FFC V3B LO1 LO2 PIT MT A1 PSL SFL PCV STV 7Pm 7m "
    "POS1 23d v23ab d23ab 31pv 5m 5mv 23c 5L 24dd 24dv 7AL SCEF 6ma 7Am 7PL 7PC LIPv VIP MIP 1 2 3a 6d 6mp 6v "
    "p24pr 33pr a24pr p32pr a24 d32 8BM p32 10r 47m 8Av 8Ad 9m 8BL 9p 10d 8C 44 45 47l a47r 6r IFJa IFJp IFSp "
    "IFSa p9-46v 46 a9-46v 9-46d 9a 10v a10p 10pp 11l 13l OFC 47s LIPd 6a i6-8 s6-8 43 OP4 OP1 OP2-3 52 RI PFcm "
    "PoI2 TA2 FOP4 MI Pir AVI AAIC FOP1 FOP3 FOP2 PFt AIP EC PreS "  # codespell:ignore pres
    "H ProS PeEc STGa PBelt A5 PHA1 PHA3 STSda STSdp "
    "STSvp TGd TE1a TE1p TE2a TF TE2p PHT PH TPOJ1 TPOJ2 TPOJ3 DVT PGp IP2 IP1 IP0 PFop PF PFm PGi PGs V6A VMV1 "
    "VMV3 PHA2 V4t FST V3CD LO3 VMV2 31pd 31a VVC 25 s32 pOFC PoI1 Ig FOP5 p10p p47r TGv MBelt LBelt A4 STSva "
    "TE1m PI a32pr p24"
)
HCP_AREAS: tuple[str, ...] = tuple(_AREAS.split())
"""The 180 areas of one hemisphere, in the order of their numbers; files call them 'L_A1_ROI' and 'R_A1_ROI'."""

_PAPER = {
    "AG": ("PFm", "PGs", "PGi", "TPOJ2", "TPOJ3"),
    "LTC": ("STSda", "STSva", "STGa", "TE1a", "TE2a", "TGv", "TGd", "A5", "STSdp", "STSvp", "PSL", "STV", "TPOJ1"),
    "IFG": ("44", "45", "IFJa", "IFSp"),
    "MFG": ("55b",),
}
_CODE = {
    "AG": ("PGi", "PGp", "PGs", "TPOJ2", "TPOJ3"),
    "LTC": ("TPOJ1", "STGa", "STSda", "STSdp", "A5", "STSva"),
    "IFG and MFG": ("44", "45", "IFJa", "IFSp"),
}
_AUDITORY = {"A1": ("A1",), "early auditory": ("A1", "PBelt", "MBelt", "LBelt", "RI", "A4")}

HCP_GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "paper": {"late language": tuple(area for areas in _PAPER.values() for area in areas), **_PAPER, **_AUDITORY},
    "code": {
        "late language": (*(area for areas in _CODE.values() for area in areas), "TA2"),
        **_CODE,
        **_AUDITORY,
        "early visual": ("V1", "V2"),
        "VWFA": ("PH", "TE2p"),
    },
}
"""Variant -> group -> areas. 'code' has its late-language list, which is its groups and TA2, and two visual groups."""

_SIDES = ("", " left", " right")


def check_variant(variant: str) -> dict[str, tuple[str, ...]]:
    """The groups of a variant; SourceError with the nearest name if there is none."""
    if variant not in HCP_GROUPS:
        raise SourceError(f"there are no region groups {variant!r}. {did_you_mean(variant, HCP_GROUPS)}")
    return HCP_GROUPS[variant]


def grouped(regions: Mapping[str, BoolArray], variant: str) -> dict[str, BoolArray]:
    """Masks of the groups of a variant; 'AG left' and 'AG right' too where all areas of AG are given per side.

    Parameters
    ----------
    regions : mapping of area name to bool array of shape (n_voxels,)
        All areas that the groups need ('A1'; capital or small letters), and their sides if known ('A1 left').

    Raises
    ------
    SourceError
        If the variant is unknown, or areas are missing; it names all of them and the nearest names there are.
    """
    groups = check_variant(variant)
    known = {name.lower(): mask for name, mask in regions.items()}
    lacking = sorted({area for areas in groups.values() for area in areas if area.lower() not in known})
    if lacking:
        raise SourceError(
            f"the regions lack {len(lacking)} areas of the HCP-MMP1 groups {variant!r}:"
            f" {', '.join(_with_nearest(area, regions) for area in lacking)}. The groups need the HCP-MMP1 parcellation"
            " (180 areas per hemisphere); leave `groups` out for another one."
        )
    masks = {}
    for group, areas in groups.items():
        for side in _SIDES:
            parts = [known.get(f"{area}{side}".lower()) for area in areas]
            found = [part for part in parts if part is not None]
            if len(found) == len(parts):
                masks[group + side] = np.logical_or.reduce(found)
    return masks


def _with_nearest(area: str, regions: Mapping[str, BoolArray]) -> str:
    near = nearest(area, regions)
    return f"{area} (nearest: {near})" if near else area
