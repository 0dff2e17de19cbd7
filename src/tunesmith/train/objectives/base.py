"""What an objective promises: tokens out of a row, a summed loss out of a batch."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tunesmith.core.errors import DataError
from tunesmith.core.parts import Part
from tunesmith.core.records import IGNORE, Batch, Example, Label, Loss
from tunesmith.core.rows import Chat, Row
from tunesmith.model import layout
from tunesmith.train.streams import Group, PassThrough, Stream

if TYPE_CHECKING:
    import torch

    from tunesmith.model.heads import Head, Meaning
    from tunesmith.model.policy import Policy
    from tunesmith.model.tokenizer import Tokenizer


class Objective(Part):
    """A goal: what loss a batch has under a policy. A sum, never a mean: the loop divides once."""

    row: ClassVar[type[Row]] = Chat
    """The kind of row it trains on."""
    beside: ClassVar[tuple[type[Row], ...]] = ()
    """Kinds of row that it can also learn from, encoded by their own rule, beside rows of its own
    kind and never alone; nothing is asked of them in evaluation."""
    needs_reference: ClassVar[bool] = False
    """Whether it asks the policy for the model as it was before."""
    chats: ClassVar[bool] = True
    """Whether it teaches answers to prompts, so that probes and stop tokens mean something."""
    scores: ClassVar[bool] = False
    """Whether it asks for scores of whole texts, by a head, and not for tokens."""
    measures: ClassVar[tuple[str, ...]] = ("loss", "token_accuracy")
    """What is known of held-out rows at every look."""

    @staticmethod
    def of_rows(kind: type[Row]) -> list[str]:
        """The objectives that train on rows of a kind."""
        members = Objective.members().items()
        return [name for name, each in members if issubclass(each, Objective) and each.row is kind]

    def fitted(self, rows: Sequence[Row]) -> Self:
        """The objective with what it must find in the training rows first, such as labels."""
        return self

    def accept(self, rows: Iterable[Row]) -> None:
        """Refuse rows of a kind that this objective cannot train on, by the place of the first."""
        rows = list(rows)
        known = (self.row, *self.beside) if any(isinstance(r, self.row) for r in rows) else self.row
        for row in rows:
            if not isinstance(row, known):
                raise DataError(
                    f"{row.origin}: this is a row of kind {row.kind}, and train.objective: "
                    f"{self.kind} trains on rows of kind {self.row.kind}; state another "
                    "train.objective, or another data.format"
                )

    def head(self, model: Any, seed: int) -> "Head | None":
        """A fresh head for the scores it asks for, on top of `model`; started from `seed`."""
        return None

    @property
    def fits_head(self) -> bool:
        """Whether its head is fitted to the training rows before each look, and not trained."""
        return False

    def fit_head(self, policy: "Policy", batches: Iterable[Batch]) -> None:
        """Fit the head to these rows; asked of an objective that says so."""

    def meaning(self) -> "Meaning | None":
        """What its head says, once fitted; None where it has none."""
        return None

    def label(self, row: Any) -> Label | None:
        """What the row should be scored as; None where the answer is tokens."""
        return None

    @abstractmethod
    def encode(self, row: Any, tokenizer: "Tokenizer") -> Example:
        """Tokens and targets of one row; a row with no trained token is refused, shown."""

    def cut(self, row: Any, example: Example, length: int) -> list[Example]:
        """The example of a row that may go on in another sequence, in pieces of at most `length`
        tokens which together train what the whole does; most rows may not, and stay whole."""
        return [example]

    def weight(self, batch: Batch) -> "torch.Tensor":
        """How many terms the batch adds to the step's loss: weighted supervised tokens."""
        counts = (batch.targets != IGNORE).sum(dim=1)  # [sequence]
        return (counts * batch.weights).sum()

    def guessing(self, policy: "Policy") -> float:
        """The loss of a model that knows nothing: ln of the vocabulary's size."""
        return math.log(layout.vocabulary(policy.model))

    @abstractmethod
    def loss(self, policy: "Policy", batch: Batch) -> Loss:
        """The summed loss of the batch."""

    def stream(self, policy: "Policy", groups: Iterator[Group]) -> Stream:
        """The groups to train on. Reinforcement learning samples here."""
        return PassThrough(groups)
