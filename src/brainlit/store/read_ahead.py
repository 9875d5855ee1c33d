"""Read the next story while the last one is written: sound is resampled on one core, features computed on another."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import TracebackType

from brainlit.stories import Intervals, Story, StorySource


class StoryReader:
    """Asks a source for stories, one ahead of what is needed; never for two things at once.

    Use as a context manager: leaving it waits for a story that is still being read.
    """

    def __init__(self, source: StorySource) -> None:
        self.source = source
        self._one_at_a_time = Lock()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._coming: dict[str, Future[Story]] = {}

    def __enter__(self) -> StoryReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def story(self, name: str, ahead: str | None = None) -> Story:
        """A story, now; the one to read `ahead` comes in the background, and its errors when it is asked for."""
        story = (self._coming.pop(name, None) or self._read(name)).result()
        if ahead is not None:
            self._coming[ahead] = self._read(ahead)
        return story

    def phones(self, name: str) -> Intervals | None:
        """Phones of a story."""
        with self._one_at_a_time:
            return self.source.phones(name)

    def _read(self, name: str) -> Future[Story]:
        return self._thread.submit(self._story, name)

    def _story(self, name: str) -> Story:
        with self._one_at_a_time:
            return self.source.story(name)
