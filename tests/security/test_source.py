"""Rules for the source that ships: nothing from a file or a workflow runs as code, nothing is fetched or installed.

They are the registry's published standards (docs.comfy.org/registry/standards: no eval, no exec, no installation at run
time, no downloads), and a little more.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from packed import ROOT, sources

RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
RUNS_FILES = {"cloudpickle", "code", "ctypes", "dill", "joblib", "marshal", "pickle", "runpy", "shelve"}
STARTS_PROGRAMS = {"multiprocessing", "pip", "pty", "subprocess"}
CONNECTS = {
    "aiohttp",
    "ftplib",
    "http",
    "httpx",
    "huggingface_hub",
    "requests",
    "smtplib",
    "socket",
    "ssl",
    "telnetlib",
}
CONNECTS |= {"urllib", "urllib3", "webbrowser", "websocket", "xmlrpc"}
OF_OS = ("exec", "fork", "popen", "posix_spawn", "spawn", "startfile", "system")

# Modules and functions that the person who runs the trainer names, at the command line or in its configuration: never a
# workflow, a data set or a file of weights.
BY_NAME = {
    "tcd/scores.py": "packages that scores need: their names are in the source",
    "training/host/loading.py": "checkpoint_loader, and features of the evaluator",
    "training/optim/optimizers.py": "optimizer_type",
}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of names and attributes; `?` stands for any other expression."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def modules(tree: ast.AST) -> Iterator[str]:
    """First names of what is imported from outside, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def is_dangerous(name: str, call: ast.Call) -> bool:
    """Whether it runs text as code, opens pickles, starts a program, or fetches something from the network."""
    if name == "torch.load":
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        return given.get("weights_only") != "True"
    if name.endswith(".from_pretrained"):
        return "local_files_only" not in {word.arg for word in call.keywords}
    of_os = name.startswith("os.") and name.removeprefix("os.").startswith(OF_OS)
    return name in RUNS_TEXT or of_os or name.startswith("torch.hub.")


def found_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = set(modules(tree)) & (RUNS_FILES | STARTS_PROGRAMS | CONNECTS)
    return imported | {f"{name}() in line {call.lineno}" for name, call in calls(tree) if is_dangerous(name, call)}


@pytest.mark.parametrize("file", sources(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_nothing_runs_as_code_connects_or_installs(file):
    assert found_in(file) == set()


def test_only_the_trainer_imports_what_it_is_told_by_name():
    found = set()
    for file in sources():
        for name, call in calls(ast.parse(file.read_text(encoding="utf-8"))):
            told = not isinstance(call.args[0], ast.Constant) if call.args else False
            if told and name.rpartition(".")[2] in ("import_module", "resolve_name"):
                found.add(file.relative_to(ROOT).as_posix())
    assert found == set(BY_NAME)


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "__import__(text)",
        "os.system(text)",
        "os.execvp(text, [])",
        "import pickle",
        "from urllib.request import urlopen",
        "def f():\n    import subprocess",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.hub.load(path)",
        "Model.from_pretrained(name)",
    ],
)
def test_the_rules_see(line, tmp_path):
    (tmp_path / "source.py").write_text(line, encoding="utf-8")
    assert found_in(tmp_path / "source.py")


@pytest.mark.parametrize(
    "line", ["net.eval()", "make().eval()", "re.compile(text)", "torch.load(p, weights_only=True)"]
)
def test_the_rules_leave_alone(line, tmp_path):
    (tmp_path / "source.py").write_text(line, encoding="utf-8")
    assert found_in(tmp_path / "source.py") == set()
