"""What the trained model says to three fixed prompts, recorded before anything is exported."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.rows import Chat, Message

if TYPE_CHECKING:
    from tunesmith.model.load import Base
    from tunesmith.model.policy import Policy

PROMPTS = (
    "Where is my parcel? Order 48213.",
    "Name three colours.",
    "What is 12 + 30?",
)
"""Fixed, so that two exports of one model are held against the same numbers."""

ANSWER = 16
"""Tokens of greedy answer recorded for each prompt."""
POSITIONS = 32
"""Logits are kept for the last positions only: a vocabulary of 49k is 6 MB a prompt even so."""


def chats() -> list[Chat]:
    """The probe prompts as conversations."""
    return [Chat((Message("user", text),)) for text in PROMPTS]


def record(policy: "Policy", base: "Base", path: Path) -> None:
    """Write ids, greedy answer and logits of each prompt, as safetensors, to `path`.

    The metadata says how a reload must be made: base folder, dtype, messages.
    """
    import torch
    from safetensors.torch import save_file

    from tunesmith.model.render import encode_prompt

    tensors: dict[str, Any] = {}
    policy.model.eval()
    with torch.no_grad():
        for number, chat in enumerate(chats()):
            prompt = torch.tensor([encode_prompt(chat, policy.tokenizer)], device=policy.device)
            whole = greedy(policy.model, prompt, stops(policy.tokenizer))
            tensors[f"ids.{number}"] = whole[0].cpu().contiguous()
            tensors[f"prompt.{number}"] = prompt[0].cpu().contiguous()
            tensors[f"logits.{number}"] = last_logits(policy.model, whole)
    messages = [[m.rendered() for m in chat.messages] for chat in chats()]
    metadata = {
        "base": str(base.folder.resolve()),
        "dtype": str(policy.dtype).removeprefix("torch."),
        "messages": json.dumps(messages),
    }
    save_file(tensors, path, metadata=metadata)


def stops(tokenizer: Any) -> dict[str, Any]:
    """The generation settings that end an answer."""
    return {"eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.stop_ids[0]}


def greedy(model: Any, prompt: Any, settings: Mapping[str, Any]) -> Any:
    """The prompt and the most likely answer after it.  # [1, time]"""
    import torch

    room = getattr(model.config, "max_position_embeddings", None) or ANSWER + prompt.shape[1]
    return model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=max(1, min(ANSWER, room - prompt.shape[1])),
        **settings,
    )


def last_logits(model: Any, ids: Any) -> Any:
    """Logits of the last positions in fp32, on the CPU.  # [position, vocabulary]"""
    import torch

    output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return output.logits[0, -POSITIONS:].float().cpu().contiguous()
