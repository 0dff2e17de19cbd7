"""A document out of a file of plain text (.txt, .md): the whole file, to the byte."""

from collections.abc import Iterator

from tunesmith.core import textfile
from tunesmith.core.textfile import TextFile, lines


def document(table: TextFile) -> Iterator[tuple[int, dict[str, str]]]:
    """One record, `{"text": ...}`: a file is one document, however many lines it has.

    Empty lines divide the paragraphs of a text and not texts from each other, so nothing inside a
    file could be trusted to end a document. Many documents are a folder of files, or a .jsonl
    with one `text` a line. A file of nothing but white space has no document.
    """
    parts, size = [], 0
    for number, text in lines(table):
        parts.append(text)
        size += len(text)
        if size > textfile.LIMIT:
            raise table.fault(
                number,
                f"the document is longer than {textfile.LIMIT // 2**20} MiB; divide it into "
                "several files",
            )
    whole = "".join(parts)
    if whole.strip():
        yield 1, {"text": whole}
