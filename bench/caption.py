"""Compares the caption stage with transformers one image at a time, and with the bare model, in BLIP base's shape.

    OMP_NUM_THREADS=2 python -m bench.caption [--rounds 3] [--batch 16]
    python -m bench.caption --device cuda --batch 64 --images 512

one    as EveryDream and similar tools do: open an image, run the processor, generate, decode; float32.
ours   the caption stage over a collection: float32, and `precision: auto`.
bare   the model's own generate on prepared tensors, in the same batches: the upper bound.

Each runs in a process of its own, and they take turns, as a shared machine's speed changes by the minute. All of them
tell malloc to keep freed memory, as dreamloom's commands do; with --malloc=default none does. Prints a table, and last
a line of JSON: ratios of medians. Those of processor time hold on a busy machine, too; set OMP_WAIT_POLICY=PASSIVE,
or waiting threads count.
"""

import sys

from dreamloom.base.cpu import keep_freed_memory

if "--malloc=default" not in sys.argv:
    keep_freed_memory()  # before torch, for theirs as for ours

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from dreamloom.base.files.atomic import link
from dreamloom.caption.captioners.blip import load_blip
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.sidecar import read_caption
from dreamloom.caption.stage import caption
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder

TOKENS = 14
"""Length of every caption: that of BLIP's. Random weights would not end one."""
ONE = {"": 1, " beam3": 3}
"""Name of the turn → beams, of one image at a time."""
TURNS = {"one": "one", "one beam3": "one", "ours": "ours", "bare": "ours", "ours beam3": "ours"}
TURNS |= {"ours auto": "auto", "bare auto": "auto"}
"""Name of the turn → the process it runs in."""
RATIOS = {
    "vs_one_at_a_time": ("ours", "one"),
    "vs_one_at_a_time_beam3": ("ours beam3", "one beam3"),
    "vs_one_at_a_time_auto": ("ours auto", "one"),
    "vs_bare": ("ours", "bare"),
    "vs_bare_auto": ("ours auto", "bare auto"),
}
"""Name of the figure → the speed of the first turn over that of the second."""

Cost = tuple[float, float]
"""Seconds per image: wall time, and time of all processors."""


def main() -> None:
    """Makes a model and images in a temporary folder, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=16, help="images per turn; one at a time: a quarter")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--malloc", choices=["keep", "default"], default="keep", help="write --malloc=default")
    parser.add_argument("--serve", nargs=2, metavar=("PROCESS", "PLACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve[0], Path(given.serve[1]), given)
        return
    turns = TURNS if given.device == "cpu" else {"ours auto": "auto", "bare auto": "auto"}
    with tempfile.TemporaryDirectory() as place:
        make_model(Path(place) / "model")
        make_images(Path(place) / "pictures", given.images)
        with processes(set(turns.values()), place) as ask:
            costs = measure(turns, ask, given.rounds)
    report(costs, given.device)


def measure(turns: dict[str, str], ask: Callable[[str, str], Cost], rounds: int) -> dict[str, list[Cost]]:
    """Measures the cost per image of each turn in each round, after a short warm-up of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in turns}
    for name, process in turns.items():
        ask(process, f"first {name}")
    for _ in range(rounds):
        for name, process in turns.items():
            costs[name].append(ask(process, name))
            print("{}: {:.2f} s per image, {:.2f} of processors".format(name, *costs[name][-1]), file=sys.stderr)
    return costs


def report(costs: dict[str, list[Cost]], device: str) -> None:
    """Prints the table and the JSON."""
    wall = {name: median(cost for cost, _ in each) for name, each in costs.items()}
    processor = {name: median(cost for _, cost in each) for name, each in costs.items()}
    print(f"{'':<12}{'images/s':>12}{'s per image':>12}{'processor s':>12}")
    for name in costs:
        print(f"{name:<12}{1 / wall[name]:12.3f}{wall[name]:12.3f}{processor[name]:12.3f}")
    pairs = {name: pair for name, pair in RATIOS.items() if set(pair) <= costs.keys()}
    figures: dict[str, Any] = {name: round(wall[than] / wall[ours], 3) for name, (ours, than) in pairs.items()}
    if device == "cuda":
        figures |= {"captions_per_second": round(1 / wall["ours auto"], 1)}
        figures |= {"gpu_waited": round(max(0.0, 1 - figures["vs_bare_auto"]), 3)}
    else:
        figures["by_processor_time"] = {n: round(processor[than] / processor[o], 3) for n, (o, than) in pairs.items()}
    figures |= {"device": device, "threads": os.environ.get("OMP_NUM_THREADS", "all")}
    figures |= {"malloc": "default" if "--malloc=default" in sys.argv else "keep"}
    print(json.dumps(figures))


