"""The 64-bit perceptual hash: images that look alike have hashes that differ in few bits."""

import pyarrow as pa

from dreamloom.base.images.near_duplicates import phash
from dreamloom.curate.scores.score import image_score

PHASH = image_score("phash", pa.int64(), phash, version=0)
