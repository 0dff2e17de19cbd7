"""A chat template: text from a stranger that turns messages into a prompt, rendered in a sandbox.

The environment is the one transformers gives templates (same filters, tags and globals), with
less reach: attributes of plain values only, and limits on size. Two renderings of one
conversation are equal on any day: `strftime_now` is fixed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tunesmith.core.errors import DataError, IntegrityError

LIMIT = 2**20
"""Characters: of a template, and of what it may render."""

TODAY = datetime(2024, 7, 26)
"""What templates that print the date get: a run must give the same tokens tomorrow. It is the
date Llama 3's template itself falls back to."""

PLAIN = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""For tokenizers that bring no template. Every answer ends with the end-of-sequence token."""

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that rows give a message's reasoning; templates read the first two."""


class Template:
    """One compiled template. `variables` are the special tokens it may name (`bos_token`, ...)."""

    def __init__(self, text: str, variables: Mapping[str, Any], *, name: str = "chat template"):
        if len(text) > LIMIT:
            raise IntegrityError(
                f"{name}: {len(text)} characters; at most {LIMIT} are accepted. "
                "Use a tokenizer with a smaller template."
            )
        self.text, self.name, self.variables = text, name, dict(variables)
        try:
            self._compiled = environment().from_string(text)
        except (jinja2.TemplateError, RecursionError) as error:
            raise IntegrityError(
                f"{name}: is not a template Jinja can read ({error}). "
                "Mend it, or use another tokenizer."
            ) from error

    @property
    def digest(self) -> str:
        """sha256 of the template's text."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        prompting: bool = False,
    ) -> str:
        """The conversation as text. `prompting` adds what invites the next answer."""
        values = {
            **self.variables,
            "messages": list(messages),
            "tools": list(tools) or None,
            "documents": None,
            "add_generation_prompt": prompting,
        }
        try:
            return bounded(self._compiled.generate(values), self.name)
        except SecurityError as error:
            raise IntegrityError(
                f"{self.name}: reaches for what a template may not touch ({error}). "
                "Do not use this tokenizer."
            ) from error
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise DataError(f"{self.name}: refuses the conversation: {error}") from error


def bounded(parts: Iterable[str], name: str) -> str:
    """The parts joined, unless they grow past `LIMIT`."""
    kept: list[str] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > LIMIT:
            raise DataError(
                f"{name}: renders more than {LIMIT} characters. Shorten the conversation, "
                "or look at the template."
            )
        kept.append(part)
    return "".join(kept)


def visible(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: no nulls, reasoning under the names they read."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in REASONING if name in kept), None)
    if reasoning is not None:
        kept = {"thinking": reasoning, **kept, "reasoning_content": reasoning}
    return kept


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, less: attributes of plain values only, no huge repetitions."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        known = (str, int, float, list, tuple, dict, Namespace, LoopContext, Macro)
        if not isinstance(obj, (*known, jinja2.Undefined)):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        raise SecurityError(f"{attribute} of a {type(obj).__name__}")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [len(v) if isinstance(v, (str, list, tuple)) else v for v in (left, right)]
        if operator != "%" and all(isinstance(size, (int, float)) for size in sizes):
            grown = sizes[0] * sizes[1]
            if abs(grown) > LIMIT or (operator == "**" and abs(sizes[1]) > 64):
                raise SecurityError(f"{operator} makes something of size {grown}")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% on text is not offered; use ~ or +")
        return super().call_binop(context, operator, left, right)


class Generation(Extension):
    """The tag `{% generation %}` that marks answers in newer templates; it renders its body."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja's own filter."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def refuse(message: str) -> None:
    """What a template calls when it will not render a conversation."""
    raise jinja2.TemplateError(message)


def strftime_now(form: str) -> str:
    """The date of every run."""
    return TODAY.strftime(form)


def environment() -> Sandbox:
    """The sandbox with what chat templates expect to find."""
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = to_json
    sandbox.globals["raise_exception"] = refuse
    sandbox.globals["strftime_now"] = strftime_now
    return sandbox
