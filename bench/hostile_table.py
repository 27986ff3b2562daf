"""Runs dreamloom and img2dataset 1.47 on the cases of `bench.hostile_cases`, side by side.

    python -m bench.hostile_table          prints the table of docs/scraping.md; about two minutes

Both run once, with the same deadline. A stored image whose pixels differ from the expected ones is reported as wrong.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.hostile import Case, Site
from bench.hostile_cases import list_cases, scrape_cases
from dreamloom.scrape.collection import Collection

IMG2DATASET = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(sys.argv[1], input_format="parquet", url_col="url", output_folder=sys.argv[2], output_format="files",
             image_size=512, resize_mode="keep_ratio", resize_only_if_bigger=True, encode_format="png",
             encode_quality=6, processes_count=1, thread_count=32, timeout=2, retries=1, enable_wandb=False,
             save_additional_columns=["case"], user_agent_token="dreamloom")
"""


def main() -> None:
    """Prints the table."""
    all_cases = list_cases()
    with tempfile.TemporaryDirectory() as place:
        ours, theirs = run_dreamloom(all_cases, Path(place)), run_img2dataset(all_cases, Path(place))
    print("| | what | dreamloom | img2dataset 1.47 |\n|---|---|---|---|")
    for number, case in enumerate(all_cases):
        what, verdict = case.what.replace("|", "\\|"), theirs[number]
        if verdict.startswith("stored") and case.item not in _HARMLESS and (verdict != "stored" or _refused(case)):
            verdict = f"**{verdict}**"
        print(f"| {case.item} | {what} | {ours[number]} | {verdict} |")


_HARMLESS = ("7", "60")
"""Kinds of images that do no harm when stored, though their headers or comments are malformed."""


def _refused(case: Case) -> bool:
    return "ok" not in case.ours.split("|") or case.item == "66"


def run_dreamloom(cases: list[Case], place: Path) -> list[str]:
    """Runs dreamloom. Returns its verdict on each case."""
    collection = Collection(place / "ours")
    with Site(cases) as site:
        last = [rows[-1] for rows in scrape_cases(site, collection)]
    paths = [collection.root / row["image"] if row["image"] else None for row in last]
    return [_verdict(case, f"`{row['status']}`", path) for case, row, path in zip(cases, last, paths, strict=True)]


def run_img2dataset(cases: list[Case], place: Path) -> list[str]:
    """Runs img2dataset. Returns its verdict on each case: its status, and the first words of its error."""
    with Site(cases) as site:
        flat = [(number, url) for number, urls_of_case in enumerate(site.urls()) for url in urls_of_case]
        numbers, urls = [number for number, _ in flat], [url for _, url in flat]
        table = pa.table({"url": pa.array(urls, pa.string()), "case": numbers})
        pq.write_table(table, place / "urls.parquet")
        (place / "run.py").write_text(IMG2DATASET)
        command = [sys.executable, str(place / "run.py"), str(place / "urls.parquet"), str(place / "theirs")]
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "SSL_CERT_FILE": str(site.authority)}
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
    verdicts: dict[int, str] = {}
    for row in pq.read_table(place / "theirs" / "00000.parquet").to_pylist():
        path = place / "theirs" / "00000" / f"{row['key']}.png"
        message = " ".join((row["error_message"] or "").split())[:44].replace("|", "/")
        status = "stored" if row["status"] == "success" else f"failed: {message}"
        verdicts[row["case"]] = _verdict(cases[row["case"]], status, path if path.exists() else None)
    return [verdicts.get(number, "no row at all") for number in range(len(cases))]


def _verdict(case: Case, status: str, path: Path | None) -> str:
    if path is None or case.shows is None:
        return status
    with Image.open(path) as image:
        shown = np.asarray(image.convert("RGB"), float)
    if shown.shape != case.shows.shape:
        return f"{status}, on its side"
    deviation = np.abs(shown - case.shows).mean()
    return status if deviation < case.close else f"{status}, wrong: off by {deviation:.0f} of 255"


if __name__ == "__main__":
    main()
