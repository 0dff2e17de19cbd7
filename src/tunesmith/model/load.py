"""A model's name to a checked local folder, and the folder to a model that runs nobody's code."""

import json
import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunesmith.core.errors import IntegrityError, SettingsError, missing
from tunesmith.core.late import late
from tunesmith.core.parts import Spec
from tunesmith.model import cache, embedded, gguf, hub, layout
from tunesmith.model.cache import cache_folder as cache_folder
from tunesmith.model.safe import check_alone, check_safetensors
from tunesmith.model.safe import check_folder as check_folder

if TYPE_CHECKING:
    import torch

    from tunesmith.model import quantise
else:
    torch = late("torch")
    quantise = late("tunesmith.model.quantise")  # Autograd functions need torch to be defined.

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

COMMIT = re.compile(r"[0-9a-f]{40}")
"""What no branch or tag moves."""

ALLOWED = ("*.safetensors", "*.json", "tokenizer*", "*.model", "*.jinja", "*.txt")
"""What is fetched from the hub, and nothing else."""

HELD = {4: "NF4 with double quantisation", 8: "int8, a scale for each row"}
"""How numbers of so many bits are held."""

CODES = {
    "torch.bool": "BOOL", "torch.uint8": "U8", "torch.int8": "I8",
    "torch.float8_e5m2": "F8_E5M2", "torch.float8_e4m3fn": "F8_E4M3",
    "torch.uint16": "U16", "torch.int16": "I16", "torch.float16": "F16", "torch.bfloat16": "BF16",
    "torch.uint32": "U32", "torch.int32": "I32", "torch.float32": "F32",
    "torch.uint64": "U64", "torch.int64": "I64", "torch.float64": "F64",
}  # fmt: skip
"""What safetensors calls torch's types."""


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


def found(spec: ModelSpec, known: Mapping[str, Any]) -> Base:
    """The folder, by what the name is."""
    from tunesmith.model import earlier

    path = Path(spec.source).expanduser()
    if earlier.is_run(path):
        return earlier.resolve(spec, path)
    if spec.start == "continue":
        raise SettingsError(
            f"model.start: continue goes on with an earlier run, and {spec.source} is none. Leave "
            "it out, or name a run's folder as model.source."
        )
    if path.is_dir():
        return local(spec, path)
    if path.suffix == ".gguf" and path.is_file():
        return converted(spec, path)
    if spec.source == embedded.NAME:
        bundled = embedded.file()
        if bundled is not None:
            return converted(spec, bundled, pinned=embedded.SHA256, stops=embedded.STOPS)
        return fetched(spec, embedded.HUB, known)
    if spec.source == embedded.ENCODER:
        folder = embedded.encoder()
        if folder is not None:
            return local(spec, folder)
        return fetched(spec, embedded.ENCODER_HUB, known)
    if HUB_NAME.fullmatch(spec.source):
        return fetched(spec, spec.source, known)
    raise SettingsError(
        f"model.source: {spec.source!r} is neither {embedded.NAME!r} nor {embedded.ENCODER!r}, "
        "nor a folder, nor a .gguf file, nor a run, nor a hub name like owner/name. Correct it, "
        "or check where you are."
    )


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


def shards(folder: Path) -> list[str]:
    """The files the weights are in, as transformers chooses them: one, or those of the index.

    Raises IntegrityError unless the index names every tensor of its files, in this folder.
    """
    path = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not path.is_file():
        return ["model.safetensors"] if (folder / "model.safetensors").is_file() else []
    mapped: dict[str, list[str]] = {}
    for tensor, name in json.loads(path.read_text("utf-8")).get("weight_map", {}).items():
        mapped.setdefault(str(name), []).append(tensor)
    for name, tensors in mapped.items():
        if Path(name).name != name or not (folder / name).is_file():
            raise IntegrityError(
                f"{path}: names {name!r}, which is not a file of this folder. Get both again."
            )
        check_safetensors(folder / name, tensors)
    return sorted(mapped)


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
    same = known.get("source") == spec.source and known.get("asked") == spec.revision
    commit = (known.get("revision") if same else None) or spec.revision or ""
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


