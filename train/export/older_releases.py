"""Rewrites a diffusers folder so that programs with transformers 4 read it, too, such as kohya's and A1111."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")


def write_for_older_releases(folder: Path, tokenizers: Mapping[str, Any]) -> None:
    """Adds to a diffusers folder what releases before transformers 5 look for.

    Args:
        folder: the folder, as diffusers has written it.
        tokenizers: its tokenizers, by text encoder.
    """
    for encoder, tokenizer in tokenizers.items():
        write_slow_tokenizer(folder / encoder.replace("text_encoder", "tokenizer"), tokenizer)
        _restore_text_model_prefix(folder / encoder / "model.safetensors")
        _name_dtype(folder / encoder / "config.json")


def write_slow_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Writes vocab.json, merges.txt and special_tokens_map.json, which transformers 5 replaced by tokenizer.json.

    Tokens that were added to the vocabulary go to added_tokens.json.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if content["model"]["type"] != "BPE":
        return  # T5's, which older releases read from tokenizer.json
    vocabulary = content["model"]["vocab"]
    merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"])
    added = {token["content"]: token["id"] for token in content["added_tokens"] if token["content"] not in vocabulary}
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    special = {name: str(token) for name in _SPECIAL_TOKENS if (token := getattr(tokenizer, name)) is not None}
    _write_json(folder / "special_tokens_map.json", special)
    if added:
        _write_json(folder / "added_tokens.json", added)


def _restore_text_model_prefix(file: Path) -> None:
    """Puts `text_model.` before the keys: transformers 5 dropped the prefix and reads both, older releases need it."""
    weights = load_file(file) if file.is_file() else {}  # T5's may be in several
    if not any(key.endswith("embeddings.token_embedding.weight") for key in weights):
        return
    outside = ("text_model.", "text_projection.")
    named = {key if key.startswith(outside) else f"text_model.{key}": value for key, value in weights.items()}
    save_file(named, file, metadata={"format": "pt"})


def _name_dtype(config: Path) -> None:
    """Repeats `dtype` as `torch_dtype`, its name before transformers 4.56."""
    content = json.loads(config.read_text(encoding="utf-8"))
    if "dtype" in content:
        _write_json(config, {**content, "torch_dtype": content["dtype"]}, indent=2)


def _write_json(file: Path, content: Any, indent: int | None = None) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
