"""Read on: next-token loss on every token of a document."""

from typing import TYPE_CHECKING, ClassVar, Literal

from tunesmith.core.records import Batch, Example, Loss
from tunesmith.core.rows import Row, Text
from tunesmith.model import documents
from tunesmith.train.next_tokens import next_tokens
from tunesmith.train.objectives.base import Objective

if TYPE_CHECKING:
    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer


class Lm(Objective):
    """Continued pre-training on documents (domain adaptation, arXiv 2004.10964).

    Good for the words and facts of a field, before or instead of tuning on answers. An
    end-of-sequence token ends each document and no document sees another. One longer than
    `train.length` goes on in the next window: no token is lost, and none is trained twice.
    """

    kind: Literal["lm"] = "lm"
    row: ClassVar[type[Row]] = Text
    chats: ClassVar[bool] = False

    def encode(self, row: Text, tokenizer: "Tokenizer") -> Example:
        return documents.encode(row, tokenizer)

    def cut(self, row: Text, example: Example, length: int) -> list[Example]:
        return documents.windows(example, length)

    def loss(self, policy: "Policy", batch: Batch) -> Loss:
        return next_tokens(policy, batch, float(self.weight(batch)))
