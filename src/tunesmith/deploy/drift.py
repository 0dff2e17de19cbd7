"""How far merging moves a model that was trained on a base in few bits, for each base it can go on.

Measured on held-out rows: the divergence of what the merged model says from what the trained one
says, and the loss of both.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.records import IGNORE, Example, collate
from tunesmith.core.rows import Chat, Labelled, Row, Text
from tunesmith.core.tables import read_part
from tunesmith.model.heads import of_task

if TYPE_CHECKING:
    import torch

    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy

FLOATS = ("dequantised", "original")
"""Bases that can be asked for."""
BASES = (*FLOATS, "quantised")
"""All that is measured: into bits again, as peft merges, is what nobody should want."""
PARTS = ("valid", "test", "train")
"""Where rows are looked for: the first part that has some."""
ROWS = 32
"""Rows that are compared: four models answer each of them."""
NEVER = -1e30
"""Score of a label that a row's task does not have: no chance, and no infinity to multiply."""
WINDOW = 512
"""Tokens of a document that are compared."""


@dataclass(frozen=True)
class Drift:
    """Sums over the terms of the rows: tokens that are answers, or labels."""

    terms: int
    divergence: float
    """KL(trained || merged), in nats."""
    before: float
    """Loss of the trained model."""
    after: float
    """Loss of the merged one."""


def measured(policy: "Policy", base: "Base", data: Path) -> dict[str, Any]:
    """The drift of merging onto each base, per term; empty where no row can be asked."""
    part, examples = held_out(data, policy)
    found: dict[str, Any] = {}
    for onto in BASES if examples else ():
        drift = compared(policy, merged(policy, base, onto), examples)
        found |= {"loss_trained": drift.before / drift.terms}
        found |= {f"kl_{onto}": drift.divergence / drift.terms}
        found |= {f"loss_{onto}": drift.after / drift.terms}
        found |= {"drift_rows": f"{len(examples)} of {part}", "drift_terms": drift.terms}
    return found


def told(found: Mapping[str, Any]) -> str:
    """The drift, as the end of a line."""
    if not found:
        return ""
    each = [
        f"{name} (loss {found[f'loss_{name}']:.4f}, KL {found[f'kl_{name}']:.1e})" for name in BASES
    ]
    return (
        f". On {found['drift_rows']} rows the trained model has a loss of "
        f"{found['loss_trained']:.4f}; merged onto its base {', '.join(each)}"
    )


def merged(policy: "Policy", base: "Base", onto: str) -> "Policy":
    """The trained adapter merged onto one kind of base; `policy` is left as it is."""
    from tunesmith.model.load import quiet
    from tunesmith.model.merge import merge_onto
    from tunesmith.model.policy import Policy

    with quiet():
        model = merge_onto(start(base, onto), policy.model)
    model.requires_grad_(False).eval()
    return Policy(model, policy.tokenizer, head=policy.head, fast=False)


def start(base: "Base", onto: str) -> Any:
    """The base to merge onto: its floats as they were, or through its bits, or its bits."""
    from tunesmith.model.load import load_model
    from tunesmith.model.quantise import dequantised

    if onto == "original":
        return load_model(replace(base, bits=None))
    held = load_model(base)
    return dequantised(held) if onto == "dequantised" else held


def compared(policy: "Policy", other: "Policy", examples: Iterable[Example]) -> Drift:
    """The sums over rows, in double precision."""
    import torch

    terms, sums = 0, [0.0, 0.0, 0.0]
    with torch.inference_mode():
        for example in examples:
            (then, wanted), (now, _) = said(policy, example), said(other, example)
            terms += len(wanted)
            sums[0] += float((then.exp() * (then - now)).sum())
            for place, found in ((1, then), (2, now)):
                sums[place] -= float(found.gather(1, wanted[:, None]).sum())
    return Drift(terms, *sums)


def said(policy: "Policy", example: Example) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Log-probabilities of everything that could stand at each term, and what does."""
    import torch

    batch = collate([example], policy.device)
    if policy.head is not None:
        routed = policy.head.routed(policy.scores(batch), batch.sources).double()[0]
        scores = routed.masked_fill(routed.isinf(), NEVER)
        # Of several labels each is a question by itself: yes, or no.
        pairs = torch.stack([torch.zeros_like(scores), scores], dim=1)
        logits = pairs if policy.head.many else scores[None]
        wanted = torch.atleast_1d(torch.as_tensor(example.label, device=policy.device))
        return logits.log_softmax(dim=1), wanted
    chosen = batch.targets[0] != IGNORE
    output = policy.model(input_ids=batch.ids, attention_mask=batch.mask.long())
    return output.logits[0][chosen].double().log_softmax(dim=1), batch.targets[0][chosen]


def held_out(data: Path, policy: "Policy") -> tuple[str, list[Example]]:
    """The first rows of the first part that has any the model can be asked, encoded."""
    for part in PARTS:
        encoded = (asked(row, policy) for row in read_part(data, part))
        found = [example for each in encoded for example in each if fits(example, policy)]
        if found:
            return part, found[:ROWS]
    return "", []


def asked(row: Row, policy: "Policy") -> list[Example]:
    """What a row asks a model of its kind; nothing where it is of another."""
    from tunesmith.model import documents, plain, render

    if policy.head is not None:
        if not isinstance(row, Labelled):
            return []
        names = row.labels
        if policy.head.tasks:
            row = replace(row, labels=tuple(of_task(row.source, name) for name in names))
        if not {*row.labels} <= {*policy.labels}:
            return []
        return [plain.encode(row, policy.tokenizer, label(row, policy))]
    encoders: dict[type, Callable[..., Example]] = {Chat: render.encode, Text: documents.encode}
    encode = encoders.get(type(row))
    if encode is None:
        return []
    example = encode(row, policy.tokenizer)
    return documents.windows(example, WINDOW)[:1] if isinstance(row, Text) else [example]


def label(row: Labelled, policy: "Policy") -> int | tuple[int, ...]:
    """A row's label as the head counts them; of many, a 0 or a 1 for each."""
    assert policy.head is not None
    if policy.head.many:
        return tuple(int(name in row.labels) for name in policy.labels)
    return policy.labels.index(row.labels[0])


def fits(example: Example, policy: "Policy") -> bool:
    """Whether the model can read it whole."""
    from tunesmith.model import layout

    context = layout.context(policy.model)
    return context is None or example.length <= context
