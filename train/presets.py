"""Settings that go together, by the memory of the GPU: for Stable Diffusion 1.x and 2.x at 512 pixels, all weights."""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "8gb": {
        "weights": "bf16",
        "optimizer": "adafactor",
        "gradient_checkpointing": True,
        "batch": 2,
        "accumulate": 2,
        "text_encoder_rate": 0.0,
    },
    "12gb": {"weights": "bf16", "optimizer": "adafactor", "gradient_checkpointing": True, "batch": 4},
    "24gb": {"gradient_checkpointing": True, "batch": 4},
    "80gb": {"batch": 32},
}
"""Name → what it sets; keys that are given win. A test holds them to their memory."""
