"""What people meet at the command line: every mistake is one message and an exit code, and changes nothing."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commanding import run_command
from PIL import Image

from search import configfile, study
from search.cases import store_cases
from search.config import StudyConfig
from search.confirm import choose_cases
from search.dataconfig import DataConfig
from search.plan import make_plan

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "configs" / "digits.yaml"
VERBS = ("init", "check", "run", "status", "confirm", "report", "dashboard", "export", "train")


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        return run_command(monkeypatch, capsys, *arguments)

    return run


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("serach: {trials: 4}", "search"),
        ("search: {trails: 4}", "search.trials"),
        ("search: {trials: many}", "search.trials"),
        ("search: {trials: 0}", "search.trials"),
        ("name: !!python/object/apply:os.system [ls]", "tag"),
        ("name: a\nname: b", "name"),
        ("budgets: [params <= -5]", "params <= -5"),
        ("budgets: [params <= 0]", "params <= 0"),
        ("budgets: [flops <= 10]", "params, macs, activations, memory"),
        ("budgets: [params <= 20]", "admits no schedule"),
        ("confirm: {margin: 0}", "confirm.margin"),
        ("confirm: {margin: 0.7}", "confirm.margin"),
        ("filters: {stages: [{low: 9, high: 3}]}", "low"),
        ("filters: {stages: [{}, {}, {}, {}, {}]}", "at most 4"),
        ("filters: {stages: [{high: 4}, {}, {}]}", "outside the stages' ranges"),
        (
            "budgets: [memory <= 9 GB]",
            "admits every schedule, so it limits nothing: the largest, 64-64-64, costs 4.75 MiB",
        ),
        ("filters: {stages: [{high: 1073741823}, {high: combinations}]}", "40"),
        ("name: ../../etc/passwd", "no path"),
        ("compute: {workers: 100000}", "a whole number from 1 to 1024 or auto"),
        ("confirm: {looks: [16, 200000]}", "confirm.looks.1 is 200000; give it a whole number from 1 to 100000"),
        ("data: {test_fraction: 0.9, validation_fraction: 0.2}", "training"),
        ("- a list", "keys with values"),
        ("", "empty"),
        ("name: [unclosed", "line"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "run"])
def test_bad_configurations(command, tmp_path, verb, text, says):
    (tmp_path / "study.yaml").write_text(text)
    before = tree(tmp_path)
    code, out, err = command(verb, "study.yaml")
    assert code == 3
    assert says in err
    assert "Traceback" not in err
    assert out == ""
    assert tree(tmp_path) == before


@pytest.mark.parametrize("path", ["missing.yaml", ".", "binary.yaml"])
def test_files_that_are_no_configuration(command, tmp_path, path):
    (tmp_path / "binary.yaml").write_bytes(bytes(range(128, 256)))
    code, _, err = command("run", path)
    assert code == 3
    assert path.removesuffix(".yaml") in err


def test_data_too_small_for_its_splits(command, tmp_path):
    (tmp_path / "study.yaml").write_text("data: {source: combinations, features: 6, images: 126}")
    code, _, err = command("check", "study.yaml")
    assert code == 4
    assert "has 2 images, which leaves none" in err


def test_an_unwritable_folder(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    before = tree(tmp_path)
    code, _, err = command("run", str(DIGITS), "--out", "file/study")
    assert code == 5
    assert "--out" in err
    assert tree(tmp_path) == before


def existing_study(folder: Path, config: StudyConfig) -> None:
    plan = make_plan(config)
    folder.mkdir()
    study.create(folder, config, plan.objective.directions, plan.data.fingerprint)
    configfile.write(config, folder / "config.yaml")


def test_an_existing_study_needs_resume(command, tmp_path):
    existing_study(tmp_path / "s", StudyConfig())
    (tmp_path / "study.yaml").write_text("name: digits")
    before = tree(tmp_path)
    code, _, err = command("run", "study.yaml", "--out", "s")
    assert (code, "--resume" in err) == (3, True)
    assert tree(tmp_path) == before


def test_a_changed_configuration_is_refused_with_a_difference(command, tmp_path):
    existing_study(tmp_path / "s", StudyConfig())
    (tmp_path / "study.yaml").write_text("confirm: {margin: 0.01}\nsearch: {trials: 99}")
    before = tree(tmp_path)
    code, _, err = command("run", "study.yaml", "--out", "s", "--resume")
    assert code == 3
    assert "confirm.margin: 0.005 -> 0.01" in err
    assert "search.trials: 64 -> 99" in err
    assert tree(tmp_path) == before


@pytest.mark.parametrize("verb", ["status", "report", "export"])
def test_a_configuration_edited_after_the_study_was_made_is_refused(command, tmp_path, verb):
    existing_study(tmp_path / "s", StudyConfig())
    path = tmp_path / "s" / "config.yaml"
    path.write_text(path.read_text().replace("margin: 0.005", "margin: 0.05"))
    before = tree(tmp_path)
    code, out, err = command(verb, "s")
    assert (code, out, "confirm.margin: 0.005 -> 0.05" in err) == (3, "", True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("verb", ["run", "status", "report", "export"])
def test_a_corrupt_study(command, tmp_path, verb):
    existing_study(tmp_path / "s", StudyConfig())
    (tmp_path / "s" / "study.db").write_bytes(b"no database" * 1000)
    before = tree(tmp_path)
    arguments = (str(tmp_path / "s" / "config.yaml"), "--out", "s", "--resume") if verb == "run" else ("s",)
    code, _, err = command(verb, *arguments)
    assert code == 5
    assert "cannot be used as a study" in err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("verb", "exit_code"), [("report", 0), ("export", 3)])
def test_before_the_search_has_ended_no_path_is_promised(command, tmp_path, verb, exit_code):
    existing_study(tmp_path / "s", StudyConfig())
    code, out, err = command(verb, "s")
    assert (code, out, err.count("\n")) == (exit_code, "", 1)
    assert "nothing is confirmed yet in s" in err
    assert "filter-search run s/config.yaml --out s --resume" in err
    written = {path.name for path in (tmp_path / "s").iterdir()}
    assert written == {"config.yaml", "study.db"} | ({"trials.csv", "runs.csv"} if verb == "report" else set())


def test_before_the_first_look_nothing_is_exported(command, tmp_path):
    config = StudyConfig()
    existing_study(tmp_path / "s", config)
    store_cases(study.load(tmp_path / "s", config.name), choose_cases(make_plan(config), None))
    code, out, err = command("export", "s")
    assert (code, out, "nothing is confirmed yet" in err) == (3, "", True)
    assert not (tmp_path / "s" / "best").exists()
    code, out, err = command("report", "s")
    assert (code, out, err) == (0, "s/report.html\n", "")


@pytest.mark.parametrize("verb", ["status", "report", "export"])
def test_no_such_study(command, tmp_path, verb):
    code, _, err = command(verb, "nowhere")
    assert (code, "'nowhere' is no study folder" in err) == (5, True)
    assert tree(tmp_path) == {}


def test_no_such_candidate(command):
    code, _, err = command("train", "nowhere")
    assert (code, "filter-search export" in err) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("serch",),
        ("run",),
        ("run", "c.yaml", "--trials", "0"),
        ("run", "c.yaml", "--x"),
        ("dashboard", "digits", "--port", "99999"),
    ],
)
def test_usage(command, arguments):
    assert command(*arguments)[0] == 2


def test_init_writes_a_configuration_that_checks_and_is_never_overwritten(command, tmp_path):
    code, out, _ = command("init")
    assert (code, "digits.yaml" in out) == (0, True)
    written = tree(tmp_path)
    assert json.loads((tmp_path / "filter-search.schema.json").read_text())["properties"]
    code, out, err = command("check", "digits.yaml")
    assert code == 0, err
    assert "4-7-15" in out
    code, _, err = command("init")
    assert (code, "is not overwritten" in err) == (3, True)
    assert tree(tmp_path) == written


def test_init_writes_a_configuration_of_one_s_own_images_that_checks(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path / "my pets")
    code, out, err = command("init", "--data", "my pets")
    assert (code, err) == (0, "")
    assert out.startswith("wrote my-pets.yaml and filter-search.schema.json; next: filter-search check my-pets.yaml")
    code, out, err = command("check", "my-pets.yaml")
    assert code == 0, err
    assert "doubling*" in out
    assert "8-16-32" in out
    monkeypatch.setattr("search.starter.load", None)  # refused before the images are read
    code, _, err = command("init", "--data", "my pets")
    assert (code, "is not overwritten" in err) == (3, True)


def test_init_of_images_some_of_which_cannot_be_used_names_them_and_writes_what_suits_the_others(
    command, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "empty.png").touch()
    code, out, err = command("init", "--data", "pets")
    assert (code, "cat/empty.png: empty (0 bytes)" in out + err) == (0, True)
    code, _, err = command("check", "pets.yaml")
    assert (code, "cat/empty.png: empty (0 bytes)" in err) == (4, True)
    assert command("check", "pets.yaml", "--set", "data.on_bad=skip")[0] == 0


def test_init_of_images_too_few_to_split_writes_nothing(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path / "pets")
    for path in [*(tmp_path / "pets" / "cat").iterdir()][1:]:
        path.unlink()
    before = tree(tmp_path)
    code, out, err = command("init", "--data", "pets")
    assert (code, out, "class 0 (cat) has 1 image, which leaves none" in err) == (4, "", True)
    assert tree(tmp_path) == before | {key: value for key, value in tree(tmp_path).items() if "/cache" in key}


def test_init_overwrites_no_schema_but_its_own(command, tmp_path):
    schema = tmp_path / "filter-search.schema.json"
    schema.write_text("{}")
    before = tree(tmp_path)
    code, out, err = command("init")
    assert (code, out, "is not overwritten; move it away" in err) == (3, "", True)
    assert tree(tmp_path) == before
    schema.unlink()
    assert command("init")[0] == 0
    (tmp_path / "digits.yaml").unlink()
    assert command("init")[0] == 0


def test_check_says_what_a_study_would_do_and_writes_nothing(command, tmp_path):
    code, out, _ = command("check", str(DIGITS))
    assert code == 0
    for said in ("250,047 schedules", "2-2-2", "64-64-64", "4-7-15", "8-15-31", "4-9-18", "1,797 images", "workers"):
        assert said in out
    assert tree(tmp_path) == {}


def photographs(folder, count=20):
    """Two classes of tiny images."""
    for number, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(100 * number + index).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")


def test_check_shows_the_data_and_what_is_odd_about_them(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "empty.jpg").touch()
    (tmp_path / "study.yaml").write_text("name: pets\ndata: {source: folder, path: pets}")
    code, out, err = command("check", "study.yaml")
    assert (code, out) == (4, "")
    assert "  cat/empty.jpg: empty (0 bytes)\n" in err
    code, out, _ = command("check", "study.yaml", "--set", "data.on_bad=skip")
    assert code == 0
    for line in (
        "data     pets: 40 images 8x8x3",
        "classes  2 of 20 images each: 0 cat, 1 dog",
        "splits   20 training, 8 validation (redrawn for every seed) and 12 test images (drawn once)",
        "note     1 file (cat/empty.jpg: empty (0 bytes)) that cannot be used: left out",
    ):
        assert line in out


def test_a_study_whose_data_have_changed_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photographs(tmp_path / "pets")
    config = StudyConfig(name="pets", data=DataConfig(source="folder", path="pets"))
    existing_study(tmp_path / "s", config)
    assert command("report", "s")[0] == 0
    pixels = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "pets" / "dog" / "7.png")
    before = (tmp_path / "s" / "study.db").read_bytes()
    for arguments in (("report", "s"), ("run", "s/config.yaml", "--out", "s", "--resume")):
        code, out, err = command(*arguments)
        assert (code, out) == (3, "")
        assert "pets is no longer what the study in s was made on" in err
        assert "put it back as it was, or give another folder with --out" in err
    assert (tmp_path / "s" / "study.db").read_bytes() == before


def test_check_says_budgets_exactly(command):
    _, out, _ = command("check", str(DIGITS), "--set", "budgets=[params <= 1500, memory <= 1100000]")
    assert "budgets  params <= 1500, memory <= 1.05 MiB (1,100,000 bytes)" in out


def test_lines_that_run_on_are_set_below_their_text(command, monkeypatch):
    from search import display

    monkeypatch.setattr(display.out, "width", 80)
    code, out, _ = command("check", str(DIGITS))
    assert code == 0
    lines = out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("splits "))
    assert lines[place + 1].startswith(" " * 9 + "images (drawn once)")
    assert max(map(len, lines)) <= 80


def test_check_warns_when_the_test_split_cannot_resolve_the_margin(command):
    _, _, err = command("check", str(DIGITS), "--set", "confirm.margin=0.001")
    assert "the test split is too small for a margin of 0.1 points" in err
    _, _, err = command("check", str(DIGITS))
    assert "too small" not in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(command, verb):
    code, out, _ = command(verb, "--help")
    assert code == 0
    assert f"Example: filter-search {verb}" in out


def test_an_unexpected_error_is_one_line_unless_debugged(command, monkeypatch):
    monkeypatch.setattr("search.configfile.read", lambda *_: 1 / 0)
    code, _, err = command("check", str(DIGITS))
    assert (code, "ZeroDivisionError" in err, "Traceback" in err) == (1, True, False)
    assert "Traceback" in command("check", str(DIGITS), "--debug")[2]


@pytest.mark.parametrize(
    ("target", "said"), [("> /dev/full", "unexpected OSError: [Errno 28] No space left on device"), ("| true", "")]
)
def test_results_that_cannot_be_written_end_with_1(tmp_path, target, said):
    code = "import sys; sys.argv = ['filter-search', 'status', 'digits']\nfrom search.cli import main\nmain()"
    (tmp_path / "status.py").write_text(code)
    shell = f"set -o pipefail; {shlex.quote(sys.executable)} {tmp_path / 'status.py'} {target}"
    ended = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize(("out", "exit_code"), [("taken", 3), ("file/study", 5), ("file", 5)])
def test_a_folder_that_cannot_be_used_is_refused_before_anything_heavy_is_imported(tmp_path, out, exit_code):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.yaml").write_text("name: digits")
    (tmp_path / "file").write_text("in the way")
    before = tree(tmp_path)
    code = f"import sys; sys.argv = ['filter-search', 'run', {str(DIGITS)!r}, '--out', {out!r}]\n"
    code += "from search.cli import main\ntry: main()\nfinally:"
    code += "\n    assert not {'torch', 'optuna', 'scipy'} & set(sys.modules), 'heavy imports'"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, env=os.environ, text=True)
    assert (ended.returncode, ended.stdout) == (exit_code, ""), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "--out" in ended.stderr
    assert tree(tmp_path) == before


def test_help_imports_nothing_heavy():
    code = "import sys; sys.argv = ['filter-search', '--help']\nfrom search.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass"
    code += "\nassert not {'torch', 'optuna', 'numpy', 'pydantic'} & set(sys.modules), 'heavy imports'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=os.environ)
