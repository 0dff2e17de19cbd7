"""S2: nothing of ours can load code, and no tensor is made without a device."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "tunesmith"
FILES = sorted(SOURCE.rglob("*.py"))

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "ctypes"}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    "torch.load",
    "torch.save",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "joblib.load",
    "numpy.load",
    "np.load",
}
# A process of our own, started with a fixed list of arguments: the reload that verifies an export,
# and those that prepare pieces of many rows.
MAY_START_PROCESSES = {"deploy/verify.py", "model/template.py", "data/crew.py"}

MAKERS = {
    "zeros", "ones", "empty", "full", "tensor", "arange", "rand", "randn", "randint", "randperm",
    "eye", "linspace", "logspace", "as_tensor", "scalar_tensor",
}  # fmt: skip
# collate fills rows of unequal length on the CPU and moves the finished batch at once.
ON_THE_CPU = {"core/records.py"}


def named(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def dotted(node: ast.expr) -> str:
    """`torch.load` of the expression that says so."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST, name: str) -> Iterator[str]:
    """Everything in a file that could run what it reads."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
        for module in modules:
            if module.split(".")[0] in MODULES or module in ATTRIBUTES:
                yield f"{line}: import {module}"
            if module.split(".")[0] == "subprocess" and name not in MAY_START_PROCESSES:
                yield f"{line}: subprocess"
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in CALLS | ATTRIBUTES:
                yield f"{line}: {called}()"
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if keyword.arg == "shell" and value is not False:
                    yield f"{line}: shell="
                if keyword.arg == "trust_remote_code" and value is not False:
                    yield f"{line}: trust_remote_code"
                if keyword.arg == "weights_only":
                    yield f"{line}: weights_only is no boundary; use safetensors"
        if isinstance(node, ast.Attribute) and dotted(node) in ATTRIBUTES:
            yield f"{line}: {dotted(node)}"


def homeless(tree: ast.AST) -> Iterator[str]:
    """Tensors made without saying where."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        owner, _, maker = dotted(node.func).rpartition(".")
        said = {keyword.arg for keyword in node.keywords}
        if owner == "torch" and maker in MAKERS and "device" not in said:
            yield f"{node.lineno}: torch.{maker} without device="


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_nothing_loads_code() -> None:
    assert [f"{named(p)}:{d}" for p in FILES for d in dangers(tree(p), named(p))] == []


def test_every_tensor_is_made_on_a_device() -> None:
    checked = [path for path in FILES if named(path) not in ON_THE_CPU]
    assert [f"{named(path)}:{fault}" for path in checked for fault in homeless(tree(path))] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "eval(text)",
        "import marshal as m",
        "from ctypes import CDLL",
        "os.system(command)",
        "run(words, shell=True)",
        "import subprocess",
        "load = torch.load",
        "yaml.load(text, Loader)",
        "model(x, trust_remote_code=True)",
    ],
)
def test_the_walk_sees(text: str) -> None:
    assert list(dangers(ast.parse(text), "core/other.py"))


def test_the_walk_sees_tensors_without_a_home() -> None:
    assert list(homeless(ast.parse("torch.zeros(3)")))
    assert not list(homeless(ast.parse("torch.zeros(3, device=device)")))
