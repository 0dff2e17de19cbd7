"""An export reloaded in a fresh process and held against what the trained model said.

`python -m tunesmith.deploy.verify FOLDER PROBE` is that process. It loads with transformers, peft
and safetensors alone, as a user's own script would, and prints what it measured as one JSON line.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tunesmith
from tunesmith import environment
from tunesmith.core.errors import IntegrityError
from tunesmith.core.findings import Finding
from tunesmith.deploy.exports.base import Verified
from tunesmith.model.binding import check_tensors, read_binding

WORDS = {"logit": "greedy answer", "score": "first label"}
"""What is chosen by the numbers that are compared."""

TIMEOUT = 3600
"""Seconds after which a reload is given up."""


def verify(folder: Path, probe: Path, *, bound: float, exact: bool = True) -> Verified:
    """Judge `folder` by its tensors and by its answers to the probe.

    `bound` is the largest logit difference allowed, as a share of the largest logit. `exact`:
    a greedy answer that differs is an error, not only a warning.
    """
    try:
        check_tensors(folder, read_binding(folder))
    except IntegrityError as error:
        what = "a tensor on disk is not the one that was saved"
        return Verified((_error(what, folder, str(error)),))
    try:
        numbers = reload(folder, probe)
    except IntegrityError as error:
        return Verified((_error("the export does not load", folder, str(error)),))
    numbers["bound"] = bound
    return Verified(tuple(judge(numbers, folder, exact=exact)), numbers, sentence(numbers))


def sentence(numbers: dict[str, Any]) -> str:
    """What the reload found, in a line."""
    what = WORDS[numbers["compared"]]
    return (
        f"reloaded in a fresh process: largest {numbers['compared']} difference "
        f"{numbers['max_difference']:.1e}, {what}s equal {numbers['answers_equal']} of "
        f"{numbers['texts']}"
    )


def reload(folder: Path, probe: Path) -> dict[str, Any]:
    """What a fresh process measured; IntegrityError with its last line if it could not load."""
    command = [sys.executable, "-P", "-m", "tunesmith.deploy.verify"]
    command += [str(folder.resolve()), str(probe.resolve())]
    try:
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise IntegrityError(f"it was not reloaded within {TIMEOUT} seconds") from error
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines() or [""]
    if done.returncode != 0:
        raise IntegrityError(f"the process that reloaded it ended with: {lines[-1]}")
    measured: dict[str, Any] = json.loads(lines[-1])
    return measured


def _environment() -> dict[str, str]:
    """This process's, offline, able to import this tunesmith, with the same number of threads:
    sums in another order would differ in their last bits."""
    import torch

    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": str(Path(tunesmith.__file__).parent.parent),
    }


def judge(numbers: dict[str, Any], folder: Path, *, exact: bool) -> list[Finding]:
    """What the numbers of a reload say against the export."""
    found = []
    if numbers["texts_equal"] < numbers["texts"]:
        found.append(
            _error(
                "the saved tokenizer makes other tokens of a text than training did",
                folder,
                f"{numbers['texts_equal']} of {numbers['texts']} are equal",
            )
        )
    # Not `>`: a NaN must not pass.
    if not numbers["relative"] <= numbers["bound"]:
        evidence = (
            f"{numbers['relative']:.2e} of the largest {numbers['compared']}; "
            f"{numbers['bound']:.0e} allowed"
        )
        found.append(_error("the export answers unlike the trained model", folder, evidence))
    if numbers["answers_equal"] < numbers["texts"]:
        chosen = WORDS[numbers["compared"]]
        evidence = f"{numbers['answers_equal']} of {numbers['texts']} {chosen}s are equal"
        what = f"a {chosen} differs from the trained model's"
        advice = "Export in float32, or measure this export before serving it."
        found.append(
            _error(what, folder, evidence)
            if exact
            else Finding("warning", what, str(folder), evidence, advice)
        )
    return found


def _error(what: str, folder: Path, evidence: str) -> Finding:
    advice = "Look at disk and memory, then run `tunesmith deploy RUN.yaml --restart`."
    return Finding("error", what, str(folder), evidence, advice)


@dataclass(frozen=True)
class Said:
    """What a reload said to one probe text, against what the trained model had said."""

    given: Any
    wanted: Any
    same_ids: bool
    same_answer: bool


def measure(folder: Path, probe: Path) -> dict[str, Any]:
    """Reload `folder` and compare it with `probe`: what the fresh process runs."""
    import torch
    from safetensors import safe_open

    with safe_open(probe, "pt") as file:
        metadata = file.metadata()
        known = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
    model = _model(folder, Path(metadata["base"]), getattr(torch, metadata["dtype"]))
    scores = "texts" in metadata
    asked = json.loads(metadata["texts" if scores else "messages"])
    with torch.no_grad():
        found = list((_scored if scores else _answered)(model, folder, asked, known))
    return {"compared": "score" if scores else "logit", **_compared(found)}


def _compared(found: Sequence[Said]) -> dict[str, Any]:
    differences = [(each.given - each.wanted).abs().double() for each in found]
    largest = max(float(d.max()) for d in differences)
    scale = max(float(each.wanted.abs().max()) for each in found)
    # max() drops a NaN; the mean keeps it.
    mean = sum(float(d.sum()) for d in differences) / sum(d.numel() for d in differences)
    return {
        "max_difference": largest if mean == mean else mean,
        "mean_difference": mean,
        "relative": largest / scale if mean == mean else mean,
        "texts": len(found),
        "texts_equal": sum(each.same_ids for each in found),
        "answers_equal": sum(each.same_answer for each in found),
    }


def _answered(
    model: Any, folder: Path, asked: Sequence[Any], known: Mapping[str, Any]
) -> Iterator[Said]:
    """Logits over the answer that was given, and the answer given now, conversation by
    conversation."""
    from transformers import GenerationConfig

    from tunesmith.deploy.probe import greedy, last_logits

    endings = GenerationConfig.from_pretrained(folder)
    settings = {"eos_token_id": endings.eos_token_id, "pad_token_id": endings.pad_token_id}
    for number, turns in enumerate(asked):
        ids, start = known[f"ids.{number}"], known[f"prompt.{number}"]
        yield Said(
            given=last_logits(model, ids[None]),
            wanted=known[f"logits.{number}"],
            same_ids=_prompt(folder, turns) == start.tolist(),
            same_answer=greedy(model, start[None], settings)[0].tolist() == ids.tolist(),
        )


def _scored(
    model: Any, folder: Path, asked: Sequence[str], known: Mapping[str, Any]
) -> Iterator[Said]:
    """The head's scores, text by text, as anyone would compute them who knows the two files."""
    from safetensors import safe_open
    from transformers import AutoTokenizer

    with safe_open(folder / "head.safetensors", "pt") as file:
        pooling = json.loads(file.metadata()["tunesmith"])["pooling"]
        weight, bias = file.get_tensor("head.weight"), file.get_tensor("head.bias")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for number, text in enumerate(asked):
        ids, wanted = known[f"ids.{number}"], known[f"scores.{number}"]
        states = _states(model, ids[None])[0, -len(ids) :].float()
        given = weight @ (states.mean(dim=0) if pooling == "mean" else states[-1]) + bias
        yield Said(
            given=given,
            wanted=wanted,
            same_ids=list(tokenizer(text)["input_ids"]) == ids.tolist(),
            same_answer=int(given.argmax()) == int(wanted.argmax()),
        )


