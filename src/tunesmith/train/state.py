"""Live state as JSON and named tensors, and back to the bit: what a checkpoint holds of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import IntegrityError
from tunesmith.core.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def split(value: Any, name: str, tensors: dict[str, "torch.Tensor"]) -> Any:
    """`value` as JSON; its tensors go into `tensors` and leave their name behind."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value) or "$tensor" in value:
            raise TypeError(f"{name}: the keys of a state are texts, and none is '$tensor'")
        return {key: split(v, f"{name}/{key}", tensors) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [split(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a checkpoint holds JSON values and tensors, no {type(value)}")


def join(value: Any, tensors: Mapping[str, "torch.Tensor"]) -> Any:
    """The inverse of `split`; a tuple comes back as a list."""
    if isinstance(value, Mapping):
        if "$tensor" in value:
            return tensors[value["$tensor"]]
        return {key: join(v, tensors) for key, v in value.items()}
    return [join(v, tensors) for v in value] if isinstance(value, list) else value


def flatten_optimizer(
    optimizer: "torch.optim.Optimizer", parameters_by_name: Mapping[str, "torch.Tensor"]
) -> tuple[dict[str, "torch.Tensor"], Any]:
    """An optimiser's state as tensors and JSON, by the names of its parameters."""
    names = {id(parameter): name for name, parameter in parameters_by_name.items()}
    groups = [
        {
            **{key: value for key, value in group.items() if key != "params"},
            "parameters": [names[id(parameter)] for parameter in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    state = {names[id(p)]: dict(entries) for p, entries in optimizer.state.items()}
    tensors: dict[str, torch.Tensor] = {}
    return tensors, split({"groups": groups, "state": state}, "optimizer", tensors)


def restore_optimizer(
    optimizer: "torch.optim.Optimizer",
    parameters_by_name: Mapping[str, "torch.Tensor"],
    tensors: Mapping[str, "torch.Tensor"],
    state: Any,
) -> None:
    """Put back what `flatten_optimizer` gave; refuses an optimiser over other parameters.

    Not `load_state_dict`: that casts the state to the type of the parameter, and loses bits.
    """
    saved = join(state, tensors)
    names = {id(parameter): name for name, parameter in parameters_by_name.items()}
    live = {names[id(p)] for group in optimizer.param_groups for p in group["params"]}
    if {name for group in saved["groups"] for name in group["parameters"]} != live:
        raise IntegrityError(
            "the checkpoint's optimiser is over other parameters than this run's; use the run "
            "file it was made with, or start over: `tunesmith train RUN.yaml --restart`"
        )
    optimizer.state.clear()
    holders = {name: was for was in saved["groups"] for name in was["parameters"]}
    for group in optimizer.param_groups:
        # Groups may have been cut otherwise: where the multiples of the learning rate changed.
        was = holders[names[id(group["params"][0])]]
        for key in was.keys() - {"parameters"}:
            before = group.get(key)
            group[key] = tuple(was[key]) if isinstance(before, tuple) else was[key]
        for parameter in group["params"]:
            entries = saved["state"].get(names[id(parameter)], {}).items()
            if entries:
                optimizer.state[parameter] = {k: placed(k, v, parameter, group) for k, v in entries}


def placed(key: str, value: Any, parameter: "torch.Tensor", group: Mapping[str, Any]) -> Any:
    """A piece of state where torch's optimisers expect it: step counts stay on the CPU."""
    if not isinstance(value, torch.Tensor):
        return value
    here = key != "step" or group.get("capturable") or group.get("fused")
    return value.to(parameter.device if here else "cpu", copy=True)
