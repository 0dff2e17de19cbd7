"""Files past 400 lines and functions past 80: places to look, nothing fails. `make sizes`."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "tunesmith"
LONG_FILE, LONG_FUNCTION = 400, 80


def main() -> None:
    """Print what is long, then the sum."""
    total = 0
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        total += lines
        if lines > LONG_FILE:
            print(f"{path.relative_to(SOURCE)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONG_FUNCTION:
                    print(f"{path.relative_to(SOURCE)}:{node.lineno}: {node.name}, {length} lines")
    print(f"{total} lines in {len(list(SOURCE.rglob('*.py')))} files")


if __name__ == "__main__":
    main()
