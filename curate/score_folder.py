"""Scores a plain folder of images into a table. Makes no collection."""

import time
from collections import Counter
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import Summary
from dreamloom.base.tables.tables import TABLE_SUFFIXES, write_table
from dreamloom.base.text import without_surrogates
from dreamloom.caption.folder import list_folder_images
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.score import check, score_records


def score_folder(folder: Path, config: ScoreConfig, output: Path, progress: Progress = silent) -> Summary:
    """Writes the scores of the images of a folder, and of those below it, into a table.

    An image that can't be decoded gets no row; the summary counts it by reason.

    Args:
        folder: the images; their captions are those of sidecars and names.
        config: the score stage's.
        output: the table to make: .csv, .jsonl or .parquet. Only the last has the embeddings.
        progress: called with the number of images done.

    Raises:
        UserError: there is no image, a model is missing or doesn't fit CLIP, or `output` exists or is no table.
    """
    if output.suffix.lower() not in TABLE_SUFFIXES:
        raise UserError(f"{output} is no table; name one that ends in {', '.join(TABLE_SUFFIXES)}.")
    if output.exists():
        raise UserError(f"{output} exists, and stays as it is; name another table with --output.")
    check(config)
    started, left_out = time.monotonic(), Counter[str]()
    images = list_folder_images(folder, left_out)
    rows = [{"key": without_surrogates(image.name), "image": image.name, "text": image.text} for image in images]
    scores, summary = score_records(folder.joinpath, config, rows, progress)
    table = scores.rename_columns(["file_name" if name == "key" else name for name in scores.column_names])
    hidden = ["recipe"] if output.suffix.lower() == ".parquet" else ["recipe", "embedding"]
    write_table(output, table.drop_columns(hidden))
    summary.left_out, summary.seconds = dict(left_out), time.monotonic() - started
    return summary
