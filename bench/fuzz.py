"""Throws bytes at every reader of what strangers write, and looks for what they raise, for hangs, and for leaks.

    python -m bench.fuzz [--cases 1000000] [--seed 0] [--only tar] [--case 17]

Each case is one or two golden inputs of a reader (bench/fuzz_readers.py) with one to five mutations: bits, numbers at
the edge of their range, pieces of other inputs, what is cut off, taken twice or a thousand times. A reader may raise
the errors that it documents, which become the status of a row. All else is a fault, as is a case of more than two
seconds. A case follows from the seed, the reader's name and its number, so `--only NAME --case N` runs it again.

Prints a row for each reader: cases, how many were refused, CPU seconds, the slowest case, the peak of memory above what
the process had before, and what it had grown by at the end since a tenth of the cases. Then the faults, and last, a
line of JSON. Exits 1 where there are faults.
"""

import argparse
import faulthandler
import gc
import json
import logging
import random
import re
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.fuzz_readers import Reader, make_readers

MAX_CASE_S = 2.0
_HANG_S = 600
MAX_BYTES = 256 * 1024
"""Bytes of the longest case."""
_NUMBERS = [
    number.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for number in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("big", "little")
]
_TEXTS = [
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n",
        b" ",
        b"\t",
        b"\x1b[2J",
        "é日本\u202e".encode(),
    ),
    *(b"%", b"*", b"$", b":", b",", b";", b'"', b"'", b"\\", b"//", b"..", b"[", b"]", b"{", b"}", b"<", b">", b"@"),
    *(b"&", b"#", b"!", b"|", b"-", b"=", b"~", b"?", b"(", b")", b"null", b"true", b"NaN", b"1e999", b"-1", b"9" * 30),
]


_VALUE = re.compile(rb'"[^"]{0,99}"|\d+(?:\.\d+)?|\[[^][]{0,99}\]')
"""A value in JSON, and what looks like one in other texts."""
_VALUES = [
    *(b"null", b"true", b"-1", b"0", b"1.5", b"1e999", b"NaN", b"9" * 30, b'""', b'" "', b'"\\ud800"', b'"\\u0000"'),
    *(b'"../a"', b'"a\\\\b"', b"[]", b"{}", b"[[]]", b'[null, "a", 5]', b'{"a": {"b": 1}}', b"[" * 500 + b"]" * 500),
]


