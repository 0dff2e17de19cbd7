"""A model's name to a checked local folder: bundled, given, converted, fetched, an earlier run."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.parts import Spec
from tunesmith.model import cache, embedded, gguf, hub
from tunesmith.model.cache import cache_folder
from tunesmith.model.safe import check_alone, check_folder, check_safetensors
from tunesmith.model.tensors import shards

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

COMMIT = re.compile(r"[0-9a-f]{40}")
"""What no branch or tag moves."""

ALLOWED = ("*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja", "*.txt")
"""What is fetched from the hub, and nothing else."""

TELLING = ("config.json",)
"""What tells that a hub model is there: small, and in every one of them."""

HELD = {4: "NF4 with double quantisation", 8: "int8, a scale for each row"}
"""How numbers of so many bits are held."""


class ModelSpec(Spec):
    """Which model to start from. A bare name means `source`."""

    source: Annotated[str, Field(min_length=1)] = embedded.NAME
    """A bundled model's name, a folder, a GGUF file, `owner/name` on the hub, or a run's folder
    (`runs/x`)."""
    start: Literal["merged", "continue"] = "merged"
    """Of an earlier run: `merged` puts new weights on its merged model, `continue` goes on with its
    own on its own base."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numbers the weights are held in; auto is float32, in which small updates are not lost."""
    bits: Literal[4, 8] | None = None
    """Hold the base's linear layers in so many bits a number, through bitsandbytes (QLoRA), for
    methods that leave the base alone; null holds them in `dtype`."""
    revision: str | None = None
    """Commit, branch or tag of a hub model; the commit it means is recorded."""
    tokens: list[str] = []
    """Words that become one piece each; their rows start from the pieces they were made of."""

    @field_validator("tokens")
    @classmethod
    def _words(cls, tokens: list[str]) -> list[str]:
        if any(not word.strip() for word in tokens):
            raise ValueError("a word is empty; leave it out")
        twice = [word for place, word in enumerate(tokens) if word in tokens[:place]]
        if twice:
            raise ValueError(f"{twice[0]!r} is there twice; name each word once")
        return tokens

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class Base:
    """A checked model folder. `digest` is sha256 over its sorted tensor digests.

    `lineage` is the earlier run it was taken from: its name, the digest of its training, how it
    was taken up, its base, and what that run came from in turn. `weights` is the trained folder
    whose weights training goes on with, where that was asked for. `tokens` are words that a run
    adds, `bits` how it holds the linear layers: the folder knows nothing of either.
    """

    folder: Path
    digest: str
    source: str
    revision: str
    facts: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    tokens: tuple[str, ...] = ()
    bits: Literal[4, 8] | None = None

    def record(self, home: Path) -> dict[str, Any]:
        """What a run in `home` notes of its base. A path is kept from there too, as whole
        projects move."""
        there = Path(self.source).expanduser()
        beside = {"path": os.path.relpath(there, home)} if there.exists() else {}
        coarse = {} if self.bits is None else {"bits": self.bits, "held_as": HELD[self.bits]}
        return {"source": self.source, "digest": self.digest, **self.facts, **beside, **coarse}


def resolve(spec: ModelSpec, known: Mapping[str, Any] | None = None) -> Base:
    """The checked local folder that `spec` means; converted or fetched once, into the cache.

    `known` is the base that a finished training recorded: a branch is then taken at the commit it
    meant at that time. Raises SettingsError for a name that means nothing, IntegrityError for a
    folder that is damaged or could run code, ResourceError where the hub cannot be reached.
    """
    return replace(found(spec, known or {}), tokens=tuple(spec.tokens), bits=spec.bits)


