"""The mini backbone of the tests of tuning serves here too."""

from tests.tuning.conftest import make_module, make_trainer, mini_folder  # noqa: F401
