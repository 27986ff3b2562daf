"""Writes an export's README.md, the model card that the Hugging Face hub reads, and ATTRIBUTION.csv beside it.

All of it comes from the run's files and the manifest of its dataset, so a card says nothing that was not measured or
recorded. https://huggingface.co/docs/hub/model-cards
"""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dreamloom.base.errors import UserError
from dreamloom.base.models.hub import is_hub_id
from dreamloom.base.stage import recipe_fields
from dreamloom.base.versions import DAMAGED, RUN, TABLES, rename_keys
from dreamloom.train.adapter_kinds import KINDS
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.measure import MEASURES, percent
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.families.files import find_family, read_model_json
from dreamloom.train.families.sd.family import SD
from dreamloom.train.model.family import Family
from dreamloom.train.model.safetensors_header import read_metadata
from dreamloom.train.run import migrations
from dreamloom.train.run.folder import TrainSummary, read_settings, read_summary

CARD, ATTRIBUTION = "README.md", "ATTRIBUTION.csv"
SAMPLES = "samples.png"

_RELEASES = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2"}
"""Width of the text states that the UNet of `SD` takes → its release."""
_CREDITS = ("source", "caption", "author", "licence", "licence_url", "url")
_ALWAYS = ("resolution", "batch_size", "learning_rate", "text_encoder_learning_rate", "optimizer", "seed")
"""Settings that a card lists also where they are the default."""
_UNITS = {"training": "learned", "ground_truth": "forgotten, rehearsed", "witness": "forgotten, not rehearsed"}

Rows = Sequence[Mapping[str, object]]


def title_of(checkpoint: Path, config: ExportConfig) -> str:
    """Returns the name that an export's files give the model: the config's, or the run's."""
    return config.title or checkpoint.absolute().parent.parent.name


def write_card(checkpoint: Path, config: TrainConfig, folder: Path, title: str) -> None:
    """Writes the card of a checkpoint into the folder of its export, beside the model's files.

    Args:
        checkpoint: the checkpoint, in its run's folder.
        config: the run's.
        folder: holds the export's other files already.
        title: the model's name.
    """
    run = checkpoint.parent.parent
    summary, images = read_summary(run), _images_trained_on(run)
    sections = {
        "Base": [_base_line(config, folder)],
        "What was learned, and what was kept": _measured(run, int(checkpoint.name)),
        "What it was trained on": _sources(summary, images),
        "Settings": [_table(_settings(config))],
        "Samples": _samples(run, int(checkpoint.name), config, folder),
    }
    body = "\n\n".join(f"## {name}\n\n" + "\n\n".join(filter(None, parts)) for name, parts in sections.items() if parts)
    front = yaml.safe_dump(_front_matter(config), sort_keys=False, allow_unicode=True)
    (folder / CARD).write_text(f"---\n{front}---\n\n# {_cell(title)}\n\n{body}\n", encoding="utf-8")
    credits = [row for row in images or () if row["author"] or row["licence"] or row["url"]]
    if credits:
        with (folder / ATTRIBUTION).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, _CREDITS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(credits)


# The base


def _front_matter(config: TrainConfig) -> dict[str, Any]:
    family, lora, licence = _family(config), config.lora_rank is not None, base_licence(config.base)
    is_known = licence is not None and re.fullmatch(r"[a-z0-9.+-]+", licence)  # to the hub, by the look of it
    values = {
        "license": licence if is_known or licence is None else "other",
        "license_name": None if is_known else licence,
        "base_model": config.base if is_hub_id(config.base) else None,
        "base_model_relation": ("adapter" if lora else "finetune") if is_hub_id(config.base) else None,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": [_tag(family), "text-to-image", "dreamloom", *(["lora"] if lora else [])],
    }
    return {name: value for name, value in values.items() if value is not None}


def _base_line(config: TrainConfig, folder: Path) -> str:
    name = config.base if is_hub_id(config.base) else Path(config.base).name  # the path is of the user's machine
    found = _family(config)
    family = f", {_architecture(found, config.base, folder)}" if found else ""
    licence = base_licence(config.base)
    kind = (
        f"{KINDS[config.lora_kind].title} adapters of rank {config.lora_rank} for"
        if config.lora_rank is not None
        else "Fine-tuned from"
    )
    stated = f"The base's licence is {_cell(licence)}." if licence else "The base's files do not say its licence."
    return f"{kind} {_cell(name)}{family}. {stated}"


def _family(config: TrainConfig) -> Family | None:
    """Finds out of which family the base is; None where its files don't tell, or are gone since."""
    try:
        return find_family(config.base)
    except UserError:
        return None


def _tag(family: Family | None) -> str:
    """Returns the hub's tag of a family, such as stable-diffusion-xl."""
    return "stable-diffusion" if family in (SD, None) else family.title.lower().replace(" ", "-")


def _architecture(family: Family, base: str, folder: Path) -> str:
    """Names the family, or its release where the width of the text states tells."""
    if family is not SD:
        return family.title
    unet = folder / "unet" / "config.json"
    values = json.loads(unet.read_text("utf-8")) if unet.is_file() else read_model_json(base, "unet", "config.json")
    return _RELEASES.get(values.get("cross_attention_dim", 0), "of the architecture of Stable Diffusion")


