"""A device that is not there is refused with those that are."""

import pytest
import torch

from tunesmith.core.errors import ResourceError
from tunesmith.model.devices import choose


def test_what_is_not_here_is_refused_with_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ResourceError, match=r"^train\.device: mps .*cpu is\. Say train\.device=auto"
    ):
        choose("mps", "train.device")
    assert choose("auto", "train.device").type == "cpu"


def test_the_fastest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto", "train.device").type == "mps"
