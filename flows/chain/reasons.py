"""Why a step makes again what is there: which key of the config changed, or what it is made from. Writes nothing."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dreamloom.base.stage import StageConfig, path_kind_of, recipe_fields
from dreamloom.curate.manifest import manifest_path, read_manifest_metadata
from dreamloom.flows.chain.steps import BalanceStep, ChooseStep, CollectionStep, IngestStep, ScrapeStep, Step
from dreamloom.flows.chain.train_steps import ProjectTrainStep
from dreamloom.scrape.collection import Collection, Table
from dreamloom.train.evaluate.runs import find_runs

_MADE_FROM = {
    "ingest": "files of the source were added, changed or removed",
    "filter": "files of the index changed",
    "scrape": "its candidates changed",
    "score": "its images changed, or a model",
    "choose": "records, scores or decisions changed",
    "caption": "its choices changed, or a model",
    "balance": "choices, captions or decisions changed",
}
"""Stage → what changed if its config did not."""


def why(step: Step, parts: Sequence[str]) -> str:
    """Returns why a step would make these parts; empty for what was never made, and for steps that do not tell."""
    if isinstance(step, ProjectTrainStep):
        return _why_train(step)
    stored, now = _configs(step, parts)
    if not stored or now is None:
        return ""
    elsewhere = {n for n in recipe_fields(type(now), "") if path_kind_of(type(now).model_fields[n]) is None}
    values = {name: value for name, value in now.model_dump(mode="json").items() if name not in elsewhere}
    changed = [name for name in values if name in stored and stored[name] != values[name]]
    texts = [f"{name}: {_short(stored[name])} → {_short(values[name])}" for name in changed]
    return ", ".join(texts) or _MADE_FROM.get(step.stage, "")


def _configs(step: Step, parts: Sequence[str]) -> tuple[Mapping[str, Any], StageConfig | None]:
    """Returns the config by which a step made what is there, and that of today."""
    if isinstance(step, BalanceStep):
        stored = read_manifest_metadata(manifest_path(step.workspace)).get("config", "{}")
        return json.loads(stored), step.config
    if isinstance(step, ChooseStep):
        return _stored(step.sources[0].collection, Table.CHOICES, ()), step.config
    if isinstance(step, CollectionStep):
        config = getattr(step, "config", None)
        is_source = isinstance(step, IngestStep | ScrapeStep)
        return _stored(step.collection, step.table, () if is_source else parts), config
    return {}, None


def _stored(collection: Collection, table: Table, parts: Sequence[str]) -> Mapping[str, Any]:
    """Returns the config of the first of these parts that is there; of any, where none is named."""
    there = collection.parts(table)
    found = next((part for part in (parts or there) if part in there), None)
    return {} if found is None else collection.config(table, found)


def _why_train(step: ProjectTrainStep) -> str:
    """Compares with the newest run of the workspace; what an unmade dataset changes is not known yet."""
    runs = find_runs(step.workspace)
    if not runs or runs[-1].summary is None:
        return "it is not finished" if runs else ""
    newest = runs[-1]
    now = {**newest.config, **step.config.model_dump(mode="json")}
    changes = {
        name: (newest.config.get(name), value)
        for name, value in now.items()
        if name in newest.config and newest.config[name] != value and name not in ("base", "vae", "init_lora")
    }
    texts = [f"{name}: {_short(old)} → {_short(value)}" for name, (old, value) in changes.items()]
    return ", ".join(texts) or "images, captions or how often they are shown changed, or a model"


def _short(value: object) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
