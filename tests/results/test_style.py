"""Colours as people with each kind of colour blindness, and a printer without colours, see them."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from urllib.parse import quote

import numpy as np
import pytest

from brainlit.comparison.claims import NOT_SUPPORTED, SUPPORTED
from brainlit.comparison.figures import CATEGORY_MARKS
from brainlit.comparison.report import VERDICT_COLOURS
from brainlit.encoding.partition import part_name, subsets
from brainlit.results.style import (
    BAND_COLOURS,
    CATEGORY_COLOURS,
    CEILING_COLOUR,
    DIVERGING,
    FAINT,
    INK,
    LOSS_LOOKS,
    NIGHT,
    ON_DARK,
    OTHER_COLOURS,
    PAGE_COLOURS,
    PAGE_COLOURS_AT_NIGHT,
    PAPER,
    REGIME_COLOURS,
    REGIME_MARKS,
    REGION_COLOURS,
    ROOM_COLOURS,
    SEQUENTIAL,
    STAGE_COLOURS,
    Figure,
    draw_figure,
    part_colours,
    part_hatches,
    region_looks,
)

LEAST_DIFFERENCE, LEAST_CONTRAST, LEAST_OF_TEXT = 15.0, 3.0, 4.5
MACHADO_2009 = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB, D65."""


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of linear RGB."""
    t = (TO_XYZ @ rgb) / TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def seen(colour: str) -> dict[str, np.ndarray]:
    rgb = linear(colour)
    found = {"all colours": lab(rgb), "grey": lab(np.full(3, TO_XYZ[1] @ rgb))}
    return found | {kind: lab(np.clip(np.array(m) @ rgb, 0, 1)) for kind, m in MACHADO_2009.items()}


def differences(one: str, other: str) -> dict[str, float]:
    """CIE76 difference to each kind of eye."""
    first, second = seen(one), seen(other)
    return {kind: float(np.linalg.norm(first[kind] - second[kind])) for kind in first}


def contrast(one: str, other: str) -> float:
    """That of WCAG 2.1: 1 to 21."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def too_alike(pairs: Iterable[tuple[str, str]], but: Sequence[str] = ()) -> dict[tuple[str, str, str], float]:
    """Pairs that anybody sees less than LEAST_DIFFERENCE apart, on paper or at night."""
    return {
        (one, other, kind): round(apart, 2)
        for one, other in pairs
        for ours, theirs in ((one, other), (ON_DARK[one], ON_DARK[other]))
        for kind, apart in differences(ours, theirs).items()
        if apart < LEAST_DIFFERENCE and kind not in but
    }