def kept(name: str, commit: str) -> Path:
    """Where our cache has a hub model at one commit."""
    return cache_folder() / "models" / f"hub-{name.replace('/', '--')}-{commit}"


def download(name: str, revision: str | None) -> Path:
    """A snapshot of the allowed files; its folder is named by the commit."""
    where = f"model.source: {name}"
    return hub.download(name, revision, kind="model", patterns=ALLOWED, where=where)


def plain_files(snapshot: Path, folder: Path) -> None:
    """The snapshot's files without its links and folders."""
    for path in sorted(snapshot.iterdir()):
        if not path.is_dir() and not path.name.startswith("."):
            hub.place(path, snapshot, folder / path.name)


def load_model(base: Base, *, dtype: str = "auto", device: str = "cpu") -> Any:
    """The model in evaluation mode on `device`, weights finite, with rows for the words that the
    run adds. Nothing is fetched or run.

    A language model comes whole. Of an encoder comes the body that makes hidden states, without
    what it was pre-trained with. Its linear layers are in the bits that the base says.
    """
    check_alone(base.folder)
    check_architecture(base.folder)
    wanted = getattr(torch, "float32" if dtype == "auto" else dtype)
    # Bits are made of the finest numbers, so that they do not depend on what is computed in.
    stored = wanted if base.bits is None else torch.float32
    with quiet():
        try:
            model, report = factory(base.folder).from_pretrained(
                base.folder,
                dtype=stored,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported, and refused below in our words
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise IntegrityError(
                f"{base.folder}: transformers cannot build this model ({reason}). Check "
                "config.json, or use another model."
            ) from error
    if is_encoder(base.folder):
        settle_body(base.folder, model, report)
    check_report(base.folder, report)
    check_finite(base.folder, model.state_dict())
    if base.tokens:
        from tunesmith.model import vocabulary, words
        from tunesmith.model.tokenizer import Tokenizer

        with quiet():
            before = Tokenizer.load(base.folder)
            vocabulary.grow(model, before, words.extended(before, base.tokens))
    if base.bits is not None:
        model = quantise.quantised(model, base.bits, dtype=wanted, device=device)
    return model.to(device).eval()


def factory(folder: Path) -> Any:
    """The class of transformers that builds the model of a folder."""
    try:
        from transformers import AutoModel, AutoModelForCausalLM
    except ImportError as error:
        raise missing("transformers", "train") from error
    quantise.settle()  # Whatever is put on the model, peft is imported after this.
    return AutoModel if is_encoder(folder) else AutoModelForCausalLM


def outline(base: Base, dtype: "torch.dtype | None" = None) -> Any:
    """The model's shapes without its numbers: quick, and takes no memory."""
    check_architecture(base.folder)
    built = factory(base.folder)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base.folder, local_files_only=True)
    with torch.device("meta"):
        return built.from_config(config, dtype=dtype or torch.float32)


def context(base: Base) -> int | None:
    """The longest sequence that a model was made for, before it is loaded."""
    return layout.context(outline(base))


def is_encoder(folder: Path) -> bool:
    """Whether a folder's config.json says that its model reads both ways and writes nothing.

    Such are the kinds that transformers can train on masked words, unless the architecture named
    is the causal variant that some of them have.
    """
    from transformers.models.auto import modeling_auto as known

    config = json.loads((folder / "config.json").read_text("utf-8"))
    kind, named = config.get("model_type"), set(config.get("architectures") or [])
    tables = (
        known.MODEL_MAPPING_NAMES,
        known.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        known.MODEL_FOR_PRETRAINING_MAPPING_NAMES,
        known.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )
    if kind not in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES or two_towers(kind):
        return False
    return not config.get("is_decoder") and named <= set().union(*(entry(t, kind) for t in tables))


def entry(table: Mapping[str, Any], kind: str) -> set[str]:
    """The names that one of transformers' tables has for a kind of model: none, one or several."""
    found = table.get(kind, ())
    return {found} if isinstance(found, str) else set(found)


def two_towers(kind: str) -> bool:
    """Whether a kind of model reads with one stack of blocks and writes with another."""
    from transformers import CONFIG_MAPPING

    return bool(getattr(CONFIG_MAPPING[kind](), "is_encoder_decoder", False))


