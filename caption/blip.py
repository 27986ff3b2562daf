"""Captions by BLIP (https://arxiv.org/abs/2201.12086), through transformers, in batches.

A picture keeps the text it came with where that is of a kind to keep; BLIP describes the others. Threads decode and
scale pictures ahead of the model, so that it never waits.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pydantic import Field, model_validator

from base.cpu import has_bf16, keep_pages
from base.errors import UserError
from base.files import fingerprint
from base.pixels import PictureError, decode
from base.progress import Progress, silent
from base.stage import StageConfig, Summary, recipe
from base.threads import in_order
from scrape.collection import CaptionKind, Choice, Collection, Status, Table
from scrape.parts import make_parts

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
"""Raised when the code below starts to give other captions."""

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]


class CaptionConfig(StageConfig):
    """Which captions are kept, and how the others are written."""

    model: str = Field(
        "Salesforce/blip-image-captioning-base",
        description="A BLIP model in transformers' format: a folder, or an id of the Hugging Face hub.",
    )
    keep: tuple[CaptionKind, ...] = Field(
        (CaptionKind.HUMAN, CaptionKind.TEMPLATE),
        description="Pictures that came with a text of these kinds (human, alt, template) keep it as their caption.",
    )
    prompt: str = Field("", description="How the model's sentences begin; left out of the captions.")
    beams: int = Field(1, ge=1, le=64, description="Beams of the search; 1 is greedy, and more are slower.")
    min_length: int = Field(5, ge=0, le=256, description="Fewest tokens a caption. (BLIP's COCO config: 5)")
    max_length: int = Field(30, ge=1, le=256, description="Most tokens a caption. (BLIP's own default: 30)")
    no_repeat: int = Field(
        3, ge=0, description="No run of so many tokens comes twice in a caption, against “bald bald bald”; 0: it may."
    )
    batch: int = Field(16, ge=1, le=1024, description="Pictures a forward pass. Changes the speed only.")
    workers: int = Field(4, ge=1, le=64, description="Threads that decode. Changes the speed only.")
    device: Device = Field("auto", description="auto: the GPU where there is one.")
    precision: Precision = Field("auto", description="auto: bf16 where the GPU or processor computes in it, else fp32.")

    @model_validator(mode="after")
    def _lengths_fit(self) -> "CaptionConfig":
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is above max_length {self.max_length}")
        return self


def check(config: CaptionConfig) -> None:
    """Sees, without importing torch, that the model is a BLIP, or may be one on the hub.

    Raises:
        UserError: it can't be one.
    """
    folder = Path(config.model).expanduser()
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", config.model) and not config.model.startswith("."):
        return
    mend = "name a folder that transformers saved a BLIP in, or an id such as Salesforce/blip-image-captioning-base."
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"The captioning model {config.model} has no config.json of a model; {mend}") from None
    if kind != "blip":
        raise UserError(f"The captioning model {config.model} is of the kind {kind}, not blip; {mend}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"The captioning model {config.model} has no weights (model.safetensors); {mend}")


def recipes(collection: Collection, config: CaptionConfig) -> dict[str, str]:
    """Part → recipe. Where a collection has choices, only what they kept is captioned."""
    tables = [Table.RECORDS, Table.CHOICES] if collection.parts(Table.CHOICES) else [Table.RECORDS]
    models = {"blip": fingerprint(config.model)}
    return {
        part: recipe(
            "caption",
            VERSION,
            config,
            [collection.stamp(table, part) for table in tables],
            models,
            leave_out=("batch", "workers", "device"),
        )
        for part in collection.parts(Table.RECORDS)
    }


def caption(
    collection: Collection, config: CaptionConfig, progress: Progress = silent, parts: Sequence[str] | None = None
) -> Summary:
    """Captions every picture that was chosen (every one that is ok, where nothing was chosen yet).

    One that has to be looked at and can't be decoded any more gets no row; the summary says why.

    Raises:
        UserError: the model is none, or can't be loaded.
    """
    check(config)
    work = partial(_caption_part, collection, config)
    return make_parts(collection, Table.CAPTIONS, config, recipes(collection, config), work, progress, parts)


def _caption_part(
    collection: Collection, config: CaptionConfig, part: str, progress: Progress
) -> tuple[list[dict[str, Any]], Summary]:
    rows = _chosen(collection, part)
    made = {row["key"]: _kept(row) for row in rows if row["text_kind"] in config.keep and row["text"] is not None}
    others = [row for row in rows if row["key"] not in made]
    dropped: Counter[str] = Counter()
    if others:
        blip = load(config)
        looked = in_order(partial(_look, collection, blip), others, config.workers, 2 * config.batch)
        while batch := list(islice(looked, config.batch)):
            dropped.update(one for one in batch if isinstance(one, str))
            seen = [one for one in batch if not isinstance(one, str)]
            made |= _describe(blip, seen) if seen else {}
            progress(len(made) + dropped.total(), len(rows), f"{len(made)} captioned")
    captions = [made[row["key"]] for row in rows if row["key"] in made]
    return captions, Summary(rows=len(rows), kept=len(captions), dropped=dict(dropped))


def _chosen(collection: Collection, part: str) -> list[dict[str, Any]]:
    """Records (key, image, text, text_kind) of the pictures to caption, in order."""
    records = collection.read(Table.RECORDS, part, ["key", "status", "image", "text", "text_kind"])
    if collection.parts(Table.CHOICES):
        choices = collection.read(Table.CHOICES, part, ["key", "choice"])
        wanted = choices.filter(pc.equal(choices["choice"], Choice.KEPT))["key"]
        chosen: pa.Table = records.filter(pc.is_in(records["key"], wanted))
    else:
        chosen = records.filter(pc.equal(records["status"], Status.OK))
    return list(chosen.to_pylist())


def _kept(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": row["key"], "caption": row["text"], "kind": row["text_kind"]}


def _look(collection: Collection, blip: "Blip", row: Mapping[str, Any]) -> "tuple[str, Tensor] | str":
    """A picture's key and the model's input, or why there is none."""
    try:
        return row["key"], blip.prepare(decode(collection.root / row["image"]))
    except PictureError as error:
        return error.reason


def _describe(blip: "Blip", seen: "Sequence[tuple[str, Tensor]]") -> dict[str, dict[str, Any]]:
    """Key → row of captions."""
    written = blip.write([pixels for _, pixels in seen])
    rows: list[dict[str, Any]] = [
        {
            "key": key,
            "caption": blip.text(one.tokens),
            "kind": CaptionKind.MODEL,
            "model": blip.config.model,
            # Rounded to what does not depend on how many pictures the model saw at once
            "score": round(one.score, 3),
        }
        for (key, _), one in zip(seen, written, strict=True)
    ]
    return {row["key"]: row for row in rows}


# The model


@dataclass(frozen=True)
class Written:
    """What the model wrote about a picture."""

    tokens: list[int]
    """Without the prompt, up to and without the end."""
    score: float
    """Mean log-probability a token, the end included."""


@dataclass(frozen=True)
class Blip:
    """A loaded model."""

    model: Any
    processor: Any
    config: CaptionConfig
    device: str
    dtype: Any

    def prepare(self, picture: Image.Image) -> "Tensor":
        """RGB picture → float32 [3, side, side], scaled without regard to its aspect, as BLIP was trained."""
        pixels: Tensor = self.processor.image_processor(images=picture, return_tensors="pt").pixel_values[0]
        return pixels

    def write(self, pictures: "Sequence[Tensor]") -> list[Written]:
        """What the model says of n prepared pictures, in one batch."""
        import torch

        pixels = torch.stack(list(pictures)).to(self.device, self.dtype)
        begin = self._prompt(len(pictures))
        given = begin["input_ids"].shape[1] - 1 if begin else 1  # the end that the tokenizer puts is not given
        with torch.inference_mode():
            out = self.model.generate(pixel_values=pixels, **begin)
            scores = self.model.text_decoder.compute_transition_scores(
                out.sequences, out.scores, out.get("beam_indices"), normalize_logits=self.config.beams == 1
            )
        new = out.sequences[:, given:].cpu()
        written = []
        for tokens, logs in zip(new.tolist(), scores.float().cpu().tolist(), strict=True):
            end = tokens.index(self._end) if self._end in tokens else len(tokens)
            spent = logs[: end + 1]
            written.append(Written(tokens[:end], sum(spent) / max(1, len(spent))))
        return written

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text."""
        words: str = self.processor.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=True
        )
        return words.strip()

    @property
    def _end(self) -> int:
        return int(self.model.config.text_config.sep_token_id)

    def _prompt(self, count: int) -> dict[str, "Tensor"]:
        if not self.config.prompt:
            return {}
        tokens = self.processor.tokenizer([self.config.prompt] * count, return_tensors="pt").to(self.device)
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}


