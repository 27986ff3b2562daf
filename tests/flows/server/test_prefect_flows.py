"""The chain as a Prefect flow: the same results, a task for each part, and what the dashboard shows of it."""

import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL, temporary_settings

from dreamloom.base.errors import StageFailed
from dreamloom.base.progress import Progress
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.server import project_flows
from dreamloom.flows.server.prefect_flows import end_to_end, run_tracked
from dreamloom.flows.server.tracking import perform, run_parts
from dreamloom.flows.terminal.terminal import Terminal
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


def artifacts(state: Any) -> dict[str, Any]:
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=mine)
    return {str(artifact.key).removeprefix("small-"): artifact for artifact in found}


@pytest.mark.usefixtures("prefect_server")
def test_the_chain_runs_part_by_part_and_shows_what_it_made(finished: Any) -> None:
    finished.change("caption", "edit", to={"suffix": ", drawn"})
    state = end_to_end(finished.file, return_state=True)
    assert state.is_completed()
    with get_client(sync_client=True) as client:
        flow_run = state.state_details.flow_run_id
        assert flow_run and client.read_flow_run(flow_run).name == "small"
    assert state.message and state.message.startswith("learned "), "what the model learned is the headline"
    parts = ["caption circles 00000", "caption squares 00000", "caption squares 00001"]
    branches = [f"{stage} {source}" for stage in ("ingest", "caption") for source in ("circles", "squares")]
    tasks = dict.fromkeys([*branches, *parts, "choose", "balance", "train", "export"], "Completed")
    assert task_runs(state, tasks) == tasks
    lines = log_lines(state, last="export")
    assert sum(line.startswith("squares/captions/00001: 3 rows, 3 kept") for line in lines) == 1
    assert sum(line.startswith("train                2 steps") for line in lines) == 1
    shown = artifacts(state)
    assert len(shown) < 15, "few artifacts: none a part"
    assert "| small" not in shown["balance"].data
    assert '"source": "squares", "stage": "ingest"' in shown["funnel"].data
    for name in ("caption-squares-images", "balance-images", "samples", "learned-and-forgotten"):
        assert "(data:image/jpeg;base64," in shown[name].data
        assert len(shown[name].data) < 201_000
    page = shown["summary"].data
    cells = [cell for row in page.splitlines() if row.startswith("|") for cell in row.split("|")]
    assert max(len(line.strip()) for cell in cells for line in cell.split("<br>")) <= 80, "the dashboard breaks no line"
    assert f"**{state.message}**" in page
    assert (
        re.search(r"\| train \| [^|]+ \| 2 steps", page) and str(finished.workspace / "report" / "index.html") in page
    )
    assert page.count(" | 2 | ") == 2, "this run of training, and the one before"
    assert not any(outcome.changed for outcome in finished.run().values()), "without Prefect something is left to do"


@pytest.mark.usefixtures("prefect_server")
def test_one_part_that_fails_fails_the_flow_when_the_others_are_done(small: Any) -> None:
    collection = small.load().collection("squares")
    collection.image_folder("00001").parent.mkdir(parents=True)
    collection.image_folder("00001").write_text("in the way")
    state = end_to_end(small.file, return_state=True)
    assert state.is_failed()
    assert state.message and "in part 00001" in state.message and "ExceptionGroup" not in state.message
    assert "in part 00001" in artifacts(state)["summary"].data
    tasks = dict.fromkeys(["ingest circles", "ingest circles 00000", "ingest squares 00000"], "Completed")
    tasks |= dict.fromkeys(["ingest squares", "ingest squares 00001"], "Failed")
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
def test_a_step_is_judged_over_all_its_parts_and_fails_with_its_sentence() -> None:
    class Scrape(Step):
        stage = "scrape"
        source = "web"

        def stale_parts(self) -> list[str]:
            return ["00000", "00001"]

        def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
            assert parts is None, "one plan for all parts"
            raise StageFailed("too few images came")

    @flow
    def one_step() -> State[object]:
        with Terminal() as terminal:
            return perform(lambda: [run_parts(Scrape(), terminal)], lambda _: "done")

    state = one_step(return_state=True)
    assert state.is_failed() and state.message == "too few images came"


def test_a_run_whose_server_does_not_answer_is_not_tracked(small: Any, caplog: pytest.LogCaptureFixture) -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert run_tracked(small.file) is None
    assert "does not answer; the run is not tracked" in caplog.text
    assert not small.workspace.exists()
