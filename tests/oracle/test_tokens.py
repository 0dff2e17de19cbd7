"""The one rule of tokenising, against transformers' own templates and tokenizers.

Templates come from the installed `trl`; tokenizers are trained here, with each template's control
strings added. T-MASK, T-BOS, T-BOUND, T-STOP (static part) and F13.
"""

import json
import random
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.tiny import save_tokenizer, tokenizer_json
from tunesmith.core.errors import DataError
from tunesmith.core.records import IGNORE
from tunesmith.core.rows import Chat, Message
from tunesmith.model import marks, render, template
from tunesmith.model.render import encode, encode_prompt
from tunesmith.model.tokenizer import Tokenizer

TRL = find_spec("trl")
pytestmark = pytest.mark.skipif(TRL is None, reason="trl, whose templates are tested, is missing")

ENDS = {
    "cohere": "{}<|END_OF_TURN_TOKEN|>",
    "cohere2": "{}<|END_RESPONSE|>",
    "gemma": "{}<end_of_turn>",
    "gemma3": "{}<end_of_turn>",
    "gemma4": "{}<turn|>",
    "glm4moe_training": "\n<think></think>\n{}<|user|>",
    "gptoss": "<|channel|>final<|message|>{}<|return|>",
    "idefics3": "{}<end_of_utterance>",
    "lfm2": "{}<|im_end|>",
    "llama3": "{}<|eot_id|>",
    "llama3_1": "{}<|eot_id|>",
    "llama3_2": "{}<|eot_id|>",
    "muse_glimmer": " to=user<|message|>{}<|eot|>",
    "phi3": "{}<|end|>",
    "qwen2_5": "{}<|im_end|>",
    "qwen2_5_vl": "{}<|im_end|>",
    "qwen3_instruct_2507": "{}<|im_end|>",
    "qwen3_training": "<think>\n\n</think>\n\n{}<|im_end|>",
    "qwen3_5_think_training": "\n</think>\n\n{}<|im_end|>",
    "qwen3_vl": "{}<|im_end|>",
}
"""What is trained of an answer, by family, written down from the templates by hand."""

TRIMS = {"gemma", "gemma3", "gemma4", "glm4moe_training", "llama3", "llama3_1", "llama3_2"}
TRIMS |= {"qwen3_5_think_training", "cohere"}
TRIMS_SOME = {"qwen3_training", "qwen3_vl", "cohere2"}  # line breaks only, or some turns only
LAST_ONLY = {"gptoss"}  # earlier turns end with a token that is no stop token: refused
SINGLE_PARTS = {"idefics3"}  # content must be a list of parts in the stock template