def test_the_simulation_is_right() -> None:
    for matrix in MACHADO_2009.values():
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=1e-5)  # white and greys stay
    assert lab(linear("#FFFFFF")) == pytest.approx([100, 0, 0], abs=0.01)
    assert lab(linear("#FF0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    red_green = differences("#C00000", "#6B6B00")
    assert red_green["deuteranopia"] < red_green["all colours"] / 3
    assert contrast("#FFFFFF", "#000000") == pytest.approx(21)
    old = differences("#3E9B6E", "#8E8870")  # semantic and the part of speech model and low-level, of before
    assert old["deuteranopia"] == pytest.approx(1.4, abs=0.5)


EXPECTED = ("pretrained", "brain", "permuted", "stimulus", "language_model")
LEGENDS: dict[str, list[str]] = {
    "before and after, with the ceiling": [*STAGE_COLOURS.values(), CEILING_COLOUR],
    "regimes of a reproduction": [REGIME_COLOURS[name] for name in EXPECTED],
    "named regions": list(REGION_COLOURS.values()),
    "regions of which none is named": list(OTHER_COLOURS),
    "losses": [colour for colour, _ in LOSS_LOOKS.values()],
    "single bands": [BAND_COLOURS[name] for name in ("backbone", "low_level", "semantic")],
    "bands of chosen names": list(part_colours(["backbone", "low_level", "one", "three", "two"]).values()),
}
"""All pairs: to every eye, and in grey."""


@pytest.mark.parametrize("legend", LEGENDS)
def test_any_two_of_a_legend_are_apart_to_every_eye_and_in_grey(legend: str) -> None:
    colours = LEGENDS[legend]
    assert len(colours) == len(set(colours))
    assert too_alike(combinations(colours, 2)) == {}


LONG: dict[str, list[str]] = {
    "all regimes": list(REGIME_COLOURS.values()),
    "parts of three bands": list(BAND_COLOURS.values()),
    "categories of words": [*CATEGORY_COLOURS, CATEGORY_COLOURS[0]],
    "rooms of the house": list(ROOM_COLOURS),
}
"""More than five, of which grey has no room (15 each between 3:1 on paper and black): those side by side, and marks."""


@pytest.mark.parametrize("legend", LONG)
def test_neighbours_of_a_long_legend_are_apart(legend: str) -> None:
    assert too_alike(pairwise(LONG[legend])) == {}


@pytest.mark.parametrize("legend", ["all regimes", "categories of words"])
def test_any_two_of_these_are_apart_but_in_grey(legend: str) -> None:
    colours = dict.fromkeys(LONG[legend])
    assert too_alike(combinations(colours, 2), but=("grey",)) == {}


@pytest.mark.parametrize("bands", [("backbone",), ("low_level", "one"), ("a", "b", "c"), ("a", "b", "c", "semantic")])
def test_parts_of_any_bands_have_looks_of_their_own(bands: tuple[str, ...]) -> None:
    parts = [part_name(subset) for subset in subsets(("backbone", *bands))]
    colours, hatches = part_colours(parts), part_hatches(parts)
    assert list(colours) == list(hatches) == parts
    assert len({(colours[part], hatches[part]) for part in parts}) == len(parts)
    assert all((hatches[part] != "") == ("&" in part) for part in parts)
    assert too_alike(pairwise(colours.values())) == {}


def test_the_regions_of_a_panel_have_looks_of_their_own() -> None:
    for regions in (["IFG", "semantic", "null", "AC"], ["one", "two", "three", "four"], list(REGION_COLOURS)):
        looks = region_looks(regions)
        assert list(looks) == regions
        assert too_alike(combinations([colour for colour, _ in looks.values()], 2)) == {}
        assert len({mark for _, mark in looks.values()}) == len(regions)
    assert region_looks(["x", "semantic"])["semantic"][0] == REGION_COLOURS["semantic"]


def test_marks_tell_what_colours_may_not() -> None:
    assert REGIME_MARKS.keys() == REGIME_COLOURS.keys()
    assert len(set(REGIME_MARKS.values())) == len(REGIME_MARKS)
    assert len({style for _, style in LOSS_LOOKS.values()}) == len(LOSS_LOOKS)
    assert len(set(CATEGORY_MARKS)) == len(CATEGORY_COLOURS)


def test_every_colour_stands_out_on_paper_and_at_night() -> None:
    for colours in (*LEGENDS.values(), *LONG.values(), [INK, FAINT]):
        for colour in colours:
            least = LEAST_OF_TEXT if colour in (INK, FAINT) else LEAST_CONTRAST
            assert contrast(colour, PAPER) >= least, colour
            assert contrast(ON_DARK[colour], NIGHT) >= least, colour


@pytest.mark.parametrize("page", [PAGE_COLOURS, PAGE_COLOURS_AT_NIGHT], ids=["paper", "night"])
def test_words_of_pages_can_be_read(page: dict[str, str]) -> None:
    assert page.keys() == PAGE_COLOURS.keys()
    pairs = [("ink", "paper"), ("faint", "paper"), ("ink", "ground"), ("faint", "ground"), ("ink", "focus")]
    pairs += [("link", "paper"), ("link", "ground"), ("link", "focus")]
    pairs += [
        ("on-head", "head"),
        ("on-head", "night"),
        ("pale", "night"),
        ("paler", "night"),
        ("on-warning", "warning"),
    ]
    for words, ground in pairs:
        assert contrast(page[words], page[ground]) >= LEAST_OF_TEXT, (words, ground)
    for colour in VERDICT_COLOURS.values():
        assert contrast(page["on-head"], colour) >= LEAST_OF_TEXT
    assert min(differences(VERDICT_COLOURS[SUPPORTED], VERDICT_COLOURS[NOT_SUPPORTED]).values()) >= LEAST_DIFFERENCE


def test_zero_is_the_quietest_colour_of_a_map_and_signs_are_told_apart() -> None:
    for colours, zero in ((DIVERGING, len(DIVERGING) // 2), (SEQUENTIAL, 0)):
        on_paper = [contrast(colour, PAPER) for colour in colours]
        assert int(np.argmin(on_paper)) == zero
        assert np.argmin([np.linalg.norm(seen(colour)["all colours"][1:]) for colour in colours]) == zero
        for side in (on_paper[zero::-1], on_paper[zero:]):
            assert side == sorted(side), "the further from 0, the louder"
        assert too_little(pairwise(colours)) == []
    assert too_little([(DIVERGING[0], DIVERGING[-1])]) == []


def too_little(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in pairs if min(differences(*pair).values()) < LEAST_DIFFERENCE]


def test_a_figure_has_other_colours_where_the_page_is_dark() -> None:
    def draw(figure: object) -> None:
        axes = figure.add_subplot()  # type: ignore[attr-defined]
        axes.bar([0], [1], color=BAND_COLOURS["semantic"], hatch="//", edgecolor=PAPER)
        axes.plot([0, 1], [0, 1], color=REGIME_COLOURS["brain"], marker="s")
        axes.set_title("words")

    drawn = draw_figure("one", draw, (3, 2), "alt", "caption", simulated=True)
    assert drawn.svg is not None
    text = drawn.svg.decode()
    (night,) = re.findall(r"@media screen and \(prefers-color-scheme: dark\)\{(.*?)\}\}", text, re.DOTALL)
    for colour in (BAND_COLOURS["semantic"], REGIME_COLOURS["brain"], PAPER, INK, FAINT):
        assert colour.lower() in text.partition("</style>")[2], "as drawn"
        assert f'"fill: {colour.lower()}"]{{fill:{ON_DARK[colour].lower()}!important' in night
        assert f'"stroke: {colour.lower()}"]{{stroke:{ON_DARK[colour].lower()}!important' in night
    assert colours_of(drawn) <= on_dark()
    assert len(set(ON_DARK.values())) >= len(ON_DARK) - 3


def colours_of(figure: Figure) -> set[str]:
    """All colours that an SVG is drawn with."""
    assert figure.svg is not None
    drawn = figure.svg.decode().partition("</style>")[2]
    return set(re.findall(r"(?:fill|stroke)(?:: |=\")(#[0-9a-f]{6})", drawn))


def on_dark() -> set[str]:
    """The colours that have another for the night."""
    return {colour.lower() for colour in ON_DARK}


def test_a_picture_is_quoted_as_addresses_are() -> None:
    text = f"{string.printable}%20é".encode()
    figure = Figure("one", b"", text, "alt", "caption")
    assert figure.address == f"data:image/svg+xml,{quote(text, safe=' !*,-./;=@_~+')}"


def test_a_figure_of_simulated_listeners_says_so_first() -> None:
    def draw(figure: object) -> None:
        figure.add_subplot()  # type: ignore[attr-defined]

    plain, told = (draw_figure("one", draw, (3, 2), "Alt.", "Caption.", simulated=is_so) for is_so in (False, True))
    assert (plain.alt, plain.caption) == ("Alt.", "Caption.")
    assert (told.alt, told.caption) == ("Simulated listeners. Alt.", "Simulated listeners. Caption.")
    assert plain.png != told.png
