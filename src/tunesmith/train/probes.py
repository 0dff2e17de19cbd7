"""The same few held-out prompts, answered at every look, to see the answers change."""

from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.rows import Chat
from tunesmith.model import newrows, render
from tunesmith.model.modes import evaluating
from tunesmith.model.policy import Policy
from tunesmith.model.tokenizer import Tokenizer

PROBE_TOKENS = 64
"""Longest answer to a probe prompt."""


def asked(policy: Policy, tokenizer: Tokenizer, rows: Sequence[Chat]) -> Iterator[dict[str, Any]]:
    """One line for each row, as its answer is ready."""
    from tunesmith.model.generate import Decoder, Request, Sampling, answers

    prompts = {row.digest: render.encode_prompt(row.prompt(), tokenizer) for row in rows}
    sampling = Sampling(max_tokens=PROBE_TOKENS)
    wanted = [Request(key, ids, PROBE_TOKENS) for key, ids in prompts.items()]
    with evaluating(policy.model), newrows.folded(policy.model):
        decoder = Decoder(policy.model, tokenizer, rows=len(rows), sampling=sampling)
        for answer in answers(decoder, wanted):
            yield {"row": answer.key, "answer": answer.text, "stopped": answer.stopped}
