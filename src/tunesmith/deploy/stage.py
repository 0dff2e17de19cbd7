"""A trained folder in, verified exports out: written aside, proved by a reload, then renamed."""

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from tunesmith.core import disk
from tunesmith.core.disk import disk_errors, write_json, write_text
from tunesmith.core.errors import IntegrityError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.parts import Spec
from tunesmith.deploy import probe
from tunesmith.deploy.exports.adapter import Adapter
from tunesmith.deploy.exports.base import Export, Verified, name_of
from tunesmith.model import heads
from tunesmith.model.bases import HELD
from tunesmith.model.binding import bind

if TYPE_CHECKING:
    from tunesmith.model.bases import Base
    from tunesmith.model.policy import Policy


HEAD = (
    "Its answers are labels. Pool the states of the body (`mean` over all tokens, or the `last`), "
    f"multiply with `head.weight` of `{heads.NAME}` and add `head.bias`. The pooling, and the "
    f"labels in their order, are JSON in that file's metadata under `{heads.MEANING}`. Where that "
    "names `tasks`, the task of each label, a text is given labels of its own task only.\n\n"
)
"""How an export with a head is read."""


class Deploy(Spec):
    """How the trained model leaves: in which forms, each checked against the trained model."""

    exports: list[Export] = [Adapter()]
    """Forms to export, one folder each: `adapter`, `merged`."""

    @field_validator("exports")
    @classmethod
    def _one_of_each(cls, exports: list[Export]) -> list[Export]:
        kinds = [export.kind for export in exports]
        if len(set(kinds)) < len(kinds):
            raise ValueError("each kind of export may be named once: its folder is its kind")
        return exports


def deploy(
    folder: RunFolder,
    spec: Deploy,
    base: "Base",
    *,
    seed: int,
    log: Log,
    accept: Collection[str] = (),
    restart: bool = False,
) -> None:
    """Export the run's trained model to deploy/<kind>/, each reloaded and compared first.

    IntegrityError where an export is not the trained model; nothing half-made is left. `seed`
    changes nothing here: the probe is fixed.
    """
    trained, stage = folder.stage("train"), folder.stage("deploy")
    trained.manifest()
    for export in spec.exports:
        export.accept(trained.path)
    inputs = {
        "deploy.exports": [export.model_dump(mode="json") for export in spec.exports],
        "digest of the trained folder": trained.digest,
        "digest of the base": base.digest,
    }
    if stage.begin(inputs, accept=accept, restart=restart, say=log.say):
        for left in (path for path in stage.path.iterdir() if path.is_dir()):
            shutil.rmtree(left)  # An interrupted call's: an export is quicker made than trusted.
        with stage.unbegun_if_refused():
            done = {e.kind: make(e, trained.path, stage.path, base, log) for e in spec.exports}
        write_json(stage.path / "verified.json", done)
        stage.finish(exports=done)
    else:
        log.say("deploy: nothing to do, finished before with the same inputs")
    for export in spec.exports:
        place = stage.path / export.kind
        # A server of answers has no use for a head: its reader loads the two files by itself.
        for line in [] if (place / heads.NAME).is_file() else export.usage(place, base):
            log.say(f"  next: {line}")


def make(export: Export, trained: Path, stage: Path, base: "Base", log: Log) -> dict[str, Any]:
    """Write one export aside, prove it, put it in place; what was measured."""
    from tunesmith.model.trained import load_trained

    place = stage / export.kind
    log.say(f"deploy: {export.kind} is written, and read back in a process of its own")
    policy = load_trained(trained, base)
    policy, measured = export.settled(policy, base, trained.parent / "data", log.say)
    with disk_errors(stage, "write the export"), aside(stage) as (folder, recorded):
        probe.record(policy, base, recorded)
        write(export, policy, base, folder, json.loads((trained / "train.json").read_bytes()))
        del policy  # The reload needs the memory.
        verified = export.verify(folder, recorded)
        refuse(export, verified, log)
        size = settle(folder, place)
    log.say(f"{place}: {size / 1e6:.1f} MB, {verified.sentence}")
    findings = [finding.record() for finding in verified.findings]
    numbers = {**verified.numbers, **measured}
    return {"numbers": numbers, "findings": findings, "bytes": size}


