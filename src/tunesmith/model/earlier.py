"""An earlier run as the model to start from: its merged weights, or its base under its weights."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.disk import read_json
from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.folders import UNLISTED, RunFolder, Stage
from tunesmith.model import bases, cache, heads, tensors, trained
from tunesmith.model.bases import COMMIT, HUB_NAME, Base, ModelSpec
from tunesmith.model.load import quiet
from tunesmith.model.merge import merge

VERSION = 1
"""Of how runs are merged: another way gives other bits, and another place in the cache."""
BESIDE = (*UNLISTED, "rows.json")
"""What a training leaves that is no part of a model, and that no reader of models opens."""


def is_run(path: Path) -> bool:
    """Whether a folder is one that a run left."""
    return (path / "run.yaml").is_file()


def resolve(spec: ModelSpec, path: Path) -> Base:
    """The base that `spec` makes of the run at `path`.

    Raises SettingsError for a run that is not finished, IntegrityError for one that is damaged,
    or whose own base is no longer what it was trained on.
    """
    if spec.revision is not None:
        raise SettingsError(
            f"model.revision: {spec.source} is a run, which has no revisions. Leave it out."
        )
    stage = RunFolder(path).stage("train")
    stage.manifest()
    record = read_json(stage.path / "train.json")
    own = base_of(path, record["base"], record.get("words", []))
    lineage = {
        "run": path.resolve().name,
        "training": stage.digest,
        "start": spec.start,
        "base": {"source": own.source, "digest": own.digest, "revision": own.revision},
        "from": record.get("from") or {},
    }
    if spec.start == "continue":
        return Base(
            own.folder, own.digest, own.source, own.revision, own.facts, lineage, stage.path
        )
    if has_head(stage.path):
        lineage["head"] = "stays behind"
    return merged(spec, stage, own, lineage)


def refuse_unfinished(path: Path) -> None:
    """Refuse a run that has no trained model yet; whether a finished one is sound is not asked."""
    stage = RunFolder(path).stage("train")
    if not stage.finished:
        stage.manifest()


def base_of(path: Path, record: Mapping[str, Any], words: list[str]) -> Base:
    """The base that the run at `path` was trained on, as its train.json recorded it."""
    # A project that was moved or copied has its own base at the same place beside the run.
    beside = os.path.normpath(path / record["path"]) if "path" in record else ""
    source = beside if beside and Path(beside).exists() else record["source"]
    refuse_fetching(path, source, record.get("revision") or "")
    spec = ModelSpec(
        source=source, revision=record.get("revision"), tokens=words, bits=record.get("bits")
    )
    found = bases.resolve(spec)
    if found.digest != record["digest"]:
        raise IntegrityError(
            f"{path}: was trained on {record['source']} with digest {record['digest'][:12]}, and "
            f"what is there now has digest {found.digest[:12]}. Put that base back, or train "
            f"the run again: tunesmith train {path}"
        )
    return found


def refuse_fetching(path: Path, source: str, revision: str) -> None:
    """Refuse a hub model that is not kept here: a run's record may be anyone's, and the network is
    asked only for what the user names."""
    there = Path(source).expanduser()
    here = there.is_dir() or (there.suffix == ".gguf" and there.is_file())
    if here or not HUB_NAME.fullmatch(source):
        return
    if not COMMIT.fullmatch(revision):
        raise IntegrityError(
            f"{path}: was trained on {source} of the hub and records no commit of it. Name "
            "another run, or train this one again."
        )
    if cache.sealed(bases.kept(source, revision)) is None:
        raise SettingsError(
            f"{path}: was trained on {source} of the hub, which is not kept here, and what a run "
            "names is not fetched unasked. Fetch it by naming it once: tunesmith train RUN.yaml "
            f"--dry-run model.start=merged model.source={source} model.revision={revision}"
        )


def merged(spec: ModelSpec, stage: Stage, own: Base, lineage: dict[str, Any]) -> Base:
    """The run's model as a plain folder: where it lies, or merged once into the cache. A run that
    trained nothing but a head left its base as it was."""
    folder, digest = stage.path, stage.digest
    if (folder / "config.json").is_file():
        return replace(bases.local(spec, folder, BESIDE), lineage=lineage)
    if has_head(folder) and not trained.has_adapter(folder) and not own.tokens:
        facts = bases.facts_of(own.folder)
        return Base(own.folder, own.digest, spec.source, "", facts, lineage)
    target = cache.cache_folder() / "models" / f"run-{digest[:32]}-{VERSION}"
    found = cache.sealed(target)
    if found is None:
        with cache.filling(target) as fresh:
            fill(fresh, stage.path, own)
            found = bases.facts_of(fresh)
            found["digest"] = cache.tensors_digest(fresh, tensors.shards(fresh))
            cache.seal(fresh, found)
    facts = dict(found)
    return Base(target, facts.pop("digest"), spec.source, "", facts, lineage)


def has_head(training: Path) -> bool:
    """Whether a trained folder holds a head."""
    return (training / heads.NAME).is_file()


def fill(folder: Path, training: Path, own: Base) -> None:
    """Write the merged model of a trained folder, with its tokenizer."""
    policy = trained.load_trained(training, own)
    try:
        plain = merge(policy.model)
    except SettingsError as error:
        raise SettingsError(f"model.source: {training.parent}: {error}") from None
    with quiet():
        plain.save_pretrained(folder)
    policy.tokenizer.save(folder)
