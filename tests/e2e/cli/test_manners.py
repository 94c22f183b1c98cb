"""How every command talks: JSON for programs, one line for mistakes, progress that suits where it goes."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer.main

import bimix_tracking
from bimix_tracking import Mixture
from bimix_tracking.cli import app
from bimix_tracking.cli.ending import OPTIONS
from tests.warm import program

_BIMIX = Path(sys.executable).with_name("bimix")
known: Any = typer.main.get_command(app)
"""The group of commands; Typer gives no type that has them."""
COMMANDS = ("plan", "entropy", "analyze", "pull", "verify", "export", "replay", "watch")


def bimix(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [program("bimix"), *map(str, arguments)]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


def strict(text: str) -> Any:
    """Read JSON that must have no NaN in it."""

    def refused(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refused)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep as a table, its analysis, and text of two domains."""
    made = tmp_path_factory.mktemp("manners")
    rows = [
        {
            "run": f"run-{a}", "step": s / 1000, "tokens": s, "proportion/c++": a, "proportion/web": 1 - a,
            "loss/c++": a**-0.1 * (90 / s**0.5 + 3), "loss/web": (1 - a) ** -0.1 * (40 / s**0.4 + 1),
        }
        for a in (0.2, 0.35, 0.5, 0.7) for s in (1e3, 4e3, 1.6e4, 6.4e4)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(made / "sweep.csv", index=False)
    for name, text in (("a", "one two three four\n" * 200), ("b", "five six seven eight nine\n" * 200)):
        (made / f"{name}.txt").write_text(text)
    (made / "mixture.yaml").write_text("mixture: {c++: 0.25, web: 0.75}\n")
    return made


def test_each_command_answers_in_json(folder: Path, tmp_path: Path) -> None:
    sweep = f"csv:{folder / 'sweep.csv'}"
    asked: dict[str, list[object]] = {
        "analyze": [sweep, "--tokens", "1e6", "--replicates", 40, "--out", tmp_path / "analysis"],
        "pull": [sweep, "-o", tmp_path / "again.csv"],
        "plan": ["code", "web", "--runs", 4, "--out", tmp_path / "plan"],
        "verify": [sweep, "run-0.7", "--tokens", "64000"],
        "export": [folder / "mixture.yaml", "--format", "yaml"],
        "entropy": [f"a={folder / 'a.txt'}", f"b={folder / 'b.txt'}", "--embedder", "none", "--out", tmp_path / "e"],
    }
    said = {}
    for command, arguments in asked.items():
        done = bimix(command, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 1
        said[command] = strict(done.stdout)

    mixture = Mixture.from_yaml(tmp_path / "analysis" / "mixture.yaml")
    assert said["analyze"]["mixture"] == pytest.approx(dict(mixture))
    assert {"gain", "law", "held_out", "diagnostics", "artifacts"} <= set(said["analyze"])
    assert said["pull"]["losses"] == 32
    assert [run["mixture"] for run in said["plan"]["runs"]] == [
        json.loads(line)["mixture"] for line in (tmp_path / "plan" / "plan.jsonl").read_text().splitlines()
    ]
    assert said["verify"]["runs"] == ["run-0.7"]
    assert "0.25" in said["export"]["text"]
    assert set(said["entropy"]["mixtures"]) == {"shannon", "joint", "conditional"}
    nothing = bimix("replay", tmp_path, "--json")
    assert "holds no journal" in strict(nothing.stdout)["error"]["message"]


def test_watch_answers_with_a_line_an_event(folder: Path) -> None:
    done = bimix("watch", f"csv:{folder / 'sweep.csv'}", "--tokens", "1e6", "--once", "--json")
    events = [strict(line) for line in done.stdout.splitlines()]
    assert events
    assert all(set(event) <= {"time", "kind", "text", "error"} for event in events)


def test_a_mistake_is_one_line_and_in_json_an_object() -> None:
    plain = bimix("analyze", "csv:nowhere.csv", "--tokens", "1e6")
    assert (plain.returncode, plain.stdout) == (4, "")
    assert plain.stderr.count("error:") == 1
    assert "Traceback" not in plain.stderr

    told = bimix("analyze", "csv:nowhere.csv", "--tokens", "1e6", "--json")
    error = strict(told.stdout)["error"]
    assert (error["kind"], error["exit_code"], told.returncode) == ("SourceError", 4, 4)
    assert error["message"] in plain.stderr

    for debugging in (("--debug",), ()):
        shown = bimix(*debugging, "analyze", "csv:nowhere.csv", "--tokens", "1e6", BIMIX_DEBUG="" if debugging else "1")
        assert "Traceback" in shown.stderr
        assert shown.returncode == 4


def test_a_bug_of_ours_says_so(folder: Path, tmp_path: Path) -> None:
    # A law of a third party that is broken: the nearest that a test can come to a bug.
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import bimix_tracking.exports\nbimix_tracking.exports.export = lambda *a, **k: 1 / 0\n")
    asked = ("export", folder / "mixture.yaml", "--format", "yaml")
    done = bimix(*asked, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "ZeroDivisionError: division by zero. This is a bug of bimix: please report it" in done.stderr
    assert "Traceback" in bimix("--debug", *asked, PYTHONPATH=str(tmp_path)).stderr


def test_ctrl_c_and_a_closed_pipe_are_quiet(folder: Path) -> None:
    asked = [str(_BIMIX), "analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1e6", "--wait", "99"]
    # Where the tests run in the background, SIGINT is ignored, and whoever they start would ignore it too.
    heeding = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", heeding, *asked]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as waiting:
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        said += waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 130
    assert "Traceback" not in said
    assert said.endswith("interrupted\n")

    piped = f"'{_BIMIX}' export --format list '{folder / 'mixture.yaml'}' | head -1"
    done = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


def test_in_a_log_file_there_are_lines_and_no_colours(folder: Path) -> None:
    done = bimix("analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1e6", "--replicates", "40")
    assert "\x1b" not in done.stdout + done.stderr
    assert "fitting" in done.stderr
    quiet = bimix("--quiet", "analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1e6", "--replicates", "40")
    assert quiet.stderr == ""
    assert quiet.stdout == done.stdout


@pytest.mark.parametrize(
    ("environment", "colours", "moves"),
    [({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False)],
    ids=["colours", "NO_COLOR", "dumb"],
)
def test_on_a_terminal(folder: Path, environment: dict[str, str], colours: bool, moves: bool) -> None:
    command = [program("bimix"), "analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1e6", "--replicates", "40"]
    here, there = pty.openpty()
    env = {name: v for name, v in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "60"} | environment
    running = subprocess.Popen(list(map(str, command)), stdout=there, stderr=there, env=env, close_fds=True)
    os.close(there)
    said = b""
    try:
        while part := os.read(here, 65536):
            said += part
    except OSError:
        pass  # the other end is closed: that is how a terminal ends
    assert running.wait(60) == 0
    text = said.decode()
    assert ("\x1b[" in text) == moves
    assert moves or "choosing a law" in text or "fitting" in text  # lines, as in a log
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", text)) == colours
    assert "Traceback" not in text
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert max(map(len, shown.splitlines())) <= 60
    assert re.search(r"^c\+\+ +\d+\.\d\d % +\d+\.\d–\d+\.\d % ", shown, re.MULTILINE)  # no number is cut


def parsed(line: str) -> None:
    """Parse a command line as the command would: unknown options, missing ones and wrong types are errors."""
    name, *arguments = shlex.split(line.partition(" >")[0])[1:]
    known.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_examples_that_parse(command: str) -> None:
    done = bimix(command, "--help", COLUMNS="80")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    options, heading, examples = done.stdout.rpartition("\nExamples:\n")
    assert heading
    for parameter in known.commands[command].params:
        assert parameter.opts[0] in options or parameter.param_type_name == "argument"
    shown = [line for line in examples.replace("\\\n", " ").splitlines() if not line.startswith("  #")]
    assert shown[0].startswith(f"  bimix {command}")
    for line in shown:
        parsed(line)


def test_the_first_page_fits_and_follows_the_day() -> None:
    page = bimix("--help", COLUMNS="80").stdout
    listed = re.findall(r"^  (\w+)  +\S", page.partition("\nCommands:\n")[2], re.MULTILINE)
    assert listed == ["plan", "entropy", "analyze", "watch", "export", "verify", "pull", "replay"]
    assert "..." not in page.partition("\nCommands:\n")[2]
    assert max(map(len, page.splitlines())) <= 80
    for line in re.findall(r"^    (bimix .*)", page, re.MULTILINE):
        parsed(line)


def test_the_version() -> None:
    assert re.fullmatch(r"bimix \d+\.\d+\.\d+\n", bimix("--version").stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("bimix ana", "analyze"),
        ("bimix analyze --to", "--tokens"),
        ("bimix export m.yaml --format olm", "olmo-core"),
        ("bimix analyze csv:x --law tr", "transfer"),
        ("bimix analyze mlflow+s", "mlflow+sqlite"),
        ("bimix entropy --format parq", "parquet"),
        ("bimix replay --tracker wan", "wandb"),
    ],
)
def test_shells_complete_names(shell: str, words: str, found: str) -> None:
    environment = {"_BIMIX_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "_TYPER_COMPLETE_ARGS": words}
    assert found in bimix(**environment, COMP_CWORD=str(len(words.split()) - 1)).stdout


def test_completion_installs_into_bash_and_works_there(tmp_path: Path) -> None:
    script = """
    bimix --install-completion && . ~/.bashrc
    COMP_WORDS=(bimix export m.yaml --format mega) COMP_CWORD=4
    $(complete -p bimix | sed 's/.*-F \\([^ ]*\\).*/\\1/') bimix && echo "completed: ${COMPREPLY[*]}"
    """
    env = os.environ | {"HOME": str(tmp_path), "PATH": f"{_BIMIX.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=env, timeout=60)
    assert "completed: megatron\n" in done.stdout, done.stderr


def test_wrong_usage_is_told_in_json_too() -> None:
    for arguments, kind, text in (
        (["analyze", "csv:x"], "MissingParameter", "--tokens"),
        (["analyze", "csv:x", "--tokens", "many"], "BadParameter", "'many' is not a number of tokens"),
        (["anal"], "UsageError", "Did you mean 'analyze'?"),
    ):
        done = bimix(*arguments, "--json")
        error = strict(done.stdout)["error"]
        assert (error["kind"], error["exit_code"], done.returncode) == (kind, 2, 2)
        assert text in error["message"]
        assert "Usage: bimix" in done.stderr
        assert "Traceback" not in done.stderr
        assert bimix(*arguments).stdout == ""
    assert "Traceback" in bimix("--debug", "analyze", "csv:x").stderr


def test_what_a_library_prints_does_not_get_into_the_json(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import bimix_tracking.exports as e\nreal = e.export\n"
        "def export(*a, **k):\n    print('View run at …')\n    return real(*a, **k)\ne.export = export\n"
    )
    done = bimix("export", folder / "mixture.yaml", "--format", "json", "--json", PYTHONPATH=str(tmp_path))
    assert strict(done.stdout)["mixture"] == {"c++": 0.25, "web": 0.75}
    assert done.stderr == "View run at …\n"


def test_messages_name_the_options_of_the_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("déjà vu ".encode("latin-1") * 50)
    (tmp_path / "ids.bin").write_bytes(bytes(100))
    for name, said in (
        ("latin.txt", "(--encoding), or skip what cannot be read (--skip-bad)"),
        ("ids.bin", "(--token-dtype)"),
    ):
        done = bimix("entropy", f"a={tmp_path / name}", f"b={folder / 'b.txt'}", "--embedder", "none")
        assert done.returncode == 3
        assert said in done.stderr


def test_the_table_of_messages_is_up_to_date() -> None:
    written = {
        node.value
        for file in Path(bimix_tracking.__file__).parent.rglob("*.py")
        if file.parent.name != "cli"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    options = {option for command in known.commands.values() for each in command.params for option in each.opts}
    for python, here in OPTIONS.items():
        assert any(python in text for text in written), python
        assert set(re.findall(r"--[a-z-]+", here)) <= options


def test_reports_of_a_verification_are_in_the_language_asked_for(folder: Path, tmp_path: Path) -> None:
    asked = ("verify", f"csv:{folder / 'sweep.csv'}", "run-0.7", "--tokens", "64000", "--out", tmp_path / "v")
    assert bimix(*asked, "--lang", "ja", "--json").returncode == 0
    assert '<html lang="ja"' in (tmp_path / "v" / "report.html").read_text(encoding="utf-8")
    assert "no language 'fr'; choose from 'en', 'ja'" in bimix(*asked, "--lang", "fr").stderr


ANALYZE = ("analyze", "csv:nowhere.csv", "--tokens", "1M")


@pytest.mark.parametrize("place", [0, 1, len(ANALYZE)], ids=["before the command", "behind it", "last"])
def test_how_to_talk_is_said_anywhere(place: int) -> None:
    def asked(option: str) -> subprocess.CompletedProcess[str]:
        return bimix(*ANALYZE[:place], option, *ANALYZE[place:])

    assert strict(asked("--json").stdout)["error"]["exit_code"] == 4
    assert asked("--quiet").stderr.splitlines() == ["error: csv:nowhere.csv: there is no file nowhere.csv"]
    assert "Traceback" in asked("--debug").stderr
    assert "Traceback" not in bimix(*ANALYZE).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_how_to_talk(command: str) -> None:
    page = bimix(command, "--help", COLUMNS="80").stdout
    assert all(f"\n  {option} " in page for option in ("--json", "--quiet", "--debug"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--cost-per-gpu-hour", "2"], "--cost-per-gpu-hour: needs GPU-hours: --gpu-hours-per-run, --target-gpu-hours"),
        (["--target-gpu-hours", "9", "--currency", "USD"], "--currency: needs --cost-per-gpu-hour"),
        (["--timeout", "9"], "--timeout: needs --wait"),
        (["--nest"], "--nest: needs --write-back"),
        (["--prior-strength", "0.1"], "--prior-strength: needs --prior"),
        (["--prior", "nowhere.yaml"], "--prior: needs --prior-strength, such as 0.1"),
        (["--max-epochs", "2"], "--max-epochs: needs --available"),
        (["--available", "code=5X"], "--available: 'code=5X': '5X' is not a number of tokens, such as 100B"),
        (["--batch-tokens", "many"], "--batch-tokens: 'many' is not a number of tokens"),
        (["--bound", "code=20"], "--bound: 'code=20': '20' is not a proportion from 0 to 1, such as 0.2 or 20%"),
        (["--law", "transfr"], "--law: no law 'transfr'; did you mean 'transfer'? Choose from 'auto', 'bimix'"),
        (["--lang", "jp"], "--lang: no language 'jp'; choose from 'en', 'ja'"),
        (["--shares", "real"], "--shares: no kind of shares 'real'; did you mean 'realised'? Choose from 'nominal'"),
        (["--group-by", "tokeniser"], "--group-by: no field 'tokeniser'; did you mean 'tokenizer'? Choose from"),
        (["--tokns", "1M"], "No such option: --tokns. Did you mean --tokens?"),
        (["--price-per-gpu-hour", "2"], "No such option: --price-per-gpu-hour. It is now --cost-per-gpu-hour"),
    ],
)
def test_what_contradicts_itself_or_is_misspelt_is_refused_before_anything_is_read(
    options: list[str], text: str
) -> None:
    done = bimix(*ANALYZE, *options)  # of a source that isn't there, which would be said if it had been looked for

    assert done.returncode == 2
    assert text in " ".join(done.stderr.split())
    assert "nowhere.csv" not in done.stderr


def test_an_unknown_option_or_command_names_the_nearest() -> None:
    assert "No such option: --tokns. Did you mean --tokens?" in bimix("analyze", "csv:x", "--tokns", "1M").stderr
    assert "Did you mean 'analyze'?" in bimix("analize", "csv:x").stderr


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--weight", "wbe=2"], 5, "wbe"),
        (["--bound", "wbe=20%"], 5, "bounds of unknown domain"),
        (["--available", "wbe=5B"], 5, "available tokens of unknown domain"),
        (["--available", "web=5B", "--max-epochs", "wbe=2"], 5, "epochs of unknown domain"),
        (["--reference", "other.yaml"], 5, "the reference mixture doesn't fit"),
        (["--prior", "other.yaml", "--prior-strength", "0.1"], 5, "the prior mixture doesn't fit"),
    ],
)
def test_for_a_wrong_name_nothing_is_fitted(
    folder: Path, tmp_path: Path, options: list[str], code: int, text: str
) -> None:
    (tmp_path / "other.yaml").write_text("mixture: {c++: 0.25, wbe: 0.75}\n")
    options = [str(tmp_path / option) if option.endswith(".yaml") else option for option in options]

    done = bimix("analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1M", *options)

    assert done.returncode == code
    assert text in done.stderr
    assert "'web'" in done.stderr  # the name that was meant
    assert "fitting" not in done.stderr


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_in_a_pipe_lines_are_as_long_as_columns_says(folder: Path, columns: int) -> None:
    asked = ("analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1M", "--replicates", "40", "--quiet")
    shown = bimix(*asked, COLUMNS=str(columns)).stdout.splitlines()

    assert columns - 40 < max(map(len, shown)) <= columns
    assert any(line.startswith("c++ ") and line.count("%") >= 4 for line in shown)
    below = shown[next(i for i, line in enumerate(shown) if line.startswith("Gain over")) :]
    assert columns < 140 or len(below) <= 10


def test_the_answer_is_in_the_language_asked_for(folder: Path, tmp_path: Path) -> None:
    asked = ("analyze", f"csv:{folder / 'sweep.csv'}", "--tokens", "1M", "--replicates", "40", "--quiet")
    shown = bimix(*asked, "--lang", "ja", "--out", tmp_path / "out", COLUMNS="200").stdout

    left = set(re.findall(r"[A-Za-z+]{3,}", shown.replace(str(tmp_path), "")))
    assert left <= {"c++", "web", "nats", "ensemble", "bimix", "transfer", "additive", "exponential", "plan", "out"}, (
        shown
    )
    assert str(tmp_path / "out") in shown.splitlines()[-1]


def unusable(folder: Path) -> Path:
    """Return a mixture.yaml as an analysis that failed on held-out mixtures leaves it."""
    text = 'mixture: {c++: 0.25, web: 0.75}\nverdict: unusable\nwhy: "Don\'t use this mixture: it is a guess."\n'
    (folder / "unusable.yaml").write_text(f"{text}warnings:\n- Held-out rank correlation −0.80.\n")
    return folder / "unusable.yaml"


def test_an_unusable_mixture_is_exported_only_to_who_accepts_its_warnings(tmp_path: Path) -> None:
    refused = bimix("export", unusable(tmp_path), "--format", "csv", "-o", tmp_path / "m.csv")
    assert refused.returncode == 5
    assert "Don't use this mixture: it is a guess." in refused.stderr
    assert "--accept-warnings" in refused.stderr
    assert not (tmp_path / "m.csv").exists()

    taken = bimix("export", unusable(tmp_path), "--format", "csv", "--accept-warnings")
    assert (taken.returncode, taken.stdout) == (0, "domain,proportion\nc++,0.25\nweb,0.75\n")
    assert "Warning: " in taken.stderr
    assert "Held-out rank correlation −0.80." in taken.stderr


def test_an_unusable_verdict_is_a_result(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(0), []
    for i, a in enumerate(rng.uniform(0.2, 0.8, 8)):
        luck = np.exp(0.1 * rng.standard_normal(2))  # in which mixtures drown
        rows += [
            {"run": f"r{i}", "step": s / 1000, "tokens": s, "proportion/a": a, "proportion/b": 1 - a,
             "loss/a": luck[0] * (90 / s**0.5 + 3), "loss/b": luck[1] * (40 / s**0.4 + 1)}
            for s in (1e3, 4e3, 1.6e4)
        ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "sweep.csv", index=False)

    done = bimix("analyze", f"csv:{tmp_path / 'sweep.csv'}", "--tokens", "16k", "--replicates", 40, "--json")

    assert done.returncode == 0, done.stderr
    verdict = strict(done.stdout)["verdict"]
    assert set(verdict) == {"decision", "sentence", "warnings"}
    assert verdict["decision"] == "unusable", verdict
    shown = bimix("analyze", f"csv:{tmp_path / 'sweep.csv'}", "--tokens", "16k", "--replicates", 40).stdout
    assert " ".join(shown.split()).startswith(verdict["sentence"])
