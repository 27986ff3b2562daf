"""Takes screenshots of the dashboard: runs, a run with its graph, forms, and each artifact, of a small demo project.

    python -m bench.screenshots [FOLDER]        FOLDER is screenshots/ by default; needs Chromium on this machine

Makes the demo's world with fewer images and a short training, deploys it with `dreamloom up`, runs it once, takes the
pictures, and takes everything down again. About three minutes.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml
from PIL import Image

from bench.browser import browse
from bench.flows_world import run_command
from dreamloom.base.errors import UserError
from dreamloom.demo.home import PROJECT, make_home
from dreamloom.demo.site import serve
from dreamloom.flows.server.services import load_services

EXHIBITS, STEPS = 150, 60


def main() -> None:
    """Makes the project, runs it, and takes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("screenshots"))
    target = parser.parse_args().folder
    target.mkdir(parents=True, exist_ok=True)
    os.environ.pop("PREFECT_API_URL", None)
    with tempfile.TemporaryDirectory(prefix="bench-screenshots-") as folder:
        home = Path(folder)
        os.environ["PREFECT_HOME"] = f"{folder}/prefect"
        with browse() as page, serve(make_home(home, 0, EXHIBITS)):
            workspace = _shorten(home / PROJECT)
            run_command("up", folder, "--schedule", "0 3 * * 1")
            try:
                services = load_services(workspace)
                _run(services.api)
                for name, path, text in _pages(services.api):
                    page.open(f"{services.dashboard}{path}", text)
                    _write(page.picture(), target / f"{name}.png")
                    print(target / f"{name}.png", flush=True)
            finally:
                run_command("down", folder)


def _write(picture: Image.Image, file: Path) -> None:
    """Writes a PNG of few colors, a third as large."""
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


def _shorten(project: Path) -> Path:
    """Makes the demo's training short, with samples on the way; returns the workspace."""
    content = yaml.safe_load(project.read_text())
    content["train"] |= {"max_train_steps": STEPS, "sample_every_n_steps": STEPS // 3}
    content["train"] |= {"evaluate_every_n_steps": STEPS // 3}
    project.write_text(yaml.safe_dump(content))
    return project.parent / str(content["workspace"])


def _run(api: str) -> None:
    """Runs the chain by its deployment, and waits for its end."""
    deployment = next(each for each in _ask(api, "deployments/filter") if each["entrypoint"].endswith("end_to_end"))
    run = _ask(api, f"deployments/{deployment['id']}/create_flow_run")
    while run["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
        time.sleep(2)
        run = _ask(api, f"flow_runs/{run['id']}", None)


def _pages(api: str) -> Iterator[tuple[str, str, str]]:
    """Yields name, path and a text of each page."""
    run = _ask(api, "flow_runs/filter", {"flow_runs": {"start_time": {"is_null_": False}}})[0]
    deployments = {each["entrypoint"].rpartition(".")[2]: each for each in _ask(api, "deployments/filter")}
    yield "runs", "/runs", run["name"]
    yield "run", f"/runs/flow-run/{run['id']}", run["name"]
    for name in ("end_to_end", "train", "score"):
        yield f"form-{name}", f"/deployments/deployment/{deployments[name]['id']}/run", deployments[name]["name"]
    for artifact in _ask(api, "artifacts/latest/filter"):
        yield f"artifact-{artifact['key']}", f"/artifacts/artifact/{artifact['latest_id']}", artifact["key"]


def _ask(api: str, path: str, body: dict[str, Any] | None = {}) -> Any:  # noqa: B006
    """The server's answer; None as the body: a GET."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{api}/{path}", data, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