@contextmanager
def aside(stage: Path) -> Iterator[tuple[Path, Path]]:
    """An empty folder and a place for the probe, both gone afterwards, come what may."""
    home = stage / ".tmp-export"
    try:
        (home / "folder").mkdir(parents=True, mode=0o700)
        yield home / "folder", home / "probe.safetensors"
    finally:
        shutil.rmtree(home, ignore_errors=True)


def write(
    export: Export, policy: "Policy", base: "Base", folder: Path, trained: Mapping[str, Any]
) -> None:
    """The export's own files, a head if there is one, what ties them to their base, and a card."""
    from tunesmith.model.tensors import tensor_digest

    tokenizer, head = policy.tokenizer, policy.head
    digests = export.write(policy, base, folder)
    if head is not None:
        digests |= {name: tensor_digest(each) for name, each in heads.save(head, folder).items()}
    method = trained["method"]
    bind(folder, base, tokenizer, kind=export.kind, method=method, tensors=digests)
    library = "peft" if (folder / "adapter_config.json").is_file() else "tunesmith"
    library = library if export.kind == "adapter" else "transformers"
    card = readme(export, base, method, scores=head is not None, library=library)
    write_text(folder / "README.md", card)


def readme(
    export: Export, base: "Base", method: Mapping[str, Any], *, scores: bool, library: str
) -> str:
    """The card that a model folder is expected to carry; the measured one is in cards/."""
    settings = ", ".join(f"{name} {value}" for name, value in method.items() if name != "kind")
    front = {
        "base_model": name_of(base),
        "library_name": library,
        "pipeline_tag": "text-classification" if scores else "text-generation",
        "tags": ["tunesmith", method["kind"]],
    }
    # JSON is YAML, and quotes whatever a name may hold.
    head = "".join(f"{name}: {json.dumps(value)}\n" for name, value in front.items())
    said = "scores" if scores else "logits"
    return (
        f"---\n{head}---\n\n# A model tuned with tunesmith\n\n"
        f"Form: {export.kind}. Method: {method['kind']} ({settings}).\n\n{HEAD if scores else ''}"
        f"Base: `{base.source}`, digest `{base.digest}`. Use no other weights.\n\n"
        f"{with_words(base)}{with_bits(base, export)}"
        f"The folder was reloaded in a fresh process and its {said} compared with the trained "
        "model's before it was put here. `tunesmith.json` holds the digests of base, tokenizer, "
        "template and every tensor. How the model was trained and measured is in the run's "
        "`cards/model_card.md`.\n"
    )


def with_words(base: "Base") -> str:
    """How to load a model whose vocabulary grew; empty where it did not."""
    if not base.tokens:
        return ""
    return (
        f"It has {len(base.tokens)} new words in its vocabulary. As an adapter it goes on a base "
        "with rows for them: peft's `AutoPeftModelForCausalLM` makes these by itself, for "
        "`PeftModel` call `resize_token_embeddings(len(tokenizer))` on the base first.\n\n"
    )


def with_bits(base: "Base", export: Export) -> str:
    """What the base was held in while it was tuned, and what that means for its reader."""
    if base.bits is None:
        return ""
    said = f"While it was tuned, the linear layers of its base were held in {base.bits} bits "
    said += f"({HELD[base.bits]}; bitsandbytes)"
    if export.kind != "adapter":
        return f"{said}.\n\n"
    return (
        f"{said}, and it answers as measured on such a base only: load it with `tunesmith.load`, "
        "or export the run merged. transformers' own loading in so many bits is near it, and not "
        "the same: it also holds other layers so, or rounds what goes into them.\n\n"
    )


def refuse(export: Export, verified: Verified, log: Log) -> None:
    """IntegrityError with every reason when the export is not the trained model."""
    for finding in verified.findings:
        log.finding(finding)
    if not verified.passed:
        reasons = [f"{f.what} ({f.evidence})" for f in verified.findings if f.severity == "error"]
        raise IntegrityError(
            f"deploy.exports: {export.kind}: refused, nothing was exported: {'; '.join(reasons)}. "
            "Look at disk and memory, then run the same command again"
        )


def settle(folder: Path, place: Path) -> int:
    """Put the proven export in its place; its bytes. The stage's manifest makes it durable."""
    shutil.rmtree(place, ignore_errors=True)
    disk.DISK.rename(folder, place)
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
