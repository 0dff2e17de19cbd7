"""Trained embeddings before every row, through peft."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.train import peft_folder, virtual
from tunesmith.train.methods.base import Method

if TYPE_CHECKING:
    from tunesmith.model.tokenizer import Tokenizer


class Prompt(Method):
    """Prompt tuning (arXiv 2104.08691): `length` virtual tokens whose embeddings are trained.

    The smallest of all methods, a few thousand numbers a task. It starts from real words and wants
    a high learning rate and many steps; on a small model it stays behind prefix and LoRA. Cannot
    be merged: the virtual tokens take part of the context and some of every pass.
    """

    kind: Literal["prompt"] = "prompt"
    length: Annotated[int, Field(gt=0)] = 32
    """Virtual tokens before every row."""
    text: str | None = None
    """Words they start from, the task in a sentence, say; by default random ones."""

    leaves_adapter: ClassVar[bool] = True
    mergeable: ClassVar[bool] = False
    passing: ClassVar[tuple[str, ...]] = ("text",)

    @property
    def default_lr(self) -> float:
        return 3e-2

    def apply(self, model: Any, seed: int) -> Any:
        from peft import PromptTuningConfig

        virtual.refuse_unfit(model, self.kind, self.length)
        settings = PromptTuningConfig(num_virtual_tokens=self.length, task_type="CAUSAL_LM")
        tuned = peft_folder.wrapped(model, settings, seed)
        virtual.put(tuned, virtual.embeddings(model, virtual.sampled(model, self.length, seed)))
        return tuned

    def begin(self, model: Any, tokenizer: "Tokenizer") -> None:
        if self.text is not None:
            ids = virtual.of_text(self.text, tokenizer, self.length)
            virtual.put(model, virtual.embeddings(model, ids))
