"""BLIP (https://arxiv.org/abs/2201.12086) and BLIP-2 (https://arxiv.org/abs/2301.12597), through transformers, in
batches: images in, sentences with their tokens and scores out."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dreamloom.base.clip_config import Device
from dreamloom.base.cpu import has_bf16, keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.files import fingerprint
from dreamloom.caption.config import CaptionConfig, Precision

if TYPE_CHECKING:
    from torch import Tensor

_KINDS = {"blip": "Blip", "blip-2": "Blip2"}
"""transformers' name of a kind of model → how the names of its classes begin."""


@dataclass(frozen=True)
class Written:
    """What the model wrote about an image."""

    tokens: list[int]
    """Without the prompt, up to and without the end."""
    text: str
    score: float
    """Mean log-probability a token, the end included."""


@dataclass(frozen=True)
class _Loaded:
    """Weights on a device, and what differs between the two models."""

    model: Any
    processor: Any
    device: str
    dtype: Any

    @property
    def language(self) -> Any:
        """The part that writes."""
        return self.model.language_model if self.is_blip2 else self.model.text_decoder

    @property
    def is_blip2(self) -> bool:
        return bool(self.model.config.model_type == "blip-2")

    @property
    def ends(self) -> set[int]:
        """The tokens that end a sentence."""
        text = self.model.config.text_config
        end = self.language.generation_config.eos_token_id if self.is_blip2 else text.sep_token_id
        return set(end) if isinstance(end, list) else {end}

    def begin(self, prompt: str) -> list[int]:
        """The tokens that generate is given for an image; none: its own beginning."""
        if not prompt:
            return []
        tokens: list[int] = self.processor.tokenizer(prompt).input_ids
        if not self.is_blip2:
            return tokens
        return [self.model.config.image_token_index] * self.model.config.num_query_tokens + tokens

    def given(self, begin: Sequence[int]) -> int:
        """How many tokens of what generate returns are not new."""
        if not self.is_blip2:
            return len(begin) - 1 if begin else 1  # the end that the tokenizer puts is not given
        if self.language.config.is_encoder_decoder:
            return 1
        return len(begin) or self.model.config.num_query_tokens + 1


@dataclass(frozen=True)
class Blip:
    """A loaded model, and how it shall write."""

    loaded: _Loaded
    config: CaptionConfig

    @property
    def side(self) -> int:
        """Pixels of the model's square input."""
        return int(self.loaded.model.config.vision_config.image_size)

    def prepare(self, picture: Image.Image) -> "Tensor":
        """RGB image → float32 [3, side, side], scaled without regard to its aspect, as BLIP was trained."""
        pixels: Tensor = self.loaded.processor.image_processor(images=picture, return_tensors="pt").pixel_values[0]
        return pixels

    def write(self, pictures: "Sequence[Tensor]", keys: Sequence[str]) -> list[list[Written]]:
        """What the model says of n prepared images, in one batch: `candidates` sentences of each.

        Args:
            keys: the pictures' keys, by which sentences are drawn where they are.
        """
        import torch

        loaded = self.loaded
        begin = loaded.begin(self.config.prompt)
        prompt = torch.tensor([begin] * len(pictures), device=loaded.device)
        with _writing, torch.inference_mode():
            loaded.language.generation_config = self._how()
            out = loaded.model.generate(
                pixel_values=torch.stack(list(pictures)).to(loaded.device, loaded.dtype),
                **({"input_ids": prompt, "attention_mask": torch.ones_like(prompt)} if begin else {}),
                logits_processor=self._draws(keys),
            )
            logs = loaded.language.compute_transition_scores(
                out.sequences, out.logits, out.get("beam_indices"), normalize_logits=True
            )
        new = out.sequences[:, loaded.given(begin) :].tolist()
        written = [self._read(tokens, spent) for tokens, spent in zip(new, logs.float().tolist(), strict=True)]
        each = self.config.num_candidates
        return [written[place : place + each] for place in range(0, len(written), each)]

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text."""
        words: str = self.loaded.processor.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=True
        )
        return words.strip()

    def _read(self, tokens: Sequence[int], logs: Sequence[float]) -> Written:
        end = next((place for place, token in enumerate(tokens) if token in self.loaded.ends), len(tokens))
        spent = logs[: end + 1]
        return Written(list(tokens[:end]), self.text(tokens[:end]), sum(spent) / max(1, len(spent)))

    def _how(self) -> Any:
        """transformers' settings, in place of what lies beside the weights."""
        import transformers

        config, own = self.config, self.loaded.language.generation_config
        special = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        return transformers.GenerationConfig(
            **({} if config.top_p is None else {"do_sample": True, "top_k": 0}),
            num_beams=config.num_beams,
            num_return_sequences=config.num_candidates,
            min_new_tokens=config.min_length,
            max_new_tokens=config.max_length,
            no_repeat_ngram_size=config.no_repeat_ngram_size,
            return_dict_in_generate=True,
            output_logits=True,
            **{name: getattr(own, name) for name in special},
        )

    def _draws(self, keys: Sequence[str]) -> Any:
        import torch
        import transformers

        from dreamloom.caption.nucleus import Nucleus, luck_of

        config, draws = self.config, transformers.LogitsProcessorList()
        if config.top_p is not None:
            luck = [
                torch.from_numpy(luck_of(config.seed, key, config.num_candidates, config.max_length)) for key in keys
            ]
            draws.append(Nucleus(config.top_p, torch.cat(luck).to(self.loaded.device)))
        return draws


_loading = threading.Lock()
_writing = threading.Lock()
"""A model has one set of settings, and configs share it."""


def load(config: CaptionConfig) -> Blip:
    """The model of a config, loaded at the first call and kept for the next, while what lies in its folder is the same.

    Raises:
        UserError: it can't be loaded, or there is no such device.
    """
    with _loading:  # sources that run side by side share one
        return Blip(_load(config.model, config.device, config.precision, fingerprint(config.model)), config)


def unload() -> None:
    """Lets go of the model that `load` keeps, so that its memory is free for others."""
    with _loading:
        _load.cache_clear()


@lru_cache(maxsize=1)
def _load(name: str, device: Device, precision: Precision, _content: str) -> _Loaded:
    if device != "cuda":
        keep_freed_memory()  # before torch is imported
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("caption: device is cuda, but torch sees no GPU; leave it at auto, or set it to cpu.")
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    bf16 = torch.cuda.is_bf16_supported() if place == "cuda" else has_bf16()
    dtype = torch.bfloat16 if precision == "bf16" or (precision == "auto" and bf16) else torch.float32
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    try:
        kind = _KINDS[transformers.AutoConfig.from_pretrained(source).model_type]
        processor = getattr(transformers, f"{kind}Processor").from_pretrained(source)
        made = getattr(transformers, f"{kind}ForConditionalGeneration")
        model, info = made.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(f"The captioning model {name} can't be loaded ({why}); name one that can.") from error
    if info["missing_keys"]:  # transformers fills them with noise
        lost = sorted(info["missing_keys"])[0]
        raise UserError(f"The captioning model {name} lacks weights, such as {lost}; name one that is whole.")
    return _Loaded(model.to(place).eval(), processor, place, dtype)
