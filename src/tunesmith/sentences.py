"""What is wrong with settings, a sentence each: where, what, and what was probably meant."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tunesmith.core.parts import Spec
from tunesmith.fields import Spot, declared, locate, members, settings, specs
from tunesmith.yaml_marks import Marked, Place

# Names of axolotl, LLaMA-Factory, TRL and torchtune. They feed the sentence, never the schema.
ELSEWHERE = {
    "base_model": "model",
    "model_name_or_path": "model",
    "model_name": "model",
    "datasets": "data.source",
    "dataset": "data.source",
    "dataset_path": "data.source",
    "train_file": "data.source",
    "interleave_probs": "data.source.weight",
    "mix_strategy": "data.mix.until",
    "stopping_strategy": "data.mix.until",
    "val_set_size": "data.split.valid",
    "val_size": "data.split.valid",
    "test_size": "data.split.test",
    "learning_rate": "train.lr",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "max_steps": "train.steps",
    "lora_r": "train.method.rank",
    "lora_rank": "train.method.rank",
    "r": "train.method.rank",
    "lora_alpha": "train.method.alpha",
    "lora_target": "train.method.targets",
    "lora_target_modules": "train.method.targets",
    "target_modules": "train.method.targets",
    "lora_dropout": "train.method.dropout",
    "use_dora": "train.method.dora",
    "adapter": "train.method",
    "finetuning_type": "train.method",
    "stage": "train.objective",
    "batch_size": "train.batch",
    "train_batch_size": "train.batch",
    "per_device_train_batch_size": "train.batch",
    "micro_batch_size": "train.micro_batch",
    "gradient_accumulation_steps": "train.batch",
    "cutoff_len": "train.length",
    "sequence_len": "train.length",
    "max_seq_length": "train.length",
    "max_seq_len": "train.length",
    "max_length": "train.length",
    "lr_scheduler": "train.schedule",
    "lr_scheduler_type": "train.schedule",
    "warmup_ratio": "train.warmup",
    "warmup_steps": "train.warmup",
    "weight_decay": "train.decay",
    "max_grad_norm": "train.clip",
    "save_steps": "train.save_every",
    "eval_steps": "train.evaluate_every",
    "save_total_limit": "train.keep",
    "early_stopping_patience": "train.patience",
    "report_to": "train.sinks",
    "random_seed": "seed",
    "data_seed": "seed",
    "max_new_tokens": "evaluate.sampling.max_tokens",
    "output_dir": "name",
    "run_name": "name",
}
# These mean a row count a step, which we keep whole however memory cuts it.
EXPLAINED = {
    "gradient_accumulation_steps": "rows in one optimiser step, accumulation included",
    "per_device_train_batch_size": "rows in one optimiser step, accumulation included",
    "warmup_steps": "a share of the steps",
}

SECRET = {"token", "secret", "password", "passwd", "apikey", "credential", "credentials", "auth"}
TOKENS_OF_TEXT = {"pad", "eos", "bos", "unk", "sep", "cls", "mask", "special", "stop", "end"}

SHORT = 12  # names; a longer list is shown only where nothing better is known

EXPECTED = {
    "string": "text (quote it)",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list: [a, b]",
    "tuple": "a list: [a, b]",
    "dict": "settings: {name: value}",
    "model": "settings: {name: value}",
    "none": "nothing (null)",
    "path": "a path",
    "finite": "a finite number",
}


def sentences(root: type[Spec], error: ValidationError, marked: Marked) -> list[str]:
    """One sentence for each thing that is wrong, in the order of the schema."""
    gathered: dict[str, list[tuple[ErrorDetails, Spot]]] = {}
    for details in error.errors(include_url=False):
        spot = locate(root, details["loc"], marked.value)
        gathered.setdefault(spot.words, []).append((details, spot))
    spoken = {p.split(": ")[0] for p in marked.problems}
    found = []
    for words, group in worth_saying(gathered).items():
        where = mark_of(group[0][0], group[0][1], marked)
        if where not in spoken:
            found.append(f"{where}: {words}{say(root, group)}")
    return found


def worth_saying(
    gathered: dict[str, list[tuple[ErrorDetails, Spot]]],
) -> dict[str, list[tuple[ErrorDetails, Spot]]]:
    """Where a value failed as `this or that`, the errors further inside say more: keep those."""
    return {
        words: group
        for words, group in gathered.items()
        if not any(other.startswith((f"{words}.", f"{words}[")) for other in gathered)
    }


def mark_of(details: ErrorDetails, spot: Spot, marked: Marked) -> str:
    """The mark of the offending key or value; of the nearest thing around it that was written."""
    places: list[Place] = [spot.place[:end] for end in range(len(spot.place), -1, -1)]
    if details["type"] == "extra_forbidden":
        return marked.keys[spot.place]
    if details["type"] == "union_tag_invalid" and (*spot.place, "kind") in marked.marks:
        return marked.marks[(*spot.place, "kind")]
    return next(marked.marks[place] for place in places if place in marked.marks)


def say(root: type[Spec], group: list[tuple[ErrorDetails, Spot]]) -> str:
    """What follows the path: the problem, and what to write instead."""
    details, spot = group[0]
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(root, str(details["loc"][-1]), spot)
    if kind == "missing":
        field = declared(spot.parent).get(str(details["loc"][-1]))
        return f" is missing. {field.description if field else ''}".rstrip()
    if kind == "union_tag_invalid":
        known = sorted(k for s in specs(spot.annotation) for k in members(s))
        word = str(context["tag"])
        return f": there is no '{word}'{meant(word, known)} known: {', '.join(known)}"
    if kind == "union_tag_not_found":
        known = sorted(k for s in specs(spot.annotation) for k in members(s))
        return f": say which one with `kind`; known: {', '.join(known)}"
    if kind == "value_error":
        return f": {context['error']}"
    return f": {expected(group)}"


def expected(group: Iterable[tuple[ErrorDetails, Spot]]) -> str:
    """`expected a number or none; this is 'fast'`, over the members of a union."""
    wishes: dict[str, None] = {}
    given: Any = None
    for details, _ in group:
        given = details["input"]
        wishes[wish(details, given)] = None
    if EXPECTED["float"] in wishes:
        wishes.pop(EXPECTED["int"], None)
    return f"expected {' or '.join(wishes)}; this is {shown(given)}"


def wish(details: ErrorDetails, given: Any) -> str:
    """What one member of the schema would have taken."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        near = difflib.get_close_matches(str(given), known, 1)
        choices = str(context["expected"]).replace("'", "")
        return choices + (f" (did you mean {near[0]}?)" if near else "")
    if kind == "int_from_float":
        return EXPECTED["int"]
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind == "too_long" or kind == "too_short":
        return f"{context.get('max_length', context.get('min_length'))} items"
    for bound, words in (
        ("gt", "more than"),
        ("ge", "at least"),
        ("lt", "less than"),
        ("le", "at most"),
    ):
        if bound in context:
            return f"a number {words} {context[bound]:g}"
    return EXPECTED.get(kind.split("_")[0], details["msg"].lower())


