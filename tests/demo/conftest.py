import pytest

from brainlit.demo import DemoSource

SETTINGS = {
    "n_tune": 2,
    "n_choose": 1,
    "n_fit": 1,
    "n_score": 1,
    "story_minutes": 0.7,
    "n_subjects": 2,
    "n_voxels": 50,
    "n_repeats": 3,
}


@pytest.fixture(scope="session")
def source():
    """A small demo: five stories of 40 s, two subjects with 50 voxels."""
    return DemoSource(**SETTINGS)


@pytest.fixture
def settings():
    return dict(SETTINGS)
