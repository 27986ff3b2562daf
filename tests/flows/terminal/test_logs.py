"""Logs: a file a run, with what was made and decided; the terminal shows it where that is asked for."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.flows.commands.cli import run
from dreamloom.flows.terminal.logs import PRINTED, log_to_file, log_to_terminal

LOG = logging.getLogger("dreamloom.test")


def the_log(folder: Path) -> str:
    (file,) = folder.glob("*.log")
    return file.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_run_logs_versions_the_project_each_part_and_what_was_decided(small: Any) -> None:
    assert run(["run", str(small.file)]) == 0
    text = the_log(small.workspace / "logs")
    for line in (
        "dreamloom.flows.terminal.logs: dreamloom ",
        ", torch ",
        " CPUs, ",
        "\nname: small\nworkspace: ",
        "dreamloom.scrape.collection.parts: squares/records/00001: 3 rows, 3 kept; ",
        "dreamloom.curate.split: circles (training): 5 images × 1 = 5 an epoch, 1 held out",
        "dreamloom.train.loop.session: after 4 images: learned ",
        "dreamloom.flows.chain.chain: export ",
    ):
        assert line in text
    assert text.count("train                2 steps, 4 images seen") == 1
    assert {line.split()[3].split(".")[0] for line in text.splitlines() if line.startswith("20")} == {"dreamloom"}


def test_a_run_that_fails_logs_why_with_the_traceback(small: Any, capsys: pytest.CaptureFixture[str]) -> None:
    images = small.load().collection("squares").image_folder("00001")
    images.parent.mkdir(parents=True)
    images.write_text("in the way")
    assert run(["run", str(small.file)]) == 1
    text = the_log(small.workspace / "logs")
    assert "ended: " in text and "in part 00001 of" in text and "Traceback" in text
    assert "Traceback" not in capsys.readouterr().err


def test_a_stage_logs_beside_what_it_makes(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (300, 300)).save(tmp_path / "mine" / "a.png")
    assert run(["ingest", "folder", str(tmp_path / "collection"), "--path", str(tmp_path / "mine")]) == 0
    assert "collection/records/00000: 1 rows, 1 kept; " in the_log(tmp_path / "collection" / "logs")


def test_a_command_that_refuses_its_input_leaves_no_log(tmp_path: Path) -> None:
    with pytest.raises(UserError), log_to_file(tmp_path / "logs"):
        raise UserError("name a folder.")
    assert list(tmp_path.iterdir()) == []


def test_verbose_shows_debug_lines_once_and_not_what_is_printed_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    def lines() -> None:
        LOG.debug("detail")
        LOG.info("line", extra=PRINTED)
        LOG.warning("hm\x1b[31m")

    root = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(root)  # as open_clip does
    try:
        for verbose in (False, True):
            with log_to_terminal(verbose):
                lines()
    finally:
        logging.getLogger().removeHandler(root)
    quiet, *loud = capsys.readouterr().err.splitlines()
    assert quiet == "hm\\x1b[31m"
    assert loud == ["DEBUG dreamloom.test: detail", "WARNING dreamloom.test: hm\\x1b[31m"]


def test_other_programs_lines_are_not_in_the_file(tmp_path: Path) -> None:
    with log_to_file(tmp_path):
        logging.getLogger("urllib3").warning("retrying")
        LOG.info("mine")
    text = the_log(tmp_path)
    assert "mine" in text and "retrying" not in text
    LOG.warning("later")
    assert "later" not in the_log(tmp_path)
