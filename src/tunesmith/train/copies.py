"""Copies of a training's numbers in the sinks; one that fails is left out: the run outlives it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from tunesmith.core.folders import SINKS, Stage
from tunesmith.core.log import Log
from tunesmith.train.sinks.base import Sink, Writer


class Copies:
    """The sinks that are open; none before `open`."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.writers: list[Writer] = []

    @contextmanager
    def open(self, sinks: Sequence[Sink], stage: Stage) -> Iterator[None]:
        """Inside, the sinks are open, but for those that did not open."""
        for sink in sinks:
            try:
                self.writers.append(sink.open(stage.path / SINKS, stage.run.name))
            except Exception as error:
                self.log.say(f"warning: the sink {sink.kind} did not open: {error}")
        opened = list(self.writers)
        try:
            yield
        finally:
            for writer in opened:
                try:
                    writer.close()
                except Exception as error:
                    self.log.say(f"warning: a sink did not close: {error}")

    def write(self, done: int, values: Mapping[str, float]) -> None:
        """Numbers after `done` steps."""
        for writer in list(self.writers):
            try:
                writer.write(done, values)
            except Exception as error:
                self.log.say(f"warning: a sink failed and is left out from here: {error}")
                self.writers.remove(writer)
