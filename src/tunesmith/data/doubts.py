"""Labels that the rest of the rows does not bear out: each row judged by all others (left out)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.core.late import late
from tunesmith.core.rows import Labelled

if TYPE_CHECKING:
    import numpy as np
else:
    np = late("numpy")

PENALTY = 1.0
"""Of the weights' squares, on vectors of length 1."""
LEAST = 5
"""Rows that a label must have to speak for or against one."""


@dataclass(frozen=True)
class Doubt:
    """A row, the label that its text speaks for, and by how much."""

    row: Labelled
    label: str
    margin: float


def doubts(rows: Sequence[Labelled], sure: float) -> list[Doubt]:
    """Rows for which another label wins by `sure`, the surest first. Of rows with one label each,
    by source: other sources have other labels."""
    found: list[Doubt] = []
    for scope in dict.fromkeys(row.scope for row in rows):
        mine = [row for row in rows if row.scope == scope and not row.many]
        found += among(mine, sure)
    return sorted(found, key=lambda each: -each.margin)


def among(rows: Sequence[Labelled], sure: float) -> list[Doubt]:
    """The same for rows whose labels mean the same."""
    from tunesmith.model.encode import vectors

    labels = sorted({row.labels[0] for row in rows})
    if len(labels) < 2 or len(rows) < 2 * LEAST:
        return []
    own = np.array([labels.index(row.labels[0]) for row in rows])
    scores = left_out(vectors(["\n".join(row.given) for row in rows]), own, len(labels))
    many = np.bincount(own, minlength=len(labels)) >= LEAST
    scores[:, ~many] = -np.inf
    best = scores.argmax(axis=1)
    places = np.arange(len(rows))
    margins = scores[places, best] - np.where(many[own], scores[places, own], np.inf)
    return [
        Doubt(rows[i], labels[int(best[i])], float(margins[i]))
        for i in np.flatnonzero(margins >= sure).tolist()
    ]


def left_out(
    states: "np.ndarray[tuple[int, int], np.dtype[np.float32]]",
    own: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    count: int,
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Each row's score for every label by a ridge regression on all other rows: exact, from one
    fit (the hat matrix), where folds would leave a tenth of the rows out of each."""
    x = np.hstack([states.astype(np.float64), np.ones((len(states), 1))])  # [row, width + 1]
    wanted = np.eye(count)[own]  # [row, label]
    inverse = np.linalg.inv(x.T @ x + PENALTY * np.eye(x.shape[1]))
    fitted = x @ (inverse @ (x.T @ wanted))
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x, optimize=True)
    scores: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (
        wanted - (wanted - fitted) / (1 - leverage)[:, None]
    )
    return scores
