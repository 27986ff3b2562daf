"""Measures which near duplicates `choose` finds: recall by kind of change, and precision, on photos.

    python -m bench.duplicates FOLDER [--clip MODEL [--pretrained TAG]] [--cosine 0.94] [--rows 50000]

Each photo of the folder is changed in nine ways. Recall is the share of the changed photos that count as copies of
their original; precision is the share of all pairs that count as copies and are of one photo, over all pairs of all
images. Both are told for the rules of `near_duplicates` without CLIP, for pHash alone, and, with --clip, for CLIP alone
and for the whole rules, at the cosine given. In whole rules an image has no more than eight pairs whose pixels are
compared; here all are. A CLIP model is named as in score.model, the demo's models/clip among them; as that one learned
from drawn scenes, only a real one's figures tell what CLIP adds for photos.

With --rows, it then searches that many drawn embeddings of 512 dimensions, each time in a process of its own: "spread"
has 2,000 kinds and one copy in ten, "alike" is a crowd of copies of one image, and "apart" a crowd that CLIP finds
alike and only the hashes tell apart. Prints tables and, last, a line of JSON: `recall` and `precision` of `similar`
(without --clip: of all but CLIP), and `ms_a_pair`, the milliseconds of CPU that comparing the pixels of a pair takes.
"""

import argparse
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from bench.variety import draw
from dreamloom.base.files.image_types import DECODED_EXTENSIONS
from dreamloom.base.images.near_duplicates import phash
from dreamloom.base.images.pixels import decode
from dreamloom.curate.config import ChooseConfig, NearDuplicates, ScoreConfig
from dreamloom.curate.rules.crops import is_part, shrink
from dreamloom.curate.rules.dedupe import NONE, Likeness, near_duplicates
from dreamloom.curate.rules.duplicates import likeness
from dreamloom.curate.rules.nearest import Embeddings

Change = Callable[[Image.Image], Image.Image]
CROWDS = ("spread", "alike", "apart")


def recompress(image: Image.Image) -> Image.Image:
    """Saves as JPEG of quality 40."""
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=40)
    return Image.open(stored).convert("RGB")


def crop(image: Image.Image, share: float) -> Image.Image:
    """Cuts off a share of the width and of the height, half of it on each side."""
    width, height = image.size
    x, y = round(width * share / 2), round(height * share / 2)
    return image.crop((x, y, width - x, height - y))


