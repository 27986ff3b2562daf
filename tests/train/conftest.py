"""A Stable Diffusion model of the smallest size, with random weights, and small training folders."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.crops import CropPlanner
from dreamloom.train.data.dataset import read_dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import BatchLoader, LoadedBatch
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.data.text_cache import TextCache
from dreamloom.train.families.opening import load_model
from dreamloom.train.loop.distributed import SINGLE_PROCESS
from dreamloom.train.loop.trainer import Trainer
from dreamloom.train.model.family import changing_text_encoders
from dreamloom.train.model.text import Text

MakeTrainer = Callable[..., tuple[Trainer, list[LoadedBatch]]]
CPU = torch.device("cpu")


def tiny_config(**changes: Any) -> TrainConfig:
    """A config that suits the tiny model: 32 pixels, batches of 2."""
    settings: dict[str, Any] = {
        "resolution": 32,
        "bucket_reso_steps": 8,
        "batch_size": 2,
        "epochs": 1,
        "learning_rate": 1e-3,
        "text_encoder_learning_rate": 1e-4,
        "num_workers": 2,
        "device": "cpu",
        "checkpoint_every_n_steps": 2,
        "evaluate_every_n_steps": 0,
        "eval_timesteps": 2,
        "sample_every_n_steps": 0,
        "sample_steps": 2,
        "sample_prompts": ["a red thing"],
        "log_every_n_steps": 2,
    }
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="session")
def config() -> Callable[..., TrainConfig]:
    """`config(epochs=2)`: a config that suits the tiny model, with changes."""
    return tiny_config


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A diffusers folder of Stable Diffusion with one block a level, two levels, and a VAE that shrinks 4 times."""
    folder = tmp_path_factory.mktemp("base")
    save_pipeline(folder, unet={}, vae={"levels": 3})
    return str(folder)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`bases("sdxl")`: the folder of a tiny random model of a family."""
    from tests.train.tiny_families import SAVE

    @cache
    def base(family: str) -> str:
        folder = tmp_path_factory.mktemp(family)
        SAVE[family](folder)
        return str(folder)

    return base


def save_pipeline(
    folder: Path, unet: dict[str, Any], vae: dict[str, Any], scheduler: dict[str, Any] | None = None
) -> None:
    """Writes a random model; `unet` and `scheduler` go to their configs, vae["levels"] says how far the VAE shrinks."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    shape: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 8,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    }
    levels = vae["levels"]
    noise: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    noise |= {"clip_sample": False, "steps_offset": 1}
    pipeline = StableDiffusionPipeline(
        unet=UNet2DConditionModel(sample_size=8, **{**shape, **unet}),
        vae=AutoencoderKL(
            block_out_channels=(8,) * levels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            norm_num_groups=4,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(**{**noise, **(scheduler or {})}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def byte_tokenizer(padding: str = "<|endoftext|>") -> Any:
    """A CLIP tokenizer whose words are single bytes."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=24, pad_token=padding
    )


def tokens_of(text: Text) -> torch.Tensor:
    """The token ids of a text with one encoder."""
    (part,) = text.encoders.values()
    return part["tokens"]


def paint(path: Path, size: tuple[int, int], seed: int) -> None:
    """Writes a PNG of smooth random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder: 5 images of one's own in two shapes, and 8 of ground truth at 0.3."""
    root = tmp_path_factory.mktemp("folder")
    for number in range(5):
        paint(root / "own" / f"a thing_{number}.png", (48, 32) if number == 4 else (40, 40), number)
    for number in range(8):
        paint(root / "ground" / f"a scene of kind {number % 3}_{number}.png", (40, 40), 100 + number)
    (root / "ground" / "multiply.txt").write_text("0.3")
    return root


@pytest.fixture(scope="session")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out images: 2 of the training kind, 3 of ground truth."""
    root = tmp_path_factory.mktemp("heldout")
    for number in range(2):
        paint(root / "training" / "own" / f"a thing_{number}.png", (40, 40), 50 + number)
    for number in range(3):
        paint(root / "ground_truth" / "ground" / f"a scene_{number}.png", (40, 40), 150 + number)
    return root


@pytest.fixture
def make_trainer(
    tiny_base: str, folder: Path, config: Callable[..., TrainConfig]
) -> Callable[..., tuple[Trainer, list[LoadedBatch]]]:
    """A trainer as a session makes one, and the first batches of its run."""

    def make(**changes: Any) -> tuple[Trainer, list[LoadedBatch]]:
        settings = config(**{"base": tiny_base, "caption_dropout_rate": 0.0, **changes})
        model = load_model(
            settings.base, CPU, None, settings.prediction_type, settings.zero_terminal_snr, settings.clip_skip
        )
        data = read_dataset(folder, 32, 8, 1, masks=settings.masks)
        latents = LatentCache(None, model.vae)
        assert not latents.add(data.samples, 2, views=CropPlanner(settings).all_views)
        schedule = BatchSchedule(data, settings)
        texts = TextCache(model, None, changing_text_encoders(settings, model.family))
        texts.add(["", *(sample.caption for sample in data.samples)])
        loader = BatchLoader(data, latents, texts, settings, pin=False)
        batches = [
            ready for group in loader.steps(map(SINGLE_PROCESS.shard, schedule.steps_after(0))) for ready in group
        ]
        return Trainer(model, schedule, settings), batches

    return make
