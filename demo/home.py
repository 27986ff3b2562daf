"""Makes the demo's folder with what a user has before the first run: images, an index, models and project.yaml."""

import shutil
import socket
from pathlib import Path
from typing import Any

import yaml

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit_folder, commit_text
from dreamloom.demo.folders import CONCEPT, make_coco, make_concept, make_ffhq, make_imagenet
from dreamloom.demo.index import write_index

PORT = 28417
"""Port of the demo's site, if it is free. Keys are made of addresses, so the same port gives the same run."""
PROJECT = "project.yaml"
WITHOUT = "without.yaml"
"""The project without its ground truth."""

_HERE = Path(__file__).parent
_PORT_NOTE = ".port"


def check_home(folder: Path) -> None:
    """Checks that `folder` is a demo world, empty or missing.

    Raises:
        UserError: it holds something else.
    """
    if (folder / _PORT_NOTE).exists() or not folder.exists():
        return
    if not folder.is_dir() or any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} holds something that is not a demo world; name another --folder.")


def make_home(folder: Path, seed: int, exhibits: int) -> int:
    """Makes what is missing, each file and folder whole. What exists is left as it is.

    Args:
        folder: the demo's folder.
        seed: seed of the training in a new project.yaml.
        exhibits: number of the site's images in a new index.

    Returns:
        The port of the site in the index.
    """
    note = folder / _PORT_NOTE
    if not note.exists():
        commit_text(note, f"{_free_port()}\n")
    port = int(note.read_text())
    make_concept(folder / "pictures" / CONCEPT)
    make_coco(folder / "coco")
    make_ffhq(folder / "ffhq")
    make_imagenet(folder / "imagenet")
    write_index(folder / "index", f"http://127.0.0.1:{port}", exhibits)
    if not (folder / "models").exists():
        with commit_folder(folder / "models") as temporary:
            shutil.copytree(_HERE / "models", temporary, dirs_exist_ok=True)
    text = (_HERE / PROJECT).read_text().replace("seed: 0", f"seed: {seed}")
    for name, content in ((WITHOUT, without_ground_truth(text)), (PROJECT, text)):
        if not (folder / name).exists():
            commit_text(folder / name, content)
    return port


def without_ground_truth(project: str) -> str:
    """Returns the text of a project with its training sources only and a workspace of its own."""
    content: dict[str, Any] = yaml.safe_load(project)
    content["workspace"] = "without"
    # as many images of the concept as with ground truth
    content["train"]["max_train_steps"] = round(content["train"]["max_train_steps"] / (1 + content["balance"]["ratio"]))
    sources = content["sources"].items()
    content["sources"] = {name: source for name, source in sources if source["role"] == "training"}
    return "# project.yaml without its ground truth, to compare.\n" + yaml.safe_dump(content, sort_keys=False)


def _free_port() -> int:
    for port in (PORT, 0):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(trial.getsockname()[1])
    raise UserError("No port of 127.0.0.1 is free for the demo's site; close some programs.")
