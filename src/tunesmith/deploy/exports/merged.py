"""A plain model folder: the tuning folded into the weights, for any tool that loads models."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tunesmith.deploy.exports.base import Export, Verified
from tunesmith.deploy.verify import verify

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy

BOUNDS = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest logit difference allowed, as a share of the largest logit. In fp32 a merge changes the
order of sums only; the 16-bit kinds round every weight (8 and 11 bits of precision)."""


class Merged(Export):
    """A plain Hugging Face folder: as large as the base, needs nothing beside it."""

    merges: ClassVar[bool] = True

    kind: Literal["merged"] = "merged"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """How weights are stored. The merge itself is in float32; a 16-bit kind rounds its result."""
    onto: Literal["auto", "dequantised", "original"] = "auto"
    """What an adapter trained on a base in few bits is merged onto: the floats the bits stand for,
    or the base as it was before; auto measures both on held-out rows and takes the nearer."""

    @property
    def needs_bits(self) -> bool:
        return self.onto == "original"

    def settled(
        self, policy: "Policy", base: "Base", data: Path, say: Callable[[str], None]
    ) -> tuple["Policy", dict[str, Any]]:
        """The trained model, or it on its base as that was before: what merging onto each base
        changes is measured and said."""
        if base.bits is None:
            return policy, {}
        from tunesmith.deploy import drift

        found = drift.measured(policy, base, data)
        nearer = min(drift.FLOATS, key=lambda name: found.get(f"kl_{name}", 0.0))
        onto = nearer if self.onto == "auto" else self.onto
        say(f"merged: onto its {onto} base{drift.told(found)}")
        leaves = drift.merged(policy, base, onto) if onto == "original" else policy
        return leaves, {"merged_onto": onto, **found}

    def write(self, policy: "Policy", base: "Base", folder: Path) -> dict[str, str]:
        """Weights, config, tokenizer, and a generation_config with every stop id."""
        import torch

        from tunesmith.model.load import quiet
        from tunesmith.model.merge import merge
        from tunesmith.model.tensors import tensor_digest

        with quiet():
            plain = merge(policy.model).to(getattr(torch, self.dtype))
            plain.save_pretrained(folder)
        state = plain.state_dict()
        digests = {name: tensor_digest(tensor) for name, tensor in state.items()}
        policy.tokenizer.save(folder)
        return {name: digests[name] for name in kept(folder, digests)}

    def verify(self, folder: Path, probe: Path) -> Verified:
        """In float32 within 1e-5 of the trained model; otherwise as near as its dtype allows."""
        return verify(folder, probe, bound=BOUNDS[self.dtype], exact=self.dtype == "float32")

    def usage(self, folder: Path, base: "Base") -> list[str]:
        """How to serve it under vLLM."""
        return [f"{shlex.join(['vllm', 'serve', str(folder)])}   (not run here)"]


def kept(folder: Path, digests: dict[str, str]) -> list[str]:
    """The tensors that were written: of two names for one tied weight, only one is."""
    from safetensors import safe_open

    names: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            names += file.keys()
    return [name for name in digests if name in set(names)]
