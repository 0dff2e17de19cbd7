"""Trained keys and values before every row, through peft."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.model import lead
from tunesmith.train import peft_folder, virtual
from tunesmith.train.methods.base import Method

if TYPE_CHECKING:
    from tunesmith.model.tokenizer import Tokenizer


class Prefix(Method):
    """Prefix tuning (arXiv 2101.00190): `length` virtual tokens whose keys and values are trained.

    The base stays as it is, and one base serves many prefixes. It starts from the keys and values
    of real words: from noise it learns little and forgets much. Cannot be merged: the virtual
    tokens take part of the context and some of every pass.
    """

    kind: Literal["prefix"] = "prefix"
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
        from peft import PrefixTuningConfig

        virtual.refuse_unfit(model, self.kind, self.length)
        start = virtual.keys_and_values(model, virtual.sampled(model, self.length, seed))
        keys, _ = start.layers[0]
        # peft would take both from the configuration, where some models do not say them.
        heads, size = keys.shape[1], keys.shape[3]
        settings = PrefixTuningConfig(
            num_virtual_tokens=self.length,
            num_layers=len(start.layers),
            num_attention_heads=heads,
            token_dim=heads * size,
            init_weights="zero",
            task_type="CAUSAL_LM",
        )
        tuned = peft_folder.wrapped(model, settings, seed)
        virtual.put(tuned, lead.folded(start))
        return tuned

    def begin(self, model: Any, tokenizer: "Tokenizer") -> None:
        if self.text is not None:
            ids = virtual.of_text(self.text, tokenizer, self.length)
            virtual.put(model, lead.folded(virtual.keys_and_values(model, ids)))
