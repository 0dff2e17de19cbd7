"""The words a run is spoken of in: what its rows taught, and so what can be said of it."""

from dataclasses import dataclass
from typing import Any

from tunesmith.cards.evidence import Evidence

TRAIN = "train/train.json"


@dataclass(frozen=True)
class Goal:
    """The words for one kind of row; as they stand, for rows that end in an answer."""

    purpose: str = "It was trained to say what the rows of its run say."
    asked: str = "Base and tuned were asked the same rows."
    loss: str = "Loss per trained token"
    learned: tuple[str, str] = ("tokens trained on", "supervised")
    """What was learned from: what it is called, and its place in the facts of the training."""
    writes: bool = True
    """Whether it writes answers, so that there are probes of them."""
    judged: bool = True
    """Whether single rows are answered, in words or in labels, so that they can be shown."""


GOALS: dict[Any, Goal] = {
    "labelled": Goal(
        purpose="It was trained to give texts the labels that the rows of its run have.",
        asked="Base and tuned gave labels to the same rows.",
        loss="Loss per row",
        learned=("labels to choose from", "start/labels"),
        writes=False,
    ),
    "text": Goal(
        purpose="It was trained to go on as the documents of its run do.",
        asked="Base and tuned read the same documents.",
        writes=False,
        judged=False,
    ),
}
"""By the kind of row that the objective trains on."""


def goal(run: Evidence) -> Goal:
    """The words for this run."""
    return GOALS.get(run.at(f"{TRAIN}#/row"), Goal())
