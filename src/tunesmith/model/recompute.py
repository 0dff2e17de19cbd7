"""Seam: blocks whose inner states are made again on the way back, in place of being kept.

Gradient checkpointing (arXiv 1604.06174) of every k-th block. A block runs on the way back through
the same seams as before, so its gradients are the same to the bit. The reference path keeps
everything.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late
from tunesmith.model import forwards

if TYPE_CHECKING:
    import torch
    import torch.utils.checkpoint as checkpoint
else:
    torch = late("torch")
    checkpoint = late("torch.utils.checkpoint")

Seams = Callable[[], AbstractContextManager[Any]]
"""What a pass through the model stands in."""


def chosen(blocks: Sequence[Any], every: int | None) -> list[Any]:
    """The blocks that are made again: each `every`-th, the first of each such group. The very last
    block keeps least (`ending`)."""
    return [] if every is None else list(blocks)[: len(blocks) // every * every : every]


@contextmanager
def switched(blocks: Sequence[Any], seams: Seams) -> Iterator[None]:
    """Blocks that keep only their input, for the time of one forward pass with gradients. `seams`
    is entered again on the way back."""
    again = list(blocks) if torch.is_grad_enabled() else []
    found = {block: partial(_forward, block, block.forward, seams) for block in again}
    with forwards.standing_in(found):
        yield


def _forward(
    block: Any, before: Callable[..., Any], seams: Seams, *given: Any, **named: Any
) -> Any:
    """The block's forward as it was `before`, under torch's checkpoint, which puts its random
    numbers back."""
    training = block.training
    return checkpoint.checkpoint(
        partial(before, **named),
        *given,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _again(block, training, seams)),
    )


@contextmanager
def _again(block: Any, training: bool, seams: Seams) -> Iterator[None]:
    """What a block runs in on the way back: the seams, and the mode it was in."""
    now = block.training
    block.train(training)
    try:
        with seams():
            yield
    finally:
        block.train(now)


@contextmanager
def counting(spared: Sequence["torch.Tensor"]) -> Iterator[dict[int, int]]:
    """The storages that autograd keeps for the way back and their bytes, `spared` ones left out;
    filled while the forward pass runs."""
    own = {tensor.untyped_storage().data_ptr() for tensor in spared}
    found: dict[int, int] = {}

    def note(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield found
