"""The table of faults in docs/scraping.md has the cases of bench/hostile_cases.py, all of them and in their order."""

import re
from pathlib import Path

from bench.hostile_cases import list_cases

PAGE = Path(__file__).parents[3] / "docs" / "scraping.md"


def test_the_table_has_all_cases_and_what_becomes_of_them() -> None:
    lines = PAGE.read_text(encoding="utf-8").partition("## The bad web")[2].splitlines()
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines if re.match(r"\| \d", line)]
    told = [(item, what.replace("\\|", "|")) for item, what, *_ in cells]
    cases = list_cases()
    assert told == [(case.item, case.what) for case in cases]
    for (_, what, status, *_), case in zip(cells, cases, strict=True):
        assert status.strip("`") in case.ours.split("|"), what


def test_the_page_tells_how_many_kinds_there_are() -> None:
    kinds = max(int(case.item) for case in list_cases())
    assert f"of {kinds}." in PAGE.read_text(encoding="utf-8")
