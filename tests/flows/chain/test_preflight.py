"""What is checked before a run that takes hours."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dreamloom.base.errors import UserError
from dreamloom.flows.chain.preflight import check_before_run
from dreamloom.flows.plan.plan_warnings import disk_warnings
from dreamloom.flows.plan.planned_steps import plan_steps
from dreamloom.train.families.sdxl.configs import CONFIGS
from dreamloom.train.families.sdxl.family import SDXL
from tests.train.tiny_families import write_headers


def test_the_disk_needs_room_for_what_the_familys_preset_trains(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of XL take more than 90 GB by default, and less than 20 by its preset for 24 GB."""
    base = tmp_path / "xl"
    base.mkdir()
    write_headers(base, SDXL, CONFIGS)
    for name in ("tokenizer", "tokenizer_2", "scheduler"):
        (base / name).mkdir()
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "EulerDiscreteScheduler"]}))
    (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(CONFIGS["scheduler"]))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**12, used=0, free=30 * 10**9))
    small.change("train", to={"base": str(base), "preset": "24gb"})
    project = small.load()
    check_before_run(project)
    assert disk_warnings(project, plan_steps(project)) == []
    small.change("train", to={"base": str(base)})
    project = small.load()
    with pytest.raises(UserError, match="The checkpoints of the run take about"):
        check_before_run(project)
    assert len(disk_warnings(project, plan_steps(project))) == 1
