"""A model in memory: its components, and the operations that training and evaluation need."""

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.base.models.device import PrecisionName
from dreamloom.train.diffusion.schedules import NoiseSchedule
from dreamloom.train.model.family import Family
from dreamloom.train.model.lora_layers import kohya_name
from dreamloom.train.model.text import TOKENS, Condition, Text


@dataclass(frozen=True)
class NewWords:
    """The words that textual inversion adds (dreamloom.train.model.embeddings)."""

    tokens: Mapping[str, str]
    """Word → its tokens, separated by blanks."""
    plain_tokenizers: Mapping[str, Any]
    """Text encoder that learns them → its tokenizer without them."""

    def spell_out(self, encoder: str, caption: str) -> str:
        """Replaces each word, in any case, by its tokens; where none are learned, by nothing, as ComfyUI does."""
        for word, tokens in self.tokens.items():
            found = rf"(?<![\w-]){re.escape(word)}(?![\w-])"
            if encoder in self.plain_tokenizers:
                caption = re.sub(found, tokens, caption, flags=re.IGNORECASE)
            else:
                caption = re.sub(rf"\s*{found}", "", caption, flags=re.IGNORECASE).lstrip()
        return caption


@dataclass
class Model(ABC):
    """A model of some family, whose class says what its networks are given.

    Weights are float32 and frozen until made trainable.
    """

    family: Family
    components: dict[str, Any]
    """The networks, by the names of their folders: the denoiser, the VAE and the text encoders."""
    tokenizers: dict[str, Any]
    """The tokenizer of each text encoder, by the encoder's name."""
    scheduler: Any
    """The base's scheduler, for sampling; its config says what the denoiser predicts."""
    schedule: NoiseSchedule
    """The noise that it is trained with, on the model's device."""
    clip_skip: int = 1
    """Which of the text encoder's layers the denoiser sees, from the last that it sees by itself."""
    t5_length: int = 256
    """Tokens that T5 reads, where the family has one."""
    compiled_denoiser: Any = None
    """The denoiser compiled by torch, for training only: evaluation and sampling use too many shapes."""
    resting: set[str] = field(default_factory=set)
    """Text encoders that are on the device only while they answer."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the base's pipeline that an export keeps."""
    precision: PrecisionName = "fp32"
    """For what arithmetic its matrices are stored; see dreamloom.train.families.opening.load_model."""
    is_sharded: bool = False
    """Whether processes share the denoiser's weights, which then stay where they are."""
    new_words: NewWords | None = None
    """What textual inversion adds to tokenizers and text encoders."""

    @property
    def denoiser(self) -> Any:
        """The network that predicts noise."""
        return self.components[self.family.denoiser]

    @property
    def vae(self) -> Any:
        """The network between images and latents."""
        return self.components["vae"]

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The text encoders, by name, in the family's order."""
        return {name: self.components[name] for name in self.family.text_encoders if name in self.components}

    @property
    def patch(self) -> int:
        """Latent pixels of a side that the denoiser takes at once; sides are multiples of this."""
        return 1

    @property
    def prediction_type(self) -> str:
        """What the denoiser predicts, in diffusers' words."""
        return self.schedule.prediction_type

    @property
    def has_zero_terminal_snr(self) -> bool:
        """Whether the last step of the noise schedule is pure noise."""
        return bool(self.scheduler.config.get("rescale_betas_zero_snr"))

    @property
    def device(self) -> torch.device:
        """The device of its networks and noise schedule."""
        return self.schedule.device

    def tokenize(self, captions: list[str]) -> Text:
        """Tokenizes captions for each text encoder, cut and padded to its length.

        Returns:
            Token ids, on the CPU.
        """
        return Text({name: {TOKENS: self.tokens_for(name, captions)} for name in self.text_encoders})

    def encode(self, text: Text, sizes: Tensor | None = None) -> Condition:
        """Computes what the denoiser is given of captions.

        Args:
            text: on the model's device. Token ids are encoded; what an encoder has answered before is taken as it is.
            sizes: see Condition; only some families take it.
        """
        return self.encode_all([text], [sizes])[0]

    def encode_all(self, texts: Sequence[Text], sizes: Sequence[Tensor | None]) -> list[Condition]:
        """Computes what the denoiser is given of several batches; text encoders that rest wake once for all of them.

        Args:
            texts: of each batch; see `encode`.
            sizes: of each batch; see `encode`.
        """
        answers: list[dict[str, Mapping[str, Tensor]]] = [{} for _ in texts]
        for name in texts[0].encoders:
            parts = [text.encoders[name] for text in texts]
            with self.awake(name) if any(TOKENS in part for part in parts) else nullcontext():
                for own, part in zip(answers, parts, strict=True):
                    own[name] = self.answer(name, part[TOKENS]) if TOKENS in part else _as_float(part)
        return [self.condition(*pair) for pair in zip(answers, sizes, strict=True)]

    @contextmanager
    def awake(self, encoder: str, beside_denoiser: bool = False) -> Iterator[None]:
        """Keeps a text encoder on the device during the block, also one that rests.

        Args:
            encoder: its name.
            beside_denoiser: whether the denoiser stays there, too, as it may be in use.
        """
        if encoder not in self.resting:
            yield
            return
        place = next(self.denoiser.parameters()).device
        self.resting.remove(encoder)
        beside_denoiser = beside_denoiser or self.is_sharded
        try:
            if not beside_denoiser:
                self.denoiser.to("cpu")
            self.components[encoder].to(self.device)
            yield
        finally:
            self.components[encoder].to("cpu")
            if not beside_denoiser:
                self.denoiser.to(place)
            self.resting.add(encoder)

    def settle(self, resting: Collection[str] = (), shared: Collection[str] = ()) -> None:
        """Moves the networks to the device, but for text encoders that rest from now on.

        Args:
            resting: these.
            shared: what processes will share: each moves to the device what is its own.
        """
        self.resting = set(resting)
        for name, module in self.components.items():
            module.to("cpu" if name in resting or name in shared else self.device)

    def tokens_for(self, encoder: str, captions: list[str]) -> Tensor:
        """Tokenizes captions, with new words, for one text encoder; returns token ids, int64 [n, L]."""
        if self.new_words:
            captions = [self.new_words.spell_out(encoder, caption) for caption in captions]
        tokenizer, length = self.tokenizers[encoder], self.token_length(encoder)
        batch = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return torch.as_tensor(batch.input_ids)

    def token_length(self, encoder: str) -> int:
        """Returns to how many tokens captions are cut or padded for a text encoder."""
        longest = int(self.components[encoder].config.max_position_embeddings)
        return min(int(self.tokenizers[encoder].model_max_length), longest)

    def answers(self, encoder: str) -> tuple[str, ...]:
        """Returns what a text encoder answers: states, and pooled of one that sums captions up."""
        return ("states",)

    @abstractmethod
    def answer(self, encoder: str, tokens: Tensor) -> dict[str, Tensor]:
        """Computes what a text encoder makes of captions, as `Text` names it.

        Args:
            encoder: its name.
            tokens: int64 [n, L].
        """

    @abstractmethod
    def condition(self, answers: Mapping[str, Mapping[str, Tensor]], sizes: Tensor | None) -> Condition:
        """Puts together what the text encoders answered, and the sizes of the images."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """Computes the denoiser's prediction.

        Args:
            noisy: noisy latents, [n, C, h, w].
            timesteps: [n], of the model's schedule.
            condition: what else it is given.

        Returns:
            [n, C, h, w].
        """

    @abstractmethod
    def unused_layers(self, encoder: str) -> str | None:
        """Returns a pattern (re) of the parameters of a text encoder that the denoiser sees nothing of; None: none."""

    @abstractmethod
    def pipeline_arguments(self, wanted: Condition, unwanted: Condition, negative_prompts: list[str]) -> dict[str, Any]:
        """Returns the arguments by which diffusers' pipeline is given prompts.

        Args:
            wanted: the encoded prompts.
            unwanted: the encoded negative prompts.
            negative_prompts: these, as written.
        """

    def pipeline_components(self, scheduler: Any) -> dict[str, Any]:
        """Returns what diffusers' pipeline is made of, with a scheduler; and further arguments of its class.

        Text encoders that rest are left out: the pipeline is given what they answer.
        """
        tokenizers = {name.replace("text_encoder", "tokenizer"): each for name, each in self.tokenizers.items()}
        return {
            **self.components,
            **dict.fromkeys(self.resting),
            **tokenizers,
            "scheduler": scheduler,
            **self.family.pipeline_settings,
            **self.settings,
        }

    def kohya_names(self, component: str, layers: Collection[str]) -> dict[str, str]:
        """Returns the names of a component's layers in kohya's LoRA files, by those that they have here.

        Layers of one name are joined there, in the order in which they are returned.
        """
        return {layer: kohya_name(self.family.kohya_parts[component], layer) for layer in layers}

    @abstractmethod
    def original_weights(self) -> dict[str, Tensor]:
        """Renames all weights to the keys of single files.

        Raises:
            NoOriginalKeyError: a layer has no such key.
        """

    @abstractmethod
    def original_config(self) -> str | None:
        """Returns the YAML that programs look for beside a single file; None where its tensors tell them enough."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """The name of its architecture in ModelSpec (https://github.com/Stability-AI/ModelSpec)."""

    @abstractmethod
    def kohya_metadata(self) -> dict[str, str]:
        """Returns what kohya's LoRA files say of the base."""

    @property
    def network(self) -> Any:
        """The denoiser to call: compiled, where it learns and was compiled."""
        is_compiled = self.compiled_denoiser is not None and torch.is_grad_enabled()
        return self.compiled_denoiser if is_compiled else self.denoiser

    def scale_latents(self, latents: Tensor) -> Tensor:
        """Brings the VAE's latents to the scale in which the denoiser works; of any shape."""
        config = self.vae.config
        return (latents - float(config.get("shift_factor") or 0.0)) * float(config.scaling_factor)

    def unscale_latents(self, latents: Tensor) -> Tensor:
        """Inverts `scale_latents`, for the VAE to decode, in the order in which diffusers' pipelines compute it."""
        config = self.vae.config
        return latents / float(config.scaling_factor) + float(config.get("shift_factor") or 0.0)


def _as_float(answers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.float() for key, value in answers.items()}


def hash_weights(module: nn.Module) -> str:
    """Hashes the weights of a network, as float32 and with their names and shapes, to 32 hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
