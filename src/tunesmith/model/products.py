"""Seam: matrix products by whichever of torch's two libraries is quicker at them.

torch multiplies fp32 matrices on a CPU by MKL, which is quicker on Intel's processors: a step by
oneDNN takes a tenth longer there. On others oneDNN, which torch carries for convolutions and narrow
types, is the quicker one: 107 to 113 GFLOP/s a core against 100 on the model's shapes
(docs/decisions/0014). The reference path is `torch.mm`.
"""

from functools import cache
from typing import TYPE_CHECKING, Any

from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as functional
else:
    torch = late("torch")
    functional = late("torch.nn.functional")


def product(
    rows: "torch.Tensor",  # [row, in]
    weight: "torch.Tensor",  # [out, in], in any layout
    bias: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """rows @ weight.T + bias, [row, out]; a fresh tensor, without a graph of its own."""
    if rows.dtype == torch.float32 and rows.device.type == "cpu" and rows.numel():
        quick = quicker()
        if quick is not None:
            return quick(rows, weight, bias, "none", [], "")  # type: ignore[no-any-return]
    return functional.linear(rows, weight, bias)


@cache
def onednn() -> Any | None:
    """oneDNN's linear layer, where this torch has it and it gives the answers of `torch.mm`."""
    if not torch.backends.mkldnn.is_available():
        return None
    try:
        found = torch.ops.mkldnn._linear_pointwise
        rows = torch.linspace(-1, 1, 35, device="cpu").view(5, 7)
        weight = torch.linspace(2, -1, 21, device="cpu").view(7, 3)
        given = found(rows, weight.t(), weight[0], "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return found if torch.allclose(given, rows @ weight + weight[0], atol=1e-5) else None


@cache
def quicker() -> Any | None:
    """oneDNN's, where torch's own is not MKL on one of Intel's processors. Asked of the processor
    and not of a clock, so that a run that goes on computes as it did."""
    name = str(torch.cpu.get_capabilities().get("cpu_name", ""))
    mkl = torch.backends.mkl.is_available() and name.startswith("Intel")
    return None if mkl else onednn()
