"""What an audit promises: findings about prepared rows, evidence masked, rows untouched."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from tunesmith.core.findings import Finding
from tunesmith.core.parts import Part
from tunesmith.core.rows import Row


class Audit(Part):
    """A look at the prepared parts (`train`, `valid`, `test`)."""

    def files(self) -> tuple[str, ...]:
        """Files that the audit reads beside the rows: their content decides what it finds."""
        return ()

    @abstractmethod
    def inspect(self, parts: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
        """What a person should know, most severe first."""