@contextmanager
def processes(names: set[str], place: str) -> Iterator[Callable[[str, str], Cost]]:
    """Starts a process for each name; yields a function that has one of them take a turn."""
    command = [sys.executable, "-m", "bench.caption", *sys.argv[1:], "--serve"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started: dict[str, Any] = {name: subprocess.Popen([*command, name, place], **pipes) for name in sorted(names)}

    def ask(process: str, turn: str) -> Cost:
        pipe = started[process]
        pipe.stdin.write(f"{turn}\n")
        pipe.stdin.flush()
        wall, processor = pipe.stdout.readline().split()
        return float(wall), float(processor)

    try:
        yield ask
    finally:
        for child in started.values():
            child.stdin.close()
            child.wait()


def serve(process: str, place: Path, given: argparse.Namespace) -> None:
    """Takes the turns named on stdin; answers each with seconds and processor seconds per image."""
    turns: dict[str, Callable[[], int]] = {}
    if process == "one":
        model = read_one(place)
        for name, beams in ONE.items():
            turns[f"one{name}"] = make_one(place, model, given.images // 4, beams)
            turns[f"first one{name}"] = make_one(place, model, 1, beams)
    else:
        precision = "auto" if process == "auto" else "fp32"
        fixed = {"model": str(place / "model"), "min_length": TOKENS, "max_length": TOKENS, "no_repeat_ngram_size": 0}
        config = CaptionConfig(**fixed, batch_size=given.batch, device=given.device, precision=precision)
        name = "ours auto" if process == "auto" else "ours"
        for first, count in (("", given.images), ("first ", 2)):
            collection = make_collection(place, f"{first}{process}", count)
            turns[f"{first}{name}"] = make_stage(collection, config)
            turns[f"{first}{name} beam3"] = make_stage(collection, config.model_copy(update={"num_beams": 3}))
            turns[f"{first}{name}".replace("ours", "bare")] = make_bare(place, config, count)
    for line in sys.stdin:
        began, worked = time.perf_counter(), time.process_time()
        count = turns[line.strip()]()
        print((time.perf_counter() - began) / count, (time.process_time() - worked) / count, flush=True)


def read_one(place: Path) -> tuple[Any, Any]:
    """Processor and model as transformers reads them, in float32."""
    import torch
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(place / "model", dtype=torch.float32).eval()
    return BlipProcessor.from_pretrained(place / "model"), model


def make_one(place: Path, read: tuple[Any, Any], count: int, beams: int) -> Callable[[], int]:
    """One image after the other."""
    import torch

    (processor, model), files = read, image_files(place, count)

    def turn() -> int:
        for file in files:
            inputs = processor(images=Image.open(file).convert("RGB"), return_tensors="pt")
            with torch.inference_mode():
                out = model.generate(**inputs, num_beams=beams, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
            processor.decode(out[0], skip_special_tokens=True)
        return len(files)

    return turn


def make_stage(collection: Collection, config: CaptionConfig) -> Callable[[], int]:
    """The caption stage, over a collection that has no captions yet."""

    def turn() -> int:
        shutil.rmtree(collection.root / Table.CAPTIONS, ignore_errors=True)
        return caption(collection, config).kept

    return turn


def make_bare(place: Path, config: CaptionConfig, count: int) -> Callable[[], int]:
    """The model's own generate, on tensors that are ready."""
    import torch
    from transformers import GenerationConfig

    loaded = load_blip(config).loaded
    images = [load_blip(config).prepare(Image.open(file)) for file in image_files(place, count)]
    ready: Any = torch.stack(images).to(loaded.device, loaded.dtype)

    def turn() -> int:
        loaded.language_model.generation_config = GenerationConfig(min_new_tokens=TOKENS, max_new_tokens=TOKENS)
        for batch in ready.split(config.batch_size):
            with torch.inference_mode():
                loaded.model.generate(pixel_values=batch).cpu()
        return len(ready)

    return turn


def make_collection(place: Path, name: str, count: int) -> Collection:
    """So many of the images as a collection, without texts."""
    collection, mine = Collection(place / name), place / f"pictures of {name}"
    mine.mkdir()
    for file in image_files(place, count):
        link(file, mine / file.name)
    ingest_folder(collection, FolderConfig(path=mine, captions="none"), read_caption)
    return collection


def image_files(place: Path, count: int) -> list[Path]:
    """Returns the first of the images."""
    return sorted((place / "pictures").iterdir())[:count]


def make_images(folder: Path, count: int) -> None:
    """Writes JPEGs of 640 × 480: smooth colors with some grain, as in photographs."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((640, 480))
        image = np.clip(np.asarray(coarse) + rng.normal(0, 6, (480, 640, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{number:05}.jpg", quality=92)


def make_model(folder: Path) -> None:
    """transformers' default BLIP, which is base, with random weights: 12 layers of 768 for each half, 384 pixels."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    config = BlipConfig(vision_config={"initializer_range": 0.02})  # its own, 1e-10, would leave all that it sees zero
    words = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"word{number}" for number in range(config.text_config.vocab_size - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BlipForConditionalGeneration(config).save_pretrained(folder)
    processor = BlipProcessor(image_processor=BlipImageProcessor(), tokenizer=BertTokenizer(str(folder / "vocab.txt")))
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
