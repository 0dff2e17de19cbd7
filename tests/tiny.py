"""Tiny random models, whole: weights, a tokenizer trained on the spot, settings, in one folder."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 480

TEXT = (
    "The parcel for order 48213 is late again, and nobody answers the telephone.",
    "What is the capital of France? The capital of France is Paris, on the river Seine.",
    "system user assistant tool: Name three colours. Red, green and blue.",
    '{"intent": "refund", "product": null, "urgency": "high", "sentiment": "angry"}',
    "x = [1, 2, 3]; y = {'a': 10.5}\n\tprint(x, y)  # two  spaces, Zürich, 007, don't",
    "There was a restaurant near the station, family friendly, with a customer rating of 5.",
)

COMMON = "cat dog bird runs sleeps eats over under fast slow one two three a b c"

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
WIDE = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**WIDE, "tie_word_embeddings": True}),
    "llama-untied": ("LlamaConfig", {**WIDE, "tie_word_embeddings": False}),
    "qwen3": ("Qwen3Config", {**WIDE, "head_dim": 8, "tie_word_embeddings": True}),
    "gemma": ("GemmaConfig", {**WIDE, "head_dim": 8}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    "phi": ("PhiConfig", {**SMALL, "intermediate_size": 64}),
    "falcon": ("FalconConfig", {**SMALL, "tie_word_embeddings": True}),
}


SHALLOW = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {"hidden_size": 32, "intermediate_size": 64, **SHALLOW}),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 128},
    ),
    "modernbert": (
        "ModernBertConfig",
        {"hidden_size": 32, "intermediate_size": 64, **SHALLOW, "local_attention": 8},
    ),
}
AROUND = {
    "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]",
    "unk_token": "[UNK]",
}  # fmt: skip


def tiny_encoder(kind: str, folder: Path, *, masked: bool = False, **overrides: Any) -> Path:
    """Save a random encoder of a `kind` in `ENCODERS`; with `masked`, under its head for words."""
    import torch
    import transformers

    name, settings = ENCODERS[kind]
    ids = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1}
    ids["eos_token_id"] = 2
    config = getattr(transformers, name)(vocab_size=VOCABULARY, **ids, **{**settings, **overrides})
    factory: Any = transformers.AutoModelForMaskedLM if masked else transformers.AutoModel
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = factory.from_config(config)
        spread(model)
    model.save_pretrained(folder)
    return save_tokenizer(folder, encoder_tokenizer_json(), None, named=AROUND)


@cache
def encoder_tokenizer_json() -> str:
    """A small WordPiece tokenizer that writes [CLS] and [SEP] around texts, as BERT's does."""
    from tokenizers import Tokenizer, processors

    controls = tuple(text for text in AROUND.values() if text != "[UNK]")
    ordered = ("[PAD]", *(text for text in controls if text != "[PAD]"))
    tokenizer = Tokenizer.from_str(tokenizer_json("wordpiece", ordered))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")],
    )
    return str(tokenizer.to_str())


def tiny_model(
    kind: str, folder: Path, *, template: str | None = CHATML, seed: int = 0, **overrides: Any
) -> Path:
    """Save a random model of a `kind` in `KINDS` with its tokenizer; `folder` is returned.

    `overrides` go to the model's config. With `template=None` no chat template is saved.
    """
    import torch
    import transformers

    name, settings = KINDS[kind]
    ids = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    given = {"vocab_size": VOCABULARY, **ids, **settings, **overrides}
    config = getattr(transformers, name)(**given)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        spread(model)
    model.generation_config.eos_token_id = [2, 0]
    model.save_pretrained(folder)
    save_tokenizer(folder, tokenizer_json(), template)
    return folder


def spread(model: Any) -> None:
    """Weights large enough that every token matters: fresh ones give nearly even logits."""
    import torch

    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)


def save_tokenizer(
    folder: Path,
    record: str,
    template: str | None,
    *,
    named: dict[str, str] | None = None,
) -> Path:
    """Write tokenizer files around the JSON of a `tokenizers` object."""
    folder.mkdir(parents=True, exist_ok=True)
    named = named or {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        **named,
    }
    if template is not None:
        settings["chat_template"] = template
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    (folder / "tokenizer.json").write_text(record, "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


@cache
def tokenizer_json(
    kind: str = "bpe", controls: Sequence[str] = CONTROLS, size: int = VOCABULARY
) -> str:
    """A small tokenizer of a few sentences: `bpe`, `unigram` or `wordpiece`."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    added = [AddedToken(text, special=True, normalized=False) for text in controls]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=added,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.UnigramTrainer(
            vocab_size=size,
            special_tokens=[*added, AddedToken("<unk>", special=True, normalized=False)],
            unk_token="<unk>",
            show_progress=False,
        )
    else:
        # Not trained: the library's trainer gives other pieces in every process.
        names = [*controls, "[UNK]"]
        found = re.findall(r"\w+|[^\w\s]", " ".join([*TEXT, COMMON]))
        words = sorted({*found})
        letters = [chr(code) for code in range(33, 127)]
        pieces = dict.fromkeys([*names, *letters, *(f"##{each}" for each in letters), *words])
        vocabulary = {piece: number for number, piece in enumerate(list(pieces)[:size])}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.add_special_tokens([*added, AddedToken("[UNK]", special=True, normalized=False)])
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return str(tokenizer.to_str())
    tokenizer.train_from_iterator([*TEXT] * 4, trainer)
    return str(tokenizer.to_str())
