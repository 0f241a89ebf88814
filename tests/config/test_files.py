"""Files that lie in an overlay are found as if they lay on the disk."""

import os
from pathlib import Path

import pytest

from router.config.files import Files, Overlay
from rules import Problems

NAMES = (
    "c.yaml",
    "a.yaml",
    "b.yml",
    ".hidden.yaml",
    "rules.d/10-ct.yaml",
    "rules.d/20-mr.yaml",
    "rules.d/.draft.yaml",
    "rules.d/deep/30-sr.yaml",
    "rules.d/deep/er/40-us.yaml",
    "rules.d/.old/50-xa.yaml",
    "rules[1]/60.yaml",
)


def _put(directory: Path, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def _overlay(directory: Path, *names: str) -> Overlay:
    return {Path(os.path.realpath(directory / name)): name.encode() for name in names}


def _included(file: Path, pattern: str, overlay: Overlay | None = None) -> dict[str, bytes]:
    found = Files(str(file), overlay).include(pattern)
    assert [name for name, _ in found] == sorted(name for name, _ in found)
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


GLOBS = {
    "*.yaml": {"a.yaml", "c.yaml"},
    "./?.y*ml": {"a.yaml", "b.yml", "c.yaml"},
    "[ab].*": {"a.yaml", "b.yml"},
    "[!a].yaml": {"c.yaml"},
    ".*.yaml": {".hidden.yaml"},
    "A*.yaml": set(),
    "rules.d/*.yaml": {"rules.d/10-ct.yaml", "rules.d/20-mr.yaml"},
    "rules.d/.*.yaml": {"rules.d/.draft.yaml"},
    "rules.d/.*/*.yaml": {"rules.d/.old/50-xa.yaml"},
    "rules.d/.old/*.yaml": {"rules.d/.old/50-xa.yaml"},
    "*/*.yaml": {"rules.d/10-ct.yaml", "rules.d/20-mr.yaml", "rules[1]/60.yaml"},
    "*/deep/*.yaml": {"rules.d/deep/30-sr.yaml"},
    "rules.d/**/*.yaml": {
        "rules.d/10-ct.yaml",
        "rules.d/20-mr.yaml",
        "rules.d/deep/30-sr.yaml",
        "rules.d/deep/er/40-us.yaml",
    },
    "**/*.y*ml": {name for name in NAMES if "." not in (name[0], name.partition("/")[2][:1])},
    "**/30-*": {"rules.d/deep/30-sr.yaml"},
    "**/deep/**/4?-us.yaml": {"rules.d/deep/er/40-us.yaml"},
    "**/.old/*": {"rules.d/.old/50-xa.yaml"},
    "rules.d/**.yaml": {"rules.d/10-ct.yaml", "rules.d/20-mr.yaml"},
    "rules.d/deep/../*-mr.yaml": {"rules.d/20-mr.yaml"},
    "rules[[]1]/*": {"rules[1]/60.yaml"},
    "nowhere/*.yaml": set(),
}


@pytest.mark.parametrize("pattern", GLOBS)
def test_globs_find_the_same_on_the_disk_and_in_the_overlay(tmp_path: Path, pattern: str) -> None:
    disk, empty = tmp_path / "disk", tmp_path / "empty"
    _put(disk)
    empty.mkdir()
    # A system follows ".." only out of directories that are there.
    (empty / "rules.d" / "deep").mkdir(parents=True)
    on_disk = _included(disk / "c.yaml", pattern)
    laid_over = _included(empty / "c.yaml", pattern, _overlay(empty, *NAMES))

    assert {os.path.relpath(name, disk): data.decode() for name, data in on_disk.items()} == {
        name: name for name in GLOBS[pattern]
    }
    assert {name.replace(str(empty), str(disk)): data for name, data in laid_over.items()} == (
        on_disk
    )


def test_absolute_globs(tmp_path: Path) -> None:
    pattern = f"{tmp_path}/rules.d/**/*.yaml"
    found = _included(Path("/elsewhere/c.yaml"), pattern, _overlay(tmp_path, *NAMES))
    assert {os.path.relpath(name, tmp_path) for name in found} == GLOBS["rules.d/**/*.yaml"]


def test_what_the_overlay_has_comes_before_what_lies_on_the_disk(tmp_path: Path) -> None:
    _put(tmp_path)
    mr = tmp_path / "rules.d" / "20-mr.yaml"
    found = _included(tmp_path / "c.yaml", "rules.d/*.yaml", {Path(os.path.realpath(mr)): b"new"})
    assert found == {str(mr.with_name("10-ct.yaml")): b"rules.d/10-ct.yaml", str(mr): b"new"}


def test_none_is_no_file_for_globs_and_for_names(tmp_path: Path) -> None:
    _put(tmp_path)
    overlay = {Path(os.path.realpath(tmp_path / name)): None for name in ("a.yaml", "gone.yaml")}
    assert list(_included(tmp_path / "c.yaml", "*.yaml", overlay)) == [str(tmp_path / "c.yaml")]
    assert _included(tmp_path / "c.yaml", "a.yaml", overlay) == {}
    assert _included(tmp_path / "c.yaml", "gone.yaml", overlay) == {}
    with pytest.raises(FileNotFoundError):
        Files("c.yaml", overlay).configuration(str(tmp_path / "a.yaml"))


def test_names_without_a_star_are_taken_from_the_overlay(tmp_path: Path) -> None:
    overlay = _overlay(tmp_path, "a.yaml")
    assert _included(tmp_path / "c.yaml", "a.yaml", overlay) == {
        str(tmp_path / "a.yaml"): b"a.yaml"
    }
    assert _included(tmp_path / "c.yaml", "b.yml", overlay) == {}
    assert Files("c.yaml", overlay).configuration(str(tmp_path / "a.yaml")) == b"a.yaml"


def test_files_beside_the_configurations_directory(tmp_path: Path) -> None:
    """Regression: a glob with ".." found none of the files that the overlay alone has."""
    (tmp_path / "etc").mkdir()
    overlay = _overlay(tmp_path, "shared/a.yaml", "etc/b.yaml")
    assert _included(tmp_path / "etc" / "c.yaml", "../shared/*.yaml", overlay) == {
        f"{tmp_path}/etc/../shared/a.yaml": b"shared/a.yaml"
    }


@pytest.mark.parametrize("absolute", [False, True])
def test_directories_that_are_links(tmp_path: Path, absolute: bool) -> None:
    """Regression: what lies over a linked directory was not found, or found under two names."""
    (tmp_path / "etc").mkdir()
    _put(tmp_path, ("store/a.yaml",))
    (tmp_path / "etc" / "rules.d").symlink_to(tmp_path / "store")
    overlay = _overlay(tmp_path, "store/a.yaml", "store/b.yaml")
    pattern = f"{tmp_path}/etc/rules.d/*.yaml" if absolute else "rules.d/*.yaml"
    assert _included(tmp_path / "etc" / "c.yaml", pattern, overlay) == {
        f"{tmp_path}/etc/rules.d/a.yaml": b"store/a.yaml",
        f"{tmp_path}/etc/rules.d/b.yaml": b"store/b.yaml",
    }


def test_the_configurations_own_directory_may_be_a_link(tmp_path: Path) -> None:
    _put(tmp_path, ("real/rules.d/a.yaml",))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    overlay = _overlay(tmp_path, "real/rules.d/a.yaml", "real/rules.d/b.yaml")
    assert list(_included(tmp_path / "link" / "c.yaml", "rules.d/*.yaml", overlay)) == [
        f"{tmp_path}/link/rules.d/a.yaml",
        f"{tmp_path}/link/rules.d/b.yaml",
    ]


def test_a_relative_configuration_gives_relative_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    overlay = _overlay(tmp_path, "rules.d/a.yaml")
    assert list(_included(Path("c.yaml"), "rules.d/*.yaml", overlay)) == ["rules.d/a.yaml"]


@pytest.mark.parametrize("pattern", ["rules.d", "rules.d/*"])
def test_directories_are_no_files(tmp_path: Path, pattern: str) -> None:
    _put(tmp_path)
    overlay = _overlay(tmp_path, "rules.d/70-nm.yaml")
    with pytest.raises(Problems, match=r"(deep|rules\.d): is a directory"):
        Files(str(tmp_path / "c.yaml"), overlay).include(pattern)
