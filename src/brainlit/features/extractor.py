"""All feature spaces of a data set's stories, as a `FeatureConfig` asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from brainlit.features.config import FeatureConfig
from brainlit.features.language_model import NAME as LANGUAGE_MODEL
from brainlit.features.language_model import LanguageModel, shown_weights
from brainlit.features.low_level import LOW_LEVEL, STANDARD
from brainlit.features.phones import PhoneInventory, count_phones
from brainlit.features.vectors import AnyCase, read_word_vectors, word_vectors
from brainlit.hints import few
from brainlit.stories import FeatureSpace, Intervals, Story
from brainlit.stories.base import SourceError

RECIPE = 1
"""Raised whenever a change makes the same settings give other numbers; part of the settings of a store."""

_WORD_VECTORS = "word_vectors"
SEMANTIC = (_WORD_VECTORS, LANGUAGE_MODEL)
"""Names of the semantic spaces."""


class FeatureError(SourceError):
    """Feature spaces that cannot be had together."""


class FeatureExtractor:
    """Computes the feature spaces of one story after the other; all stories get the same spaces and columns.

    Parameters
    ----------
    config : FeatureConfig
        What to compute.
    story_names : sequence of str
        All stories of the data set.
    phones_of : function
        Story name -> its phones, or None. Asked once per story, and only if a space needs phones.
    """

    def __init__(
        self, config: FeatureConfig, story_names: Sequence[str], phones_of: Callable[[str], Intervals | None]
    ) -> None:
        self.config, self.story_names = config, tuple(story_names)
        self._phones_of = phones_of
        self._source_has_low_level = False
        self._language_model = None if config.language_model is None else LanguageModel(config.language_model)

    def settings(self) -> dict[str, Any]:
        """Everything in the configuration that decides the numbers, as plain JSON values; reads nothing.

        Of files and folders the name only, so that they can move.
        """
        config = self.config
        names = config.low_level or ()
        settings: dict[str, Any] = {"recipe": RECIPE, "low_level": config.low_level, "per_tr": config.per_tr}
        for space, most in (("diphones", config.max_diphones), ("triphones", config.max_triphones)):
            if space in names:
                settings[f"max_{space}"] = most
        settings["vectors"] = None if config.vectors is None else Path(config.vectors).name
        model = config.language_model
        settings["language_model"] = model and {**asdict(model), "weights": shown_weights(model.weights)}
        return settings

    def files(self) -> list[Path]:
        """Files that the spaces are made from, besides those of the stories: the word vectors."""
        return [] if self.config.vectors is None else [Path(self.config.vectors).expanduser()]

    def spaces(self, story: Story, own: Sequence[FeatureSpace] = ()) -> list[FeatureSpace]:
        """The spaces of one story: low-level ones in the order of the configuration, `own`, then semantic ones.

        Parameters
        ----------
        story : Story
        own : sequence of FeatureSpace
            Spaces that the source brings itself. If a low-level one is among them and the configuration names no
            low-level space, none is computed here.

        Raises
        ------
        FeatureError
            If a space of the source and a computed one have the same name.
        SourceError, FileNotFoundError
            If word vectors, the language model or phones cannot be used.
        """
        self._source_has_low_level = any(space.kind == "low_level" for space in own)
        names = [name for name in self._wanted() if name not in self._without_phones()]
        chosen = (self.config.vectors, self.config.language_model)
        semantic = [name for name, choice in zip(SEMANTIC, chosen, strict=True) if choice is not None]
        twice = [space.name for space in own if space.name in (*names, *semantic)]
        if twice:
            raise FeatureError(
                f"the data set brings its own feature space {twice[0]!r}, and data.features asks for one of that"
                " name too; leave it out of data.features."
            )
        computed = [self._low_level(name, story) for name in names]
        return [*computed, *own, *(self._semantic(name, story) for name in semantic)]

    def left_out(self) -> dict[str, str]:
        """Spaces that need phones and are left out because a story has none: names -> reason.

        Reads the phones of all stories, unless no space needs them. Call it after `spaces`, which learns whether the
        source brings low-level spaces of its own.
        """
        names = self._without_phones()
        if not names:
            return {}
        return {", ".join(names): f"need phone times; no phones in: {few(self._phoneless)}"}

    def _wanted(self) -> Sequence[str]:
        """The low-level spaces that were asked for, by name or by saying nothing."""
        if self.config.low_level is not None:
            return self.config.low_level
        return () if self._source_has_low_level else STANDARD

    def _without_phones(self) -> list[str]:
        """Those that are wanted and cannot be had."""
        needing = [name for name in self._wanted() if LOW_LEVEL[name].needs_phones]
        return needing if needing and self._phoneless else []

    @cached_property
    def _phones(self) -> dict[str, Intervals | None]:
        return {name: self._phones_of(name) for name in self.story_names}

    @cached_property
    def _phoneless(self) -> list[str]:
        """Stories without phone times."""
        return [name for name, phones in self._phones.items() if phones is None or not len(phones)]

    @cached_property
    def _inventory(self) -> PhoneInventory:
        tiers: Iterable[Intervals] = (phones for phones in self._phones.values() if phones is not None)
        return count_phones(tiers, self.config.max_diphones, self.config.max_triphones)

    def _low_level(self, name: str, story: Story) -> FeatureSpace:
        space = LOW_LEVEL[name]
        return space.compute(story, self._inventory if space.needs_inventory else None, self.config.per_tr)

    @cached_property
    def _vectors(self) -> AnyCase:
        return AnyCase(read_word_vectors(str(self.config.vectors)))

    def _semantic(self, name: str, story: Story) -> FeatureSpace:
        if name == LANGUAGE_MODEL and self._language_model is not None:
            return self._language_model.space(story, self.config.per_tr)
        source = f"vectors of the words in {Path(str(self.config.vectors)).name}"
        return word_vectors(story, self._vectors, source, _WORD_VECTORS, self.config.per_tr)
