"""What all tests share: where the real data lies, and quiet, single-threaded libraries."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Timings vary on shared machines, and a seed that is new each run makes failures that nobody can see again.
settings.register_profile("house", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("house")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data; a test that needs it is skipped where it is missing."""
    folder = Path(os.environ.get("DREAMLOOM_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"the real test data is not at {folder}")
    return folder
