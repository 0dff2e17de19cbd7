"""What a run says: redacted, one line each, and never a reason to stop."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core import log as module
from tunesmith.core.findings import Finding
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import LINE_LIMIT, Log, redact, redacted


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def events(run: RunFolder) -> list[dict[str, Any]]:
    """All events, each line read as strict JSON."""
    text = (run.path / "events.jsonl").read_text("ascii")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


def test_events_are_one_json_line_each(run: RunFolder) -> None:
    log = Log(run)
    log.event(
        "step", number=1, loss=0.5, where=Path("a"), bad=float("nan"), text="x\ny\x1b[2J\u2028"
    )
    log.event("end")
    first, last = events(run)
    assert first["kind"] == "step" and first["number"] == 1 and first["loss"] == 0.5
    assert first["where"] == "a" and first["bad"] == "nan" and first["text"] == "x\ny\x1b[2J\u2028"
    assert last["kind"] == "end" and last["time"].endswith("+00:00")


def test_a_torn_last_line_does_not_spoil_the_next(run: RunFolder) -> None:
    log = Log(run)
    log.event("one")
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{"time": "20')
    log.event("two")
    lines = (run.path / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["kind"] == "one" and json.loads(lines[2])["kind"] == "two"


@pytest.mark.parametrize("extra", [0, 1])
def test_a_line_is_never_longer_than_the_limit(run: RunFolder, extra: int) -> None:
    log = Log(run)
    log.event("long", text="")
    base = (run.path / "events.jsonl").stat().st_size
    log.event("long", text="x" * (LINE_LIMIT - base + extra))
    log.event("very long", **{f"field{i}": "ä" * 500 for i in range(300)})
    sizes = [len(line) + 1 for line in (run.path / "events.jsonl").read_bytes().splitlines()]
    assert max(sizes) <= LINE_LIMIT
    assert ("cut" in events(run)[1]) is bool(extra) and "cut" in events(run)[2]


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES", "EMFILE"])
def test_a_failing_disk_is_said_once_and_stops_nothing(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    log = Log(run)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        for number in range(3):
            log.event("step", number=number)
    assert capsys.readouterr().err.count("events.jsonl cannot be written") == 1
    log.event("step", number=3)
    assert events(run)[-1]["number"] == 3


def test_without_a_folder_events_go_nowhere(tmp_path: Path) -> None:
    Log().event("step")
    Log(RunFolder(tmp_path / "not made yet")).event("step")
    assert list(tmp_path.iterdir()) == []


def test_events_are_not_written_through_a_link(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    Log(run).event("step")
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_goes_to_stderr_with_control_characters_escaped(capsys: Any) -> None:
    Log().say("row \x1b]0;title\x07 \x00 \u202e end é 漢")
    shown = capsys.readouterr()
    assert shown.err == "row \\x1b]0;title\\x07 \\x00 \\u202e end é 漢\n" and shown.out == ""


def test_a_closed_stderr_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

        def isatty(self) -> bool:
            raise ValueError("closed")

    monkeypatch.setattr("sys.stderr", Closed())
    log = Log()
    log.say("x")
    with log.progress("work", 1) as advance:
        advance()


def test_a_finding_is_said_and_recorded(run: RunFolder, capsys: Any) -> None:
    Log(run).finding(Finding("warning", "3 rows are equal", "rows.csv:4", "a***", "Drop them"))
    assert capsys.readouterr().err == "warning: rows.csv:4: 3 rows are equal. Drop them\n"
    assert events(run)[0]["advice"] == "Drop them"


CANARIES = [
    "hf_abcdefghijklmnopqrstuvwxyz",
    "sk-proj-abcdefghij1234567890",
    "ghp_abcdefghijklmnopqrst1234",
    "github_pat_11ABCDEFG0abcdefghij",
    "glpat-abcdefghij1234567890",
    "xoxb-1234567890-abcdefghij",
    "AKIAABCDEFGHIJKLMNOP",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("canary", CANARIES)
def test_a_token_is_known_by_its_form(run: RunFolder, capsys: Any, canary: str) -> None:
    log = Log(run)
    log.say(f"loading with {canary} now")
    log.event("load", url=f"https://host/{canary}", deep=[{"a": canary, canary: 1}])
    log.finding(Finding("info", canary, canary, canary, canary))
    with log.progress("work", 1) as advance:
        advance(note=canary)
    written = (run.path / "events.jsonl").read_text() + capsys.readouterr().err
    assert canary not in written and canary[-12:] not in written
    assert "loading with [redacted] now" in written


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "API_TOKENS", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "my_credential"]
)
def test_values_of_secret_looking_variables_are_left_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, 'odd "value"/\\1')
    assert redact('x odd "value"/\\1 y') == "x [redacted] y"
    assert redact("?a=odd%20%22value%22%2F%5C1") == "?a=[redacted]"
    assert redacted({"a": ('odd "value"/\\1',)}) == {"a": ["[redacted]"]}


def test_credentials_in_addresses_are_left_out() -> None:
    assert redact("https://me:pass@host/x") == "https://[redacted]@host/x"
    assert redact("https://h/x?api_key=abcdefgh1&n=2") == "https://h/x?api_key=[redacted]&n=2"
    assert redact("Authorization: Bearer abcdefgh.1") == "Authorization: Bearer [redacted]"


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    monkeypatch.setenv("SHORT_KEY", "false")
    for text in ("parallel false", "sha256 " + "0123456789abcdef" * 4, "12/100 tokens=5 a:b@c"):
        assert redact(text) == text


def test_long_text_is_redacted_in_linear_time() -> None:
    text = "a_-" * 20_000 + "=" + "eyJ" * 10_000
    assert len(redact(text)) == len(text)


def test_without_a_terminal_progress_is_lines_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)
    with Log().progress("training", 20, done=10) as advance:
        for _ in range(10):
            advance(note="loss 0.51")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("training: 11/20  ") and "/s  ETA 0:00  loss 0.51" in lines[0]
    assert lines[-1] == "training: 20/20 in 0:00  loss 0.51"


def test_fast_work_is_told_in_one_line(capsys: Any) -> None:
    with Log().progress("training", 1000) as advance:
        for _ in range(1000):
            advance()
    assert capsys.readouterr().err.splitlines() == ["training: 1000/1000 in 0:00"]


def test_work_done_before_does_not_count_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 10.0)
    meter = module.Meter(total=100, done=50, started=0.0)
    meter.advance(5)
    assert meter.text == "55/100  0.5/s  ETA 1:30"


def test_quiet_says_nothing(capsys: Any) -> None:
    log = Log(quiet=True)
    log.say("x")
    with log.progress("work", 2) as advance:
        advance(2)
    shown = capsys.readouterr()
    assert shown.err == shown.out == ""


def test_on_a_terminal_bars_nest_and_lines_pass_between(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    log = Log()
    with log.progress("training", 2) as advance:
        advance(note="loss [bold]1")
        log.say("going on from [red]step 1")
        with log.progress("answers", 3) as inner:
            inner(3)
        advance()
    shown = capsys.readouterr().err
    assert "going on from [red]step 1" in shown and "training: 2/2 in 0:0" in shown


def test_a_bar_is_taken_down_when_the_work_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(module, "is_terminal", lambda: True)
    log = Log()
    with pytest.raises(KeyError), log.progress("training", 2):
        raise KeyError
    log.say("after")
    assert capsys.readouterr().err.endswith("after\n")
