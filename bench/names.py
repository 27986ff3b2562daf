"""Measures captions written to names and read back, and compares a folder of sidecars with the simplest loop.

    python -m bench.names [--names 100000] [--files 50000] [--rounds 10]

names      captions of many kinds get names by caption.filename, an image is linked under each, with a sidecar where
           the name can't hold its caption; then the folder is read back.
convert    dreamloom caption convert --from filename --to txt, in place: nothing is overwritten, each file is whole or
           not there, each is logged.
plain      as KaliYuga's organiser does: for each image, open(name.txt, "w").write(caption). It overwrites, logs
           nothing, and leaves half a file where it is killed.

One folder of all files is converted at once; then convert and plain take turns on fresh folders of a tenth of that, as
a shared machine's speed changes by the second. Prints a table, and last a line of JSON: seconds and collisions of the
names, files a second of the whole folder, and convert ÷ plain by the medians of the turns.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from dreamloom.caption.convert import convert
from dreamloom.caption.filename import NameWriter, read_name
from dreamloom.caption.formats import FORMATS
from dreamloom.caption.formats.target import Log
from dreamloom.caption.sidecar_writer import write_sidecar

WORDS = ("a man", "woman", "dog", "cat", "red", "blue", "old", "car", "bench", "on", "in", "of", "with", "photo")
ODD = ("con", "NUL", "multiply", "", "日本語のタイトル", "¡qué 🚲!", "who? 50/50", "blue_eyes", "v1.5", "x\ny", "end ")


def main() -> None:
    """Makes folders in a temporary place, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        seconds = measure_names(Path(place) / "names", list(captions(given.names)))
        large = measure(Path(place), given.files, ["convert", "again"], 1)
        turns = measure(Path(place), max(1, given.files // 10), ["convert", "plain"], given.rounds)
    report(given.names, given.files, seconds, large, turns)


def captions(count: int) -> Iterator[str]:
    """Yields captions as people have them: a third occur more than once, some are long, some can't be names."""
    rng = random.Random(0)
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(3, 12))
        kind = rng.random()
        if kind < 0.05:
            yield rng.choice(ODD)
        elif kind < 0.1:
            yield " ".join(rng.choices(WORDS, k=120))
        elif kind < 0.35:
            yield " ".join(words[:3]).title() if number % 2 else " ".join(words[:3])
        else:
            yield f"{' '.join(words)} {number}"


def measure_names(folder: Path, wanted: list[str]) -> dict[str, float]:
    """Measures writing and reading names, and counts equal names and lost captions."""
    folder.mkdir()
    image = folder.with_name("picture.jpg")
    image.write_bytes(b"x")
    start, cpu_start = time.perf_counter(), time.process_time()
    writer = NameWriter()
    names = [writer.name(caption, ".jpg") for caption in wanted]
    read = [read_name(name) for name, _ in names]
    codec = time.perf_counter() - start
    wrong = sum(got != caption for got, caption, (_, beside) in zip(read, wanted, names, strict=True) if not beside)
    start = time.perf_counter()
    for number, ((name, beside), caption) in enumerate(zip(names, wanted, strict=True)):
        if number % 50_000 == 0:  # a file has at most 65,000 names on ext4
            image = image.with_stem(f"picture{number}")
            image.write_bytes(b"x")
        os.link(image, folder / name)
        if beside:
            write_sidecar(folder / name, caption)
    written = time.perf_counter() - start
    start = time.perf_counter()
    captions_read = {row.name: row.caption for row in FORMATS["filename"].read(folder, Log().note)}
    back = time.perf_counter() - start
    processor = time.process_time() - cpu_start
    wrong += sum(captions_read.get(name) != caption for (name, _), caption in zip(names, wanted, strict=True))
    stems = {unicodedata.normalize("NFC", os.path.splitext(name)[0].casefold()) for name, _ in names}
    shutil.rmtree(folder)
    return {
        "codec": codec,
        "written": written,
        "read": back,
        "processor": processor,
        "sidecars": sum(beside for _, beside in names),
        "collisions": len(names) - len(stems),
        "wrong": wrong,
    }


Turns = dict[str, list[tuple[float, float]]]
"""What was timed → files a second in each round: on the clock, and of processor time, which others change less."""


def measure(place: Path, files: int, names: list[str], rounds: int) -> Turns:
    """Measures each in each round, on a fresh folder; "again" on what convert has left."""
    turns: Turns = {name: [] for name in names}
    folder = place
    for number in range(rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            if name != "again":
                folder = make_images(place / f"{name}{files}-{number}", files)
            start, cpu_start = time.perf_counter(), time.process_time()
            if name == "plain":
                plain(folder)
            else:
                convert(folder, "filename", "txt", None, place / "log")
            turns[name].append((files / (time.perf_counter() - start), files / (time.process_time() - cpu_start)))
            assert len(list(folder.glob("*.txt"))) == files
    return turns


def plain(folder: Path) -> None:
    """Writes sidecars in the loop that everybody writes first."""
    for path in sorted(folder.iterdir()):
        with open(path.with_suffix(".txt"), "w") as stream:
            stream.write(path.stem.split("_")[0])


def make_images(folder: Path, count: int) -> Path:
    """Writes small files under captions, each caption twice."""
    folder.mkdir()
    for number in range(count):
        suffix = (".jpg", ".gif", ".jpeg")[number % 3]
        (folder / f"a man on a bench by the sea {number // 2}_({number % 2 + 1}){suffix}").write_bytes(b"x")
    return folder


def report(names: int, files: int, seconds: dict[str, float], large: Turns, turns: Turns) -> None:
    """Prints the table, and the line of JSON."""
    table = Table("", "", title="Captions in names and sidecars", title_justify="left")
    table.add_row(f"{names:,} names, in memory, written and read", f"{seconds['codec']:.2f} s")
    table.add_row("the same, as images and sidecars", f"{seconds['written']:.2f} s, read back {seconds['read']:.2f} s")
    kinds = f"{seconds['sidecars']:,}; {seconds['collisions']}; {seconds['wrong']}"
    table.add_row("of these with a sidecar; equal names; captions lost", kinds)
    rates = {}
    for count, timed in ((files, large), (max(1, files // 10), turns)):
        for name, taken in timed.items():
            rate, of_cpu = (median(values) for values in zip(*taken, strict=True))
            rates[count, name] = rate, of_cpu
            table.add_row(
                f"{count:,} files to .txt, {name}", f"{rate:,.0f}/s, {of_cpu:,.0f} a second of processor time"
            )
    Console(width=110).print(table)
    tenth = max(1, files // 10)
    figures = {
        "names": names,
        "names_seconds": round(seconds["codec"] + seconds["written"] + seconds["read"], 2),
        "names_processor_seconds": round(seconds["processor"], 2),
        "collisions": int(seconds["collisions"]),
        "captions_lost": int(seconds["wrong"]),
        "files_per_second": round(rates[files, "convert"][0]),
        "files_per_second_again": round(rates[files, "again"][0]),
        "files_per_processor_second": round(rates[files, "convert"][1]),
        "vs_plain": round(rates[tenth, "convert"][0] / rates[tenth, "plain"][0], 3),
        "vs_plain_processor": round(rates[tenth, "convert"][1] / rates[tenth, "plain"][1], 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
