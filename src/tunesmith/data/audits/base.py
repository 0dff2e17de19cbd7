"""What an audit promises: findings about prepared rows, evidence masked, rows untouched."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tunesmith.core.findings import Finding
from tunesmith.core.parts import Part
from tunesmith.core.rows import Row
from tunesmith.data.found import Sight

Eye = Callable[[Row], Iterable[Sight]]


class Audit(Part):
    """A look at the prepared parts (`train`, `valid`, `test`)."""

    def files(self) -> tuple[str, ...]:
        """Files that the audit reads beside the rows: their content decides what it finds."""
        return ()

    def eye(self) -> Eye:
        """What looks at rows one at a time. `inspect` gets what it saw counted (`data/seen.py`),
        by several processes where the rows lie on disk."""
        return lambda row: ()

    @abstractmethod
    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """What a person should know, most severe first."""
