"""What the trained model says to three fixed texts, recorded before anything is exported."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.rows import Chat, Message

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
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
    """Write what the model says of each text, as safetensors, to `path`.

    The metadata says how a reload must be made: base folder, dtype, messages or texts.
    """
    import torch
    from safetensors.torch import save_file

    policy.model.eval()
    with torch.no_grad():
        tensors, asked = recorded(policy)
    metadata = {
        "base": str(base.folder.resolve()),
        "dtype": str(policy.dtype).removeprefix("torch."),
        **asked,
    }
    save_file(tensors, path, metadata=metadata)


def recorded(policy: "Policy") -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors, and what a reload must know of them: scores where there is a head, else answers."""
    return scored(policy) if policy.head is not None else answered(policy)


def scored(policy: "Policy") -> tuple[dict[str, Any], dict[str, str]]:
    """Ids and the head's scores of each text, by the model's own forward pass."""
    from tunesmith.core.records import collate
    from tunesmith.core.rows import Labelled
    from tunesmith.model.plain import encode
    from tunesmith.model.policy import Policy

    plain = Policy(policy.model, policy.tokenizer, head=policy.head, fast=False)
    tensors: dict[str, Any] = {}
    for number, text in enumerate(PROMPTS):
        batch = collate([encode(Labelled((text,), ()), plain.tokenizer)], plain.device)
        tensors[f"ids.{number}"] = batch.ids[0].cpu()
        tensors[f"scores.{number}"] = plain.scores(batch)[0].float().cpu()
    return tensors, {"texts": json.dumps(PROMPTS)}


def answered(policy: "Policy") -> tuple[dict[str, Any], dict[str, str]]:
    """Ids, greedy answer and logits of each prompt."""
    import torch

    from tunesmith.model.render import encode_prompt

    tensors: dict[str, Any] = {}
    for number, chat in enumerate(chats()):
        prompt = torch.tensor([encode_prompt(chat, policy.tokenizer)], device=policy.device)
        whole = greedy(policy.model, prompt, stops(policy.tokenizer))
        tensors[f"ids.{number}"] = whole[0].cpu().contiguous()
        tensors[f"prompt.{number}"] = prompt[0].cpu().contiguous()
        tensors[f"logits.{number}"] = last_logits(policy.model, whole)
    messages = [[m.rendered() for m in chat.messages] for chat in chats()]
    return tensors, {"messages": json.dumps(messages)}


def stops(tokenizer: Any) -> dict[str, Any]:
    """The generation settings that end an answer."""
    return {"eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.stop_ids[0]}


def greedy(model: Any, prompt: Any, settings: Mapping[str, Any]) -> Any:
    """The prompt and the most likely answer after it.  # [1, time]"""
    import torch

    room = getattr(model.config, "max_position_embeddings", None) or ANSWER + prompt.shape[1]
    with warnings.catch_warnings():
        # peft says so of every row behind a prompt.
        warnings.filterwarnings("ignore", "Position ids are not supported")
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
    # A prompt's virtual tokens have logits too, before those of `ids`.
    kept = min(POSITIONS, ids.shape[1])
    return output.logits[0, -kept:].float().cpu().contiguous()
