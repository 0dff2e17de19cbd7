"""HTML as the text that a reader of the page would see."""

import html
import re

BREAKS = "address article aside blockquote br dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 \
header hr li main nav ol p pre section table td th tr ul"
INLINE = (
    "a abbr acronym b big body button center cite code col colgroup del dfn em figcaption font \
head html i iframe img input ins kbd label link mark meta option q s samp select small span strike \
strong sub sup tbody tfoot thead title tt u var video"
)
NAMES = f"{BREAKS} {INLINE}".split()
"""Elements that are known as such: `a < b`, `List<String>` and `<name>` are text."""

HIDDEN = re.compile(r"<(script|style)\b[^>]*>.*?</\1\s*>|<!--.*?-->", re.DOTALL | re.IGNORECASE)
BREAK = re.compile(rf"\s*</?(?:{'|'.join(BREAKS.split())})\b[^<>]*>\s*", re.IGNORECASE)
TAG = re.compile(rf"</?(?:{'|'.join(NAMES)})(?:\s[^<>]*)?/?>", re.IGNORECASE)
ENTITY = re.compile(
    rf"&(?!(?:lt|#60|#x3c);/?(?:{'|'.join(NAMES)})\b)(?:\w{{2,32}}|#\w{{1,8}});", re.I
)
"""Entities, but for a `<` that would begin a tag: somebody writes about tags there."""


def plain(text: str) -> str:
    """The text without its tags, comments, scripts and entities."""
    if "<" in text:
        text = TAG.sub("", BREAK.sub("\n", HIDDEN.sub("", text)))
    return ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text
