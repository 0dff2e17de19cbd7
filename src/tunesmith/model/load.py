"""A checked model folder to a model that runs nobody's code."""

import json
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import IntegrityError, missing
from tunesmith.core.late import late
from tunesmith.model import layout
from tunesmith.model.bases import Base
from tunesmith.model.safe import check_alone, check_safetensors
from tunesmith.model.tensors import check_finite, shards

if TYPE_CHECKING:
    import torch

    from tunesmith.model import quantise
else:
    torch = late("torch")
    quantise = late("tunesmith.model.quantise")  # Autograd functions need torch to be defined.


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
        known.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
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
