"""Texts to vectors with the bundled encoder: how near two texts are in what they mean."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.core.records import IGNORE, Example, collate
from tunesmith.core.records import Sequence as Tokens
from tunesmith.core.rows import Origin
from tunesmith.model import embedded, layout

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from tunesmith.model.policy import Policy
else:
    torch = late("torch")
    np = late("numpy")

BATCH = 32
"""Texts of one pass; texts of one length are put together."""


def vectors(texts: Sequence[str], policy: "Policy | None" = None) -> "NDArray[np.float32]":
    """One vector of length 1 for each text, [text, width]: the mean over its tokens
    (arXiv 1908.10084). Of a text longer than the encoder's context, its beginning."""
    reader = policy or bundled()
    limit = layout.context(reader.model)
    ids = [reader.tokenizer.written([text or " "])[0][:limit] for text in texts]
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    found: NDArray[np.float32] = np.zeros((len(ids), layout.width(reader.model)), np.float32)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = collate([example(ids[place]) for place in places], reader.device)
        with torch.inference_mode():
            found[places] = reader.pooled(batch).float().cpu().numpy()
    found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return found


def example(ids: list[int]) -> Example:
    """Tokens that take no loss."""
    return Example((Tokens(tuple(ids), (IGNORE,) * len(ids)),), "", Origin("", 0))


def bundled() -> Any:
    """The bundled encoder, ready to read."""
    from tunesmith.model.bases import ModelSpec, resolve
    from tunesmith.model.load import load_model
    from tunesmith.model.policy import Policy
    from tunesmith.model.words import tokenizer_of

    base = resolve(ModelSpec(source=embedded.ENCODER))
    return Policy(load_model(base), tokenizer_of(base))
