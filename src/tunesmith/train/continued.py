"""What must be equal for training to go on with an earlier run's weights."""

import json
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import SettingsError
from tunesmith.train.methods.base import Method

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.tokenizer import Tokenizer

ADVICE = "or take the run up as a whole: model.start=merged"


def refuse_unlike(method: Method, base: "Base", tokenizer: "Tokenizer") -> None:
    """Refuse weights that were trained by another method, in another shape, or on other tokens."""
    if base.weights is None:
        return
    if method.converts:
        raise SettingsError(
            f"train.method: what {method.kind} with these settings saves is no longer what it "
            "trained, so no run can go on with it; take the run up as a whole: model.start=merged"
        )
    record = json.loads((base.weights / "train.json").read_text("utf-8"))
    run = base.lineage["run"]
    problems = differences(method, record["method"], run)
    if problems:
        raise SettingsError(*problems)
    bits = record["base"].get("bits")
    if bits != base.bits:
        raise SettingsError(
            f"model.bits: {run} was trained with {json.dumps(bits)} and this run says "
            f"{json.dumps(base.bits)}; say the same, {ADVICE}"
        )
    if record["tokenizer"]["digest"] != tokenizer.digest:
        raise SettingsError(
            f"model.tokens: {run} was trained with {json.dumps(record.get('words', []))} and this "
            f"run says {json.dumps(list(base.tokens))}; say the same, {ADVICE}"
            if record.get("words", []) != list(base.tokens)
            else f"model.start: {run} was trained with another tokenizer than its base has now; "
            f"put that base back, {ADVICE}"
        )


def differences(method: Method, before: dict[str, Any], run: str) -> list[str]:
    """A sentence for every setting that says what the weights mean and is not as it was."""
    if before["kind"] != method.kind:
        return [
            f"train.method: {run} was trained by {before['kind']} and this run says {method.kind}; "
            f"say {before['kind']}, {ADVICE}"
        ]
    now = method.model_dump(mode="json")
    fields = [name for name in now if name not in method.passing and name in before]
    return [
        f"train.method.{name}: {run} was trained with {json.dumps(before[name])} and this run says "
        f"{json.dumps(now[name])}; say the same, {ADVICE}"
        for name in fields
        if before[name] != now[name]
    ]
