from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamloom.scrape.collection import packing
from dreamloom.scrape.datasets.folder import FolderConfig


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderConfig:
    """Three parts of two images, of which one is broken; a shard is full with one."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 1)
    for number in range(5):
        file = tmp_path / "images" / f"a red thing_({number}).png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(file)
    (tmp_path / "images" / "broken.png").write_bytes(b"no image")
    return FolderConfig(path=tmp_path / "images", part_rows=2)
