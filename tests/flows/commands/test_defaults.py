"""What the pages say of defaults and presets is what the code does."""

import re
from pathlib import Path

import pytest

from dreamloom.flows.commands.defaults import page
from dreamloom.flows.project.project import Project
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.config import PRESETS, TrainConfig
from dreamloom.train.families.registry import FAMILIES

DOCS = Path(__file__).parents[3] / "docs"


def rows(page: str, first: str) -> list[list[str]]:
    """The rows of the table whose first heading is `first`."""
    table = (DOCS / page).read_text("utf-8").split(f"| {first} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_page_of_defaults_is_that_of_the_code() -> None:
    """Each default, and whether the key belongs to the recipe; after a change, `make docs` renews the page."""
    assert (DOCS / "defaults.md").read_text("utf-8") == page()


def test_the_table_of_presets_is_true() -> None:
    told = {}
    for name, weights, optimizer, checkpointing, batch, text_encoder in rows("training.md", "preset"):
        config = TrainConfig.model_validate({"preset": name})
        size = str(config.batch_size)
        size += ", accumulated twice" if config.gradient_accumulation_steps == 2 else ""
        learns = "learns" if config.text_encoder_learning_rate else "frozen"
        remakes = "yes" if config.gradient_checkpointing else "no"
        expected = [config.weight_dtype, config.optimizer, remakes, size, learns]
        told[name] = (expected, [weights, optimizer, checkpointing, batch, text_encoder])
    assert told.keys() == PRESETS.keys()
    for expected, said in told.values():
        assert said == expected


@pytest.mark.parametrize(("name", "column"), [("sd", 0), ("sdxl", 1), ("sd3", 2)])
def test_the_table_of_families_is_true(name: str, column: int) -> None:
    told = {key.split(":")[0]: cells[column] for key, *cells in rows("training.md", "| Stable Diffusion 1.x, 2.x")}
    defaults = FAMILIES[name].defaults({}), {"lora_rank": 16, **FAMILIES[name].defaults({"lora_rank": 16})}
    plain, lora = map(TrainConfig.model_validate, defaults)
    assert (told["resolution"], told["guidance of samples"]) == (f"{plain.resolution}", f"{plain.guidance_scale:g}")
    assert told["rates"] == f"{_rates(plain)}; {_rates(lora)}"


def _rates(config: TrainConfig) -> str:
    text = config.text_encoder_learning_rate
    return f"{config.learning_rate:.0e}{f', text {text:.0e}' if text else ''}".replace("e-0", "e-")


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        ({}, (2e-6, 5e-7)),
        ({"lora_rank": 16}, (1e-4, 5e-5)),
        ({"optimizer": "prodigy"}, (1, 1)),
        ({"lora_rank": 16, "learning_rate": 3e-4}, (3e-4, 5e-5)),
    ],
)
def test_rates_that_are_not_given_are_those_of_the_pages(given: dict[str, object], rates: tuple[float, float]) -> None:
    config = TrainConfig.model_validate(given)
    assert (config.learning_rate, config.text_encoder_learning_rate) == rates
    assert "LoRA's default rates are 1e-4 and 5e-5" in (DOCS / "training.md").read_text("utf-8")


def test_a_default_in_brackets_is_the_keys() -> None:
    """Such as "`max_host_failures` failures in a row (5)"."""
    found = re.findall(r"`([a-z_]+)`[^`(|]{0,60}\((\d[\d.]*)\)", (DOCS / "scraping.md").read_text("utf-8"))
    assert len(found) >= 3
    for key, value in found:
        assert ScrapeConfig.model_fields[key].default == float(value)
    assert Project.model_fields["score"].default is None
