"""Curves and probe answers: every line comes back, and a disk that fails is a sentence."""

from pathlib import Path

import pytest

from tunesmith.cards.evidence import Evidence
from tunesmith.core.errors import ResourceError
from tunesmith.core.jsonlines import whole_lines
from tunesmith.train.record import Lines

ODD = "one\u2028two\u0085three\x0cfour"


def test_texts_may_hold_any_line_end(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "probes.jsonl")
    for step in range(3):
        lines.add(step, {"answer": ODD})
    assert [line["answer"] for line in whole_lines(lines.path)] == [ODD] * 3
    assert len(Evidence(tmp_path).lines("probes.jsonl")) == 3


def test_rewound_it_is_what_it_was_when_it_was_settled(tmp_path: Path) -> None:
    """Also where what came after is torn, or of the same step."""
    lines = Lines(tmp_path / "curves.jsonl")
    assert lines.settle() == 0
    lines.add(1, {"loss": 2.0})
    size, before = lines.settle(), lines.path.read_bytes()
    lines.add(1, {"held_out": {"loss": 3.0}})
    with lines.path.open("ab") as file:
        file.write(b'{"step": 2, "lo')
    lines.rewind(size)
    assert lines.path.read_bytes() == before
    lines.rewind(0)
    assert lines.path.read_bytes() == b""


def test_a_full_disk_is_a_sentence() -> None:
    with pytest.raises(ResourceError, match="/dev/full: cannot write: no space left"):
        Lines(Path("/dev/full")).add(0, {})


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "curves.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResourceError, match="symbolic links are not followed"):
        Lines(tmp_path / "curves.jsonl").add(0, {})
    assert not (tmp_path / "elsewhere").exists()
