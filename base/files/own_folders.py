"""Recognizes dreamloom's own folders, which hold images that nobody wants to train on or take in by accident."""

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from dreamloom.base.errors import UserError

OwnFolder = Literal["run", "collection", "workspace", "model", "results"]
_MODELS = ("model_index.json", "dreamloom.json")
"""Files by which a model's folder is known: diffusers', and what `export` writes."""
_RESULTS = ("audit.json", "tune.json")
"""Files by which the folders of `audit` and `tune` are known."""
DRAWN = re.compile(r"dreamloom-(sample|compare)-.*\.png", re.IGNORECASE)
"""What `sample` and `compare` call the images that they write into the current folder."""
_MAX_CONFIG_BYTES = 2**20


def own_folder_kind(folder: Path) -> OwnFolder | None:
    """Tells what a folder of ours or of a model is; None: it is the user's, a training folder, or can't be entered."""
    if not os.access(folder, os.R_OK | os.X_OK):
        return None
    if _is_run(folder):
        return "run"
    if any((folder / name).is_file() for name in _MODELS):
        return "model"
    if any((folder / name).is_file() for name in _RESULTS):
        return "results"
    if (folder / "images").is_dir() and any((folder / "records").glob("[!.]*.parquet")):
        return "collection"
    if (folder / "dataset").is_dir() and any(
        (folder / name).exists() for name in ("dataset.parquet", "heldout", "collections")
    ):
        return "workspace"
    return None


def refuse_own_folder(folder: Path) -> None:
    """Refuses a folder of ours where images are asked for.

    Raises:
        UserError: it is one; the sentence names the folder to take.
    """
    match own_folder_kind(folder):
        case "workspace":
            heldout = folder / "heldout"
            evaluate = f" (and {heldout} for the held-out images)" if heldout.is_dir() else ""
            raise UserError(f"{folder} is a whole workspace, one level too high; name {folder / 'dataset'}{evaluate}.")
        case "run":
            raise UserError(f"{folder} is a training run, and its images are samples; name the folder of images.")
        case "model" | "results" as kind:
            what = {"model": "a model", "results": "what audit or tune found"}[kind]
            raise UserError(f"{folder} is {what}, and its images are samples; name the folder of images.")
        case "collection":
            raise UserError(
                f"{folder} is a collection; make a training folder of it with balance, or name a folder of images."
            )


COLLECTION_MANIFEST = "collection.json"
"""Lists the files of a collection at an address."""
TRAINING_MANIFEST = "dataset.parquet"
"""Says what became of each image of a workspace."""


def refuse_own_address(address: str, names: Collection[str]) -> None:
    """Refuses an address of ours where images are asked for.

    Args:
        address: a folder of shards.
        names: the paths of its files, below it.

    Raises:
        UserError: it is a collection, whose shards hold no captions, or a workspace.
    """
    loose = [name for name in names if name.endswith(".tar") and not name.startswith(("collections/", "crops/"))]
    if TRAINING_MANIFEST in names and not loose:
        raise UserError(f"{address} is a whole workspace, one level too high; name {address}/dataset.")
    if COLLECTION_MANIFEST in names:
        raise UserError(
            f"{address} is a collection; name it as a source of kind collection in project.yaml, and train on what "
            "balance makes of it."
        )


def _is_run(folder: Path) -> bool:
    """Whether a config.json of ours lies in the folder; models have others."""
    file = folder / "config.json"
    try:
        if not file.is_file() or file.stat().st_size > _MAX_CONFIG_BYTES:
            return False
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"recipe", "folder", "config"} <= content.keys()
