"""All low-level spaces by name, and the standard set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from brainlit.features import linguistic, spectral
from brainlit.features.per_tr import PerTr
from brainlit.features.phones import PhoneInventory
from brainlit.hints import did_you_mean
from brainlit.stories import FeatureSpace, Story

SubBand = Literal["spectral", "articulatory", "phonemic", "rates", "other"]
SUB_BANDS: tuple[SubBand, ...] = get_args(SubBand)
"""Finer cut of the low-level band, in the order that everything keeps; 'other' holds what a data set brings itself."""


@dataclass(frozen=True)
class LowLevelSpace:
    """How a space is computed, what it describes, and whether stories without phone times can have it.

    Parameters
    ----------
    function : function
        Story -> FeatureSpace, with the keyword per_tr; with `inventory` too where needs_inventory.
    sub_band : str
        What it is of: sound ('spectral'), how phones are made ('articulatory'), which phones ('phonemic'), or pace
        ('rates').
    needs_phones : bool
        The story must have phone times.
    needs_inventory : bool
        Its columns depend on the phones of all stories (`brainlit.features.phones`).
    """

    function: Callable[..., FeatureSpace]
    sub_band: SubBand
    needs_phones: bool = False
    needs_inventory: bool = False

    def compute(self, story: Story, inventory: PhoneInventory | None = None, per_tr: PerTr = "mean") -> FeatureSpace:
        """The space of one story; `inventory` is asked for only where needs_inventory."""
        if self.needs_inventory:
            return self.function(story, inventory=inventory, per_tr=per_tr)
        return self.function(story, per_tr=per_tr)


LOW_LEVEL = MappingProxyType(
    {
        "log_mel": LowLevelSpace(spectral.log_mel, "spectral"),
        "envelope": LowLevelSpace(spectral.envelope, "spectral"),
        "power_spectrum": LowLevelSpace(spectral.power_spectrum, "spectral"),
        "mfcc": LowLevelSpace(spectral.mfcc, "spectral"),
        "word_rate": LowLevelSpace(linguistic.word_rate, "rates"),
        "word_length": LowLevelSpace(linguistic.word_length, "rates"),
        "pauses": LowLevelSpace(linguistic.pauses, "rates"),
        "phone_rate": LowLevelSpace(linguistic.phone_rate, "rates", needs_phones=True),
        "phone_classes": LowLevelSpace(linguistic.phone_classes, "articulatory", needs_phones=True),
        "phones": LowLevelSpace(linguistic.phones, "phonemic", needs_phones=True, needs_inventory=True),
        "diphones": LowLevelSpace(linguistic.diphones, "phonemic", needs_phones=True, needs_inventory=True),
        "triphones": LowLevelSpace(linguistic.triphones, "phonemic", needs_phones=True, needs_inventory=True),
        "articulation": LowLevelSpace(linguistic.articulation, "articulatory", needs_phones=True),
    }
)

STANDARD = ("log_mel", "envelope", "word_rate", "word_length", "phone_rate", "phone_classes")
"""The spaces of a store for which nobody chose any."""


def low_level_spaces(story: Story) -> list[FeatureSpace]:
    """The standard spaces that the story allows, in a fixed order; the last two only where it has phones."""
    allowed = [name for name in STANDARD if story.phones is not None or not LOW_LEVEL[name].needs_phones]
    return [LOW_LEVEL[name].compute(story) for name in allowed]


def sub_band_columns(columns: Sequence[str]) -> dict[SubBand, list[int]]:
    """Which columns of the low-level band belong to which sub-band.

    Parameters
    ----------
    columns : sequence of str
        Names as 'space/column', as a store gives them (`StoryStore.band_columns('low_level')`).

    Returns
    -------
    dict of sub-band to positions
        In the order of SUB_BANDS, without empty ones.

    >>> sub_band_columns(["word_rate/word_rate", "log_mel/mel_00", "log_mel/mel_01", "loudness/dB"])
    {'spectral': [1, 2], 'rates': [0], 'other': [3]}
    """
    spaces = [column.partition("/")[0] for column in columns]
    of_column = [LOW_LEVEL[space].sub_band if space in LOW_LEVEL else "other" for space in spaces]
    found = {name: [k for k, own in enumerate(of_column) if own == name] for name in SUB_BANDS}
    return {name: positions for name, positions in found.items() if positions}


def require_known(names: Iterable[str]) -> None:
    """Refuse names that are no low-level space, and names that occur twice.

    Raises
    ------
    ValueError
        With the nearest known name.
    """
    seen: set[str] = set()
    for name in names:
        if name not in LOW_LEVEL:
            raise ValueError(f"there is no low-level space {name!r}. {did_you_mean(name, LOW_LEVEL)}")
        if name in seen:
            raise ValueError(f"the low-level space {name!r} is named twice; name it once.")
        seen.add(name)
