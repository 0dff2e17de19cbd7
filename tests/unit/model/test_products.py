"""Products go to the library that is quicker on the processor."""

import pytest
import torch

from tunesmith.model import products

ROWS, WEIGHT, BIAS = torch.randn(5, 7), torch.randn(3, 7), torch.randn(3)


@pytest.mark.parametrize(("name", "mkl"), (("Intel Xeon", True), ("AMD EPYC", False)))
def test_mkl_multiplies_on_the_processors_of_its_maker(
    name: str, mkl: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    plain = torch.nn.functional.linear

    def noted(*given: torch.Tensor | None) -> torch.Tensor:
        asked.append("mkl")
        return plain(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(products.functional, "linear", noted)
    monkeypatch.setattr(products, "quicker", products.quicker.__wrapped__)
    found = products.product(ROWS, WEIGHT, BIAS)
    torch.testing.assert_close(found, ROWS @ WEIGHT.t() + BIAS)
    assert asked == ["mkl"] * (mkl or products.onednn() is None)


def test_without_mkl_an_intel_processor_takes_what_torch_has_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Intel Xeon"})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert products.quicker.__wrapped__() is products.onednn()