def check_name(spec: ModelSpec, known: Mapping[str, Any] | None = None) -> None:
    """Refuse a name that means no model, before anything is made of it: of a hub model one small
    file is asked for, unless its commit is kept here. Whether the weights are sound is for
    `resolve` to see; `known` is as there, and so is what is raised."""
    from tunesmith.model import earlier

    path = Path(spec.source).expanduser()
    if earlier.is_run(path):
        earlier.refuse_unfinished(path)
        return
    refuse_going_on(spec)
    if path.is_dir() or is_gguf(path) or is_bundled(spec.source):
        return
    name, commit = hub_name(spec.source), pinned(spec, known or {})
    if not (COMMIT.fullmatch(commit) and kept(name, commit).is_dir()):
        download(name, commit or None, TELLING)


def found(spec: ModelSpec, known: Mapping[str, Any]) -> Base:
    """The folder, by what the name is."""
    from tunesmith.model import earlier

    path = Path(spec.source).expanduser()
    if earlier.is_run(path):
        return earlier.resolve(spec, path)
    refuse_going_on(spec)
    if path.is_dir():
        return local(spec, path)
    if is_gguf(path):
        return converted(spec, path)
    if spec.source == embedded.NAME and (bundled := embedded.file()) is not None:
        return converted(spec, bundled, pinned=embedded.SHA256, stops=embedded.STOPS)
    if spec.source == embedded.ENCODER and (folder := embedded.encoder()) is not None:
        return local(spec, folder)
    return fetched(spec, hub_name(spec.source), known)


def refuse_going_on(spec: ModelSpec) -> None:
    """Refuse to go on with what is no run."""
    if spec.start == "continue":
        raise SettingsError(
            f"model.start: continue goes on with an earlier run, and {spec.source} is none. Leave "
            "it out, or name a run's folder as model.source."
        )


def is_gguf(path: Path) -> bool:
    """Whether a path leads to a GGUF file."""
    return path.suffix == ".gguf" and path.is_file()


def is_bundled(source: str) -> bool:
    """Whether a name is that of a bundled model whose package is installed."""
    places = {embedded.NAME: embedded.file, embedded.ENCODER: embedded.encoder}
    return source in places and places[source]() is not None


def hub_name(source: str) -> str:
    """What the hub calls a model that is not on this machine. Raises SettingsError for a name that
    the hub cannot have either."""
    bundled = {embedded.NAME: embedded.HUB, embedded.ENCODER: embedded.ENCODER_HUB}
    name = bundled.get(source, source)
    if HUB_NAME.fullmatch(name):
        return name
    near = alike(source, embedded.NAME, embedded.ENCODER)
    raise SettingsError(
        f"model.source: {source!r} is neither {embedded.NAME!r} nor {embedded.ENCODER!r}, "
        "nor a folder, nor a .gguf file, nor a run, nor a hub name like owner/name. "
        + (f"Did you mean {near!r}?" if near else "Correct it, or check where you are.")
    )


def alike(source: str, *bundled: str) -> str:
    """What is here and nearly called so: a folder or a file where it would be, or one of the
    `bundled` models; or ""."""
    path, there = Path(source).expanduser(), [*bundled]
    with suppress(OSError):  # Of a folder that may not be looked into nothing is known.
        beside = [each for each in path.parent.iterdir() if each.is_dir() or each.suffix == ".gguf"]
        there += map(str, beside)
    return next(iter(get_close_matches(str(path), there, 1)), "")


def local(spec: ModelSpec, folder: Path, beside: Collection[str] = ()) -> Base:
    """A folder the user names, used where it is; `beside` names what in it is no part of it."""
    if spec.revision is not None:
        raise SettingsError(
            f"model.revision: {spec.source} is a folder, which has no revisions. Leave it out."
        )
    folder = folder.resolve()
    if (folder / "config.json").is_file():
        check_folder(folder, beside)
    check_alone(folder)
    check_complete(folder)
    return Base(
        folder, cache.folder_digest(folder, shards(folder)), spec.source, "", facts_of(folder)
    )


