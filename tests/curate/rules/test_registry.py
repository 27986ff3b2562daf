"""A rule that somebody adds is honoured end to end: it drops, and the funnel, the manifest and the trace tell it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from dreamloom.curate.assemble import balance
from dreamloom.curate.choose import choose, is_current
from dreamloom.curate.config import BalanceConfig, ChooseConfig
from dreamloom.curate.manifest import manifest_path, read_manifest
from dreamloom.curate.rules import RULES
from dreamloom.curate.rules.dedupe import Rows
from dreamloom.curate.rules.rule import Images, Rule
from dreamloom.curate.source import Role, Source
from dreamloom.curate.trace import trace
from dreamloom.scrape.collection import Collection


class ToyConfig(ChooseConfig):
    """The config with the toy rule's field."""

    max_width: int | None = Field(None, description="Maximum width.")


def find(images: Images, rows: Rows, config: ChooseConfig) -> Mapping[int, str]:
    assert isinstance(config, ToyConfig) and config.max_width is not None
    widths = images.table["width"].to_pylist()
    return {row: f"width {widths[row]}" for row in rows.tolist() if widths[row] > config.max_width}


def explain(config: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return f"width is at most {config['max_width']}: {row['width']}"


@pytest.fixture
def rule() -> Iterator[Rule]:
    toy = Rule("too_wide", find, explain, field="max_width", columns=("width",), ground_truth_only=True)
    RULES.append(toy)
    yield toy
    RULES.remove(toy)


def test_a_rule_that_is_added_drops_and_is_told(
    rule: Rule, make_collection: Callable[..., Collection], tmp_path: Path
) -> None:
    car = make_collection("car", [{"key": f"aaaa{i}", "width": 99} for i in range(3)])
    people = make_collection("people", [{"key": "bbbb0"}, {"key": "bbbb1", "width": 99}, {"key": "bbbb2"}])
    sources = [Source(car, Role.TRAINING), Source(people, Role.GROUND_TRUTH)]
    choose(sources, ToyConfig())
    assert not is_current(sources, ToyConfig(max_width=50))
    assert choose(sources, ToyConfig(max_width=50)).dropped == {"too_wide": 1}
    assert people.funnel()[-1].summary.dropped == {"too_wide": 1}
    balance(sources, BalanceConfig(), tmp_path)
    rows = {row["key"]: row for row in read_manifest(manifest_path(tmp_path)).to_pylist()}
    assert (rows["bbbb1"]["stage"], rows["bbbb1"]["reason"], rows["bbbb1"]["detail"]) == (
        "choices",
        "too_wide",
        "width 99",
    )
    assert ("dropped", "choose: too_wide (width 99)") in trace(tmp_path, "bbbb1")
    assert ("passed choose", "width is at most 50: 48") in trace(tmp_path, "bbbb0")
    assert not [line for line in trace(tmp_path, "aaaa0") if "width is" in line[1]]  # it is for ground truth only
