"""`bimix export` as a script meets it, and what only the command line can get wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.warm import program


def export(folder: Path, content: bytes, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "m.yaml").write_bytes(content)
    command = [program("bimix"), "export", str(folder / "m.yaml"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_names_and_paths_may_both_hold_an_equals_sign(tmp_path: Path) -> None:
    options = ["--path", "a=/1", "--path", "a=b=/x=y", "--tokens", "100e9", "-o", str(tmp_path / "hf.json")]
    done = export(tmp_path, b"mixture: {a: 0.25, a=b: 0.75}", "--format", "hf", *options)

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    content = json.loads((tmp_path / "hf.json").read_text(encoding="utf-8"))
    assert (content["domains"], content["paths"]) == (["a", "a=b"], ["/1", "/x=y"])
    assert "for a run of 100B tokens" in content["notes"]


@pytest.mark.parametrize(
    ("content", "options", "code", "text"),
    [
        (b"mixture: {a: 1.0}", ["nemo", "--path", "a=/x", "--path", "a=/y"], 2, "domain 'a' has two paths: '/x', '/y'"),
        (b"mixture: {a: 1.0}", ["nemo", "--path", "A=/x"], 3, "a path of unknown domain 'A'"),
        (b"mixture: {a: 1.0}", ["nemo", "--tokens", "many"], 2, "'many' is not a number of tokens"),
        (b"mixture: {-x: 1.0}", ["megatron"], 3, "Megatron takes '-x', the path of domain '-x', for an option"),
        (b"mixture:\n  a: 0.5\n  a: 0.5\n", ["csv"], 3, "m.yaml holds no mapping"),
        (b"mixture: {a: 0.5, b: 0.5", ["csv"], 3, "expected ',' or '}'"),
        (b"\x00\xff\xfe", ["csv"], 3, "m.yaml holds no mapping"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    tmp_path: Path, content: bytes, options: list[str], code: int, text: str
) -> None:
    done = export(tmp_path, content, "--format", *options)

    assert done.returncode == code
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert code == 2 or done.stderr.count("\n") == 1