def check_complete(folder: Path) -> None:
    """Refuse a folder in which something that every model needs is missing."""
    needed = ("config.json", "tokenizer.json")
    absent = [name for name in needed if not (folder / name).is_file()]
    if not shards(folder):
        absent.append("model.safetensors")
    if absent:
        raise IntegrityError(
            f"{folder}: {absent[0]} is missing. Save model and tokenizer there with "
            "save_pretrained of a current transformers; pickles and slow tokenizers are not read."
        )


def facts_of(folder: Path) -> dict[str, Any]:
    """What is worth telling about a model folder."""
    entries = [e for n in shards(folder) for e in check_safetensors(folder / n).values()]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return {
        "architecture": (config.get("architectures") or [config.get("model_type", "")])[0],
        "bytes": sum(e.end - e.start for e in entries),
        "types": sorted({e.dtype for e in entries}),
    }


def converted(
    spec: ModelSpec, path: Path, *, pinned: str | None = None, stops: tuple[str, ...] = ()
) -> Base:
    """A GGUF file as safetensors in the cache, made on first use."""
    if spec.revision is not None:
        raise SettingsError("model.revision: a GGUF file has no revisions. Leave it out.")
    key = gguf.digest(path, pinned)
    target = cache_folder() / "models" / f"gguf-{key[:32]}-{gguf.VERSION}"
    facts = cache.sealed(target)
    if facts is None:
        with cache.filling(target) as folder:
            gguf.convert(path, folder, stops=stops)
            facts = facts_of(folder) | gguf.note(path)
            facts["digest"] = cache.tensors_digest(folder, ["model.safetensors"])
            cache.seal(folder, facts)
    facts = dict(facts)
    return Base(target, facts.pop("digest"), spec.source, key, facts)


def fetched(spec: ModelSpec, name: str, known: Mapping[str, Any]) -> Base:
    """A hub model at one commit, as plain files in our cache. A whole commit that is kept there
    is not asked for again; the commit is among the facts, so that a run records it."""
    asked = {} if spec.revision is None else {"asked": spec.revision}
    commit = pinned(spec, known)
    facts = cache.sealed(kept(name, commit)) if COMMIT.fullmatch(commit) else None
    if facts is None:
        snapshot = download(name, commit or None)
        commit = snapshot.name
        facts = cache.sealed(kept(name, commit))
    target = kept(name, commit)
    if facts is None:
        with cache.filling(target) as folder:
            plain_files(snapshot, folder)
            check_folder(folder)
            check_complete(folder)
            facts = facts_of(folder)
            facts["digest"] = cache.tensors_digest(folder, shards(folder))
            cache.seal(folder, facts)
    facts = facts | asked | {"revision": commit}
    return Base(target, facts.pop("digest"), spec.source, commit, facts)


def pinned(spec: ModelSpec, known: Mapping[str, Any]) -> str:
    """The revision of a hub model that is meant: a branch or tag that was `known` before, by the
    commit that it was then; nothing where the hub decides."""
    same = known.get("source") == spec.source and known.get("asked") == spec.revision
    return (known.get("revision") if same else None) or spec.revision or ""


def kept(name: str, commit: str) -> Path:
    """Where our cache has a hub model at one commit."""
    return cache_folder() / "models" / f"hub-{name.replace('/', '--')}-{commit}"


def download(name: str, revision: str | None, patterns: Sequence[str] = ALLOWED) -> Path:
    """A snapshot of the files that fit; its folder is named by the commit. What is bundled is no
    slip of a hub name, which may be right."""
    near = alike(name)
    where = f"model.source: {name}" + (f" (did you mean {near}?)" if near else "")
    return hub.download(name, revision, kind="model", patterns=patterns, where=where)


def plain_files(snapshot: Path, folder: Path) -> None:
    """The snapshot's files without its links and folders."""
    for path in sorted(snapshot.iterdir()):
        if not path.is_dir() and not path.name.startswith("."):
            hub.place(path, snapshot, folder / path.name)