_loading = threading.Lock()


def load(config: CaptionConfig) -> Blip:
    """The model of a config, loaded at the first call and kept for the next.

    Raises:
        UserError: it can't be loaded, or there is no such device.
    """
    with _loading:  # sources that run side by side share one
        return _load(config)


@lru_cache(maxsize=1)
def _load(config: CaptionConfig) -> Blip:
    if config.device != "cuda":
        keep_pages()  # before torch is imported
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("caption: device is cuda, but torch sees no GPU; leave it at auto, or set it to cpu.")
    device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    bf16 = torch.cuda.is_bf16_supported() if device == "cuda" else has_bf16()
    dtype = torch.bfloat16 if config.precision == "bf16" or (config.precision == "auto" and bf16) else torch.float32
    name = str(Path(config.model).expanduser()) if Path(config.model).expanduser().is_dir() else config.model
    try:
        processor = transformers.BlipProcessor.from_pretrained(name)
        model, info = transformers.BlipForConditionalGeneration.from_pretrained(
            name, dtype=dtype, output_loading_info=True
        )
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(f"The captioning model {config.model} can't be loaded ({why}); name one that can.") from error
    if info["missing_keys"]:  # transformers fills them with noise
        lost = sorted(info["missing_keys"])[0]
        raise UserError(f"The captioning model {config.model} lacks weights, such as {lost}; name one that is whole.")
    model.text_decoder.generation_config = transformers.GenerationConfig(  # instead of what lies beside the weights
        do_sample=False,
        num_beams=config.beams,
        min_new_tokens=config.min_length,
        max_new_tokens=config.max_length,
        no_repeat_ngram_size=config.no_repeat,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return Blip(model.to(device).eval(), processor, config, device, dtype)
