"""What training added, alone: a PEFT folder for anyone's peft, or our own bottleneck adapters."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.errors import SettingsError
from tunesmith.deploy.exports.base import Export, Verified, name_of
from tunesmith.deploy.verify import verify

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy

BOUND = 1e-6
"""Same arithmetic on the same weights: what is left is the order of sums."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` accepts (vllm/config/lora.py; 16 when it is not given)."""


class Adapter(Export):
    """A PEFT folder: megabytes, one base serves many. Needs the very base it was trained on.

    peft has no bottleneck adapters: those leave as safetensors and JSON, for tunesmith alone.
    """

    kind: Literal["adapter"] = "adapter"

    def accept(self, trained: Path) -> None:
        """Only a run that trained adapters has something to export here."""
        from tunesmith.model.trained import has_adapter

        if not has_adapter(trained):
            raise SettingsError(
                "deploy.exports: adapter: this run trained the model's own weights, or a head "
                "alone, so there is no adapter to export. Use: exports: [merged]"
            )

    def write(self, policy: "Policy", base: "Base", folder: Path) -> dict[str, str]:
        """The adapter's weights and settings, and everything a tokenizer needs."""
        from peft import get_peft_model_state_dict

        from tunesmith.model import bottleneck
        from tunesmith.model.load import quiet
        from tunesmith.model.tensors import tensor_digest

        policy.tokenizer.save(folder)
        if bottleneck.inside(policy.model):
            bottleneck.save(policy.model, folder)
            ours = bottleneck.state(policy.model)
            return {name: tensor_digest(tensor) for name, tensor in ours.items()}
        # False: the vocabulary is the base's own, and asking peft to find out means asking a hub.
        state = get_peft_model_state_dict(policy.model, save_embedding_layers=False)
        digests = {name: tensor_digest(tensor) for name, tensor in state.items()}
        policy.model.peft_config["default"].base_model_name_or_path = name_of(base)
        with quiet():
            policy.model.save_pretrained(folder, save_embedding_layers=False)
        return digests

    def verify(self, folder: Path, probe: Path) -> Verified:
        """Equal to the trained model to the last bit, or nearly."""
        return verify(folder, probe, bound=BOUND)

    def usage(self, folder: Path, base: "Base") -> list[str]:
        """How to serve it under vLLM, or why it must be merged first."""
        if not (folder / "adapter_config.json").is_file():
            return ["Bottleneck adapters are read by tunesmith alone; vLLM and peft have none."]
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        coarse = f"its base was in {base.bits} bits" if base.bits is not None else ""
        reason = coarse or unservable(settings)
        if reason:
            way = ": use exports: [merged]" if mergeable(settings) else ", which cannot be"
            return [f"vLLM must merge this adapter first ({reason}){way}"]
        rank = next(r for r in VLLM_RANKS if r >= largest_rank(settings))
        words = ["vllm", "serve", name_of(base), "--enable-lora", "--max-lora-rank", str(rank)]
        words += ["--lora-modules", f"{folder.parent.parent.name}={folder}"]
        return [f"{shlex.join(words)}   (not run here)"]


def largest_rank(settings: dict[str, Any]) -> int:
    """The widest adapter of the folder."""
    return max(map(int, [settings.get("r", 0), *(settings.get("rank_pattern") or {}).values()]))


def mergeable(settings: dict[str, Any]) -> bool:
    """Whether the adapter can be folded into the weights of its base."""
    return not settings.get("num_virtual_tokens")


def unservable(settings: dict[str, Any]) -> str:
    """Why vLLM cannot put this adapter on its base itself; empty when it can."""
    if settings.get("peft_type") != "LORA":
        return f"it serves LORA, this is {settings.get('peft_type')}"
    if settings.get("use_dora"):
        return "it does not serve DoRA"
    if settings.get("trainable_token_indices"):
        return "it does not serve the rows of new words"
    if settings.get("modules_to_save"):
        return "it does not serve modules_to_save"
    if largest_rank(settings) > VLLM_RANKS[-1]:
        return f"its largest rank is {VLLM_RANKS[-1]}"
    return ""
