"""What the rest of training asks of a family of models. Imports no torch, so that plans and errors know the family.

dreamloom.train.families has one package a family; its class for an open model derives from
dreamloom.train.model.model.Model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dreamloom.train.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]
"""Name → shape of the tensors of a file."""
Config = dict[str, Any]
"""The config of a component, as diffusers and transformers write it."""


class Family(Protocol):
    """A family of models: what its files are like, which networks it has, and what suits it."""

    name: str
    """As `--family` and messages for developers spell it: sd."""
    title: str
    """For people: Stable Diffusion 1.x and 2.x."""
    denoiser: str
    """The component that predicts, by the name of its folder: unet."""
    text_encoders: tuple[str, ...]
    """The components that read captions, in the order in which the denoiser is given what they say."""
    optional: tuple[str, ...]
    """Components and tokenizers that a model may lack."""
    classes: Mapping[str, str]
    """Component or tokenizer → its class: diffusers.UNet2DConditionModel."""
    pipeline: str
    """The pipeline of diffusers that draws with it."""
    is_flow: bool
    """Whether it is a rectified flow, drawn by its own kind of scheduler alone; else its noise is a DDPM's."""
    pipeline_settings: Mapping[str, Any]
    """Arguments of its class beside the components."""
    kept_settings: Mapping[str, Any]
    """Settings of the base's model_index.json that an export keeps, and what they are where it says nothing."""
    adapter_layers: Mapping[str, str]
    """Component → pattern (re) of the names of its layers that get an adapter."""
    convolution_layers: Mapping[str, str]
    """Component → the same of its convolutions, and what is beside them, where these are wanted, too."""
    embedding_keys: Mapping[str, str]
    """Text encoder that learns new words → the name of its vectors in a file of one; others read captions without."""
    kohya_parts: Mapping[str, str]
    """Component → the beginning of its layers' names in kohya's LoRA files."""
    file_prefixes: Mapping[str, str]
    """Component → the beginning of its tensors' names in a single file."""

    def owns_folder(self, index: Mapping[str, Any], denoiser: Mapping[str, Any]) -> bool:
        """Tells whether a diffusers folder may be trained as a model of this family.

        Args:
            index: its model_index.json.
            denoiser: the config.json of its denoiser; empty where there is none.
        """

    def owns_file(self, tensors: Shapes) -> bool:
        """Tells whether a single file is a model of this family."""

    def file_config(self, file: Path, tensors: Shapes, component: str) -> Config:
        """Infers the config of a component of a single file outside a diffusers folder.

        Args:
            file: the .safetensors or .ckpt.
            tensors: its tensors.
            component: a network's name, or scheduler.

        Raises:
            UserError: what lies beside the file can't be read.
        """

    def check(self, config: TrainConfig, denoiser: Config, vae: Config) -> None:
        """Checks that settings mean something for this family.

        Args:
            config: the run's; as a user gave it, or with the family's defaults.
            denoiser: the denoiser's config; empty where it is not known.
            vae: the VAE's.

        Raises:
            UserError: one does not; it says which, and what to set.
        """

    def defaults(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the settings in which this family differs from the defaults of TrainConfig.

        Args:
            given: what the user has set, which wins.
        """

    def activation_bytes(self, config: TrainConfig, denoiser: Config, latent_pixels: float, precision: str) -> int:
        """Estimates what a forward pass keeps for the backward pass, in bytes.

        Args:
            config: the run's; of it counts gradient checkpointing.
            denoiser: the denoiser's config.
            latent_pixels: of a batch.
            precision: fp32 or bf16.
        """

    def model_class(self) -> type[Any]:
        """Imports the class of its open models, which derives from Model."""

    def file_tokenizers(self, configs: Mapping[str, Config]) -> dict[str, Any]:
        """Makes the tokenizers of a single file, which holds none, by text encoder.

        Args:
            configs: component → its config.
        """

    def read_file_weights(
        self, weights: "Mapping[str, Tensor]", shapes: "Mapping[str, Mapping[str, Tensor]]"
    ) -> "dict[str, dict[str, Tensor]]":
        """Renames the tensors of a single file to those of diffusers' and transformers' networks.

        Args:
            weights: the file's; those that no component needs are left out.
            shapes: component → the state dict to fill, of which names and shapes count; without a VAE where the file
                has none.

        Raises:
            KeyError: the file lacks a tensor.
            RuntimeError: a tensor has another shape than the component's.
        """


def is_text_encoder(component: str) -> bool:
    """Tells whether a component is a text encoder, by the name of its folder."""
    return component.startswith("text_encoder")


def learning_text_encoders(config: TrainConfig, family: Family) -> list[str]:
    """Returns the text encoders whose weights are trained, or get adapters."""
    if config.embeddings_alone:
        return []
    return [
        name for name in family.text_encoders if name in family.adapter_layers and config.text_encoder_rate(name) > 0
    ]


def trained_components(config: TrainConfig, family: Family) -> list[str]:
    """Returns the components whose weights are trained, or get adapters; none where new words are learned alone."""
    return [] if config.embeddings_alone else [family.denoiser, *learning_text_encoders(config, family)]


def changing_text_encoders(config: TrainConfig, family: Family) -> list[str]:
    """Returns the text encoders whose answers to a caption change: they learn, or new words do."""
    return list(family.embedding_keys) if config.embeddings else learning_text_encoders(config, family)
