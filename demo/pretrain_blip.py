"""Trains the demo's BLIP captioner on the world's scenes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamloom.base.files.atomic import commit_folder
from dreamloom.base.progress import Progress, silent
from dreamloom.demo.pretrain_clip import PREPROCESS, normalized, scenes_and_images
from dreamloom.demo.pretrain_diffusion import tokenize
from dreamloom.demo.pretrain_loop import Schedule, device, fit, half_where_fast, seeded
from dreamloom.demo.pretrain_words import LONGEST, bert_tokenizer
from dreamloom.demo.world import caption

SCHEDULE = Schedule(steps=3500, batch=64, rate=1e-3, decay=0.05, average=0.99)
NUM_IMAGES = 20_000


def make_blip(seed: int = 0) -> Any:
    """Returns an untrained BlipForConditionalGeneration: 64 pixels in patches of 8, 3 + 3 layers, 128 wide."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    tokenizer = bert_tokenizer()
    shared = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = BlipConfig(
        vision_config={**shared, "image_size": 64, "patch_size": 8},
        text_config={
            **shared,
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": 128,
            "max_position_embeddings": 64,
            "projection_dim": 128,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.sep_token_id,  # as in BLIP's generation config: a caption ends with [SEP]
            "sep_token_id": tokenizer.sep_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "label_smoothing": 0.0,
        },
        projection_dim=128,
        image_text_hidden_size=128,
    )
    with seeded(seed):
        return BlipForConditionalGeneration(config).to(device())


def make_processor() -> Any:
    """Returns its processor: images are resized to 64 × 64, texts are tokenized into words of the world."""
    from transformers import BlipImageProcessor, BlipProcessor

    images = BlipImageProcessor(
        size={"height": 64, "width": 64}, image_mean=PREPROCESS["mean"], image_std=PREPROCESS["std"]
    )
    return BlipProcessor(image_processor=images, tokenizer=bert_tokenizer())


def train_blip(
    blip: Any,
    work: Path,
    seed: int,
    schedule: Schedule = SCHEDULE,
    num_images: int = NUM_IMAGES,
    progress: Progress = silent,
) -> list[tuple[int, float]]:
    """Trains it in place to predict each image's caption word by word."""
    scenes, data = scenes_and_images(num_images, seed + 2)
    tokens = caption_tokens([caption(scene) for scene in scenes])
    padding = bert_tokenizer().pad_token_id

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(data), (schedule.batch,))
        text = tokens[chosen].to(device())
        with half_where_fast():
            output = blip(
                pixel_values=normalized(data[chosen], jitter=True),
                input_ids=text,
                attention_mask=(text != padding).long(),
                labels=text.masked_fill(text == padding, -100),
            )
        return torch.as_tensor(output.loss).float()

    return fit("blip", {"blip": blip}, loss, schedule, work, seed, progress)


def caption_tokens(captions: list[str]) -> Tensor:
    """[DEC], the words, [SEP], padding: int64 [n, LONGEST]."""
    tokenizer = bert_tokenizer()
    tokens = tokenize(tokenizer, captions)[:, :LONGEST].clone()
    tokens[:, 0] = tokenizer.bos_token_id
    return tokens


def export_blip(blip: Any, folder: Path) -> None:
    """Writes the folder that BlipForConditionalGeneration and BlipProcessor load, fp16 safetensors."""
    import copy

    with commit_folder(folder) as temporary:
        copy.deepcopy(blip).cpu().half().save_pretrained(temporary)
        make_processor().save_pretrained(temporary)
