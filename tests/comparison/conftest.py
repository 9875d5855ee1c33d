"""The finished-looking runs of the tests of results serve here too."""

from tests.results.conftest import evidence, reproduction, run, small_run  # noqa: F401
