"""What a run says: console lines, progress with an ETA, and `events.jsonl`; secrets left out."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tunesmith.core.findings import Finding
from tunesmith.core.jsonlines import append_line
from tunesmith.core.quote import printable

if TYPE_CHECKING:
    from tunesmith.core.folders import RunFolder

LINE_LIMIT = 4096
"""The longest line of `events.jsonl`, in bytes: one line can never fill a disk or a screen."""

LINE_SECONDS = 5.0
"""Without a terminal, progress says a line this often, and at every tenth of the way."""

REDACTED = "[redacted]"

SECRET_NAME = re.compile(
    r"TOKEN(?!IZ)|KEY(?!BOARD)|SECRET|PASSW|PASSPHRASE|CREDENTIAL", re.IGNORECASE
)
# TOKENIZERS_PARALLELISM is no secret, hence the exceptions.

SECRET_LENGTH = 8
"""Shorter values of secret-looking variables (`false`, `1`) are words that every log contains."""

SECRET_SHAPES = (
    re.compile(r"\bhf_[A-Za-z0-9]{16,}"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|pypi-|npm_)[A-Za-z0-9_-]{10,}"),
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\bAIza[0-9A-Za-z_-]{30,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)?"),
    re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]+-----)?"),
    re.compile(r"(?<=://)[^\s/@]+:[^\s/@]+(?=@)"),
    re.compile(r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"(?i)\b[A-Z_-]{0,30}(?:token|key|secret|password|signature)=[^&\s]{8,}"),
)


class Log:
    """The voice of one run. Nothing here ever stops a run, however full the disk is."""

    def __init__(self, folder: "RunFolder | None" = None, *, quiet: bool = False) -> None:
        self.folder = folder
        self.quiet = quiet
        self._bars: Any = None
        self._complained = False

    def say(self, text: str) -> None:
        """One line for the person at the console (stderr); nothing when quiet."""
        if self.quiet:
            return
        line = printable(redact(text))
        with suppress(OSError, ValueError):  # a closed or broken stderr is no reason to stop
            if self._bars is not None:
                self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to `events.jsonl`: time, kind and `fields`, redacted."""
        if self.folder is None or not self.folder.path.is_dir():
            return
        try:
            append_line(self.folder.path / "events.jsonl", event_line(kind, fields))
        except OSError as error:
            if not self._complained:
                self._complained = True
                self.say(f"events.jsonl cannot be written ({error.strerror}); the run goes on.")

    def finding(self, finding: Finding) -> None:
        """Say a finding in one line, and record it."""
        self.say(f"{finding.severity}: {finding.where}: {finding.what}. {finding.advice}")
        self.event("finding", **finding.record())

    @contextmanager
    def progress(self, what: str, total: int, *, done: int = 0) -> Iterator[Callable[..., None]]:
        """`advance(n=1, note="")` inside: rate and ETA, as a bar on a terminal, else as lines.

        `done` is what an earlier process did already: it counts for the way, not for the rate.
        """
        meter = Meter(total, done)
        if self.quiet:
            yield meter.advance
        elif is_terminal():
            with self._bar(what, meter) as advance:
                yield advance
        else:
            with self._lines(what, meter) as advance:
                yield advance

    @contextmanager
    def _lines(self, what: str, meter: "Meter") -> Iterator[Callable[..., None]]:
        last, tenth = time.monotonic(), meter.tenth

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal last, tenth
            meter.advance(n, note)
            since = time.monotonic() - last
            if since >= LINE_SECONDS or (meter.tenth > tenth and since >= LINE_SECONDS / 5):
                last, tenth = time.monotonic(), meter.tenth
                self.say(f"{what}: {meter.text}")

        yield advance
        self.say(f"{what}: {meter.closing}")

    @contextmanager
    def _bar(self, what: str, meter: "Meter") -> Iterator[Callable[..., None]]:
        """A line of the one live display of this log: bars may be nested."""
        outermost = self._bars is None
        if outermost:
            self._bars = bars()
            self._bars.start()
        task = self._bars.add_task(what, total=meter.total, completed=meter.done, text="")

        def advance(n: int = 1, note: str = "") -> None:
            meter.advance(n, note)
            self._bars.update(task, completed=meter.done, text=meter.text)

        try:
            yield advance
        finally:
            if outermost:
                self._bars.stop()
                self._bars = None
            else:
                self._bars.remove_task(task)
        if outermost:
            self.say(f"{what}: {meter.closing}")


@dataclass
class Meter:
    """How far a job is, how fast it goes and how long it will take."""

    total: int
    done: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.before = self.done

    def advance(self, n: int = 1, note: str = "") -> None:
        """`n` more are done; `note` stays until the next one."""
        self.done += n
        self.note = printable(redact(note)) if note else self.note

    @property
    def tenth(self) -> int:
        """Full tenths of the way."""
        return 10 * self.done // max(self.total, 1)

    @property
    def rate(self) -> float:
        """Per second, of what was done here."""
        return (self.done - self.before) / max(time.monotonic() - self.started, 1e-9)

    @property
    def text(self) -> str:
        """`12/100  0.53/s  ETA 2:46  loss 0.51`."""
        eta = duration((self.total - self.done) / self.rate) if self.done > self.before else "-"
        return f"{self.done}/{self.total}  {self.rate:.3g}/s  ETA {eta}  {self.note}".rstrip()

    @property
    def closing(self) -> str:
        """The line after the end."""
        spent = duration(time.monotonic() - self.started)
        return f"{self.done}/{self.total} in {spent}  {self.note}".rstrip()


def bars() -> Any:
    """The live display for a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def is_terminal() -> bool:
    """Whether somebody watches stderr."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def duration(seconds: float) -> str:
    """`2:46` or `1:02:46`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def event_line(kind: str, fields: Mapping[str, Any]) -> bytes:
    """One JSON line of at most `LINE_LIMIT` bytes; a longer one loses its fields and says so."""
    head = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind}
    line = dump(head | redacted(dict(fields)))
    if len(line) > LINE_LIMIT:
        line = dump(head | {"cut": f"{len(line)} bytes", "fields": sorted(fields)[:40]})
    return line


def dump(value: Any) -> bytes:
    """As one ASCII line: JSON escapes every control character, and so do we for the rest."""
    return json.dumps(value, allow_nan=False).encode("ascii") + b"\n"


def redact(text: str) -> str:
    """`text` without secrets: values of secret-looking environment variables, known token forms."""
    for value in secret_values():
        text = text.replace(value, REDACTED)
    for shape in SECRET_SHAPES:
        text = shape.sub(hidden, text)
    return text


def hidden(found: "re.Match[str]") -> str:
    """The name before `=` stays, so that a reader knows what was there."""
    name, equals, _ = found[0].partition("=")
    return f"{name}={REDACTED}" if equals and name.replace("_", "").isalpha() else REDACTED


def secret_values() -> list[str]:
    """What must not be written, longest first; as it is and as a URL would hold it."""
    values = [
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH
    ]
    return sorted({form for v in values for form in (v, quote(v, safe=""))}, key=len, reverse=True)


def redacted(value: Any) -> Any:
    """`value` as JSON with every text redacted; what JSON cannot hold becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {redact(str(k)): redacted(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(v) for v in value]
    return redact(str(value))
