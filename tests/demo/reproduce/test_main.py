"""The whole program: what it refuses, where it writes, and one experiment from training to page."""

import json
from types import SimpleNamespace

import pytest
from host_process import pack
from PIL import Image
from short_runs import pictures

from demo.reproduce import __main__ as program
from demo.reproduce import experiments, trainings
from demo.reproduce.claims import AGREES, Claim
from demo.reproduce.lab import TEACHER, Lab
from demo.reproduce.page import Section
from demo.reproduce.scale import SCALES, Scale
from training import host
from training.evaluate.pictures import EVALUATIONS, Folder, marks

SMALL = Scale(
    steps=2,
    batch=2,
    direct_steps=2,
    direct_batch=2,
    tuning_steps=2,
    captions=3,
    seeds=(0,),
    probes=2,
    fine=4,
)


# --- What it is asked ------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Whatever is written is below this folder."""
    monkeypatch.setattr(program, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A few pictures in the place of the emoji."""
    folder = pictures(tmp_path / "data", ((128, 128),))
    monkeypatch.setattr(program.dataset, "FOLDER", folder)
    return folder


@pytest.fixture
def made_up(root, monkeypatch):
    """Two experiments that only say so; returns what was asked for, in order."""
    asked = []

    def experiment(name):
        def run(lab):
            asked.append(f"run {name}")
            return Section(f"About {name}", f"text {asked.count(f'run {name}')}", [Claim("1", name, "2", AGREES)])

        return SimpleNamespace(STUDENTS=("tcd", name), run=run)

    monkeypatch.setattr(experiments, "EXPERIMENTS", {name: experiment(name) for name in ("lcm", "splus")})
    monkeypatch.setattr(host, "start", lambda: None)
    monkeypatch.setattr(Lab, "distil", lambda self, names: asked.append(names))
    bench = SimpleNamespace(real=SimpleNamespace(paths=range(12345)))
    monkeypatch.setattr(Lab, "bench", lambda self: bench)
    return asked


def test_an_unknown_experiment_is_refused_with_the_names_of_all(capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(["--only", "table1", "table9"])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert "'table9'" in said
    assert all(name in said for name in experiments.EXPERIMENTS)


def test_students_are_distilled_once_each_before_all_experiments(made_up, data):
    assert program.main(["--data", str(data)]) == 0
    assert made_up == [["tcd", "lcm", "splus"], "run lcm", "run splus"]


def test_some_experiments_leave_the_other_sections_as_they_were(made_up, root, data, capsys):
    for arguments in ([], ["--only", "lcm"]):
        assert program.main([*arguments, "--data", str(data)]) == 0
    assert made_up[-2:] == [["tcd", "lcm"], "run lcm"]
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    assert "## About lcm\n\ntext 2\n" in text
    assert "## About splus\n\ntext 1\n" in text
    assert text.index("About lcm") < text.index("About splus")
    assert text.count("| **agrees** |") == 2
    assert capsys.readouterr().out.endswith(f"wrote {root / 'docs' / 'results.md'}\n")


def test_a_page_without_all_sections_has_those_that_there_are(made_up, root, data):
    assert program.main(["--only", "splus", "--data", str(data)]) == 0
    text = (root / "docs" / "results.md").read_text(encoding="utf-8")
    assert "About splus" in text
    assert "About lcm" not in text
    assert "Not here yet: `--only lcm`." in text
    assert program.main(["--data", str(data)]) == 0
    assert "Not here yet" not in (root / "docs" / "results.md").read_text(encoding="utf-8")


def test_the_quick_run_has_a_page_and_files_of_its_own_and_says_what_it_is(made_up, root, data):
    assert program.main(["--quick", "--data", str(data)]) == 0
    assert {path.name for path in root.iterdir()} == {"data", "output"}
    page = root / "output" / "reproduce-quick" / "results.md"
    assert {path.name for path in page.parent.iterdir()} == {"results.md", "results.json"}
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Both papers")
    assert "`python3 dev.py reproduce --quick`" in text
    assert "say nothing of either paper" in text
    assert "12,345 real" in text
    assert program.main(["--data", str(data)]) == 0
    assert "say nothing of either paper" not in (root / "docs" / "results.md").read_text(encoding="utf-8")


def test_each_run_has_its_own_scale_and_folder(root, data):
    quick, full = (program.lab_of(quick, data) for quick in (True, False))
    assert (quick.scale, full.scale) == (SCALES["quick"], SCALES["full"])
    assert quick.folder != full.folder
    other = program.lab_of(False, root)
    assert other.folder not in (quick.folder, full.folder)
    assert other.page.is_relative_to(root / "output")
    assert (quick.images, full.images) == (root / "output" / "reproduce-quick" / "images", root / "docs" / "images")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (trainings.TrainingError("training tcd ended with code 1"), 1, "error: training tcd ended with code 1\n"),
        (OSError("disk full"), 1, "error: disk full\n"),
        (KeyboardInterrupt(), 130, "stopped: run it again to go on\n"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_is_told_in_a_line_and_there_is_no_page(
    made_up, root, data, monkeypatch, capsys, error, code, said
):
    def fail(self, names):
        raise error

    monkeypatch.setattr(Lab, "distil", fail)
    assert program.main(["--data", str(data)]) == code
    assert capsys.readouterr().err == said
    assert not (root / "docs").exists()


def test_a_folder_without_pictures_is_refused_and_left_alone(made_up, root, monkeypatch, capsys):
    monkeypatch.setattr(program.dataset, "make", lambda folder: pytest.fail("the emoji were put there"))
    (root / "mine").mkdir()
    (root / "mine" / "letter.txt").write_text("mine", encoding="utf-8")
    for folder in (root / "mine", root / "gone"):
        assert program.main(["--data", str(folder)]) == 1
        assert capsys.readouterr().err.endswith(f"got {folder}\n")
    assert (root / "mine" / "letter.txt").is_file()
    assert made_up == []


def test_the_emoji_are_fetched_where_they_belong(made_up, data, monkeypatch):
    fetched, folder = [], data.with_name("emoji")
    monkeypatch.setattr(program.dataset, "FOLDER", folder)
    monkeypatch.setattr(program.dataset, "make", lambda folder: fetched.append(pictures(folder)))
    for _ in range(2):
        assert program.main([]) == 0
    assert fetched == [folder]


# --- All of it, in small ---------------------------------------------------------------------------------


@pytest.mark.host
@pytest.mark.slow
def test_table_1_is_trained_sampled_and_written_once(root, data, monkeypatch, capsys):
    pack()
    monkeypatch.setitem(SCALES, "full", SMALL)
    arguments = ["--only", "table1", "--data", str(data)]
    assert program.main(arguments) == 0
    page, runs = root / "docs" / "results.md", root / "demo" / "runs" / "reproduce"
    text = page.read_text(encoding="utf-8")
    claims = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["table1"]["claims"]
    assert len(claims) == 7
    for claim in claims:
        assert f"| {claim['source']} | {claim['statement']} | {claim['measured']} | **{claim['verdict']}** |" in text
    assert sorted(path.name for path in page.parent.rglob("*.png")) == [
        "results_table1.png",
        "results_table1_sheet.png",
    ]
    for name in ("results_table1.png", "results_table1_sheet.png"):
        assert f"(images/{name})" in text
    for name in ("tcd", "lcm"):
        assert [json.loads(line)["step"] for line in (runs / "loras" / f"{name}.jsonl").read_text().splitlines()] == [2]
    check_evaluations(runs / "pictures" / "tiny")

    monkeypatch.setattr(trainings.subprocess, "run", lambda *args, **named: pytest.fail("trained again"))
    monkeypatch.setattr(Folder, "sample", lambda *args: pytest.fail("sampled again"))
    page.unlink()
    assert program.main(arguments) == 0
    assert page.read_text(encoding="utf-8") == text


def check_evaluations(folder):
    """Every picture was sampled with as many evaluations as its column says."""
    of_a_step = {"euler": 2, "ddim": 2, "dpmpp_2s": 4, "tcd": 1, "lcm": 1}
    rows = {path.name: list(path.glob("*.png")) for path in folder.iterdir() if path.name != "measured"}
    assert TEACHER.name in rows
    assert len(rows) == 1 + 6 + 6 + 5 + 4 + 4
    for name, files in rows.items():
        words = name.split("-")
        steps = next(int(word.removeprefix("steps")) for word in words if word.startswith("steps"))
        assert len(files) == SMALL.captions
        for file in files:
            with Image.open(file) as image:
                assert image.size == (128, 128)
            assert float(marks(file)[EVALUATIONS]) == of_a_step[words[0]] * steps
