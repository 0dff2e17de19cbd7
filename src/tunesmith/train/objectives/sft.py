"""Imitate the answers: next-token loss on assistant turns and nothing else."""

from typing import TYPE_CHECKING, Literal

from tunesmith.core.records import Batch, Example, Loss
from tunesmith.core.rows import Chat
from tunesmith.model import render
from tunesmith.train.objectives.base import Objective, next_tokens

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy
    from tunesmith.model.render import Tokenizer


class Sft(Objective):
    """Supervised fine-tuning (instruction tuning, arXiv 2109.01652).

    Good for formats, styles and skills shown by 100 examples or more. Each supervised token weighs
    the same within a step, however long its answer is.
    """

    kind: Literal["sft"] = "sft"

    def encode(self, row: Chat, tokenizer: "Tokenizer") -> Example:
        return render.encode(row, tokenizer)

    def loss(self, policy: "Policy", batch: Batch) -> Loss:
        return next_tokens(policy, batch, float(self.weight(batch)))
