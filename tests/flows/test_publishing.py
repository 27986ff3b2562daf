"""What a weekly run does with a model: it is trained when enough is new, and published unless it forgot too much."""

import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect.client.orchestration import get_client

from dreamloom.flows.chain import chain
from dreamloom.flows.commands.cli import run
from dreamloom.flows.server.prefect_flows import end_to_end
from dreamloom.train.run.folder import list_checkpoints

pytestmark = pytest.mark.slow


def add_images(small: Any, *colors: str) -> None:
    for color in colors:
        Image.new("RGB", (64, 64), color).save(small.folder / "circles" / f"a {color} field.png")


def events(name: str, state: Any) -> list[Any]:
    """The events of a name and a flow run, once the server has one, which hears of it some moments later."""
    flow_run = f"prefect.flow-run.{state.state_details.flow_run_id}"
    wanted = {"filter": {"event": {"name": [name]}, "related": {"id": [flow_run]}}}
    found: list[Any] = []
    with get_client(sync_client=True) as client:
        for _ in range(150):
            found = client.request("POST", "/events/filter", json=wanted).json()["events"]
            if found:
                break
            time.sleep(0.2)
    return found


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_project_is_trained_again_when_enough_images_are_new(
    finished: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    finished.change("train", "when", to={"new_images": 3})
    assert run(["run", str(finished.file)]) == 0
    assert "Nothing to do" in capsys.readouterr().out, "`when` is in no recipe"
    last, model = chain.run_folder(finished.load()), files(finished.workspace / "model")
    add_images(finished, "cyan", "magenta")
    assert run(["run", str(finished.file)]) == 0
    assert f"new images since {last.name}, fewer than train.when.new_images 3: not trained" in capsys.readouterr().out
    assert chain.run_folder(finished.load()) == last
    assert files(finished.workspace / "model") == model
    add_images(finished, "yellow", "brown", "gray", "pink")
    assert run(["run", str(finished.file)]) == 0
    assert chain.run_folder(finished.load()) != last
    assert files(finished.workspace / "model") != model


@pytest.mark.usefixtures("prefect_server")
def test_a_model_that_forgot_too_much_is_not_published_and_automations_hear_of_it(finished: Any) -> None:
    model = files(finished.workspace / "model")
    finished.change("train", "learning_rate", to=0.01)
    finished.change("train", "limit_mean", to=0.001)
    state = end_to_end(finished.file, return_state=True)
    assert state.is_failed()
    assert list_checkpoints(chain.run_folder(finished.load())), "it is there to look at"
    assert files(finished.workspace / "model") == model
    (exceeded,), (failed,) = (events(f"dreamloom.{name}", state) for name in ("limit.exceeded", "run.failed"))
    assert exceeded["resource"]["prefect.resource.id"] == "dreamloom.project.small"
    message = exceeded["payload"]["message"]
    assert message.startswith("The model forgot more than its limits allow (forgotten ")
    assert f"so {finished.workspace / 'model'} stays as it was" in message
    assert failed["payload"]["message"] == message
    finished.change("evaluate", to={})  # whose measurement counts, and there is none yet
    assert run(["run", str(finished.file), "--only", "export"]) == 2
    assert files(finished.workspace / "model") == model