@dataclass
class Result:
    """What a reader did."""

    cases: int = 0
    refused: int = 0
    """Cases that ended in an error that the reader documents."""
    cpu_s: float = 0.0
    slowest_ms: float = 0.0
    slowest_case: int = 0
    peak_mb: float = 0.0
    grown_mb: float = 0.0
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Error and the line that raised it → first case, and its traceback."""


def make_case(reader: Reader, seed: int, number: int) -> bytes:
    """Makes the input of a case."""
    dice = random.Random(f"{seed} {reader.name} {number}")
    data = bytearray(dice.choice(reader.golden))
    for _ in range(dice.randint(1, 5)):
        _mutate(data, dice, reader.golden)
    return bytes(data[:MAX_BYTES])


def _mutate(data: bytearray, dice: random.Random, golden: Sequence[bytes]) -> None:
    start = dice.randrange(len(data) + 1)
    end = min(len(data), start + dice.choice((1, 1, 2, 4, 8, 30)))
    match dice.randrange(9):
        case 0:
            for place in range(start, end):
                data[place] ^= 1 << dice.randrange(8)
        case 1:
            number = dice.choice(_NUMBERS)
            data[start : start + len(number)] = number
        case 2:
            data[start : dice.choice((start, end))] = dice.choice(_TEXTS)
        case 3:
            data[start:end] = dice.randbytes(dice.randint(0, 4))
        case 4:
            other = dice.choice(golden)
            first = dice.randrange(len(other) + 1)
            data[start:end] = other[first : first + dice.choice((4, 30, 300, len(other)))]
        case 5:
            data[start:end] = data[start:end] * dice.choice((2, 3, 3, 1000 if dice.random() < 0.1 else 9))
        case 6:
            if dice.random() < 0.3:
                del data[start:]
            else:
                del data[start:end]
        case 7:
            if values := list(_VALUE.finditer(data)):
                value = dice.choice(values)
                data[value.start() : value.end()] = dice.choice(_VALUES)
        case _:
            place = dice.randrange(len(data) + 1)
            data[place:place] = data[start:end]


def run_reader(reader: Reader, seed: int, cases: Iterable[int]) -> Result:
    """Runs cases of one reader."""
    gc.collect()
    numbers = list(cases)
    result = Result(cases=len(numbers))
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    before = settled = _memory_mb("VmRSS")
    for done, number in enumerate(numbers):
        if done == len(numbers) // 10:
            settled = _memory_mb("VmRSS")
        if done % 1000 == 0:
            faulthandler.dump_traceback_later(_HANG_S, exit=True, file=2)  # a case that never ends
        data = make_case(reader, seed, number)
        began = time.process_time()
        try:
            reader.read(data)
        except reader.raises:
            result.refused += 1
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            _record(result, error, number)
        elapsed = time.process_time() - began
        result.cpu_s += elapsed
        if 1000 * elapsed > result.slowest_ms:
            result.slowest_ms, result.slowest_case = round(1000 * elapsed, 1), number
    faulthandler.cancel_dump_traceback_later()
    result.peak_mb = round(_memory_mb("VmHWM") - before, 1)
    result.grown_mb = round(_memory_mb("VmRSS") - settled, 1)
    if result.slowest_ms > 1000 * MAX_CASE_S:
        result.faults["slow"] = (result.slowest_case, f"{result.slowest_ms} ms")
    return result


def _record(result: Result, error: Exception, number: int) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    result.faults.setdefault(kind, (number, "".join(traceback.format_exception(error))))


def _memory_mb(name: str) -> float:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0]) / 1024


def run(readers: Sequence[Reader], seed: int, cases: int) -> dict[str, Result]:
    """Runs so many cases, divided over the readers by their shares; prints a row for each."""
    total = sum(reader.share for reader in readers)
    print(f"seed {seed}\n{'reader':18}{'cases':>9}{'refused':>9}{'CPU s':>8}{'slowest':>11}{'peak MB':>9}{'grown':>7}")
    results = {}
    for reader in readers:
        result = results[reader.name] = run_reader(reader, seed, range(max(1, cases * reader.share // total)))
        slowest = f"{result.slowest_ms:.1f} ms"
        print(f"{reader.name:18}{result.cases:9}{result.refused:9}{result.cpu_s:8.1f}{slowest:>11}", end="")
        print(f"{result.peak_mb:9.1f}{result.grown_mb:7.1f}" + ("  FAULTS" if result.faults else ""), flush=True)
    return results


def main() -> None:
    """Prints the table, the faults, and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a reader's name")
    parser.add_argument("--case", type=int, help="of that reader")
    arguments = parser.parse_args()
    logging.disable()  # what readers tell of each input that they refuse
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    with TemporaryDirectory() as folder:
        readers = [reader for reader in make_readers(Path(folder)) if arguments.only in (None, reader.name)]
        if arguments.case is not None:
            data = make_case(readers[0], arguments.seed, arguments.case)
            print(data[:2000], len(data))
            readers[0].read(data)
            return
        results = run(readers, arguments.seed, arguments.cases)
    for name, result in results.items():
        for kind, (number, text) in result.faults.items():
            print(f"\n{name}, case {number}: {kind}\n{text}", file=sys.stderr)
    summary: dict[str, Any] = {
        "cases": sum(result.cases for result in results.values()),
        "faults": sum(len(result.faults) for result in results.values()),
        "seed": arguments.seed,
        "cpu_s": round(sum(result.cpu_s for result in results.values()), 1),
        "slowest_ms": max(result.slowest_ms for result in results.values()),
        "peak_mb": max(result.peak_mb for result in results.values()),
        "grown_mb": max(result.grown_mb for result in results.values()),
    }
    print(json.dumps(summary))
    sys.exit(1 if summary["faults"] else 0)


if __name__ == "__main__":
    main()
