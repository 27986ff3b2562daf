"""The rule that drops ground truth by words in its licence."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.rule import Images, Rule
from dreamloom.scrape.collection import Choice

UNKNOWN = "unknown"
"""The word that stands for images without a licence."""


def _find(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
    words = [word.strip().casefold() for word in config.exclude_licences]

    @cache  # there are few licences and many images
    def is_excluded(licence: str | None, url: str | None) -> bool:
        text = f"{licence or ''} {url or ''}".casefold()
        is_unknown = not text.strip(" ?")  # LAION has "?" for a licence it does not know
        return any(is_unknown if word == UNKNOWN else word in text for word in words)

    licences = list(zip(*(images.table[name].to_pylist() for name in ("licence", "licence_url")), strict=True))
    excluded = (row for row in rows.tolist() if is_excluded(*licences[row]))
    return {row: licences[row][0] or licences[row][1] or UNKNOWN for row in excluded}


def _explain(config: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"licence is none of: {', '.join(config['exclude_licences'])}"


LICENCE = Rule(
    Choice.LICENCE,
    _find,
    _explain,
    field="exclude_licences",
    off=[],
    columns=("licence", "licence_url"),
    ground_truth_only=True,
)
