"""A small BLIP and BLIP-2 with random weights, odd images, and collections of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.sidecar import read_caption
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets.folder import FolderConfig, ingest_folder

WORDS = ["a", "an", "the", "of", "on", "in", "and", "with", "red", "blue", "green", "car", "dog", "cat", "man"]
WORDS += [",", ".", "'", "s", "##s", "photo", "picture", "street", "big", "small"]
SIZES = [(64, 48), (1, 40), (40, 1), (33, 90), (1, 1), (300, 200), (17, 17)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BLIP with random weights, so large that its captions differ from image to image."""
    import torch
    import transformers
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "vocab_size": len(words)}
    torch.manual_seed(2)
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config={**size, **tokens, "encoder_hidden_size": 32, "max_position_embeddings": 64},
            vision_config={**size, "image_size": 32, "patch_size": 8},
        )
    )
    with torch.no_grad():
        for weights in (each for each in model.parameters() if each.dim() > 1):
            weights.copy_(torch.randn_like(weights) * 0.3)
    model.save_pretrained(folder)
    image_processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor=image_processor, tokenizer=tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BLIP-2 with random weights: a language model of OPT's kind, four queries."""
    opt = {"model_type": "opt", "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    opt |= {"hidden_size": 32, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    return _blip2(tmp_path_factory.mktemp("blip2"), {**opt, "bos_token_id": 2, "eos_token_id": 4, "pad_token_id": 1})


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small BLIP-2 with random weights whose language model is of T5's kind, as Salesforce/blip2-flan-t5-xl's is."""
    t5 = {"model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    t5 |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 1}
    return _blip2(tmp_path_factory.mktemp("t5"), {**t5, "bos_token_id": 4, "eos_token_id": 4, "pad_token_id": 1})


def _blip2(folder: Path, text_config: dict[str, Any]) -> str:
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

    transformers.utils.logging.disable_progress_bar()
    words = ["<s>", "<pad>", "</s>", "<unk>", "<end>", *(word for word in WORDS if not word.startswith("#")), "<image>"]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    model = Blip2ForConditionalGeneration(
        Blip2Config(
            vision_config={**size, "image_size": 32, "patch_size": 8},
            qformer_config={**size, "encoder_hidden_size": 32, "vocab_size": len(words)},
            text_config={**text_config, "vocab_size": len(words)},
            num_query_tokens=4,
            image_token_index=len(words) - 1,
        )
    )
    with torch.no_grad():
        for weights in (each for each in model.parameters() if each.dim() > 1):
            weights.copy_(torch.randn_like(weights) * 0.3)
    model.save_pretrained(folder)
    image_processor = BlipImageProcessor(size={"height": 32, "width": 32})
    Blip2Processor(image_processor, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def draw_image() -> Callable[[int], Image.Image]:
    """Draws noise in an odd size."""
    return _draw_image


@pytest.fixture
def make_collection(tmp_path: Path) -> Callable[..., Collection]:
    """Makes a collection of images, every other one with a caption in its name."""

    def make(root: str = "here", count: int = 10, **config: Any) -> Collection:
        folder = tmp_path / root / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            _draw_image(number).save(folder / f"{f'a red car_{number:02}' if number % 2 else f'{number:02}'}.png")
        collection = Collection(tmp_path / root / "work")
        ingest_folder(collection, FolderConfig(path=folder, **config), read_caption)
        return collection

    return make


@pytest.fixture(scope="session")
def config_of() -> Callable[..., CaptionConfig]:
    """A config for a small model, exact and short."""
    return lambda model, **values: CaptionConfig(
        model=model, device="cpu", **{"precision": "fp32", "max_length": 12, **values}
    )


def _draw_image(number: int) -> Image.Image:
    width, height = SIZES[number % len(SIZES)]
    noise = np.random.default_rng(number).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
