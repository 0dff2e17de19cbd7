"""Several sources in one run: what may be said of each, and of all together."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tunesmith.core.mixing import Ingredient, Recipe, Unit, Until
from tunesmith.core.parts import Spec
from tunesmith.core.quote import quoted
from tunesmith.data.formats.base import Format
from tunesmith.data.hub import FORM

NAME = r"^[^\s/][^\r\n/]{0,63}$"
"""What a source may be called: it stands in paths of measures, so it holds no slash."""


class Source(Spec):
    """One of several sources: where its rows are, and how often they are seen in training.

    A source alone may be named by its path. How rows are divided, transformed and audited is said
    once for all of them; no row of one source is answered in the held-out rows of another.
    """

    path: str
    """A file, a folder or a data set of the hub, as `data.source` names one."""
    name: Annotated[str, Field(pattern=NAME)] | None = None
    """What the source is called in curves and reports; by default the file's own name, without its
    ending. With a head for each source, the name of the task."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its part of what is seen in training, beside the weights of the others (1 where another one
    has a weight and this one does not); by default its number of rows. Held-out rows stay as they
    are."""
    replay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For text that is read beside the task so that it is not forgotten: its share of what is seen
    in training. All of its rows are for training, and no measure of the task counts them. They may
    be documents beside conversations."""
    format: Format | None = None
    """The form of its records; by default `data.format`, or found out from their keys."""
    valid: str | None = None
    """Its rows to choose the best step by, used as they are, instead of splitting some off."""
    test: str | None = None
    """Its rows to judge the result by, used as they are, instead of splitting some off."""

    @property
    def called(self) -> str:
        """Its name, said or not."""
        if self.name is not None:
            return self.name
        named = FORM.fullmatch(self.path)
        if named is not None:
            return named["name"].rpartition("/")[2]
        return Path(self.path).name.split(".")[0] or Path(self.path).name


class Mix(Spec):
    """How often each of several sources is seen in training."""

    temperature: Annotated[float, Field(ge=1)] | None = None
    """Sources are seen in proportion to their size ** (1 / temperature): at 1 each row as often as
    any other, and the higher, the more alike all sources. Instead of weights."""
    until: Until = "all"
    """When an epoch ends: when every row of every source was seen, those of small ones several
    times (`all`), or when the first source is used up (`first`), and the others go on in the next
    epoch where they were."""
    by: Unit = "rows"
    """What weights and shares count: rows (of documents, windows), or the tokens they train."""


def recipe(sources: Sequence[Source], mix: Mix) -> Recipe:
    """The rule that sources and mix say together."""
    found = tuple(Ingredient(each.called, each.weight, each.replay) for each in sources)
    return Recipe(found, mix.temperature, mix.until, mix.by)


def refuse_unclear(sources: Sequence[Source], mix: Mix) -> None:
    """ValueError for sources that cannot be told apart, or for shares said twice or not at all."""
    twice = [name for name, times in Counter(s.called for s in sources).items() if times > 1]
    if twice:
        raise ValueError(f"two sources are called {quoted(twice[0])}; give each its own name")
    tasks = [each for each in sources if each.replay is None]
    if not tasks:
        raise ValueError("every source is replayed; leave replay out where the task is")
    replayed = sum(each.replay or 0 for each in sources)
    if replayed >= 1:
        raise ValueError(f"{replayed:g} of the rows are replayed; leave some for the task")
    for each in sources:
        if each.replay is not None and (each.weight or each.valid or each.test):
            raise ValueError(
                f"{quoted(each.called)} is replayed: its share is said by replay, and no row of it "
                "is held out; leave weight, valid and test out"
            )
    if mix.temperature is not None and any(each.weight is not None for each in tasks):
        raise ValueError("state weights or mix.temperature; each of them says how often")
