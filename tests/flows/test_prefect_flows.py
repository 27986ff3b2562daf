"""The chain as a Prefect flow: the same results, a task for each part, and what the dashboard shows of it."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId

from dreamloom.base.errors import StageFailed
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary
from dreamloom.flows import project_flows
from dreamloom.flows.prefect_flows import end_to_end
from dreamloom.flows.steps import Outcome, Step, counted
from dreamloom.flows.terminal import Terminal
from dreamloom.flows.tracking import run_parts
from dreamloom.scrape.collection import Status, Table
from dreamloom.scrape.datasets.folder import FolderConfig

pytestmark = pytest.mark.slow


def task_runs(state: Any, expected: dict[str, str]) -> dict[str, str]:
    """Name → state of the tasks of a flow run. The server hears of them some moments after the flow has ended."""
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    found: dict[str, str] = {}
    with get_client(sync_client=True) as client:
        for _ in range(150):
            found = {run.name: str(run.state_name) for run in client.read_task_runs(flow_run_filter=mine)}
            if found == expected:
                break
            time.sleep(0.2)
    return found


def log_lines(state: Any, last: str) -> list[str]:
    """What dreamloom logged in a flow run, as the server has it, once it has a line that begins with `last`."""
    mine = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    lines: list[str] = []
    with get_client(sync_client=True) as client:
        for _ in range(150):
            lines = [log.message for log in client.read_logs(mine) if log.name.startswith("dreamloom")]
            if any(line.startswith(last) for line in lines):
                break
            time.sleep(0.2)
    return lines


def artifacts() -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        return {str(artifact.key).removeprefix("small-"): artifact for artifact in client.read_artifacts(limit=200)}


@pytest.mark.usefixtures("prefect_server")
def test_the_chain_runs_part_by_part_and_shows_what_it_made(finished: Any) -> None:
    finished.change("caption", "edit", to={"suffix": ", drawn"})
    state = end_to_end(finished.file, return_state=True)
    assert state.is_completed()
    with get_client(sync_client=True) as client:
        flow_run = state.state_details.flow_run_id
        assert flow_run and client.read_flow_run(flow_run).name == "small"
    captions = ["caption circles 00000", "caption squares 00000", "caption squares 00001"]
    tasks = dict.fromkeys([*captions, "balance all", "train all", "export all"], "Completed")
    assert task_runs(state, tasks) == tasks
    lines = log_lines(state, last="export")
    assert sum(line.startswith("squares/captions/00001: 3 rows, 3 kept") for line in lines) == 1
    assert sum(line.startswith("train                2 steps") for line in lines) == 1
    shown = artifacts()
    assert shown["caption-squares-00001"].data == 100.0
    assert "| small" not in shown["balance"].data
    assert '"source": "squares"' in shown["funnel"].data
    for name in ("caption-squares-images", "balance-images", "samples", "learned-and-forgotten"):
        assert "(data:image/jpeg;base64," in shown[name].data
        assert len(shown[name].data) < 201_000
    assert not any(outcome.changed for outcome in finished.run().values()), "without Prefect something is left to do"


@pytest.mark.usefixtures("prefect_server")
def test_one_part_that_fails_fails_the_flow_when_the_others_are_done(small: Any) -> None:
    collection = small.load().collection("squares")
    collection.image_folder("00001").parent.mkdir(parents=True)
    collection.image_folder("00001").write_text("in the way")
    state = end_to_end(small.file, return_state=True)
    assert state.is_failed()
    tasks = dict.fromkeys(["ingest circles 00000", "ingest squares 00000"], "Completed")
    tasks["ingest squares 00001"] = "Failed"
    assert task_runs(state, tasks) == tasks
    assert collection.parts(Table.RECORDS) == ["00000"]


@pytest.mark.usefixtures("prefect_server")
def test_a_stage_is_a_flow_of_its_own(small: Any) -> None:
    config = FolderConfig(path=small.folder / "circles", part_rows=4)
    state = project_flows.ingest_folder(small.file, config, "circles", return_state=True)
    assert state.is_completed()
    collection = small.load().collection("circles")
    assert collection.read(Table.RECORDS)["status"].to_pylist() == [Status.OK] * 6
    assert collection.parts(Table.RECORDS) == ["00000", "00001"]
    assert not small.load().collection("squares").root.exists()


@pytest.mark.usefixtures("prefect_server")
def test_a_part_that_came_to_too_little_is_judged_with_the_others() -> None:
    class Scrape(Step):
        stage = "scrape"
        source = "web"

        def stale_parts(self) -> list[str]:
            return ["00000", "00001"]

        def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
            if parts == ["00001"]:
                raise StageFailed("too few images came")
            summary = Summary(rows=20, kept=11, dropped={"timeout": 9}, seconds=1.0, parts_before=2)
            return counted("scrape", "web", summary)

    @flow
    def one_step() -> str:
        with Terminal() as terminal:
            return run_parts(Scrape(), terminal).message

    assert one_step() == "scrape   web                20 in        11 kept, 9 dropped (timeout 9); 1.0 s"
