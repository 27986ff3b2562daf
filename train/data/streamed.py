"""Training sets whose images stay in the shards of collections at addresses (dreamloom.base.tables.streamed_set).

The images, their captions, their settings and their order are those of the training folder that balance would make.
"""

import posixpath
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from dreamloom.base.tables.streamed_set import StreamedSet
from dreamloom.caption.sidecar import content_of
from dreamloom.train.data.control_files import FolderSettings, make_training_image, parse_number
from dreamloom.train.data.image import ByteRange, ImageFolder, TrainingImage
from dreamloom.train.data.notes import Notes


def read_streamed_set(found: StreamedSet, notes: Notes) -> list[ImageFolder]:
    """Returns the folders of a training set, in order of name; reads its table alone.

    Raises:
        UserError: the table can't be read.
    """
    where = Path(found.workspace, found.inside)
    settings = {
        folder: FolderSettings({"multiply": parse_number(text, where / folder)})
        for folder, text in found.multiplies().items()
    }
    folders = defaultdict[str, list[TrainingImage]](list)
    for image in found.images():
        folder = posixpath.dirname(image.name)
        written = content_of(image.name, image.text, image.settings)
        of_folder = settings.setdefault(folder, FolderSettings())
        made = make_training_image(where / image.name, image.name, of_folder, written, notes)
        source = ByteRange(sys.intern(image.shard), image.offset, image.length)
        folders[folder].append(replace(made, source=source))
    return [
        ImageFolder(name, settings[name].image_settings.multiply, tuple(sorted(images, key=lambda image: image.name)))
        for name, images in sorted(folders.items())
    ]
