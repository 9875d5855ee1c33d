"""What each training regime predicts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from brainlit.datamodules.dataset import TargetSource
from brainlit.datamodules.targets.config import (
    REPRESENTATIONS,
    ControlConfig,
    LanguageTargetsConfig,
    Regime,
    RepresentationConfig,
    SpeechTargetsConfig,
)
from brainlit.datamodules.targets.controls import control_targets
from brainlit.datamodules.targets.representations import (
    LanguageRepresentation,
    SpeechRepresentation,
    representation_targets,
)
from brainlit.datamodules.targets.stored import VoxelTargets
from brainlit.datamodules.windows import WindowConfig
from brainlit.splits import Roles


@dataclass(frozen=True)
class TargetChoice:
    """A regime with the settings of all regimes."""

    regime: Regime
    control: ControlConfig
    representation: RepresentationConfig
    language_model: LanguageTargetsConfig
    speech_model: SpeechTargetsConfig

    def settings(self) -> dict[str, Any]:
        """The settings that this regime uses, as plain JSON values; empty where the responses are the targets."""
        used: dict[str, Any] = {}
        if self.regime == "permuted":
            used = {"control": self.control}
        elif self.regime in REPRESENTATIONS:
            model = self.language_model if self.regime == "language_model" else self.speech_model
            used = {"representation": self.representation, "model": model}
        plain: dict[str, Any] = json.loads(json.dumps({name: asdict(settings) for name, settings in used.items()}))
        return plain

    def targets(
        self, responses: VoxelTargets, roles: Roles, window: WindowConfig, seed: int
    ) -> tuple[TargetSource, TargetSource]:
        """What tuning sees, and what validation and test see.

        The same kind of targets in both, for they are what the head predicts; a control is validated on the responses
        that it stands in for, so that the checkpoint is chosen as in regime brain.

        Parameters
        ----------
        responses : VoxelTargets
            The responses of the subjects who are tuned on.
        seed : int
            Of the control.
        """
        tune = roles.spans("tune")
        if self.regime == "permuted" and tune:
            return control_targets(self.control, responses, tune, seed), responses
        if self.regime not in REPRESENTATIONS:
            return responses, responses
        model = (
            LanguageRepresentation(self.language_model)
            if self.regime == "language_model"
            else SpeechRepresentation(self.speech_model, window)
        )
        stories = dict.fromkeys(story for role in ("tune", "choose", "score") for story in roles.stories(role))
        stored = representation_targets(model, responses.store, list(stories), self.representation, responses)
        return stored, stored
