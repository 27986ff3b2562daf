"""Rules that set the lowest value of a score."""

from collections.abc import Mapping
from typing import Any

from dreamloom.curate.config import ChooseConfig
from dreamloom.curate.explain import explain_minimum
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.rule import Images, Rule


def minimum(score: str, name: str) -> Rule:
    """Returns the rule that drops ground truth whose score is below `min_<score>`; without a score, an image passes."""
    field = f"min_{score}"

    def find(images: Images, rows: Rows, config: ChooseConfig) -> dict[int, str]:
        lowest = getattr(config, field)
        values = images.table[score].to_numpy()  # null becomes NaN, which is never less
        low = rows[values[rows] < lowest]
        return {row: f"{score} {values[row]:.3f} < {lowest:g}" for row in low.tolist()}

    def explain(config: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
        return explain_minimum(score, config[field], row)

    return Rule(name, find, explain, field, score=score, ground_truth_only=True)
