"""One base that serves many runs: each run's adapter is added once, and any of them answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith import environment
from tunesmith.answers import conversation, replies, run_folder
from tunesmith.core.errors import SettingsError
from tunesmith.core.rows import Chat
from tunesmith.model import layout
from tunesmith.run import load as load_run

if TYPE_CHECKING:
    from tunesmith.model.adapters import Adapters
    from tunesmith.model.devices import Device
    from tunesmith.model.generate import Answer, Decoder, Sampling
    from tunesmith.model.policy import Policy


@dataclass
class SharedBase:
    """A base in memory, and what was put on it. `adapters` does the work, without runs."""

    adapters: "Adapters"
    sampling: "dict[str | None, Sampling]" = field(default_factory=dict)
    """How answers are generated, by name; a run's as it was evaluated."""
    rows: int = 16
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """What can be used, in the order it came."""
        return self.adapters.names

    @property
    def used(self) -> str | None:
        """What is in use; None for the base alone."""
        return self.adapters.used

    @property
    def policy(self) -> "Policy":
        """The model as it is in use, with its head if it has one."""
        return self.adapters.policy

    def add(self, name: str, run: str | Path) -> None:
        """Put a finished run (`"runs/x"` or its name), or an exported adapter, beside the others.

        Raises IntegrityError where it was trained on another base or is damaged, SettingsError
        where it holds nothing that can be put on a base.
        """
        if (Path(run) / "tunesmith.json").is_file():
            self.adapters.add(name, Path(run))
            return
        from tunesmith.evaluate.questions import settled
        from tunesmith.model.earlier import has_head

        folder = run_folder(run)
        folder.stage("train").manifest()
        sampling = load_run(folder.path).evaluate.sampling
        if not has_head(folder.stage("train").path):
            sampling = settled(sampling, folder.stage("data").path)
        self.adapters.add(name, folder.stage("train").path)
        self.sampling[name] = sampling

    def use(self, name: str | None) -> None:
        """Answer from here on with this one; with None, as the base does."""
        self.adapters.use(name)

    def combine(self, name: str, weights: Mapping[str, float]) -> None:
        """Let `name` mean the base plus this weighted sum of what LoRA adapters add to it."""
        self.adapters.combine(name, weights)

    def remove(self, name: str) -> None:
        """Take this one away, and its memory with it."""
        self.adapters.remove(name)
        self.sampling.pop(name, None)

    def answer(self, said: str | Sequence[Mapping[str, Any]]) -> str:
        """The reply to a text, or to a conversation of {role, content} messages, by what is in
        use."""
        (found,) = self.answers([conversation(said)])
        return found.text

    def answers(self, prompts: Iterable[Chat]) -> "Iterator[Answer]":
        """The replies to many conversations, as they are ready; `key` counts the prompts."""
        yield from replies(self.decoder(), prompts, self.seed)

    def decoder(self) -> "Decoder":
        """What generates, as it is in use now."""
        from tunesmith.model.generate import Decoder

        policy, used = self.policy, self.used
        if policy.head is not None or not layout.writes(policy.model):
            raise SettingsError(
                f"{used or self.adapters.base.source}: chooses labels and writes nothing; ask its "
                "policy for the probabilities of labels"
            )
        sampling = self.sampling.get(used)
        return Decoder(policy.model, policy.tokenizer, rows=self.rows, sampling=sampling)


def base(
    source: str, *, bits: Literal[4, 8] | None = None, device: "Device" = "auto"
) -> SharedBase:
    """A base by its name, folder or GGUF file, ready for adapters; in the bits that they were
    trained on."""
    from tunesmith.model.adapters import Adapters
    from tunesmith.model.bases import ModelSpec, resolve
    from tunesmith.model.devices import choose

    environment.need("train", "torch", "transformers", "peft")
    return SharedBase(
        Adapters(resolve(ModelSpec(source=source, bits=bits)), device=str(choose(device, "device")))
    )
