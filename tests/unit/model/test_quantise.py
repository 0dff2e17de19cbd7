"""Linear layers in few bits: how many bytes they take, and what their import may do."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trained import base_of
from tunesmith.core.errors import ResourceError
from tunesmith.model import layout, quantise
from tunesmith.model.load import load_model, outline

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 4}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights outweigh the tables that each layer carries."""
    from tests.tiny import tiny_model

    return tiny_model("llama", tmp_path_factory.mktemp("wide") / "model", **WIDE)


@pytest.mark.parametrize("bits", (4, 8))
def test_bytes_are_those_of_the_formula(bits: int, wide: Path) -> None:
    """QLoRA (arXiv 2305.14314), section 3: 4 bits, and 0.127 for the scales."""
    plain, held = load_model(base_of(wide)), load_model(base_of(wide, bits=bits))
    weights = [layer.weight for layer in layout.linears(plain).values()]
    numbers, rows = sum(w.numel() for w in weights), sum(w.shape[0] for w in weights)
    tables = 4 * (256 + 16 + 1) * len(weights)
    scales = {4: numbers / 64 + 4 * numbers / (64 * 256) + tables, 8: 4 * rows}[bits]
    saved = quantise.held(plain) - quantise.held(held)
    assert saved == 4 * numbers - (numbers * bits / 8 + scales)
    assert quantise.spared(outline(base_of(wide)), bits) == pytest.approx(saved, rel=0.01)
    assert layout.sizes(plain.parameters())[1] == layout.sizes(held.parameters())[1]


def test_embedding_and_head_stay_as_they_are(wide: Path) -> None:
    plain, held = load_model(base_of(wide)), load_model(base_of(wide, bits=4))
    assert torch.equal(plain.get_input_embeddings().weight, held.get_input_embeddings().weight)
    assert layout.tied(held)
    assert {name for name, _ in quantise.layers(held)} == {*layout.linears(plain)}


def test_where_it_is_missing_the_command_is_said(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ResourceError, match=r"pip install 'tunesmith\[qlora\]'"):
        load_model(base_of(tiny("llama"), bits=4))


LOADING = """\
from pathlib import Path
from tunesmith.model.load import factory
factory(Path({folder!r}))
import peft, peft.tuners.lora.bnb, bitsandbytes
import kernels
assert kernels.get_kernel
"""


def test_importing_it_fetches_no_code_and_says_nothing(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """With a package `kernels` installed its import would run what the hub has."""
    marker = tmp_path / "asked"
    (tmp_path / "kernels.py").write_text(
        f"def get_kernel(*_, **__):\n    open({str(marker)!r}, 'w').close()\n    raise OSError\n"
    )
    script = LOADING.format(folder=str(tiny("llama")))
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "kernel" not in done.stderr
    assert not marker.exists()