def write(image: Image.Image) -> Image.Image:
    """Writes a line of white on black over the lower part."""
    image = image.copy()
    side, pen = min(image.size), ImageDraw.Draw(image)
    top = image.height - side // 6
    pen.rectangle((0, top, image.width, top + side // 12), fill="black")
    pen.text((side // 20, top), "dreamloom near duplicates", fill="white", font_size=side // 16)
    return image


CHANGES: Mapping[str, Change] = {
    "recompress": recompress,
    "resize": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "crop_5": lambda image: crop(image, 0.05),
    "crop_20": lambda image: crop(image, 0.2),
    "corner_20": lambda image: image.crop((0, 0, round(image.width * 0.8), round(image.height * 0.8))),
    "mirror": ImageOps.mirror,
    "border": lambda image: ImageOps.expand(image, min(image.size) // 40, "white"),  # 5 % of the side in all
    "text": write,
    "color": lambda image: ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(1.1)).enhance(1.5),
}


def measure(agree: NDArray[np.bool_], photos: int) -> dict[str, float | dict[str, float]]:
    """Returns recall by kind and precision, given which images count as copies.

    Rows are the photos, then the photos changed in one way after the other.
    """
    photo = np.arange(len(agree)) % photos
    found = np.triu(agree | agree.T, 1)
    right = found & (photo[:, None] == photo)
    recall = {
        kind: round(float(found[np.arange(photos), np.arange(photos) + (number + 1) * photos].mean()), 3)
        for number, kind in enumerate(CHANGES)
    }
    return {"recall": recall, "precision": round(float(right.sum() / max(1, found.sum())), 4)}


def embed(images: Sequence[Image.Image], config: ScoreConfig) -> NDArray[np.float32]:
    """Returns CLIP's embeddings of images."""
    from dreamloom.base.models.clip import load_clip  # torch, whose memory is no part of a search's

    model = load_clip(config, config.device)
    batches = [images[first : first + 32] for first in range(0, len(images), 32)]
    return np.concatenate([model.embed_images([model.prepare(image) for image in batch]) for batch in batches])


def find_parts(images: Sequence[Image.Image]) -> tuple[NDArray[np.bool_], float]:
    """Compares the pixels of all pairs. Returns which show a part of the other, and the milliseconds of CPU a pair."""
    looks = [shrink(image) for image in images]
    found = np.zeros((len(images), len(images)), dtype=bool)
    pairs = list(combinations(range(len(images)), 2))
    began = time.process_time()
    for one, other in pairs:
        here, there = looks[one], looks[other]
        found[one, other] = here is not None and there is not None and is_part(here, there)
    return found, round(1000 * (time.process_time() - began) / len(pairs), 2)


def measure_photos(paths: Sequence[Path], clip: ScoreConfig | None, cosine: float) -> dict[str, Any]:
    """Measures each way to tell copies; prints a table."""
    originals = [decode(path) for path in paths]
    images = [*originals, *(change(image) for change in CHANGES.values() for image in originals)]
    hashes = np.array([phash(image) for image in images], dtype=np.int64).view(np.uint64)
    has_part, ms_a_pair = find_parts(images)
    strict, similar = (
        likeness(ChooseConfig(near_duplicates=kind)).hashes_agree(hashes[:, None], hashes)
        for kind in (NearDuplicates.STRICT, NearDuplicates.SIMILAR)
    )
    ways = {"strict, no CLIP": strict, "similar, pHash": similar, "similar, no CLIP": similar | has_part}
    if clip is not None:
        vectors = embed(images, clip)
        is_near = vectors @ vectors.T >= cosine
        ways |= {"CLIP alone": is_near, "strict": strict & is_near, "similar": (similar | has_part) & is_near}
    results: dict[str, Any] = {way: measure(agree, len(originals)) for way, agree in ways.items()}
    print(f"{len(originals)} photos; CLIP: {clip.model if clip else 'none'}, cosine ≥ {cosine:g}\n")
    print(f"{'recall':22}" + "".join(f"{kind:>11}" for kind in CHANGES) + f"{'precision':>11}")
    for way, result in results.items():
        print(f"{way:22}" + "".join(f"{value:11.2f}" for value in result["recall"].values()), end="")
        print(f"{result['precision']:11.4f}")
    print(f"\n{ms_a_pair} ms of CPU to compare the pixels of a pair")
    return {**results["similar" if clip else "similar, no CLIP"], "ways": results, "ms_a_pair": ms_a_pair}


def draw_crowd(crowd: str, rows: int) -> tuple[NDArray[np.int64], Embeddings, NDArray[np.bool_]]:
    """Returns hashes, embeddings, and which rows are copies of another, by how they were drawn."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(-(2**63), 2**63, rows, dtype=np.int64)
    vectors = draw(rows)[0]
    is_copy = np.zeros(rows, dtype=bool)
    if crowd != "spread":
        for first in range(0, rows, 10_000):
            vectors[first : first + 10_000] = vectors[0] + 0.02 * rng.standard_normal(
                vectors[first : first + 10_000].shape, dtype=np.float32
            ) * (0.4 if crowd == "alike" else 0.5)
        if crowd == "alike":
            hashes[:] = hashes[0]
            is_copy[1:] = True
    else:
        is_copy[-(rows // 10) :] = True
        source = rng.integers(0, rows - rows // 10, rows // 10)
        hashes[is_copy] = hashes[source]
        for _ in range(6):
            hashes[is_copy] ^= np.int64(1) << rng.integers(0, 63, rows // 10)
        noise = rng.standard_normal((rows // 10, vectors.shape[1]), dtype=np.float32)
        vectors[is_copy] = vectors[source] + 0.01 * noise  # a cosine of 0.975
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return hashes, vectors.astype(np.float16), is_copy


def search(crowd: str, rows: int) -> dict[str, float]:
    """Searches in this process."""
    hashes, vectors, is_copy = draw_crowd(crowd, rows)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew, without what was drawn with
    wall, cpu = time.perf_counter(), time.process_time()
    repeats = near_duplicates(hashes, Likeness(10, 0.94, mirrored=True), vectors.__getitem__)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
    found = repeats != NONE
    return {
        "seconds": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "peak_mb": int(peak.split()[0]) // 1024,
        "recall": round(float(found[is_copy].mean()), 4) if is_copy.any() else 1.0,
        "others": int(found[~is_copy].sum()),
    }


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of photos")
    parser.add_argument("--clip", help="a CLIP model, as in score.model")
    parser.add_argument("--pretrained", default="openai", help="its weights, as in score.pretrained")
    parser.add_argument("--cosine", type=float, default=0.94)
    parser.add_argument("--rows", type=int, default=0, help="drawn embeddings to search; 0: none")
    parser.add_argument("--crowd", choices=CROWDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.crowd:
        print(json.dumps(search(arguments.crowd, arguments.rows)))
        return
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in DECODED_EXTENSIONS)
    clip = ScoreConfig(model=arguments.clip, pretrained=arguments.pretrained) if arguments.clip else None
    result = {**measure_photos(paths, clip, arguments.cosine), "clip": arguments.clip}
    if arguments.rows:
        print(f"\n{arguments.rows} embeddings   seconds      CPU  peak MB   recall  others")
        result["rows"] = arguments.rows
        for crowd in CROWDS:
            command = [sys.executable, "-m", "bench.duplicates", str(arguments.folder), "--crowd", crowd]
            command += ["--rows", str(arguments.rows)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            result[crowd] = found
            print(f"{crowd:18}" + "".join(f"{value:9}" for value in found.values()))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
