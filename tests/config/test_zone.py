"""The time zone of the machine, wherever it is said, and UTC where nobody says it."""

from pathlib import Path

import pytest

from router.config import zone
from router.config.zone import machine_zone


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that says nothing; its directory."""
    monkeypatch.setattr(zone, "LOCALTIME", tmp_path / "localtime")
    monkeypatch.setattr(zone, "TIMEZONE", tmp_path / "timezone")
    return tmp_path


def _data_base(machine: Path, name: str, under: str = "usr/share/zoneinfo") -> Path:
    file = machine / under / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_a_machine_that_says_nothing_has_utc(machine: Path) -> None:
    assert not (machine / "localtime").exists()
    assert machine_zone({}) == "UTC"


@pytest.mark.parametrize(
    "value", ["", ":", "Nowhere", "CET-1CEST,M3.5.0,M10.5.0/3", "../Europe/Stockholm", "/", "a\0b"]
)
def test_what_tz_says_otherwise_is_utc_and_not_the_machines(machine: Path, value: str) -> None:
    (machine / "localtime").symlink_to(_data_base(machine, "Asia/Tokyo"))
    (machine / "timezone").write_text("Asia/Tokyo\n")
    assert machine_zone({"TZ": value}) == "UTC"


@pytest.mark.parametrize(
    "value",
    [
        "Europe/Stockholm",
        ":Europe/Stockholm",
        "posix/Europe/Stockholm",
        "/usr/share/zoneinfo/Europe/Stockholm",
        ":/usr/share/zoneinfo/posix/Europe/Stockholm",
    ],
)
def test_tz_comes_before_what_the_machine_says(machine: Path, value: str) -> None:
    (machine / "localtime").symlink_to(_data_base(machine, "Asia/Tokyo"))
    (machine / "timezone").write_text("Asia/Tokyo\n")
    assert machine_zone({"TZ": value}) == "Europe/Stockholm"


@pytest.mark.parametrize("colon", ["", ":"])
def test_tz_may_name_the_machines_own_link(machine: Path, colon: str) -> None:
    """Regression: TZ=:/etc/localtime, which spares the C library a stat, was taken for UTC."""
    (machine / "localtime").symlink_to(_data_base(machine, "Asia/Tokyo"))
    assert machine_zone({"TZ": f"{colon}{machine / 'localtime'}"}) == "Asia/Tokyo"


def test_tz_may_name_the_machines_own_file(machine: Path) -> None:
    (machine / "localtime").write_bytes(b"TZif")
    (machine / "timezone").write_text("Asia/Tokyo\n")
    assert machine_zone({"TZ": f":{machine / 'localtime'}"}) == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("under", "name", "expected"),
    [
        ("usr/share/zoneinfo", "Europe/Stockholm", "Europe/Stockholm"),
        ("usr/share/zoneinfo", "posix/Europe/Stockholm", "Europe/Stockholm"),
        (
            "var/db/timezone/zoneinfo",
            "America/Argentina/Buenos_Aires",
            "America/Argentina/Buenos_Aires",
        ),
        ("usr/share/zoneinfo", "Etc/UTC", "UTC"),
        ("usr/share/zoneinfo", "UTC", "UTC"),
    ],
)
def test_the_link_names_the_zone(machine: Path, under: str, name: str, expected: str) -> None:
    (machine / "localtime").symlink_to(_data_base(machine, name, under))
    assert machine_zone({}) == expected


def test_links_to_links_are_followed(machine: Path) -> None:
    (machine / "system").symlink_to(_data_base(machine, "Europe/Stockholm"))
    (machine / "localtime").symlink_to("system")
    assert machine_zone({}) == "Europe/Stockholm"


def test_the_link_comes_before_the_file(machine: Path) -> None:
    (machine / "localtime").symlink_to(_data_base(machine, "Europe/Stockholm"))
    (machine / "timezone").write_text("Asia/Tokyo\n")
    assert machine_zone({}) == "Europe/Stockholm"


@pytest.mark.parametrize("kind", ["absent", "copy", "dangling", "loop", "unknown"])
def test_the_file_is_asked_where_the_link_does_not_tell(machine: Path, kind: str) -> None:
    link = machine / "localtime"
    match kind:
        case "copy":
            link.write_bytes(b"TZif")
        case "dangling":
            # A link to what is not there: the C library has UTC, and does not know the name.
            link.symlink_to(machine / "usr/share/zoneinfo/Europe/Stockholm")
        case "loop":
            link.symlink_to(link)
        case "unknown":
            link.symlink_to(_data_base(machine, "Europe/Nowhere"))
    assert machine_zone({}) == "UTC"
    (machine / "timezone").write_text(" Asia/Tokyo \n")
    assert machine_zone({}) == "Asia/Tokyo"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"Nowhere\n", b"\xff\xfe", b"a\0b", b"x" * 100_000, b"Etc/UTC\n"]
)
def test_a_file_that_tells_nothing_is_utc(machine: Path, content: bytes) -> None:
    (machine / "timezone").write_bytes(content)
    assert machine_zone({}) == "UTC"


def test_a_directory_in_place_of_the_file_is_utc(machine: Path) -> None:
    (machine / "timezone").mkdir()
    assert machine_zone({}) == "UTC"
