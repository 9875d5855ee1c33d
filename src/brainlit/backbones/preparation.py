"""How a checkpoint wants its sound: what the feature extractor beside the weights says, honoured or refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from brainlit.backbones.addresses import Address, WeightsError
from brainlit.backbones.base import SOUND_KEY, SpeechBackbone
from brainlit.backbones.weights import why_unreachable
from brainlit.timebase import SAMPLE_RATE_HZ

log = logging.getLogger(__name__)

FILES = ("preprocessor_config.json", "processor_config.json")


def prepare_as_said(family: type[SpeechBackbone], address: Address, config: Any) -> None:
    """Write into a model's configuration how the feature extractor of its checkpoint prepares sound.

    Only what differs from the family's usual way is kept, under SOUND_KEY; from there it goes wherever the
    architecture goes: into checkpoints, records, exports and the key of the front end's cache. A checkpoint without
    an extractor is prepared the family's usual way, or as its config.json says under SOUND_KEY, and that is logged.

    Parameters
    ----------
    family : class of a backbone
    address : Address
    config : configuration of transformers
        Changed in place.

    Raises
    ------
    WeightsError
        If the extractor cannot be read, expects another sampling rate, or does what cannot be done here.
    """
    said = extractor_settings(address)
    if said is None:
        how = getattr(config, SOUND_KEY, None) or usual_way(family)
        log.warning("%s has no preprocessor_config.json; its sound is prepared as usual: %s", address, how)
        return
    try:
        found = _fitting_settings(family, said, config)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise WeightsError(
            f"the feature extractor of weights {str(address)!r} (preprocessor_config.json) does not fit the"
            f" {family.family} family here: {error}. Use weights whose extractor fits, or correct the file if it is not"
            " what the weights were trained with."
        ) from error
    if found or getattr(config, SOUND_KEY, None):
        setattr(config, SOUND_KEY, found)
    if found:
        log.info("%s: sound is prepared as its preprocessor_config.json says: %s", address, found)


def usual_way(family: type[SpeechBackbone]) -> str:
    """How published models of a family are given sound, in words."""
    if family.extractor in ("WhisperFeatureExtractor", "SeamlessM4TFeatureExtractor"):
        return f"as by {family.extractor} with its defaults"
    return "each clip normalised" if getattr(family, "normalises_unsaid", True) else "not normalised"


def extractor_settings(address: Address) -> dict[str, Any] | None:
    """What the feature extractor's file of a checkpoint says; None where there is none.

    Raises
    ------
    WeightsError
        If there is a file that cannot be read.
    """
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    def get(local: bool) -> dict[str, Any]:
        found: dict[str, Any] = FeatureExtractionMixin.get_feature_extractor_dict(
            address.place, local_files_only=local, **address.options
        )[0]
        return found

    try:
        settings = get(True)
    except (OSError, ValueError) as error:
        folder = Path(address.place)
        there = [name for name in FILES if (folder / name).is_file()]
        if there:
            if there == [FILES[1]] and "Can't load feature extractor" in str(error):
                return None  # a processor without an extractor of its own
            raise WeightsError(
                f"{folder / there[0]} cannot be read as JSON ({error}); download it again, or write it with"
                " save_pretrained of the model's feature extractor."
            ) from error
        if folder.is_dir() or why_unreachable() is not None:
            return None
        try:
            settings = get(False)
        except (OSError, ValueError):
            return None
    if not isinstance(settings, dict):
        raise WeightsError(f"the preprocessor_config.json of {address} holds no settings, but {settings!r}.")
    return settings


def _fitting_settings(family: type[SpeechBackbone], said: dict[str, Any], config: Any) -> dict[str, Any]:
    """What the extractor does otherwise than usual; ValueError for what cannot be done."""
    import transformers

    kind = said.get("feature_extractor_type", family.extractor)
    if kind != family.extractor:
        raise ValueError(f"it is a {kind}, and the family is given sound by a {family.extractor}")
    for name in ("do_normalize", "return_attention_mask"):
        if not isinstance(said.get(name, False), bool | None):
            raise ValueError(f"its {name} is {said[name]!r}, and must be true or false")
    rate = said.get("sampling_rate", SAMPLE_RATE_HZ)
    if rate != SAMPLE_RATE_HZ:
        raise ValueError(f"it expects sound at {rate} Hz (sampling_rate), and stories are kept at {SAMPLE_RATE_HZ} Hz")
    extractor: Any = getattr(transformers, family.extractor).from_dict(dict(said))
    return family.sound_settings(extractor, said, config)
