"""`dreamloom show`: tables of a collection, a workspace or a training folder, and a contact sheet of its images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.table import Table as RichTable

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit
from dreamloom.base.files.remote import address_of
from dreamloom.curate.manifest import manifest_path
from dreamloom.curate.sheet import contact_sheet
from dreamloom.curate.source import is_collection, is_workspace, workspace_collections
from dreamloom.flows.report import contents
from dreamloom.flows.report.contents import SHEET_IMAGES, CaptionedImages, evenly_spaced, images_of_collection
from dreamloom.flows.terminal.tables import balance_rows, collection_funnel, funnel, source_names
from dreamloom.flows.terminal.terminal import funnel_table, rows_table
from dreamloom.scrape.collection import Collection, Table
from dreamloom.train.data.folder import read_training_folder

_COLUMNS, _SIDE = 8, 192
_SOFTWARE = "dreamloom contact sheet"
"""The PNG tag by which contact sheets are recognized, so that no other file is overwritten."""


def content(folder: Path) -> dict[str, Any]:
    """Returns what is in a collection, a workspace or a training folder, for programs and for `tables`.

    Raises:
        UserError: the folder is none of these.
    """
    if is_workspace(folder):
        trained_on = balance_rows(folder) if manifest_path(folder).exists() else None
        return {"funnel": funnel(folder, source_names(folder)), "trained_on": trained_on}
    if collection := _collection_at(folder):
        return {"funnel": {collection.name: collection_funnel(collection)}}
    return {"folders": _folder_rows(folder)}


def tables(content: Mapping[str, Any], folder: Path) -> list[RichTable]:
    """Makes tables of what `content` found in a folder."""
    shown = []
    if "funnel" in content:
        shown.append(funnel_table(content["funnel"]))
    if content.get("trained_on") is not None:
        shown.append(rows_table("What is trained on", content["trained_on"]))
    if "folders" in content:
        shown.append(rows_table(address_of(folder) or str(folder), content["folders"]))
    return shown


def _folder_rows(folder: Path) -> list[dict[str, Any]]:
    if (folder / "config.json").is_file() and (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is a training run; look at samples.png in it, or show its workspace.")
    return [
        {
            "folder": subfolder.name,
            "images": len(subfolder.images),
            "multiply": float(subfolder.multiply),
            "shown per epoch": float(sum(image.settings.multiply for image in subfolder.images)),
        }
        for subfolder in read_training_folder(folder)
    ]


def captions_of(folder: Path) -> contents.Captions:
    """Returns the captions of a collection, a workspace or a training folder."""
    if is_workspace(folder):
        return contents.captions_of_workspace(folder)
    if collection := _collection_at(folder):
        return contents.captions_of_collection(collection)
    return contents.captions_of_training_folder(folder)


def write_sheet(folder: Path, output: Path) -> Path | None:
    """Writes a PNG of some of the images with their captions.

    Returns:
        The file; None where there are no images yet.

    Raises:
        UserError: `output` exists and is not a contact sheet.
    """
    images = _images(folder)
    if not any(images.values()):
        return None
    if output.exists() and not _is_contact_sheet(output):
        raise UserError(f"{output} exists and is not a contact sheet; name another file with --output.")
    metadata = PngInfo()
    metadata.add_text("Software", _SOFTWARE)
    sheets = [contact_sheet(each, _COLUMNS, _SIDE, heading) for heading, each in images.items() if each]
    sheet = Image.new("RGB", (max(each.width for each in sheets), sum(each.height for each in sheets)), "white")
    for number, each in enumerate(sheets):
        sheet.paste(each, (0, sum(above.height for above in sheets[:number])))
    with commit(output) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=metadata)
    return output


def _images(folder: Path) -> dict[str, CaptionedImages]:
    """Returns some images of a folder by the heading that stands above them: the source's or the folder's name."""
    if is_workspace(folder):
        collections = workspace_collections(folder)
        count = max(1, SHEET_IMAGES // max(1, len(collections)))
        return {each.name: evenly_spaced(images_of_collection(each), count) for each in collections}
    if collection := _collection_at(folder):
        return {folder.absolute().name: images_of_collection(collection)}
    return {folder.absolute().name: contents.images_of_training_folder(folder)}


def _collection_at(path: Path) -> Collection | None:
    """Returns the collection in a folder or at an address; None: it is something else."""
    collection = Collection(path)
    is_there = any(map(collection.parts, Table)) if collection.address else is_collection(path)
    return collection if is_there else None


def _is_contact_sheet(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            return image.info.get("Software") == _SOFTWARE
    except OSError:
        return False