def _states(model: Any, ids: Any) -> Any:
    """Hidden states, [1, token, width]; those of virtual tokens may stand before the row's."""
    from tunesmith.model import layout

    if layout.virtual(model):
        # Only peft's own forward pass puts them there.
        return model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    return layout.body(model)(input_ids=ids).last_hidden_state


def _model(folder: Path, base: Path, dtype: Any) -> Any:
    """The export in `folder`, on `base` when it is an adapter, computing in `dtype`."""
    from tunesmith.model import bottleneck, quantise

    quantise.settle()  # before peft, which asks bitsandbytes, which would ask a hub for code
    from peft import PeftModel
    from transformers import AutoTokenizer

    from tunesmith.model.load import factory
    from tunesmith.model.quantise import quantised
    from tunesmith.model.trained import has_adapter

    adapter = (folder / "adapter_config.json").is_file()
    place = base if has_adapter(folder) else folder
    model: Any = factory(place).from_pretrained(
        place, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    if adapter:
        words = len(AutoTokenizer.from_pretrained(folder, local_files_only=True))
        if words > model.get_input_embeddings().weight.shape[0]:
            # Rows for new words: the adapter brings their numbers.
            model.resize_token_embeddings(words, mean_resizing=False)
    bits = read_binding(folder).get("base", {}).get("bits") if place == base else None
    if bits is not None:
        model = quantised(model, bits, dtype=dtype, device="cpu")
    if adapter:
        model = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    elif place == base:
        model = bottleneck.load(model, folder)
    return model.eval()


def _prompt(folder: Path, messages: list[dict[str, Any]]) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids: Any = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    )
    return list(ids)


if __name__ == "__main__":
    environment.enter()
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
