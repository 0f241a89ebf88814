"""Whether something is there: not no, where nobody can tell.

`Path.exists` and its like raise for an error of the disk up to Python 3.13; from 3.14 on they say
no, and what is there would be written over, or taken for lost.
"""

import errno
import os
import re
from pathlib import Path

import pytest

from router.spool import system

ROUTER = Path(__file__).parents[1] / "router"


@pytest.mark.parametrize("ask", [system.exists, system.is_directory])
def test_an_error_of_the_disk_is_not_a_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: object
) -> None:
    def failing(path: object, **_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(OSError, match="Input/output error"):
        ask(tmp_path)  # type: ignore[operator]


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert [system.exists(path) for path in (tmp_path, file, file / "x", tmp_path / "x")] == [
        True,
        True,
        False,
        False,
    ]
    assert [system.is_directory(path) for path in (tmp_path, file, file / "x")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("folder", ["spool", "config"])
def test_no_other_way_is_used_where_safety_rests_on_it(folder: str) -> None:
    asked = re.compile(r"(?<!system)\.(exists|is_dir|is_file|is_symlink|is_mount)\(")
    found = [
        f"{path.name}:{number}"
        for path in sorted((ROUTER / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if asked.search(line)
    ]
    assert found == []
