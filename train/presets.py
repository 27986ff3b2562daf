"""Settings that go together, by the memory of the GPU: for Stable Diffusion 1.x and 2.x at 512 pixels, all weights."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "8gb": {
        "weight_dtype": "bf16",
        "optimizer": "adafactor",
        "gradient_checkpointing": True,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "text_encoder_learning_rate": 0.0,
    },
    "12gb": {"weight_dtype": "bf16", "optimizer": "adafactor", "gradient_checkpointing": True, "batch_size": 4},
    "24gb": {"gradient_checkpointing": True, "batch_size": 4},
    "80gb": {"batch_size": 32},
}
"""Name → what it sets; keys that are given win. A test holds them to their memory."""