def unknown(root: type[Spec], key: str, spot: Spot) -> str:
    """A key that is not in the schema: a secret, another tool's name, or a slip of the pen."""
    if secret(key):
        return ": this looks like a secret; put it in an environment variable, never in a run file"
    own = [name for name in declared(spot.parent) if name != "kind"]
    hint = suggestion(root, key, own, spot.words)
    if hint and len(own) > SHORT:
        return f": no such setting; {hint.removesuffix(';')}"
    owner = spot.words.rpartition(".")[0].rpartition(".")[2] or "a run"
    return f": no such setting; {hint}{' ' * bool(hint)}{owner} has: {', '.join(own) or 'none'}"


def suggestion(root: type[Spec], key: str, own: list[str], here: str) -> str:
    """Another tool's name first, then a near name here, then one that is near elsewhere: in another
    section or tool."""
    paths = {path_of(setting.path, root): None for setting in settings(root)}
    if key in ELSEWHERE and ELSEWHERE[key] in paths and key not in own:
        explained = f" ({EXPLAINED[key]})" if key in EXPLAINED else ""
        return f"it is called {ELSEWHERE[key]} here{explained};"
    near = difflib.get_close_matches(key, own, 1)
    if near:
        return f"did you mean '{near[0]}'?"
    section = here.partition(".")[0]
    # A part that lacks what its neighbour has is no slip of the pen: its list says enough.
    others = [p for p in reversed(paths) if section not in paths or not p.startswith(section)]
    names = {path.rpartition(".")[2]: path for path in others}
    names |= {name: path for name, path in ELSEWHERE.items() if path in paths and name not in names}
    near = difflib.get_close_matches(key, names, 1, cutoff=0.8)
    return f"did you mean {names[near[0]]}?" if near else ""


