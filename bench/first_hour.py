"""A stranger's first hour: a fresh clone, the README's commands, own photos, and mistakes made on the way.

    python -m bench.first_hour [--photos ../shared/data/subjects] [--kept ../shared/data/coco/images]

Clones this repository, and runs its `dreamloom` by the packages that are installed here, with the demo's models. Each
mistake has to end with exit code 2 and one sentence that says how to mend it, before anything is made; then the
README's commands have to end with a model and a report. Prints JSON; exits with 1 if one of these does not hold.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HOUSE = Path(__file__).parents[1]
MODELS = HOUSE / "demo" / "models"
_LONG_S = 60
"""Seconds beyond which a mistake was noticed too late."""


@dataclass(frozen=True)
class Mistake:
    """A command that can't be carried out as it was written."""

    what: str
    command: str
    """Words after `dreamloom`. {project} is the project's file, {folder} its folder, {images} a folder of images,
    {source} the source that it trains on, and {base} the demo's model."""
    says: str
    """Pattern that the sentence has."""
    sets: Mapping[str, Any] = field(default_factory=dict)
    """Keys of project.yaml, such as train.base, and the values that they have meanwhile."""

    def words(self, folder: Path, images: Path, source: str) -> list[str]:
        """Returns the words of the command for a project's folder."""
        names = {"project": folder / "project.yaml", "folder": folder, "images": images, "source": source}
        names["base"] = MODELS / "stable-diffusion"
        return [word.format(**names) for word in self.command.split()]

    def spoil(self, text: str) -> str:
        """Returns the text of a project.yaml with the wrong values in it."""
        content = yaml.safe_load(text)
        for key, value in self.sets.items():
            *above, last = key.split(".")
            section = content
            for name in above:
                section = section.setdefault(name, {})
            section[last] = value
        return re.sub(r"'(\d+:\d+)'", r"\1", yaml.safe_dump(content)) if self.sets else text


BEFORE_THE_RUN = [
    Mistake("a mistyped folder", "init {folder}/new --images {images}/typo", "is not a folder; name the folder"),
    Mistake("a second init", "init {folder} --images {images}", "is there already; edit it, or name another"),
    Mistake("another folder's plan", "plan {images}", r"project\.yaml can't be read .*; name a project\.yaml"),
    Mistake("a ratio that YAML 1.1 takes for 61", "plan {project}", r"balance\.ratio: .*1:1", {"balance.ratio": "1:1"}),
    Mistake("a mistyped key", "run {project}", r"held_ot.* held_out", {"balance.held_ot": 0.1}),
    Mistake(
        *("a mistyped model", "run {project}", r"There is no model stable-difusion.*"),
        {"train.base": "stable-difusion"},
    ),
    Mistake(
        *("a side that no bucket has", "run {project}", "resolution 100 is not a multiple of"),
        {"train.resolution": 100},
    ),
    Mistake("another program's flag", "train {images} {folder}/new --lr 1e-4", "did you mean --learning-rate"),
    Mistake("a mistyped command", "trian {images} {folder}/new", 'Did you mean "train"'),
    Mistake("a demo with a negative seed", "demo --folder {folder}/new --seed -1", "--seed is a number from 0 to"),
]
AFTER_THE_RUN = [
    Mistake(
        "one level too high", "train {folder}/work {folder}/new --base {base}", "one level too high; name .*dataset"
    ),
    Mistake(
        *("the project's own model as its base", "run {project}", "own output.*dreamloom continue"),
        {"train.base": "work/model"},
    ),
    Mistake("an image that is not there", "drop {project} nobody.jpg", "No image is called nobody.jpg; give"),
    Mistake("a wrong condition", "drop {project} --where aesthetc<4", "aesthetc"),
    Mistake("a collection in use", "collection remove {folder}/work/collections/{source} --yes", "is used by"),
]


