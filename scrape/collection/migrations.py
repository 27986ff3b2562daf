"""Collections of older releases: the names that keys of a part's config had then."""

from collections.abc import Mapping
from typing import Any

from dreamloom.base.versions import FIRST, rename_keys
from dreamloom.scrape.collection.schema import Table

_CLIP = {"weights": "pretrained"}
_SPEED = {"batch": "batch_size", "workers": "num_workers"}

RENAMED: Mapping[Table, Mapping[str, str]] = {
    Table.CANDIDATES: {"caption_column": "text_column", "once_per": "deduplicate_by"},
    Table.RECORDS: {
        # scrape
        "per_host": "concurrency_per_host",
        "delay_s": "delay_per_host_s",
        "give_up_after": "max_host_failures",
        "threads": "decode_threads",
        "contact": "user_agent_contact",
        "min_success": "min_success_rate",
        "obey_optout": "respect_optout",
        "allow_private": "allow_private_addresses",
        "placeholder_copies": "max_placeholder_copies",
        "format": "encode_format",
        "quality": "encode_quality",
        "background": "background_color",
        # ingest
        "template": "caption",
        "image": "image_column",
        "text": "caption_column",
        "word": "name_choice",
    },
    Table.SCORES: {**_CLIP, **_SPEED, "head": "aesthetic_head"},
    Table.CHOICES: {},
    Table.CAPTIONS: {
        **_SPEED,
        "keep": "keep_kinds",
        "beams": "num_beams",
        "candidates": "num_candidates",
        "no_repeat": "no_repeat_ngram_size",
        "floor": "doubtful_below",
    },
}
"""Table → old key → key since version 1.0 of the format (release 0.2)."""
OF_COCO: Mapping[str, str] = {"caption": "caption_choice"}
OF_LABELLED: Mapping[str, str] = {"captions": "caption_kind"}
"""The same for keys of coco, and of huggingface and webdataset, which are also keys of other kinds of source."""


def _rename_caption_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Renames keys that had another meaning in each kind of source, and still have it in some."""
    if "annotations" in config:  # coco
        return rename_keys(config, OF_COCO)
    if "captions" in config and "template" not in config:  # huggingface, webdataset
        return rename_keys(config, OF_LABELLED)
    return dict(config)


def migrate_config(table: Table, version: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a part's config under the names that its keys have in this release.

    Args:
        version: that of the format of the part.
        config: as the part has it.
    """
    if version != FIRST:
        return dict(config)
    config = rename_keys(_rename_caption_keys(config), RENAMED[table])
    if table is Table.CAPTIONS and isinstance(config.get("clip"), dict):
        config["clip"] = rename_keys(config["clip"], _CLIP)
    if table is Table.RECORDS and config.get("engine") == "own":
        config["engine"] = "native"
    return config
