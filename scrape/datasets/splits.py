"""Which split of a dataset a file belongs to, by its path: train-00000-of-00002.parquet, data/train/0.jpg.

As Hugging Face's datasets has it: a split is a folder, or a word of the file's own name; val and dev are validation.
https://huggingface.co/docs/datasets/repository_structure
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dreamloom.base.errors import UserError

_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLITS = {name: split for split, names in _NAMES.items() for name in names}


def of_split(root: Path, files: Sequence[Path], split: str | None, what: str) -> list[Path]:
    """Returns the files of a split, in order.

    Args:
        root: the dataset's folder.
        files: the files in it.
        split: the split, in any of its names; None: every file belongs.
        what: what the files are, for errors: "image".

    Raises:
        UserError: no file is of the split, or a path names two splits.
    """
    if split is None:
        return list(files)
    found = {file: split_of(file.relative_to(root), extra=split) for file in files}
    wanted = _canonical(split)
    chosen = [file for file in files if found[file] == wanted]
    if files and not chosen:
        there = _join(sorted({name for name in found.values() if name}))
        there = there or "files without a split, but the name of a folder may be given as one"
        raise UserError(f"{root} has no {what} of the split {split}; it has {there}.")
    return chosen


def split_of(path: Path, extra: str = "") -> str | None:
    """Returns the split that a path names: its folders, else its own name, else a word at an end of a folder's name.

    So of train/, train_01.jpg, and train2017/ or cars_train/; None: it names none. In a table's name any word counts
    (cars-train-00000-of-00001.parquet), as nothing there is a caption. Of an image's, the first does, where no blank
    follows: "train station.jpg" is one.

    Args:
        path: relative to the dataset's folder.
        extra: a split's name beside the usual ones.

    Raises:
        UserError: folders, or words of a table's name, name two splits.
    """
    is_table = path.suffix.lower() in (".parquet", ".arrow")
    own = _words(path.name.replace(" ", "_")) if is_table else _words(path.name)[:1]
    of_folders = [words for words in map(_words, path.parts[:-1]) if words]
    for names in (path.parts[:-1], own, [word for words in of_folders for word in (words[0], words[-1])]):
        splits = {_canonical(name) for name in names if name.lower() in _SPLITS or name.lower() == extra.lower()}
        if len(splits) > 1:
            raise UserError(f"{path} names the splits {_join(sorted(splits))}; move it into the folder of one.")
        if splits:
            return splits.pop()
    return None


def _words(name: str) -> list[str]:
    """Returns what dashes, underscores, full stops and numbers part in a name, without the numbers."""
    words = re.split(r"[-_.]+|(?<=[a-z])(?=\d)", name.lower())
    return [word for word in words if not word.isdecimal()]


def _canonical(name: str) -> str:
    return _SPLITS.get(name.lower(), name.lower())


def _join(names: Iterable[str]) -> str:
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last