def main() -> None:
    """Makes the mistakes, then does it right, and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = HOUSE.parent / "shared" / "data"
    parser.add_argument("--photos", type=Path, default=data / "subjects")
    parser.add_argument("--kept", type=Path, default=data / "coco" / "images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        hour = Hour(Path(place))
        report = hour.pass_by(arguments.photos, arguments.kept)
    print(json.dumps(report, indent=2, ensure_ascii=False))
    sys.exit(0 if report["faults"] == [] else 1)


class Hour:
    """A home with a fresh clone in it.

    Args:
        home: an empty folder.
    """

    def __init__(self, home: Path) -> None:
        """Clones the repository."""
        self.home, self.clone, self.faults = home, home / "dreamloom", list[str]()
        subprocess.run(["git", "clone", "--quiet", str(HOUSE), str(self.clone)], check=True)
        self.environment = os.environ | {"PYTHONPATH": str(self.clone), "DREAMLOOM_CACHE": str(home / "cache")}
        self.environment |= {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def pass_by(self, photos: Path, kept: Path) -> dict[str, Any]:
        """Returns what was said to each mistake, and the seconds of each command that was right."""
        images, project = self.home / "pictures" / "jo", self.home / "jo"
        for number, photo in enumerate(sorted(photos.rglob("*.jpg"))):
            images.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photo, images / f"IMG_{number:04d}.jpg")
        shutil.copytree(kept, self.home / "pictures" / "others", ignore=_beyond(40))
        models, seconds = self.clone / "demo" / "models", dict[str, float]()
        flags = ["--called", "jo", "--ground-truth", "pictures/others", "--base", str(models / "stable-diffusion")]
        for words in (["doctor"], ["init", "jo", "--images", "pictures/jo", *flags]):
            seconds[words[0]] = self.right(words)
        file = project / "project.yaml"
        small = {"resolution": 64, "batch_size": 4, "epochs": 2, "sample_steps": 4, "eval_timesteps": 2}
        content = yaml.safe_load(file.read_text())
        file.write_text(
            yaml.safe_dump(content | {"train": content["train"] | small, "caption": {"model": str(models / "blip")}})
        )
        said = {each.what: self.wrong(each, project, images) for each in BEFORE_THE_RUN}
        for command in ("plan", "run"):
            seconds[command] = self.right([command, "jo"])
        made = [project / "work" / name for name in ("model/model.safetensors", "report/index.html")]
        self.faults += [f"{path} was not made" for path in made if not path.is_file()]
        said |= {each.what: self.wrong(each, project, images) for each in AFTER_THE_RUN}
        seconds["run again"] = self.right(["run", "jo"])
        return {"mistakes": said, "seconds": seconds, "faults": self.faults}

    def right(self, words: Sequence[str]) -> float:
        """Carries a command out that has to succeed, and returns its seconds."""
        begun = time.monotonic()
        done = self._run(words)
        if done.returncode:
            self.faults.append(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return round(time.monotonic() - begun, 1)

    def wrong(self, mistake: Mistake, project: Path, images: Path) -> str:
        """Makes a mistake, and returns what was said."""
        file = project / "project.yaml"
        text = file.read_text()
        file.write_text(mistake.spoil(text))
        before, begun = _files(self.home), time.monotonic()
        done = self._run(mistake.words(project, images, "subject"))
        seconds, after = time.monotonic() - begun, _files(self.home)
        file.write_text(text)
        is_told = done.returncode == 2 and len(done.stderr.splitlines()) == 1 and re.search(mistake.says, done.stderr)
        if not is_told or seconds > _LONG_S or after != before:
            new = sorted(map(str, after.items() ^ before.items()))
            self.faults.append(f"{mistake.what}: {done.returncode} after {seconds:.0f} s, {done.stderr!r}, made {new}")
        return done.stderr.strip()

    def _run(self, words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "dreamloom", *words]
        return subprocess.run(command, cwd=self.home, env=self.environment, capture_output=True, text=True)


def _files(folder: Path) -> dict[Path, int]:
    """Returns the files of a home and when each was written; not those of the cache and of git, and no locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    kept = (path for path in found if path.name != ".lock" and path.suffix != ".pyc")
    return {path: path.stat().st_mtime_ns for path in kept if not path.is_relative_to(folder / "cache")}


def _beyond(count: int) -> Any:
    return lambda _, names: sorted(names)[count:]


if __name__ == "__main__":
    main()
