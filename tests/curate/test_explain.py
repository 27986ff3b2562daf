"""Rules say what was asked and what there was."""

from typing import Any

import pytest

from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.explain import explain_limits
from dreamloom.curate.rules import explain_choice
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.words import Words
from dreamloom.scrape.web.config import ScrapeConfig


@pytest.mark.parametrize(
    ("config", "row", "said"),
    [
        ({"min_side": 512}, {"width": 640, "height": 480}, ["side ≥ 512: 640 × 480"]),
        (
            {"min_side": 9},
            {"width": 5, "height": 5, "original_width": 64, "original_height": 51},
            ["side ≥ 9: 64 × 51"],
        ),
        ({"max_aspect": 3.0}, {"width": 640, "height": 320}, ["aspect ≤ 3: 2.00"]),
        ({"min_aesthetic": 5.0}, {"aesthetic": 5.6123}, ["aesthetic ≥ 5: 5.612"]),
        ({"max_punsafe": 0.1}, {"punsafe": None}, ["punsafe ≤ 0.1: not known"]),
        ({"max_bytes": 1048576}, {"bytes": 54321}, ["bytes ≤ 1048576: 54321"]),
        ({"min_side": None, "languages": [], "seed": 0}, {"width": 640, "height": 480}, []),
        ({"min_side": 512}, {}, []),
        ({"languages": ["en"]}, {"language": "en"}, ["language is one of en: en"]),
        ({"exclude_domains": ["a.org", "b.org"]}, {}, ["address is on none of 2 domains"]),
    ],
)
def test_a_rule_says_its_limit_and_what_there_was(config: dict[str, Any], row: dict[str, Any], said: list[str]) -> None:
    assert explain_limits(config, row) == said


def test_the_stages_own_configs_are_understood() -> None:
    row = {"width": 640, "height": 480, "aesthetic": 6.0, "similarity": 0.3, "punsafe": 0.01, "pwatermark": 0.2}
    filtered = FilterConfig(index=["x"], words=Words(any=["man", "woman"], none=["logo"]))
    said = "\n".join(explain_limits(filtered.model_dump(mode="json"), row))
    for part in ("side ≥ 512", "aspect ≤ 3", "punsafe ≤ 0.1: 0.01", "says one of: man, woman", "says none of: logo"):
        assert part in said
    assert "side ≥ 256" in "\n".join(explain_limits(ScrapeConfig().model_dump(mode="json"), row))
    chosen = ChooseConfig(min_aesthetic=5, min_similarity=0.2, exclude_licences=["by-nc"])
    assert explain_choice(chosen.model_dump(mode="json"), {**row, "phash": 1}) == [
        "licence is none of: by-nc",
        "aesthetic ≥ 5: 6",
        "similarity ≥ 0.2: 0.3",
        "no better image has the same bytes (training first, then the larger, then more bytes a pixel, then a human "
        "caption)",
        "no better image looks the same: pHash ≤ 4 bits apart with CLIP cosine ≥ 0.94",
    ]
