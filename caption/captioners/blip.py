"""BLIP (https://arxiv.org/abs/2201.12086) and BLIP-2 (https://arxiv.org/abs/2301.12597), run by transformers."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from dreamloom.base.errors import UserError
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.models.device import PrecisionName, choose_precision, prepare_device
from dreamloom.base.models.hub import check_on_hub
from dreamloom.base.text import brief
from dreamloom.caption.captioners.captioner import CaptionerFamily, GeneratedCaption
from dreamloom.caption.config import CaptionConfig

if TYPE_CHECKING:
    from torch import Tensor

_CLASS_PREFIXES = {"blip": "Blip", "blip-2": "Blip2"}
"""transformers' model_type → how the names of its classes begin."""


@dataclass(frozen=True)
class LoadedBlip:
    """Weights on a device, and what differs between the two models."""

    model: Any
    processor: Any
    device: str
    dtype: Any

    @property
    def language_model(self) -> Any:
        """The part that generates text."""
        return self.model.language_model if self.is_blip2 else self.model.text_decoder

    @property
    def is_blip2(self) -> bool:
        """Whether it is a BLIP-2."""
        return bool(self.model.config.model_type == "blip-2")

    @property
    def end_tokens(self) -> set[int]:
        """The tokens that end a sentence."""
        text_config = self.model.config.text_config
        end = self.language_model.generation_config.eos_token_id if self.is_blip2 else text_config.sep_token_id
        return set(end) if isinstance(end, list) else {end}

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Returns the tokens that generate is given for an image; without a prompt, none: it begins by itself."""
        if not prompt:
            return []
        tokens: list[int] = self.processor.tokenizer(prompt).input_ids
        if not self.is_blip2:
            return tokens
        return [self.model.config.image_token_index] * self.model.config.num_query_tokens + tokens

    def count_given(self, prompt_tokens: Sequence[int]) -> int:
        """Returns how many of the first tokens that generate returns are not new."""
        if not self.is_blip2:
            return len(prompt_tokens) - 1 if prompt_tokens else 1  # the tokenizer's end token is not given
        if self.language_model.config.is_encoder_decoder:
            return 1
        return len(prompt_tokens) or self.model.config.num_query_tokens + 1


@dataclass(frozen=True)
class Blip:
    """A loaded model with its settings."""

    loaded: LoadedBlip
    config: CaptionConfig

    @property
    def side(self) -> int:
        """Pixels of the model's square input."""
        return int(self.loaded.model.config.vision_config.image_size)

    def prepare(self, image: Image.Image) -> "Tensor":
        """Turns an RGB image into float32 [3, side, side], scaled regardless of its aspect, as BLIP was trained."""
        pixels: Tensor = self.loaded.processor.image_processor(images=image, return_tensors="pt").pixel_values[0]
        return pixels

    def generate(self, images: "Sequence[Tensor]", keys: Sequence[str]) -> list[list[GeneratedCaption]]:
        """Generates `num_candidates` captions for each of n prepared images, as one batch.

        Args:
            images: What `prepare` returned.
            keys: The images' keys, which seed sampling.
        """
        import torch

        loaded = self.loaded
        prompt_tokens = loaded.prompt_tokens(self.config.prompt)
        prompt = torch.tensor([prompt_tokens] * len(images), device=loaded.device)
        with _generating, torch.inference_mode():
            loaded.language_model.generation_config = self._generation_config()
            out = loaded.model.generate(
                pixel_values=torch.stack(list(images)).to(loaded.device, loaded.dtype),
                **({"input_ids": prompt, "attention_mask": torch.ones_like(prompt)} if prompt_tokens else {}),
                logits_processor=self._logits_processors(keys),
            )
            log_probabilities = loaded.language_model.compute_transition_scores(
                out.sequences, out.logits, out.get("beam_indices"), normalize_logits=True
            )
        new_tokens = out.sequences[:, loaded.count_given(prompt_tokens) :].tolist()
        captions = [
            self._caption(tokens, logs)
            for tokens, logs in zip(new_tokens, log_probabilities.float().tolist(), strict=True)
        ]
        count = self.config.num_candidates
        return [captions[start : start + count] for start in range(0, len(captions), count)]

    def decode_tokens(self, tokens: Sequence[int]) -> str:
        """Decodes tokens to text."""
        text: str = self.loaded.processor.tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=True
        )
        return text.strip()

    def _caption(self, tokens: Sequence[int], log_probabilities: Sequence[float]) -> GeneratedCaption:
        end = next((at for at, token in enumerate(tokens) if token in self.loaded.end_tokens), len(tokens))
        logs = log_probabilities[: end + 1]
        return GeneratedCaption(list(tokens[:end]), self.decode_tokens(tokens[:end]), sum(logs) / max(1, len(logs)))

    def _generation_config(self) -> Any:
        """Returns the settings of generation, which replace those beside the weights."""
        import transformers

        config, stored = self.config, self.loaded.language_model.generation_config
        special_tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        return transformers.GenerationConfig(
            **({} if config.top_p is None else {"do_sample": True, "top_k": 0}),
            num_beams=config.num_beams,
            num_return_sequences=config.num_candidates,
            min_new_tokens=config.min_length,
            max_new_tokens=config.max_length,
            no_repeat_ngram_size=config.no_repeat_ngram_size,
            return_dict_in_generate=True,
            output_logits=True,
            **{name: getattr(stored, name) for name in special_tokens},
        )

    def _logits_processors(self, keys: Sequence[str]) -> Any:
        import torch
        import transformers

        from dreamloom.caption.captioners.nucleus import NucleusSampler, random_numbers

        config, processors = self.config, transformers.LogitsProcessorList()
        if config.no_repeat_ngram_size:
            processors.append(forbid_third)
        if config.top_p is not None:
            shape = config.num_candidates, config.max_length
            numbers = torch.cat([torch.from_numpy(random_numbers(config.seed, key, *shape)) for key in keys])
            processors.append(NucleusSampler(config.top_p, numbers.to(self.loaded.device)))
        return processors