def base_licence(base: str) -> str | None:
    """Returns the licence that a base model states: in its own card, if it is on this machine, or in its file."""
    path = Path(base)
    if path.is_file():
        return read_metadata(path).get("modelspec.license") if path.suffix == ".safetensors" else None
    card: Any = path / CARD
    if is_hub_id(base):
        from huggingface_hub import try_to_load_from_cache

        card = try_to_load_from_cache(base, CARD)
    if not isinstance(card, str | Path) or not Path(card).is_file():
        return None
    match = re.match(r"---\s*\n(.*?)\n---", Path(card).read_text("utf-8", errors="replace"), re.S)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    licence = front.get("license") if isinstance(front, dict) else None
    return licence if isinstance(licence, str) else None


# What was measured


def _measured(run: Path, images_seen: int) -> list[str]:
    """Returns the verdict and the measures of this checkpoint; that it was not measured, where it was not.

    Raises:
        UserError: evaluation.json is damaged.
    """
    file = run / "evaluation.json"
    try:
        points = RUN.read_json(file)["points"] if file.exists() else []
        point = next((point for point in points if point["images_seen"] == images_seen), None)
    except DAMAGED as error:
        raise UserError(f"{file} is damaged ({error}); move it away to export without what was measured.") from error
    found = [(label, point.get(name)) for name, label in MEASURES.items()] if point else []
    measures = [(label, rename_keys(measure, migrations.MEASURE)) for label, measure in found if measure]
    if point is None or not measures:
        return ["This checkpoint was not measured: no images were held out."]
    rows = [
        {
            "measure": label,
            "of the base model's loss": percent(m["change"], m["error"]),
            "held-out images": m["images"],
        }
        for label, m in measures
    ]
    sure = [group for group in point.get("groups", ()) if group["low"] > 0 or group["high"] < 0]
    groups = [
        {
            "what": _UNITS[group["kind"]],
            "of": f"{group['grouping']} {group['name']}",
            "change": f"{100 * group['change']:.1f} % ({100 * group['low']:.1f} to {100 * group['high']:.1f} %)",
            "images": group["images"],
        }
        for group in sorted(sure, key=lambda group: (group["kind"], -group["shrunk"], group["name"]))
    ]
    verdict = str(point.get("verdict", ""))
    unknown = "" if point.get("forgotten_unrehearsed") else "What was not rehearsed was not measured."
    heading = "Sources and concepts that surely changed; all intervals hold at once with 95 %:" if groups else ""
    first = f"**{_cell(verdict[:1].upper() + verdict[1:])}.**" if verdict else ""
    return [first, _table(rows), unknown, heading, _table(groups)]


# What was trained on


def _images_trained_on(run: Path) -> list[dict[str, Any]] | None:
    """Reads the manifest beside the training folder; None where there is none, or the dataset has changed since."""
    import pyarrow.parquet as pq

    settings, summary = read_settings(run), read_summary(run)
    folder = Path(settings["folder"]) if settings else Path()
    manifest = folder.parent / "dataset.parquet"
    if folder.name != "dataset" or not manifest.is_file() or summary is None:
        return None
    try:
        with pq.ParquetFile(manifest) as file:
            version = (file.schema_arrow.metadata or {}).get(b"dreamloom.schema")
            TABLES.check(version.decode() if version else None, manifest)
            rows = file.read([*_CREDITS, "role", "split"]).to_pylist()
    except (OSError, ValueError, UserError):
        return None
    trained = [row for row in rows if row["split"] == "train"]
    is_the_run_s = len(trained) == summary.dataset_images + summary.problems
    return trained if is_the_run_s and {row["source"] for row in trained} == summary.shown.keys() else None


def _sources(summary: TrainSummary | None, images: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if summary is None:
        return ["The run is not finished, so what it shows of each source is not known yet."]
    counts = Counter(row["source"] for row in images or ())
    roles = {row["source"]: row["role"] for row in images or ()}
    licences = Counter(sorted((row["source"], row["licence"] or "not known") for row in images or ()))
    rows = [
        {
            "source": name,
            "role": roles.get(name, ""),
            "images": counts.get(name, ""),
            "asked": f"{summary.asked[name]:.1%}",
            "shown": f"{shown:,}",
            "licences": ", ".join(f"{licence} {n:,}" for (source, licence), n in licences.items() if source == name),
        }
        for name, shown in sorted(summary.shown.items())
    ]
    if images is None:
        return [_table(rows), "Licences and authors of the images are not recorded."]
    known = any(row["author"] or row["licence"] or row["url"] for row in images)
    return [_table(rows), f"{ATTRIBUTION} names where each image is from, as far as it is known." if known else ""]


# The rest


def _settings(config: TrainConfig) -> Rows:
    """Returns the settings that the weights depend on, where they are not the default; paths are the user's own."""
    values = config.model_dump(mode="json")
    return [
        {"setting": name, "value": json.dumps(values[name], ensure_ascii=False)}
        for name, field in TrainConfig.model_fields.items()
        if name in recipe_fields(TrainConfig)
        and not isinstance(getattr(config, name), Path)
        and (name in _ALWAYS or getattr(config, name) != field.default)
    ]


def _samples(run: Path, images_seen: int, config: TrainConfig, folder: Path) -> list[str]:
    sample = run / "samples" / f"{images_seen:09d}.png"
    if not sample.is_file():
        return []
    shutil.copyfile(sample, folder / SAMPLES)
    prompts = "; ".join(map(_cell, config.sample_prompts))
    return [f"![samples]({SAMPLES})", f"Prompts: {prompts}" if prompts else ""]


def _table(rows: Rows) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_cell(row[name]) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: object) -> str:
    """Returns a value as text that Markdown shows as it is: names and licences come from strangers."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", text)