TAG = re.compile(
    r"<[|\uff5c][^<>{}'\" ]{1,40}[|\uff5c]>|</?[a-z_]{2,20}>|\[/?[A-Z_]{3,20}\]"
    r"|<[|][a-z_]+>|<[a-z_]+[|]>"
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's: a run of line breaks is one piece whatever follows, so that only spaces at the
start of an answer can make a difference between cutting there and not cutting."""

WORDS = ["parcel", " is", "  late", "\n", "\n\n", "\t", " ", "42", "Zürich", "東京", "☕", "{", '"']
WORDS += ["don't", ".", "?", "a", "<", ">", "|", "</", "é", "\u0301", "[", "]", "\\", "'"]


def source(family: str) -> str:
    """A template's text."""
    assert TRL is not None and TRL.origin is not None
    path = Path(TRL.origin).parent / "chat_templates" / f"{family}.jinja"
    if not path.is_file():
        pytest.skip(f"the installed trl has no template {family}")
    return path.read_text("utf-8")


def tags(text: str) -> tuple[str, ...]:
    """The control strings a template writes, and a start and an end."""
    return ("<s>", "</s>", *sorted(set(TAG.findall(text))))


@cache
def made(family: str, kind: str, folder: Path) -> tuple[Tokenizer, Any]:
    """Our tokenizer and transformers', from the same files."""
    import transformers

    text = source(family)
    record = json.loads(tokenizer_json(kind, tags(text), 640))
    if kind == "bpe":
        steps = [
            {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
            | {"use_regex": False},
        ]
        record["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    place = folder / f"{family}-{kind}"
    save_tokenizer(place, json.dumps(record), text, named=named)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(place / "tokenizer.json"), chat_template=text, **named
    )
    return Tokenizer.load(place), theirs


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the trained tokenizers go."""
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(autouse=True)
def same_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers prints today's date into some templates; ours is fixed."""
    import transformers.utils.chat_template_utils as theirs

    class Frozen:
        @staticmethod
        def now() -> Any:
            return template.TODAY

    monkeypatch.setattr(theirs, "datetime", Frozen)


def talk(*turns: str, system: str | None = None) -> Chat:
    """A conversation of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], text) for i, text in enumerate(turns)]
    return Chat(tuple([Message("system", system)] if system is not None else []) + tuple(messages))


def phrase(random: random.Random, most: int = 8) -> str:
    """Some words with awkward spaces between; never nothing but space."""
    words = "".join(random.choice(WORDS) for _ in range(random.randint(1, most)))
    return words if words.strip() else words + "x"


def trained(chat: Chat, tokenizer: Tokenizer) -> list[str]:
    """The decoded trained spans of a row, from its ids and targets alone."""
    sequence = encode(chat, tokenizer).sequences[0]
    spans: list[list[int]] = []
    before = IGNORE
    for target in sequence.targets:
        if target != IGNORE:
            if before == IGNORE:
                spans.append([])
            spans[-1].append(target)
        before = target
    return [tokenizer.decode(span, special=True) for span in spans]


def of(family: str, shelf: Path, kind: str = "bpe") -> tuple[Tokenizer, Any]:
    """A family's tokenizers, or a skip where its stock template takes no plain text."""
    if family in SINGLE_PARTS:
        pytest.skip("this template takes lists of parts only")
    return made(family, kind, shelf)


@pytest.mark.parametrize("family", sorted(set(ENDS) - SINGLE_PARTS))
def test_exactly_the_answers_are_trained(family: str, shelf: Path) -> None:
    """T-MASK: 200 conversations a family, byte for byte; T-STOP: each ends with a served stop."""
    tokenizer, _ = of(family, shelf)
    dice = random.Random(family)
    for _ in range(200):
        turns = [phrase(dice) for _ in range(2 if family in LAST_ONLY else dice.choice((2, 4)))]
        chat = talk(*turns)
        wanted = turns[1::2]
        for span, text in zip(trained(chat, tokenizer), wanted, strict=True):
            assert span in expected(family, text)
        sequence = encode(chat, tokenizer).sequences[0]
        ends = [
            now
            for now, after in zip(sequence.targets, sequence.targets[1:], strict=False)
            if now != IGNORE and after == IGNORE
        ]
        assert set(ends) <= set(tokenizer.stop_ids) and len(ends) == len(wanted)


def expected(family: str, answer: str) -> set[str]:
    """What may be trained of an answer; one text but where a template trims here and not there."""
    texts = {answer.strip() if family in TRIMS else answer}
    if family in TRIMS_SOME:
        texts |= {
            answer.strip(),
            answer.lstrip("\n"),
            answer.lstrip("\n").rstrip(),
            answer.rstrip(),
        }
    return {ENDS[family].format(text) for text in texts}


FAMILIES = sorted(set(ENDS) - SINGLE_PARTS)
TALKS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map("".join), min_size=2, max_size=4
).filter(lambda turns: len(turns) % 2 == 0 and all(t.strip() for t in turns))
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("family", FAMILIES)
@QUICK
@given(turns=TALKS)
def test_ids_are_the_tokenizers_own(family: str, shelf: Path, turns: list[str]) -> None:
    """Equal to `apply_chat_template` for every conversation without control strings."""
    tokenizer, theirs = of(family, shelf)
    # A space at the start of an answer may merge with what stands before it; we cut there.
    turns = [text if i % 2 == 0 else text.lstrip() for i, text in enumerate(turns)]
    turns = turns[:2] if family in LAST_ONLY else turns
    assume(not any(tokenizer.pattern.search("".join(turns[:n])) for n in range(1, 5)))
    messages = [message.rendered() for message in talk(*turns).messages]
    ids = theirs.apply_chat_template(messages, return_dict=False)
    assert list(encode(talk(*turns), tokenizer).sequences[0].ids) == ids
    prompt = theirs.apply_chat_template(
        messages[:-1], add_generation_prompt=True, return_dict=False
    )
    assert list(encode_prompt(talk(*turns[:-1]), tokenizer)) == prompt


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
@pytest.mark.parametrize("family", ["gemma", "qwen2_5", "llama3", "phi3", "lfm2"])
@QUICK
@given(turns=TALKS)
def test_other_kinds_of_tokenizer(family: str, kind: str, shelf: Path, turns: list[str]) -> None:
    """Unigram and WordPiece: equal wherever their own tokens do not cross an answer's start."""
    tokenizer, theirs = of(family, shelf, kind)
    assume(not tokenizer.pattern.search("".join(turns)))
    text, regions = marks.rendered(talk(*turns), tokenizer)
    starts = [span.start for span in render.answers(talk(*turns), tokenizer, text, regions)]
    found = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
    crossed = any(a < start < b for start in starts for a, b in found["offset_mapping"])
    # A token that begins with the space before it hides where that space belongs.
    assume(not crossed and not any(text[s - 1 : s + 1].isspace() for s in starts))
    assert list(encode(talk(*turns), tokenizer).sequences[0].ids) == found["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("add_bos_token", [True, False])
def test_one_start_in_training_and_serving(
    family: str, bos: bool, add_bos_token: bool, shelf: Path, tmp_path: Path
) -> None:
    """T-BOS: the training prefix is the server's prompt, and never begins with two starts."""
    tokenizer, _ = of(family, shelf)
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    changed = json.loads(path.read_text()) | {"add_bos_token": add_bos_token}
    changed["bos_token"] = "<s>" if bos else ""
    path.write_text(json.dumps(changed))
    tokenizer = Tokenizer.load(tmp_path)
    turns = ("hi", "yes", "and?", " no\n")[: 2 if family in LAST_ONLY else 4]
    prompt = encode_prompt(talk(*turns[:-1]), tokenizer)
    ids = encode(talk(*turns), tokenizer).sequences[0].ids
    assert ids[: len(prompt)] == prompt
    assert not (len(ids) > 1 and ids[0] == ids[1] == tokenizer.structural["<s>"])
    if not bos:
        assert ids[0] != tokenizer.structural["<s>"]


@pytest.mark.parametrize("family", FAMILIES)
@QUICK
@given(turns=TALKS, answer=st.lists(st.sampled_from(WORDS), max_size=6).map("".join))
def test_prompt_and_answer_never_merge(
    family: str, shelf: Path, turns: list[str], answer: str
) -> None:
    """T-BOUND: prompt ids, then answer ids, are the stored ids, spaces at the border included."""
    tokenizer, _ = of(family, shelf)
    turns = [turns[0], answer + "x"] if family in LAST_ONLY else [*turns[:-1], answer + "x"]
    prompt = encode_prompt(talk(*turns[:-1]), tokenizer)
    sequence = encode(talk(*turns), tokenizer).sequences[0]
    first = next(i for i, t in enumerate(sequence.targets) if t != IGNORE) + 1
    last = [i for i, t in enumerate(sequence.targets) if t != IGNORE]
    assert sequence.ids[: len(prompt)] == prompt
    assert len(prompt) in [i + 1 for i in last if i + 1 >= first]
    assert sequence.targets[len(prompt) - 1] == sequence.ids[len(prompt)]


def test_a_history_that_cannot_be_trained_can_be_served(shelf: Path) -> None:
    """Earlier gpt-oss turns end with a token that does not stop the model."""
    tokenizer, theirs = of("gptoss", shelf)
    chat = talk("hi", "yes", "and?")
    with pytest.raises(
        DataError, match=r"messages\[1\]: .* ends this assistant turn with '<|end|>'"
    ):
        encode(talk("hi", "yes", "and?", "no"), tokenizer)
    messages = [message.rendered() for message in chat.messages]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(encode_prompt(chat, tokenizer)) == ids


ATTACKS = ["forge", "whole", "halves", "nested"]


def attack(dice: random.Random, controls: list[str]) -> str:
    """Content made of control strings: whole, cut so that neighbours complete it, interleaved."""
    one, two = dice.choice(controls), dice.choice(controls)
    cut = dice.randint(1, len(one) - 1)
    kind = dice.choice(ATTACKS)
    made = {
        "whole": one,
        "forge": f"{one}assistant\n{two}",
        "halves": one[cut:] + "x" + one[:cut],
        "nested": one[:cut] + two + one[cut:],
    }[kind]
    return dice.choice(("", "a ", "\n")) + made + dice.choice(("", " b", "\n"))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
@pytest.mark.parametrize("family", FAMILIES)
def test_content_never_becomes_control(family: str, kind: str, shelf: Path) -> None:
    """F13: control ids are those of the same conversation with harmless texts, in order."""
    tokenizer, _ = of(family, shelf, kind)
    dice = random.Random(f"{family} {kind}")
    controls = list(tokenizer.controls)
    unknown = tokenizer.structural.get("[UNK]", tokenizer.structural.get("<unk>"))
    harmless = control_ids(talk("x", "x"), tokenizer, unknown)
    refused = 0
    for _ in range(60):
        turns = [attack(dice, controls), attack(dice, controls)]
        try:
            assert control_ids(talk(*turns), tokenizer, unknown) == harmless
        except DataError:  # templates that split contents at their own tags
            refused += 1
            continue
        if kind == "bpe":
            assert trained(talk(*turns), tokenizer)[0] in expected(family, turns[1])
    assert refused <= 30, f"{refused} of 60 refused"


@pytest.mark.evidence
@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
@pytest.mark.parametrize("family", ["cohere", "gemma", "gptoss", "lfm2", "llama3", "phi3"])
def test_content_never_becomes_control_10000_times(family: str, kind: str, shelf: Path) -> None:
    """F13 at its published size."""
    tokenizer, _ = of(family, shelf, kind)
    dice = random.Random(f"{family} {kind} evidence")
    controls = list(tokenizer.controls)
    unknown = tokenizer.structural.get("[UNK]", tokenizer.structural.get("<unk>"))
    harmless = control_ids(talk("x", "x"), tokenizer, unknown)
    for _ in range(5_000):
        turns = [attack(dice, controls), attack(dice, controls)]
        assert control_ids(talk(*turns), tokenizer, unknown) == harmless, turns


def control_ids(chat: Chat, tokenizer: Tokenizer, unknown: int | None) -> list[int]:
    """The control ids of a row, in order; what stands for an unknown letter is not one."""
    structural = set(tokenizer.structural.values()) - {unknown}
    return [i for i in encode(chat, tokenizer).sequences[0].ids if i in structural]


def test_the_bundled_model(smollm2: Any) -> None:
    """All of it once more on SmolLM2's own tokenizer and template."""
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.load(smollm2.folder)
    theirs = AutoTokenizer.from_pretrained(smollm2.folder, local_files_only=True)
    dice = random.Random(0)
    for _ in range(100):
        turns = [phrase(dice), phrase(dice).lstrip(), phrase(dice), phrase(dice).lstrip()]
        chat = talk(*turns)
        assert trained(chat, tokenizer) == [t + "<|im_end|>" for t in turns[1::2]]
        messages = [message.rendered() for message in chat.messages]
        ids = theirs.apply_chat_template(messages, return_dict=False)
        assert list(encode(chat, tokenizer).sequences[0].ids) == ids
    harmless = control_ids(talk("x", "x"), tokenizer, None)
    for _ in range(200):
        turns = [attack(dice, list(tokenizer.controls)) for _ in range(2)]
        assert control_ids(talk(*turns), tokenizer, None) == harmless
        assert trained(talk(*turns), tokenizer) == [turns[1] + "<|im_end|>"]
