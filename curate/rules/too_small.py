"""The rule that drops images that training would leave out as too small, so that balance counts what is trained on."""

from collections.abc import Mapping
from typing import Any

from dreamloom.base.images.buckets import find_bucket
from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.rule import Images, Rule


def _find(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    resolutions = [config.resolution_of(source.name) for source in images.sources]
    sources = images.table["source"].to_pylist()
    sizes = list(zip(images.table["width"].to_pylist(), images.table["height"].to_pylist(), strict=True))
    steps, upscale = config.bucket_reso_steps, config.upscale

    def is_small(row: int) -> bool:
        resolution = resolutions[sources[row]]
        assert resolution is not None
        return find_bucket(sizes[row], resolution, steps, upscale) is None

    return {row: f"{sizes[row][0]} × {sizes[row][1]}" for row in filter(is_small, rows.tolist())}


def _explain(config: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"large enough to train on at {config['resolution']} pixels"


TOO_SMALL = Rule("too_small", _find, _explain, "resolution", columns=("width", "height"))
