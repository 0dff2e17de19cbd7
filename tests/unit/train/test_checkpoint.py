"""What goes into a checkpoint comes out: tensors, JSON, optimiser and random state, to the bit."""

import random
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load as library_load

from tunesmith.core.errors import IntegrityError
from tunesmith.core.log import Log
from tunesmith.train import checkpoint, randomness
from tunesmith.train.checkpoint import Snapshot
from tunesmith.train.state import flatten_optimizer, restore_optimizer, split


def saved(folder: Path, **parts: Any) -> Snapshot:
    """A snapshot of these parts, as it comes back from the disk."""
    return checkpoint.load(
        checkpoint.save(folder, Snapshot(**{"step": 1, "cursor": 1, "model": {}} | parts))
    )


@pytest.mark.parametrize("dtype", checkpoint.dtype_names(), ids=str)
@pytest.mark.parametrize("shape", [(3, 5), (), (0, 4), (7,)], ids=str)
def test_every_type_and_shape_is_as_the_library_reads_it(
    tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = (torch.randn(3, 5, 7)[..., 0].flatten()[: torch.Size(shape).numel()] * 9).to(dtype)
    model = {"x": tensor.reshape(shape), "odd": torch.tensor([True]), "é": torch.ones(2).double()}
    path = checkpoint.save(tmp_path, Snapshot(step=1, cursor=1, model=model))
    found = library_load((path / "model.safetensors").read_bytes())
    assert found.keys() == model.keys()
    for name, wanted in model.items():
        for got in (found[name], checkpoint.load(path).model[name]):
            assert got.dtype == wanted.dtype and got.shape == wanted.shape
            assert torch.equal(got, wanted)


def test_views_are_saved_as_what_they_show(tmp_path: Path) -> None:
    whole = torch.randn(4, 6, requires_grad=True)
    model = {"turned": whole.t(), "part": whole[1:3, ::2], "wide": whole[0].expand(3, 6)}
    found = saved(tmp_path, model=model).model
    assert all(torch.equal(found[name], model[name]) for name in model)


def test_numbers_keep_every_bit_and_text_every_character(tmp_path: Path) -> None:
    progress = {"a": [0.1 + 0.2, 1e-320, -0.0, 2**60], "b": 'é\x00\u2028"', "c": None, "d": True}
    stream = {"kl": 1 / 3, "rollouts": [{"ids": torch.arange(3), "deep": {"x": []}}], "t": (1, 2)}
    found = saved(tmp_path, progress=progress, stream=stream)
    assert repr(found.progress) == repr(progress)
    assert torch.equal(found.stream["rollouts"][0].pop("ids"), torch.arange(3))
    assert found.stream == {"kl": 1 / 3, "rollouts": [{"deep": {"x": []}}], "t": [1, 2]}


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, {"$tensor": "x"}, {"a": {2}}, b"x"])
def test_what_json_would_change_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="stream"):
        split(value, "stream", {})


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, Snapshot(step=12, cursor=1, model={"x": torch.ones(1)}))
    assert path.name == "step-00000012"
    assert {p.name for p in path.iterdir()} == {"MANIFEST.json", "model.safetensors", "state.json"}


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.8, 0.9)),
        lambda p: torch.optim.AdamW(
            [{"params": p[:1], "lr": 0.1}, {"params": p[1:]}], amsgrad=True
        ),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.Adafactor(p, lr=0.1),
    ],
    ids=["adamw", "two groups", "momentum", "no state", "factored"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_optimiser_goes_on_as_if_never_stopped(
    tmp_path: Path, make: Any, dtype: torch.dtype
) -> None:
    def begin() -> tuple[dict[str, Any], Any]:
        torch.manual_seed(0)
        named = {n: torch.nn.Parameter(torch.randn(4, 3).to(dtype)) for n in ("a.x", "b.y", "c")}
        return named, make(list(named.values()))

    def step(named: dict[str, Any], optimizer: Any, number: int) -> None:
        for name, parameter in named.items():
            if name != "c" or number == 5:  # one that has no state yet when we stop
                torch.manual_seed(number)
                parameter.grad = torch.randn(4, 3).to(dtype)
        optimizer.step()
        optimizer.zero_grad()

    named, optimizer = begin()
    for number in range(3):
        step(named, optimizer, number)
    optimizer.param_groups[0]["lr"] = 0.05
    for entries in optimizer.state.values():  # kept in fp32 by hand: must not be cast down
        entries.update({k: v.float() for k, v in entries.items() if k == "exp_avg"})
    tensors, state = flatten_optimizer(optimizer, named)
    model = {name: p.detach().clone() for name, p in named.items()}
    found = saved(tmp_path, model=model, optimizer=tensors, optimizer_state=state)

    again, fresh = begin()
    for name, parameter in again.items():
        parameter.data.copy_(found.model[name])
    restore_optimizer(fresh, again, found.optimizer, found.optimizer_state)
    for name in named:
        for key, value in optimizer.state.get(named[name], {}).items():
            got = fresh.state[again[name]][key]
            assert not isinstance(value, torch.Tensor) or got.dtype == value.dtype
    for entries in (*optimizer.state.values(), *fresh.state.values()):
        entries.update({k: v.to(dtype) for k, v in entries.items() if k == "exp_avg"})
    for number in range(3, 7):
        step(named, optimizer, number)
        step(again, fresh, number)
    assert all(torch.equal(named[name], again[name]) for name in named)


def test_an_optimiser_over_other_parameters_is_refused() -> None:
    named = {"a": torch.nn.Parameter(torch.ones(1)), "b": torch.nn.Parameter(torch.ones(1))}
    state = flatten_optimizer(torch.optim.SGD([named["a"]], lr=1), named)
    with pytest.raises(IntegrityError, match="over other parameters"):
        restore_optimizer(torch.optim.SGD([named["b"]], lr=1), named, *state)


def test_what_the_optimiser_held_before_does_not_stay() -> None:
    named = {"a": torch.nn.Parameter(torch.ones(1))}
    optimizer = torch.optim.AdamW(named.values(), lr=1)
    untouched = flatten_optimizer(optimizer, named)
    named["a"].grad = torch.ones(1)
    optimizer.step()
    restore_optimizer(optimizer, named, *untouched)
    assert flatten_optimizer(optimizer, named)[0] == {}


def test_random_numbers_go_on_where_they_stopped(tmp_path: Path) -> None:
    def draw() -> tuple[Any, ...]:
        spare = numpy.random.randn(3).tolist()  # an odd number: numpy keeps one in hand
        return random.gauss(0, 1), random.random(), spare, torch.randn(3).tolist()

    draw()
    captured = saved(tmp_path, random=randomness.capture()).random
    wanted = draw()
    draw()
    randomness.restore(captured)
    assert draw() == wanted


def test_capturing_the_random_state_changes_nothing() -> None:
    torch.manual_seed(1)
    first = torch.randn(2)
    torch.manual_seed(1)
    randomness.capture()
    assert torch.equal(torch.randn(2), first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_random_numbers_and_optimiser_on_an_accelerator(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.grad = torch.randn(3, device="cuda")
    optimizer.step()
    tensors, state = flatten_optimizer(optimizer, {"a": parameter})
    found = saved(
        tmp_path,
        model={"a": parameter},
        optimizer=tensors,
        optimizer_state=state,
        random=randomness.capture(),
    )
    wanted = torch.randn(3, device="cuda")
    randomness.restore(found.random)
    assert torch.equal(torch.randn(3, device="cuda"), wanted)
    other = torch.nn.Parameter(found.model["a"].cuda())
    fresh = torch.optim.AdamW([other], lr=0.1)
    restore_optimizer(fresh, {"a": other}, found.optimizer, found.optimizer_state)
    for p, o in ((parameter, optimizer), (other, fresh)):
        p.grad = torch.full((3,), 0.3, device="cuda")
        o.step()
    assert torch.equal(parameter, other)


def test_a_lora_sized_checkpoint_is_saved_in_well_under_two_seconds(tmp_path: Path) -> None:
    """60 MB: weights 20, Adam 40. About 0.3 s on a desk; the bound leaves room for a busy one."""
    weights = {f"layer.{i}": torch.randn(512, 512) for i in range(20)}
    moments = {f"{k}/{name}": torch.randn(512, 512) for name in weights for k in ("m", "v")}
    snapshot = Snapshot(step=1, cursor=1, model=weights, optimizer=moments)
    checkpoint.save(tmp_path, snapshot)
    began, snapshot.step = time.monotonic(), 2
    checkpoint.save(tmp_path, snapshot)
    spent = time.monotonic() - began
    print(f"{spent:.2f} s")
    assert spent < 10


def test_a_save_is_recorded_with_its_times(tmp_path: Path) -> None:
    from tunesmith.core.folders import RunFolder

    run = RunFolder(tmp_path / "run")
    run.create()
    checkpoint.save(run.path / "c", Snapshot(1, 1, {"x": torch.ones(1)}), log=Log(run, quiet=True))
    event = (run.path / "events.jsonl").read_text()
    assert '"kind": "checkpoint"' in event and '"verify_seconds"' in event


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nothing here") is None
    assert checkpoint.newest(tmp_path) is None
