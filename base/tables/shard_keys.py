"""Which members of a webdataset shard belong to one sample, and where in the shard they lie."""

import posixpath
import tarfile
import unicodedata
from collections.abc import Iterator, Mapping

from dreamloom.base.files.image_types import is_image_name

Place = tuple[int, int]
"""Where a member's bytes begin, and their number."""


def list_files(archive: tarfile.TarFile) -> Iterator[tuple[str, Place]]:
    """Yields the files of a tar, as far as it can be read; links to members before them are what they lead to.

    Raises:
        tarfile.TarError, OSError: it can't be read further.
    """
    places: dict[str, Place] = {}
    for member in archive:
        place: Place | None = None
        if member.isreg():
            place = (member.offset_data, member.size)
        elif member.islnk() or member.issym():
            folder = "" if member.islnk() else posixpath.dirname(member.name)
            place = places.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if place is not None:
            places[posixpath.normpath(member.name)] = place
            yield member.name, place


def group_samples(files: Mapping[str, Place]) -> dict[str, dict[str, Place]]:
    """Groups the files of a shard by sample: key → extension → place.

    A key ends before the first dot behind the last slash, as in webdataset. It is spelled as in the image's name,
    however other members compose its accents or begin their paths ("./"). A caption may stand behind the image's whole
    name ("a.jpg.txt").
    """
    members: dict[str, dict[str, Place]] = {}
    spelled: dict[str, str] = {}
    for name, place in files.items():
        folder, slash, file = name.rpartition("/")
        stem, dot, extension = file.partition(".")
        if stem and dot:
            key = f"{folder}{slash}{stem}"
            same = unicodedata.normalize("NFC", posixpath.normpath(key))
            if same not in spelled or is_image_name(file):
                spelled[same] = key
            members.setdefault(same, {})[extension] = place
    samples = _split_dotted_keys({spelled[key]: places for key, places in members.items()})
    for places in samples.values():
        for extension in list(places):
            image, _, last = extension.rpartition(".")
            if image in places and is_image_name(f"x.{image}"):
                places.setdefault(last, places[extension])
    return samples


def _split_dotted_keys(members: Mapping[str, Mapping[str, Place]]) -> dict[str, dict[str, Place]]:
    """Gives images with dots in their names keys of their own: "photo v1.2.jpg" and "photo v1.3.jpg".

    A sample that has no image right behind the first dot of its key, but some behind others, is several: their keys end
    before the last dot. What stands right behind the first dot is of the image, if there is one only.

    Args:
        members: key → what follows its first dot → place.
    """
    found: dict[str, dict[str, Place]] = {}
    for key, places in members.items():
        images = [name for name in places if is_image_name(f"x.{name}")]
        is_dotted = bool(images) and all("." in name for name in images)
        only = images[0].rpartition(".")[0] if is_dotted and len(images) == 1 else None
        for name, place in places.items():
            middle, dot, extension = name.rpartition(".") if is_dotted else ("", "", name)
            if (
                is_dotted and is_image_name(f"x.{middle}") and not is_image_name(f"x.{extension}")
            ):  # "photo v1.2.jpg.txt"
                middle, _, image = middle.rpartition(".")
                extension = f"{image}.{extension}"
            if is_dotted and not dot and only is not None:
                middle, dot = only, "."
            found.setdefault(f"{key}.{middle}" if dot else key, {})[extension.lower()] = place
    return found
