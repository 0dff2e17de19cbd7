"""Imitate the answers: next-token loss on assistant turns and nothing else."""

from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.records import Batch, Example, Loss
from tunesmith.core.rows import Chat, Row, Text
from tunesmith.model import documents, render
from tunesmith.train.next_tokens import next_tokens
from tunesmith.train.objectives.base import Objective

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer


class Sft(Objective):
    """Supervised fine-tuning (instruction tuning, arXiv 2109.01652).

    Good for formats, styles and skills shown by 100 examples or more. Each supervised token weighs
    the same within a step, however long its answer is. Documents beside the conversations are read
    on, every token of them, as objective `lm` reads them: for replay.
    """

    kind: Literal["sft"] = "sft"
    beside: ClassVar[tuple[type[Row], ...]] = (Text,)

    def encode(self, row: Chat | Text, tokenizer: "Tokenizer") -> Example:
        if isinstance(row, Text):
            return documents.encode(row, tokenizer)
        return render.encode(row, tokenizer)

    def cut(self, row: Chat | Text, example: Example, length: int) -> list[Example]:
        return documents.windows(example, length) if isinstance(row, Text) else [example]

    def loss(self, policy: "Policy", batch: Batch) -> Loss:
        return next_tokens(policy, batch, float(self.weight(batch)))