def forbid_third(input_ids: "Tensor", scores: "Tensor") -> "Tensor":
    """Forbids a token that came twice running a third time; 3-grams allow “bald bald bald”, which has only one.

    Args:
        input_ids: int64 [n, tokens].
        scores: Logits [n, vocabulary].

    Returns:
        The logits, -inf for what is forbidden.
    """
    import torch

    if input_ids.shape[1] < 2:
        return scores
    last, before = input_ids[:, -1:], input_ids[:, -2:-1]
    allowed = scores.gather(1, last)
    return scores.scatter(1, last, torch.where(last == before, -torch.inf, allowed))


_loading = threading.Lock()
_generating = threading.Lock()
"""A model has one set of settings, and configs share it."""


def load_blip(config: CaptionConfig) -> Blip:
    """Loads the model of a config, or returns the one loaded last if its files are unchanged.

    Raises:
        UserError: it can't be loaded, or there is no such device.
    """
    with _loading:  # sources that run side by side share one
        return Blip(_load(config.model, config.device, config.precision, fingerprint(config.model)), config)


def unload_blip() -> None:
    """Releases the model that `load_blip` keeps, to free its memory."""
    with _loading:
        _load.cache_clear()


BLIP = CaptionerFamily(tuple(_CLASS_PREFIXES), load_blip, unload_blip)


@lru_cache(maxsize=1)
def _load(name: str, device: str, precision: PrecisionName, _content: str) -> LoadedBlip:
    check_on_hub(name)  # transformers would ask ten times, and tell of each
    torch_device = prepare_device(device)
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    dtype = choose_precision(precision, torch_device, bf16_on_cpu=True)
    source = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    try:
        prefix = _CLASS_PREFIXES[transformers.AutoConfig.from_pretrained(source).model_type]
        processor = getattr(transformers, f"{prefix}Processor").from_pretrained(source)
        model_class = getattr(transformers, f"{prefix}ForConditionalGeneration")
        model, info = model_class.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
        why = brief(error, 300)
        raise UserError(f"The captioning model {name} can't be loaded ({why}); name one that can.") from error
    if info["missing_keys"]:  # transformers fills them with noise
        missing = sorted(info["missing_keys"])[0]
        raise UserError(f"The captioning model {name} lacks weights, such as {missing}; name one that is whole.")
    return LoadedBlip(model.to(torch_device).eval(), processor, torch_device, dtype)
