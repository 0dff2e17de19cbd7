"""Several adapters on one base in memory: one of them, a weighted sum of some, or none in use.

The base is there once, whatever stands on it, and each adapter is bound to it by digest. Adapters
lie beside the weights and change none of them, so nothing is computed when another comes into use,
and with none in use the base answers as if it stood alone, to the bit. A decoder goes on under what
is in use: who serves several at a time takes each one's steps inside `using`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import IntegrityError, SettingsError
from tunesmith.core.late import late
from tunesmith.core.quote import quoted
from tunesmith.model import heads, layout, trained
from tunesmith.model.bases import Base
from tunesmith.model.binding import check_binding
from tunesmith.model.heads import Head
from tunesmith.model.load import load_model, quiet
from tunesmith.model.policy import Policy
from tunesmith.model.safe import check_settings
from tunesmith.model.tensors import read_tensors
from tunesmith.model.tokenizer import Tokenizer
from tunesmith.model.words import tokenizer_of

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


@dataclass(frozen=True)
class Held:
    """What stands under a name: weights of peft's adapters, and a head where there is one."""

    weights: Mapping[str, float]
    """Of which adapters, and how much of each; none where a head is all there is."""
    head: Head | None = None


class Adapters:
    """A base model and what was put on it. `policy` is the model as it is in use."""

    def __init__(self, base: Base, *, device: str = "cpu") -> None:
        self.base, self.device, self.tokenizer = base, device, tokenizer_of(base)
        self.model: Any = load_model(base, device=device).requires_grad_(False).eval()
        self.used: str | None = None
        self._held: dict[str, Held] = {}
        self._policies: dict[str | None, Policy] = {}
        self._undo = ExitStack()

    @property
    def names(self) -> tuple[str, ...]:
        """What can be used, in the order it came."""
        return tuple(self._held)

    @property
    def policy(self) -> Policy:
        """The model with what is in use; not to be kept when something else comes into use."""
        if self.used not in self._policies:
            head = None if self.used is None else self._held[self.used].head
            self._policies[self.used] = Policy(self.model, self.tokenizer, head=head)
        return self._policies[self.used]

    def add(self, name: str, folder: Path) -> None:
        """Put the adapter, the head or both of a trained or exported folder beside the others.

        What is in use stays in use. Raises IntegrityError for a folder that is damaged or belongs
        to another base, SettingsError for one that cannot stand beside what is here.
        """
        self._refuse_taken(name)
        check_binding(folder, self.base)
        self._check_reading(folder)
        head = heads.load(folder, layout.width(self.model))
        if (folder / trained.SETTINGS).is_file():
            with self._changed():
                self._inject(name, folder)
            self._held[name] = Held({name: 1.0}, head)
        elif trained.head_alone(folder):
            self._held[name] = Held({}, head)
        else:
            what = "no adapter, but a whole model"
            if trained.has_adapter(folder):
                what = "bottleneck adapters, which stand inside a base and not beside others"
            raise SettingsError(f"{folder}: holds {what}; use it alone: tunesmith.load")

    def head(self, name: str) -> Head | None:
        """The head under a name, where there is one."""
        return self._known(name).head

    def use(self, name: str | None) -> None:
        """Answer from here on with what stands under `name`; with None, as the base."""
        weights = {} if name is None else self._known(name).weights
        self._undo.close()
        self.used = name
        if not weights:
            if self._adapted:
                self._undo.enter_context(self.model.disable_adapter())
        elif weights == {name: 1.0}:
            self.model.set_adapter(name, inference_mode=True)
        else:
            self.model.base_model.set_adapter(list(weights), inference_mode=True)
            self._undo.enter_context(scaled(self.model, weights))

    @contextmanager
    def using(self, name: str | None) -> Iterator[Policy]:
        """`use` for a while; what was in use before is in use again after."""
        before = self.used
        self.use(name)
        try:
            yield self.policy
        finally:
            self.use(before)

    def combine(self, name: str, weights: Mapping[str, float]) -> None:
        """Let `name` mean the base plus the weighted sum of what each adapter adds to it.

        Exact, for LoRA of any ranks and targets, and no numbers are made: it takes no memory.
        """
        self._refuse_taken(name)
        for each in weights:
            self._refuse_unsummable(each)
        if not weights:
            raise SettingsError(f"{name}: name the adapters that it is the sum of")
        self._held[name] = Held(dict(weights))

    def remove(self, name: str) -> None:
        """Take what stands under `name` away, and its memory with it."""
        held = self._known(name)
        inside = [n for n, each in self._held.items() if n != name and name in each.weights]
        if inside:
            raise SettingsError(f"{name}: {inside[0]} is made of it; remove that first")
        if self.used == name:
            self.use(None)
        del self._held[name]
        if name in held.weights:
            with self._changed():
                self._eject(name)

    @property
    def _adapted(self) -> bool:
        return hasattr(self.model, "peft_config")

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """What the model is made of changes: what was in use is put back after."""
        before = self.used
        self._undo.close()
        self._policies.clear()
        try:
            yield
        finally:
            self.use(before)

    def _inject(self, name: str, folder: Path) -> None:
        from peft import PeftConfig, get_peft_model

        check_settings(folder / trained.SETTINGS)
        tensors = read_tensors(folder / trained.WEIGHTS)
        settings = PeftConfig.from_pretrained(str(folder))
        settings.inference_mode = True
        self._refuse_kind(folder, settings)
        with quiet(), torch.random.fork_rng(devices=[]):  # fresh ones are drawn, then written over
            if self._adapted:
                self.model.add_adapter(name, settings)
            else:
                self.model = get_peft_model(self.model, settings, adapter_name=name)
        try:
            fill(self.model, name, tensors, folder / trained.WEIGHTS)
        except IntegrityError:
            self._eject(name)
            raise
        self.model.to(self.device).requires_grad_(False).eval()

    def _eject(self, name: str) -> None:
        """Take an adapter's layers off; with the last one, all that peft put around the base."""
        others = [each for each in self.model.peft_config if each != name]
        if others:
            self.model.set_adapter(others[0], inference_mode=True)
            self.model.delete_adapter(name)
        else:
            self.model = self.model.unload()

    def _known(self, name: str) -> Held:
        if name not in self._held:
            known = ", ".join(self._held) or "none yet"
            raise SettingsError(f"{quoted(name)}: no adapter of this name; here are: {known}")
        return self._held[name]

    def _refuse_taken(self, name: str) -> None:
        if name in self._held:
            raise SettingsError(f"{quoted(name)}: there is one of this name; remove it first")
        if not name.isidentifier():
            raise SettingsError(
                f"{quoted(name)}: a name is made of letters, digits and _, and begins with a letter"
            )

    def _check_reading(self, folder: Path) -> None:
        """Refuse what was trained on other tokens than the base reads, such as new words."""
        own = Tokenizer.load(folder)
        if (own.digest, own.template_digest) != (
            self.tokenizer.digest,
            self.tokenizer.template_digest,
        ):
            raise IntegrityError(
                f"{folder}: was trained with another tokenizer or chat template than the base "
                "here has (new words change both); load it alone: tunesmith.load"
            )

    def _refuse_kind(self, folder: Path, settings: Any) -> None:
        """peft puts adapters of one kind on a model, and only layers that stand beside others."""
        carried = self.model.peft_config.values() if self._adapted else ()
        here = [str(each.peft_type.value) for each in carried]
        kind = str(settings.peft_type.value)
        if settings.is_prompt_learning:
            raise SettingsError(
                f"{folder}: is a {kind} adapter, which is read before the text and not put beside "
                "weights; load it alone: tunesmith.load"
            )
        if here and kind != here[0]:
            raise SettingsError(
                f"{folder}: is a {kind} adapter, and this base carries {here[0]} adapters; give it "
                "a base of its own: tunesmith.base"
            )

    def _refuse_unsummable(self, name: str) -> None:
        """Only plain LoRA adds a product of its own to each weight, which can be weighted."""
        why = self._unsummable(name, self._known(name))
        if why:
            raise SettingsError(
                f"{name}: {why}, and a weighted sum is exact for plain LoRA alone; use it by itself"
            )

    def _unsummable(self, name: str, held: Held) -> str:
        """Why a weighted sum of this is not one of weights; empty where it is."""
        if held.head is not None:
            return "has a head of its own"
        if name not in held.weights:
            return "is a weighted sum itself"
        settings = self.model.peft_config[name]
        if settings.peft_type.value != "LORA":
            return f"is a {settings.peft_type.value} adapter"
        return "trains magnitudes too (DoRA)" if settings.use_dora else ""


def fill(model: Any, name: str, tensors: "Mapping[str, torch.Tensor]", path: Path) -> None:
    """Write an adapter's numbers where peft made room; all of them, and no other, must fit."""
    from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict

    expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    wrong = sorted(
        {*expected} ^ {*tensors}
        | {each for each in {*expected} & {*tensors} if expected[each].shape != tensors[each].shape}
    )
    if wrong:
        raise IntegrityError(
            f"{path}: {wrong[0]} does not fit ({len(wrong)} such). Adapter and "
            "base do not belong together: name the base it was trained on."
        )
    set_peft_model_state_dict(model, dict(tensors), adapter_name=name)


@contextmanager
def scaled(model: Any, weights: Mapping[str, float]) -> Iterator[None]:
    """Each adapter's product times its weight, for a while; then what they were, to the bit."""
    from peft.tuners.lora.layer import LoraLayer

    layers = [m for m in model.modules() if isinstance(m, LoraLayer)]
    before = [(layer, dict(layer.scaling)) for layer in layers]
    try:
        for layer in layers:
            for name in weights.keys() & layer.scaling.keys():
                layer.scaling[name] *= weights[name]
        yield
    finally:
        for layer, scaling in before:
            layer.scaling.update(scaling)