def path_of(path: str, root: type[Spec]) -> str:
    """A setting's path as it is written: without the kinds of parts in it."""
    annotation: Any = root
    words = []
    for word in path.split("."):
        kinds = {k: p for s in specs(annotation) for k, p in members(s).items()}
        if word in kinds:
            annotation = kinds[word]
            continue
        annotation = declared(annotation)[word].annotation
        words.append(word)
    return ".".join(words)


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'lora'?`, or a semicolon."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ";"


def secret(key: str) -> bool:
    """Whether a key's words say that its value should not be written down."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key).lower())
    if set(words) & TOKENS_OF_TEXT:
        return False
    return (
        bool(SECRET & set(words))
        or {"api", "key"} <= set(words)
        or {"private", "key"} <= set(words)
    )


def shown(value: Any) -> str:
    """A value as a reader wrote it, cut where it is long."""
    text = (
        {None: "null", True: "true", False: "false"}.get(value)
        if isinstance(value, bool | None)
        else repr(value)
    )
    assert text is not None
    return text if len(text) <= 60 else f"{text[:57]}..."


def switches(run: Spec, marked: Marked) -> Iterator[str]:
    """`true` where a number is expected: pydantic would read it as one."""
    for place, value in leaves(marked.value):
        if isinstance(value, bool) and not isinstance(reached(run, place), bool):
            words = ".".join(str(step) for step in place)
            known = choices(locate(type(run), place, marked.value).annotation)
            wanted = " or ".join([*known, EXPECTED["float"]])
            yield f"{marked.marks[place]}: {words}: expected {wanted}; this is {shown(value)}"


def meant_as_words(root: type[Spec], marked: Marked) -> list[str]:
    """The problems without those of words that YAML reads as a switch and a setting has as a
    choice: `off` is no riddle there."""
    clear = tuple(
        f"{marked.marks[place]}: '{value}' can be read in two ways"
        for place, value in leaves(marked.value)
        if isinstance(value, str)
        and place in marked.marks
        and value in choices(locate(root, place, marked.value).annotation)
    )
    return [problem for problem in marked.problems if not problem.startswith(clear)]


def choices(annotation: Any) -> list[str]:
    """The words among which a setting chooses; none where it takes any."""
    if get_origin(annotation) is Literal:
        return [word for word in get_args(annotation) if isinstance(word, str)]
    return [word for inner in get_args(annotation) for word in choices(inner)]


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every plain value below `value`, with its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*place, index))
    else:
        yield place, value


def reached(run: Any, place: Place) -> Any:
    """The value of a validated run at a place."""
    for step in place:
        run = run[step] if isinstance(run, list | tuple | dict) else getattr(run, str(step))  # type: ignore[index]
    return run