def check_architecture(folder: Path) -> None:
    """Refuse what is neither an encoder nor a causal language model of transformers' own."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    kind, named = config.get("model_type"), config.get("architectures") or []
    known = entry(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, kind)
    if not is_encoder(folder) and (not known or not set(named) <= known):
        raise IntegrityError(
            f"{path}: {(named or [kind])[0]!r} is not a causal language model and not an "
            "encoder of transformers. Use one that is."
        )
    if config.get("quantization_config"):
        raise IntegrityError(
            f"{path}: the weights are quantised. Name the model they were made from."
        )


def settle_body(folder: Path, model: Any, report: Any) -> None:
    """Take out of a loading report what an encoder's file may hold or lack beside its body.

    It may hold tensors that are not under the body's name where others are (the head it was
    trained with), and copies of what the model computes itself (a table of positions). It may lack
    what no hidden state depends on (a pooler), which is then zero: never what chance gave it.
    """
    prefix = f"{model.base_model_prefix}."
    stored = [name for shard in shards(folder) for name in check_safetensors(folder / shard)]
    computed = {name for name, _ in model.named_buffers()}
    beside = {n for n in stored if not n.startswith(prefix)} if has(stored, prefix) else set()
    report["unexpected_keys"] = set(report["unexpected_keys"]) - beside - computed
    named = dict(model.named_parameters())
    absent = {name: named[name] for name in sorted(report["missing_keys"]) if name in named}
    unused = layout.idle(model, absent) if absent else []
    for name in unused:
        named[name].data.zero_()
    report["missing_keys"] = set(report["missing_keys"]) - set(unused)


def has(names: Collection[str], prefix: str) -> bool:
    """Whether any name begins so."""
    return any(name.startswith(prefix) for name in names)


def check_report(folder: Path, report: Any) -> None:
    """Refuse weights that do not fill the model, or that it has no place for."""
    for what, names in (
        ("is missing", report["missing_keys"]),
        ("has no place in the model", report["unexpected_keys"]),
        ("has another shape than the model wants", [m[0] for m in report["mismatched_keys"]]),
    ):
        named = sorted(str(name) for name in names)
        if named:
            raise IntegrityError(
                f"{folder}: tensor {named[0]} {what} ({len(named)} such). config.json and the "
                "weights do not belong together: get both again."
            )


def check_finite(place: Path, tensors: Any) -> None:
    """Refuse NaN and infinity, by the tensor's name (S5)."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        values = tensor if tensor.element_size() > 1 else tensor.float()
        # NaN passes through both ends, so two numbers tell of all, without a copy in memory.
        low, high = values.aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise IntegrityError(
                f"{holder(place, name)}: tensor {name} holds NaN or infinity. The file is "
                "damaged: get it again, or use an earlier checkpoint."
            )


def holder(place: Path, name: str) -> Path:
    """The file of a folder that holds a tensor, or the folder where that is not certain."""
    if place.is_file():
        return place
    paths = [place / shard for shard in shards(place)]
    with_it = [path for path in paths if name in check_safetensors(path)]
    return with_it[0] if with_it else paths[0] if len(paths) == 1 else place


def read_tensors(path: Path, expected: Collection[str] | None = None) -> dict[str, "torch.Tensor"]:
    """The tensors of one file, its header checked (S3), its numbers finite (S5)."""
    from safetensors.torch import load_file

    if path.is_symlink() or not path.is_file():
        raise IntegrityError(f"{path}: is missing, or is not a plain file. Get it again.")
    check_safetensors(path, expected)
    tensors: dict[str, torch.Tensor] = load_file(path)
    check_finite(path, tensors)
    return tensors


def tensor_digest(tensor: "torch.Tensor") -> str:
    """sha256 of a tensor: type, shape and bytes; the same for a file's tensor and a live one."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
    return cache.bytes_digest(CODES[str(tensor.dtype)], tuple(tensor.shape), content)


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without progress bars and advice; what matters is raised by us."""
    from transformers.utils import logging as theirs

    logging: Any = theirs
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
