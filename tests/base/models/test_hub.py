"""A hub that does not answer is told in one sentence, whatever model is asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.models.clip import load_clip
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.models.hub import check_on_hub
from dreamloom.caption.captioners.blip import load_blip
from dreamloom.caption.config import CaptionConfig


@pytest.mark.parametrize(
    "load",
    [
        lambda: check_on_hub("owner/name"),
        lambda: load_clip(ClipConfig(model="hf-hub:owner/name"), "cpu"),
        lambda: load_clip(ClipConfig(model="ViT-B-32-quickgelu"), "cpu"),
        lambda: load_blip(CaptionConfig(model="owner/name", device="cpu")),
    ],
    ids=["a model", "CLIP", "CLIP by name", "BLIP"],
)
def test_a_hub_that_does_not_answer_is_asked_once(
    load: Callable[[], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"There is no folder (owner|timm)/\S+, and the hub can't be asked"):
        load()  # the tests run offline
