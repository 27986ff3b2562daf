"""The small vocabularies of the demo's models, in their tokenizers' ordinary formats.

Every word of the world is one token; any other text falls back to bytes (CLIP) or characters (BERT).
"""

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

from dreamloom.base.files.atomic import commit_text
from dreamloom.demo.world import BACKGROUNDS, COLORS, RELATIONS, SHAPES

LENGTH = 32
"""Maximum tokens of a text."""
LONGEST = 20
"""Tokens of the world's longest caption with start, end and some room."""
WORDS = sorted(
    {"a", "an", "of", "on", "photo", "pencil", "drawing", "background", "big", "small", *SHAPES, *COLORS, *BACKGROUNDS}
    | set(" ".join(RELATIONS).split())
)


def clip_tokenizer() -> Any:
    """Returns a CLIPTokenizer: 256 bytes, 256 bytes that end a word, the merges of WORDS, start and end of text."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = bpe_merges([*WORDS, ","])
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=LENGTH)


def save_clip_tokenizer(folder: Path) -> None:
    """Also writes it as vocab.json and merges.txt, which older readers of CLIP's tokenizer need."""
    tokenizer = clip_tokenizer()
    tokenizer.save_pretrained(folder)
    vocabulary = dict(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    commit_text(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
    merges = (" ".join(pair) for pair in bpe_merges([*WORDS, ","]))
    commit_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))


def bpe_merges(words: list[str]) -> list[tuple[str, str]]:
    """Returns byte-pair merges, most frequent first and then alphabetic, that make each word one token."""
    split = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges = []
    while pairs := Counter(pair for word in split for pair in itertools.pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merged(word, best) for word in split]
    return merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    joined: list[str] = []
    for part in word:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def bert_tokenizer() -> Any:
    """Returns a BertTokenizer: special tokens with BLIP's [DEC] and [ENC], WORDS, and single characters."""
    from transformers import BertTokenizer

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", *letters]
    tokens += [f"##{letter}" for letter in letters] + [word for word in WORDS if len(word) > 1]
    return BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, model_max_length=LENGTH, bos_token="[DEC]")
