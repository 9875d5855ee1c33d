"""Stories from a grammar, spoken by espeak-ng, heard by simulated listeners whose answer is known."""

from brainlit.demo.source import DemoSource, speech_corpus
from brainlit.demo.speech import Speech, speak

__all__ = ["DemoSource", "Speech", "speak", "speech_corpus"]
