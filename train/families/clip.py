"""What families have in common of the CLIPs that read captions. Imports no torch.

The two of Stable Diffusion XL and 3 are OpenAI's ViT-L/14 and OpenCLIP's ViT-bigG/14.
"""

from typing import Any

CLIP_LAYERS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
"""Pattern of the names of a CLIP's layers with an adapter: those of the transformers, as in kohya's scripts."""
CLIP_EMBEDDINGS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
"""Text encoder → the name of its vectors in a file of a new word, as kohya's scripts, A1111 and ComfyUI have it."""

CLIP_TEXT = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406, "eos_token_id": 49407}
"""What the configs of all CLIPs' text encoders say."""
CLIP_CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": {
        **CLIP_TEXT,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_act": "quick_gelu",
        "projection_dim": 768,
        "pad_token_id": 49407,
    },
    "text_encoder_2": {
        **CLIP_TEXT,
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "projection_dim": 1280,
        "pad_token_id": 0,
    },
}
"""Component → its config, as transformers writes it."""


def make_clip_tokenizers() -> dict[str, Any]:
    """Makes the tokenizers of both, which single files do not hold; see Family.file_tokenizers."""
    from dreamloom.train.model.clip_tokenizer import make_clip_tokenizer

    return {"text_encoder": make_clip_tokenizer(), "text_encoder_2": make_clip_tokenizer("!")}
