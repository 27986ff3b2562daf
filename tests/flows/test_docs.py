"""What the pages tell people to write into project.yaml can be written there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamloom.flows.project import Project

HOUSE = Path(__file__).parents[2]
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
]
SMALLEST: dict[str, Any] = {"name": "page", "workspace": "work"}
SOURCE = {"kind": "folder", "role": "training", "path": "pictures"}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_page_s_yaml_is_a_project_or_sections_of_one(block: str) -> None:
    content = SMALLEST | yaml.safe_load(block)
    named = dict.fromkeys(content.get("caption", {}).get("templates", {}), SOURCE)
    Project.model_validate({**content, "sources": {"own": SOURCE, **named, **content.get("sources", {})}})


def test_the_readme_shows_the_demo_s_project() -> None:
    assert (HOUSE / "demo" / "project.yaml").read_text("utf-8") in (HOUSE / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_link_to_what_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
