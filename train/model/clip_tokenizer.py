"""OpenAI's CLIP tokenizer, for models in a single file, which holds none."""

from typing import Any


def make_clip_tokenizer(padding: str = "<|endoftext|>") -> Any:
    """Makes the tokenizer from the vocabulary that open_clip ships.

    Args:
        padding: the token that fills captions up.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    tokenizer = SimpleTokenizer()
    vocabulary = dict(tokenizer.encoder)
    vocabulary["<|startoftext|>"] = vocabulary.pop("<start_of_text>")
    vocabulary["<|endoftext|>"] = vocabulary.pop("<end_of_text>")
    return CLIPTokenizer(vocab=vocabulary, merges=list(tokenizer.bpe_ranks), model_max_length=77, pad_token=padding)
