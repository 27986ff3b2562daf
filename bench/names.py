"""Captions into names and back, and a folder of sidecars, beside the plainest loop that makes one.

    python -m bench.names [--names 100000] [--files 50000] [--rounds 3]

names      captions of many kinds get names by caption.filename, a picture is linked under each, with a sidecar where
           the name can't hold its caption; then the folder is read back.
convert    dreamloom caption convert --from filename --to txt, in place: nothing is overwritten, each file is whole or
           not there, each is logged.
plain      as KaliYuga's organiser does: for each picture, open(name.txt, "w").write(caption). It overwrites, logs
           nothing, and leaves half a file where it is killed.

Convert and plain take turns on fresh folders, as a shared machine's speed changes by the minute. Prints a table, and
last a line of JSON: seconds and collisions of the names, files a second of the medians, and convert ÷ plain.
"""

import argparse
import json
import os
import random
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from caption.convert import convert
from caption.filename import NameWriter, read_name
from caption.formats import FORMATS
from caption.formats.target import Log
from caption.sidecar import write_sidecar

WORDS = ("a man", "woman", "dog", "cat", "red", "blue", "old", "car", "bench", "on", "in", "of", "with", "photo")
ODD = ("con", "NUL", "multiply", "", "日本語のタイトル", "¡qué 🚲!", "who? 50/50", "blue_eyes", "v1.5", "x\ny", "end ")


def main() -> None:
    """Makes folders in a temporary place, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = measure_names(Path(place) / "names", list(captions(given.names)))
        seconds = measure_sidecars(Path(place), given.files, given.rounds)
    rate = {name: given.files / median(wall for wall, _ in taken) for name, taken in seconds.items()}
    of_cpu = {name: given.files / median(cpu for _, cpu in taken) for name, taken in seconds.items()}
    report(given.names, given.files, found, rate, of_cpu)


def captions(count: int) -> Iterator[str]:
    """Captions as people have them: a third stand more than once, some are long, some can't be names."""
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
    """Seconds of each way there and back, and how many names are equal or say something else."""
    folder.mkdir()
    picture = folder.with_name("picture.jpg")
    picture.write_bytes(b"x")
    began = time.perf_counter()
    writer = NameWriter()
    names = [writer.name(caption, ".jpg") for caption in wanted]
    read = [read_name(name) for name, _ in names]
    codec = time.perf_counter() - began
    wrong = sum(got != caption for got, caption, (_, beside) in zip(read, wanted, names, strict=True) if not beside)
    began = time.perf_counter()
    for number, ((name, beside), caption) in enumerate(zip(names, wanted, strict=True)):
        if number % 50_000 == 0:  # a file has at most 65,000 names on ext4
            picture = picture.with_stem(f"picture{number}")
            picture.write_bytes(b"x")
        os.link(picture, folder / name)
        if beside:
            write_sidecar(folder / name, caption)
    written = time.perf_counter() - began
    began = time.perf_counter()
    there = {row.name: row.caption for row in FORMATS["filename"].read(folder, Log().note)}
    back = time.perf_counter() - began
    wrong += sum(there.get(name) != caption for (name, _), caption in zip(names, wanted, strict=True))
    stems = {unicodedata.normalize("NFC", os.path.splitext(name)[0].casefold()) for name, _ in names}
    shutil.rmtree(folder)
    return {
        "codec": codec,
        "written": written,
        "read": back,
        "sidecars": sum(beside for _, beside in names),
        "collisions": len(names) - len(stems),
        "wrong": wrong,
    }


def measure_sidecars(place: Path, files: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each in each round: on the clock, and of the processor, which a busy machine changes less."""

    def ours(folder: Path) -> None:
        convert(folder, "filename", "txt", None, place / "log")

    turns: dict[str, Callable[[Path], None]] = {"convert": ours, "plain": plain, "again": ours}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in ("convert", "plain") if number % 2 == 0 else ("plain", "convert"):
            folder = make_pictures(place / f"{name}{number}", files)
            for turn in (name, "again") if name == "convert" else (name,):
                began, spent = time.perf_counter(), time.process_time()
                turns[turn](folder)
                seconds[turn].append((time.perf_counter() - began, time.process_time() - spent))
            assert len(list(folder.glob("*.txt"))) == files
            shutil.rmtree(folder)
    return seconds


def plain(folder: Path) -> None:
    """The loop that everybody writes first."""
    for path in sorted(folder.iterdir()):
        with open(path.with_suffix(".txt"), "w") as stream:
            stream.write(path.stem.split("_")[0])


def make_pictures(folder: Path, count: int) -> Path:
    """Small files under captions, half of which stand twice."""
    folder.mkdir()
    for number in range(count):
        suffix = (".jpg", ".gif", ".jpeg")[number % 3]
        (folder / f"a man on a bench by the sea {number // 2}_({number % 2 + 1}){suffix}").write_bytes(b"x")
    return folder


def report(names: int, files: int, found: dict[str, float], rate: dict[str, float], of_cpu: dict[str, float]) -> None:
    """The table, and the line of JSON."""
    table = Table("", "", title="Captions in names and sidecars", title_justify="left")
    table.add_row(f"{names:,} names, in memory, written and read", f"{found['codec']:.2f} s")
    table.add_row("the same, as pictures and sidecars", f"{found['written']:.2f} s, read back {found['read']:.2f} s")
    table.add_row(
        "of these with a sidecar; equal names; captions lost",
        f"{found['sidecars']:,}; {found['collisions']}; {found['wrong']}",
    )
    for name, value in rate.items():
        table.add_row(
            f"{files:,} files to .txt, {name}", f"{value:,.0f}/s, {of_cpu[name]:,.0f} a second of processor time"
        )
    Console(width=100).print(table)
    print(
        json.dumps(
            {
                "names": names,
                "names_seconds": round(found["codec"] + found["written"] + found["read"], 2),
                "collisions": int(found["collisions"]),
                "captions_lost": int(found["wrong"]),
                "files_per_second": round(rate["convert"]),
                "files_per_second_again": round(rate["again"]),
                "files_per_processor_second": round(of_cpu["convert"]),
                "vs_plain": round(rate["convert"] / rate["plain"], 3),
                "vs_plain_processor": round(of_cpu["convert"] / of_cpu["plain"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
