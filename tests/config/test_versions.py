"""The versions kept on disk: what goes wrong first, then that they are what was written."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from router.config import durable
from router.config import versions as module
from router.config.versions import File, Origin, Outcome, Version, Versions, VersionsError

NOT_UTF8 = b"\xff\xfe: \x00"


@pytest.fixture
def store(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "data" / "versions")


def files(text: str = "one") -> list[File]:
    return [File("config.yaml", f"# {text} ${{SECRET}}\n".encode()), File("rules.d/1.yaml", b"[]")]


def add(
    store: Versions,
    text: str = "one",
    outcome: Outcome = "took effect",
    rules: str = "aaaaaaaaaaaa",
    at: float = 1.0,
) -> Version:
    return store.add(files(text), outcome=outcome, rules=rules, at=at).version


def fail(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, call, refuse)


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "replace", "sync_directory"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_leaves_the_versions_as_they_were(
    store: Versions, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    before = add(store)
    with monkeypatch.context() as broken:
        fail(broken, call, number)
        with pytest.raises(OSError, match=os.strerror(number)):
            add(store, "two")
    listing = store.listing()
    assert listing.damaged == ()
    assert listing.versions[0] == before
    assert [p.name for p in store.directory.iterdir() if p.suffix != ".version"] == []
    # After a sync that failed it may be there all the same: asked again it is not doubled.
    add(store, "two")
    assert len(store.listing().versions) == 2


def test_a_write_that_fails_half_way_leaves_nothing(
    store: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store)
    write = os.write

    def short(fd: int, data: memoryview) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[: len(data) // 2])

    with monkeypatch.context() as full:
        full.setattr(os, "write", short)
        with pytest.raises(OSError, match=r"No space left.*000002\.new"):
            add(store, "two")
    assert [p.name for p in store.directory.iterdir()] == ["000001.version"]


def test_old_versions_that_cannot_be_removed_are_told_and_keep_nothing_back(
    store: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.keep = 1
    add(store)
    with monkeypatch.context() as broken:
        fail(broken, "remove", errno.EIO)
        added = store.add(files("two"), outcome="took effect", rules="b", at=2.0)
    assert added.new
    assert "old versions could not be removed: Input/output error" in added.trouble
    assert len(store.listing().versions) == 2


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:40], "its first line is not what was written"),
        (lambda data: b"", "its first line is not what was written"),
        (lambda data: data.replace(b"took effect", b"took  effect", 1), "first line"),
        (lambda data: data[:-3], "its files are not what was written"),
        (lambda data: b"\0" * len(data), "its first line is not what was written"),
    ],
    ids=["torn", "empty", "head", "short", "zeros"],
)
def test_a_damaged_entry_is_told_and_passed_over(
    store: Versions, damage: Callable[[bytes], bytes], why: str
) -> None:
    first, second = add(store), add(store, "two", rules="bbbbbbbbbbbb")
    path = store.directory / "000001.version"
    path.write_bytes(damage(path.read_bytes()))
    listing = store.listing()
    assert listing.versions == (second,)
    assert len(listing.damaged) == 1
    assert str(path) in listing.damaged[0]
    assert why in listing.damaged[0]
    with pytest.raises(VersionsError, match="version 1 is damaged"):
        store.files(first.number)
    with pytest.raises(VersionsError, match="version 1 is damaged"):
        store.find("1")
    assert add(store, "three").number == 3


def test_files_that_were_changed_on_the_disk_are_not_given_out(store: Versions) -> None:
    add(store)
    path = store.directory / "000001.version"
    path.write_bytes(path.read_bytes().replace(b"# one", b"# two"))
    assert store.listing().versions != ()
    with pytest.raises(VersionsError, match="its files are not what was written"):
        store.files(1)


def test_an_entry_under_another_number_is_not_taken_for_it(store: Versions) -> None:
    add(store)
    (store.directory / "000001.version").rename(store.directory / "000007.version")
    assert store.listing().versions == ()
    assert "not the entry that its name says" in store.listing().damaged[0]
    assert add(store).number == 8


def test_an_entry_of_a_later_version_of_the_program_is_told(
    store: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(
            "router.config.versions.asdict", lambda version: asdict(version) | {"colour": "red"}
        )
        add(store)
    assert "another version of dcmrouter" in store.listing().damaged[0]


def test_other_things_in_the_directory_are_none_of_ours(store: Versions) -> None:
    add(store)
    for name in ("notes.txt", "12.version", "x.version", "000002.version.bak"):
        (store.directory / name).write_text("by hand")
    assert len(store.listing().versions) == 1
    assert add(store, "two").number == 2


@pytest.mark.parametrize("text", ["9", "abcd", "zzzz", "", "-1", "../1", "previous", "1" * 30, "¹"])
def test_a_version_that_is_not_there(store: Versions, text: str) -> None:
    add(store)
    with pytest.raises(VersionsError, match="there is no version") as found:
        store.find(text)
    assert "dcmrouter rules versions" in found.value.fix


def test_no_directory_is_no_version(store: Versions) -> None:
    assert store.listing().versions == ()
    with pytest.raises(VersionsError, match="no version 1"):
        store.files(1)


# -- what is kept ------------------------------------------------------------------------------


def test_bytes_are_kept_as_they_were_written(store: Versions) -> None:
    given = [
        File("config.yaml", "namn: Åsa ${PASSWORD}\r\n\tx".encode()),
        File("/etc/site/\udcffodd.yaml", NOT_UTF8),
        File("empty", b""),
        File("bom", b"\xef\xbb\xbfx"),
    ]
    made = store.add(
        given,
        outcome="took effect",
        rules="0123456789ab",
        at=17.5,
        origin=Origin("anna", "control socket", "for the new scanner"),
    )
    assert made.new
    assert store.files(1) == tuple(given)
    [version] = store.listing().versions
    assert version == made.version
    assert (version.author, version.via, version.note) == (
        "anna",
        "control socket",
        "for the new scanner",
    )
    assert version.names == tuple(file.name for file in given)


def test_only_its_owner_may_read_it(store: Versions) -> None:
    add(store)
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.directory / "000001.version").stat().st_mode) == 0o600


def test_the_same_again_is_no_new_version(store: Versions) -> None:
    one = add(store, "one")
    assert store.add(files("one"), outcome="took effect", rules="a", at=2.0) == module.Added(
        one, new=False
    )
    assert add(store, "two").number == 2
    assert add(store, "one").number == 3  # it was not in force just before
    assert not store.add(files("one"), outcome="kept", rules="", at=2.0).new
    assert store.add(files("two"), outcome="kept", rules="", at=2.0).new


def test_what_is_refused_again_and_again_is_kept_once_and_changes_nothing(store: Versions) -> None:
    one = add(store, "one")
    for _ in range(3):
        refused = store.add(
            files("bad"), outcome="refused", rules="", at=2.0, problems=["config.yaml:1:1: no"]
        )
    assert refused.version.number == 2
    assert refused.version.problems == ("config.yaml:1:1: no",)
    assert store.listing().in_force == one
    assert not store.add(files("one"), outcome="took effect", rules="a", at=3.0).new


def test_refused_ones_do_not_push_out_the_others(
    store: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REFUSED", 3)
    store.keep = 10
    for number in range(8):
        add(store, f"good {number}")
        add(store, f"bad {number}", "refused")
    versions = store.listing().versions
    assert [v.outcome for v in versions].count("refused") == 3
    assert [v.outcome for v in versions].count("took effect") == 7
    assert versions[-1].number == 16


def test_no_more_than_so_many_are_kept(store: Versions) -> None:
    store.keep = 5
    for number in range(9):
        add(store, str(number))
    assert [v.number for v in store.listing().versions] == [5, 6, 7, 8, 9]


def test_no_more_than_so_many_bytes_are_kept_but_the_one_in_force_always(
    store: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        add(store, str(number))
    size = (store.directory / "000001.version").stat().st_size
    monkeypatch.setattr(module, "MAX_BYTES", 2 * size + size // 2)
    add(store, "5")
    assert [v.number for v in store.listing().versions] == [4, 5]
    monkeypatch.setattr(module, "MAX_BYTES", 1)
    add(store, "bad", "refused")
    assert [v.number for v in store.listing().versions] == [5, 6]


def test_a_version_is_found_by_number_rules_and_previous(store: Versions) -> None:
    one = add(store, "one", rules="aaaaaaaaaaa1")
    two = add(store, "two", rules="bbbbbbbbbbb2")
    three = add(store, "three", rules="bbbbbbbbbbb2")
    refused = add(store, "four", "refused", rules="aaaaaaaaaaa1")
    assert store.find("2") == two
    assert store.find("000002") == two
    assert store.find("bbbb") == three
    assert store.find("aaaaaaaaaaa1") == one
    assert store.find("4") == refused
    assert store.find("previous") == two


def test_texts_have_an_end(store: Versions) -> None:
    added = store.add(
        files(),
        outcome="refused",
        rules="",
        at=1.0,
        origin=Origin("a" * 9999, "v" * 9999, "n" * 9999),
        problems=["p" * 9999] * 9999,
    )
    assert store.listing().versions == (added.version,)
    assert (store.directory / "000001.version").stat().st_size < 100_000
