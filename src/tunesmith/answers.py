"""A finished run's model, ready to answer: for Python, `predict` and `chat`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith import environment
from tunesmith.core.errors import SettingsError
from tunesmith.core.folders import RunFolder
from tunesmith.core.quote import listed
from tunesmith.core.rows import Chat, Message, message
from tunesmith.model import heads, layout
from tunesmith.places import RUN_FILE, RUNS, run_file, run_names, run_of
from tunesmith.run import Run
from tunesmith.run import load as load_run

Arm = Literal["base", "tuned"]

if TYPE_CHECKING:
    from tunesmith.model.generate import Answer, Decoder, Sampling
    from tunesmith.model.policy import Policy


@dataclass(frozen=True)
class Tuned:
    """A model that answers. `folder` is the run it came from."""

    policy: "Policy"
    sampling: "Sampling"
    folder: RunFolder
    rows: int = 16
    seed: int = 0

    def answer(self, said: str | Sequence[Mapping[str, Any]]) -> str:
        """The model's reply to a text, or to a conversation of {role, content} messages."""
        (found,) = self.answers([conversation(said)])
        return found.text

    def answers(self, prompts: Iterable[Chat]) -> Iterator["Answer"]:
        """The replies to many conversations, as they are ready; `key` counts the prompts.

        A conversation's random stream is its own: those beside it change nothing. Raises DataError
        before the first reply where the model cannot read one.
        """
        yield from replies(self.decoder(), prompts, self.seed)

    @property
    def tasks(self) -> list[str]:
        """The tasks that there is a head for, where each has its own."""
        return tasks(self.folder)

    def labels(self, text: str, task: str | None = None) -> dict[str, float]:
        """How likely each label of a text is, by a run that was trained to choose labels.

        Raises SettingsError where the run has no head, or a head for each of several tasks and
        `task` names none of them.
        """
        from tunesmith.core.rows import Labelled
        from tunesmith.model.classify import probabilities

        head = self.policy.head
        if head is None:
            raise SettingsError(f"{self.folder.path}: this run writes answers; use: .answer(...)")
        if self.tasks and task not in self.tasks:
            raise SettingsError(
                f"{self.folder.path}: has a head for each of several tasks; name one of "
                f"{listed(self.tasks)}"
            )
        if task is not None and not self.tasks:
            raise SettingsError(
                f"{self.folder.path}: has one head for all rows and no tasks; leave `task` out"
            )
        own = head.outputs(task or "")
        row = Labelled((text,), (), source=task or "")
        ((_, found),) = probabilities(self.policy, [row])
        return {head.label(place): found[place] for place in own}

    def decoder(self) -> "Decoder":
        """What generates, with the run's sampling; refused where the run was not trained to write.

        That holds for its base too: nothing of the run would be seen in what it writes.
        """
        from tunesmith.model.generate import Decoder

        policy = self.policy
        if has_head(self.folder) or not layout.writes(policy.model):
            raise SettingsError(
                f"{self.folder.path}: this run chooses labels and writes nothing; use: tunesmith "
                f"predict {self.folder.name} ROWS"
            )
        return Decoder(policy.model, policy.tokenizer, rows=self.rows, sampling=self.sampling)


def conversation(said: str | Sequence[Mapping[str, Any]]) -> Chat:
    """A text, or {role, content} messages, as a row to answer."""
    return Chat((Message("user", said),) if isinstance(said, str) else tuple(map(message, said)))


def replies(decoder: "Decoder", prompts: Iterable[Chat], seed: int) -> Iterator["Answer"]:
    """What a decoder replies, the longest prompts first; `key` counts the prompts."""
    from tunesmith.evaluate.answer import asking
    from tunesmith.model.generate import answers

    requests = [
        replace(asking(prompt, prompt.digest, decoder, seed), key=str(number))
        for number, prompt in enumerate(prompts)
    ]
    yield from answers(decoder, sorted(requests, key=lambda r: len(r.ids), reverse=True))


def run_folder(run: str | Path) -> RunFolder:
    """The folder of a run by its name or by itself, or by what it was made of: a run file, or
    rows."""
    file, what = run_file(Path(run)), "no run of this name"
    if file.exists():
        folder = run_of(file) or RUNS / load_run(file).name
        if (folder / RUN_FILE).is_file():
            return RunFolder(folder)
        what = f"its run would be {folder}, which is not here"
    raise SettingsError(f"{run}: {what}; known here: {', '.join(run_names()) or 'none yet'}")


def has_head(folder: RunFolder) -> bool:
    """Whether the run was trained to choose labels by a head."""
    return (folder.stage("train").path / heads.NAME).is_file()


def tasks(folder: RunFolder) -> list[str]:
    """The tasks that a run has a head for, each its own; none where it has one head, or none."""
    meaning = heads.meaning_of(folder.stage("train").path)
    return list(dict.fromkeys(meaning.tasks)) if meaning else []


def load(run: str | Path, overrides: Iterable[str] = (), arm: Arm = "tuned") -> Tuned:
    """The tuned model of a finished run (`runs/x` or its name), or the base it started from."""
    from tunesmith.evaluate.questions import settled
    from tunesmith.model.bases import resolve
    from tunesmith.model.devices import choose
    from tunesmith.model.trained import load_trained

    environment.need("train", "torch", "transformers", "peft")
    folder = run_folder(run)
    settings: Run = load_run(folder.path, overrides)
    folder.stage("train").manifest()
    base = resolve(settings.model, folder.manifest().get("base"))
    asked = settings.evaluate
    device = str(choose(asked.device, "evaluate.device"))
    trained = folder.stage("train").path
    policy = load_trained(trained, base, device=device, tuned=arm == "tuned")
    sampling = asked.sampling  # A head's labels are its own: nothing is to be settled.
    if not has_head(folder):
        sampling = settled(sampling, folder.stage("data").path)
    return Tuned(policy, sampling, folder, asked.batch, settings.seed)
