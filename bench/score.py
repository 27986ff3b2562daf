"""Compares the score stage with CLIP one image at a time, and with the bare model, both with texts.

    OMP_WAIT_POLICY=PASSIVE python -m bench.score [--rounds 3] [--model ViT-B-32] [--precision bf16]
    python -m bench.score --device cuda --model ViT-L-14 --batch 64 --images 512

one    as scripts for CLIP scores do: open an image, open_clip's own transform and tokenizer, encode both, their cosine.
ours   the score stage over a collection: embedding, similarity and pHash, and the table of them.
bare   encode_image and encode_text on tensors that are ready, in batches of the same size: the upper bound.

The model is open_clip's of that name with random weights, or a folder, such as demo/models/clip; images are JPEGs of
640 × 480 with captions of 13 tokens. All run in one process, with the same model, precision and threads (--threads),
and keep freed memory, as dreamloom's commands do. They take turns, as a shared machine's speed changes by the minute.
Prints a table, and last a line of JSON: medians over the rounds of the ratios of seconds, `by_processor_time` those of
processor seconds, which hold on a busy machine, too; set OMP_WAIT_POLICY=PASSIVE, or waiting threads count.
"""

# ruff: noqa: E402
from dreamloom.base.cpu import keep_freed_memory

keep_freed_memory()  # before torch

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from bench.caption import image_files, make_images
from dreamloom.base.models.clip import load_clip
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate.config import ScoreConfig
from dreamloom.curate.score import score
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder

CAPTION = "a red bus stands in a street beside a white house"
"""Eleven words, with those that begin and end a text 13 tokens of CLIP."""

Turn = Callable[[], int]
"""Scores images, and returns how many."""


class Cost(NamedTuple):
    """Seconds per image."""

    wall: float
    processor: float
    """Of all threads."""


def main() -> None:
    """Makes a model and images in a temporary folder, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="ViT-B-32", help="a name of open_clip's, or a folder")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=64, help="images per turn; one at a time: a quarter")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        model = given.model if Path(given.model).is_dir() else make_model(place / "model", given.model)
        settings: dict[str, Any] = {"model": str(model), "batch_size": given.batch, "precision": given.precision}
        config = ScoreConfig(**settings, device=given.device)
        make_images(place / "pictures", given.images)
        files = image_files(place, given.images)
        turns = {
            "one": one_at_a_time(files[: max(1, given.images // 4)], config),
            "ours": stage(place, config),
            "bare": bare(files, config),
        }
        rounds = measure(turns, given.rounds)
    report(rounds, {**settings, "model": given.model, "device": given.device, "threads": given.threads})


def measure(turns: dict[str, Turn], rounds: int) -> list[dict[str, Cost]]:
    """Returns the costs of each round, after one that is not counted."""
    measured = []
    for number in range(rounds + 1):
        costs = {}
        for name, turn in turns.items():
            wall, processor = time.perf_counter(), time.process_time()
            count = turn()
            costs[name] = Cost((time.perf_counter() - wall) / count, (time.process_time() - processor) / count)
        if number:
            measured.append(costs)
            print("  ".join(f"{name} {cost.wall:.4f} s per image" for name, cost in costs.items()), file=sys.stderr)
    return measured


def report(rounds: list[dict[str, Cost]], setting: dict[str, Any]) -> None:
    """Prints the table and the JSON."""
    print(f"{'':<12}{'images/s':>12}{'s per image':>14}{'processor s':>14}")
    for name in rounds[0]:
        wall, processor = (median(values) for values in zip(*(costs[name] for costs in rounds), strict=True))
        print(f"{name:<12}{1 / wall:12.2f}{wall:14.4f}{processor:14.4f}")
    ratios = {"vs_one_at_a_time": "one", "vs_bare": "bare"}
    figures: dict[str, Any] = {
        figure: round(median(costs[than].wall / costs["ours"].wall for costs in rounds), 3)
        for figure, than in ratios.items()
    }
    if setting["device"] == "cuda":
        figures["data_wait"] = round(max(0.0, 1 - figures["vs_bare"]), 3)
    else:
        figures["by_processor_time"] = {
            figure: round(median(costs[than].processor / costs["ours"].processor for costs in rounds), 3)
            for figure, than in ratios.items()
        }
    print(json.dumps(figures | setting))


def one_at_a_time(files: list[Path], config: ScoreConfig) -> Turn:
    """One image after the other, with its caption."""
    clip = load_clip(config, config.device)
    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32

    def turn() -> int:
        for file in files:
            pixels = clip.prepare(Image.open(file).convert("RGB"))[None].to(clip.device, kind)
            with torch.inference_mode():
                image = clip.model.encode_image(pixels, normalize=True)
                text = clip.model.encode_text(clip.tokenize([CAPTION]).to(clip.device), normalize=True)
                float((image @ text.T).item())
        return len(files)

    return turn


def stage(place: Path, config: ScoreConfig) -> Turn:
    """The score stage, over a collection that has no scores yet."""
    for file in (place / "pictures").iterdir():
        file.with_suffix(".txt").write_text(CAPTION)
    collection = Collection(place / "collection")
    ingest_folder(collection, FolderConfig(path=place / "pictures", captions="sidecars"), read_caption)

    def turn() -> int:
        shutil.rmtree(collection.root / Table.SCORES, ignore_errors=True)
        return score(collection, config).kept

    return turn


def bare(files: list[Path], config: ScoreConfig) -> Turn:
    """The model's two towers, on tensors that are ready."""
    clip = load_clip(config, config.device)
    kind = torch.bfloat16 if config.precision == "bf16" else torch.float32
    pixels: Any = torch.stack([clip.prepare(Image.open(file)) for file in files]).to(clip.device, kind)
    tokens: Any = clip.tokenize([CAPTION] * len(files)).to(clip.device)

    def turn() -> int:
        for some, texts in zip(pixels.split(config.batch_size), tokens.split(config.batch_size), strict=True):
            with torch.inference_mode():
                image = clip.model.encode_image(some, normalize=True)
                text = clip.model.encode_text(texts, normalize=True)
                (image * text).sum(dim=1).cpu()
        return len(files)

    return turn


def make_model(folder: Path, name: str) -> Path:
    """Writes a folder with open_clip's model of this name, with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    model = open_clip.create_model(name)
    configs = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    (folder / "open_clip_config.json").write_text(json.dumps(configs))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


if __name__ == "__main__":
    main()
