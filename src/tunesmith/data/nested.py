"""Texts inside values of JSON, however deep they stand."""

from collections.abc import Iterator


def texts_in(value: object) -> Iterator[str]:
    """Every text in a value, the keys of objects left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts_in(each)
