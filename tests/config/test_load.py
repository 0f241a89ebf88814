"""A sound file becomes the configuration that its writer meant."""

from pathlib import Path

import pytest

from router.config import Loaded, Problems, load, loads
from rules import Facts

SOUND = """\
local:
  - {ae_title: ROUTER, listen: "[::]:11112", accept: any}
remotes:
  pacs: {ae_title: PACS, host: pacs.example}
rules:
  - to: pacs
"""


def _load(text: str, **env: str) -> Loaded:
    return loads(text, "c.yaml", env)


def _warnings(text: str) -> list[str]:
    return [str(problem) for problem in _load(text).warnings]


def test_defaults_and_rules() -> None:
    loaded = _load(SOUND)
    assert loaded.warnings == ()
    assert loaded.config.data_dir == Path("data")
    assert loaded.config.http.listen == "127.0.0.1:8080"
    assert loaded.config.rules == loaded.rules.rules
    decision = loaded.rules.decide(Facts("CT", "ROUTER", "10.0.0.1"))
    assert [route.destination for route in decision.routes] == ["pacs"]


@pytest.mark.parametrize("title", ["1234", "0123", "08", "NO", "on", "11:12", "1e3", "2024-01-02"])
def test_text_stays_the_text_that_was_written(title: str) -> None:
    text = SOUND.replace("PACS", title) + f"    when: {{calling_ae: {title}, PatientID: {title}}}\n"
    loaded = _load(text)
    assert loaded.config.remotes["pacs"].ae_title == title
    facts = Facts(title, "ROUTER", "", attributes={0x00100020: (title,)})
    assert loaded.rules.decide(facts).disposition == "route"


@pytest.mark.parametrize(
    ("written", "value"),
    [("yes", True), ("on", True), ("True", True), ("no", False), ("off", False), ("false", False)],
)
def test_truth_in_every_spelling(written: str, value: bool) -> None:
    assert _load(SOUND + f"spool: {{wipe: {written}}}\n").config.spool.wipe is value


def test_numbers_sizes_and_durations() -> None:
    config = _load(
        SOUND
        + "spool: {segment_size: 128MiB, low_disk: 4096, keep_settled: 1.5h}\n"
        + "network: {max_associations: 0300, idle_timeout: 500ms}\n"
    ).config
    assert config.spool.segment_size == 128 * 2**20
    assert config.spool.low_disk == 4096
    assert config.spool.keep_settled == 5400
    assert config.network.max_associations == 300
    assert config.network.idle_timeout == 0.5


def test_a_section_with_everything_commented_out_has_its_defaults() -> None:
    loaded = _load(SOUND + "spool:\n  # wipe: true\nhttp:\nlog:\n")
    assert loaded.config == _load(SOUND).config


def test_variables_of_the_environment() -> None:
    text = SOUND.replace("pacs.example", '"${HOST}"').replace("to: pacs", "to: ${TO}")
    text += "    name: 'costs $${5} and $1'\ndata_dir: ${BASE}/spool/${NAME}\n"
    loaded = _load(text, HOST="10.0.0.5", TO="pacs", BASE="base", NAME="a: [b")
    assert loaded.config.remotes["pacs"].host == "10.0.0.5"
    assert loaded.config.data_dir == Path("base/spool/a: [b")
    assert loaded.rules.rules[0].name == "costs ${5} and $1"


def test_merge_keys_and_aliases() -> None:
    config = _load(
        SOUND.replace(
            "  pacs: {ae_title: PACS, host: pacs.example}\n",
            "  pacs: &base {ae_title: PACS, host: pacs.example, linger: 9s}\n"
            "  other: {<<: *base, ae_title: OTHER, host: other.example}\n",
        )
    ).config
    assert config.remotes["other"].ae_title == "OTHER"
    assert config.remotes["other"].linger == 9


def test_a_byte_order_mark_and_windows_line_ends() -> None:
    data = b"\xef\xbb\xbf" + SOUND.replace("\n", "\r\n").encode()
    assert loads(data, "c.yaml", {}).config == _load(SOUND).config


def test_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/home")
    assert _load(SOUND + "data_dir: ~/spool\n").config.data_dir == Path("/srv/home/spool")


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(SOUND)
    one = load(path, {})
    path.write_text(SOUND + "# a comment\n")
    other = load(path, {})
    assert one.digest != other.digest
    assert one.rules.version == other.rules.version
    assert one.config == other.config


def test_local_aes_may_share_a_port_and_pick_free_ones() -> None:
    text = SOUND.replace(
        "remotes:",
        "  - {ae_title: OTHER, listen: '[::]:11112', accept: [pacs, 'M?', 10.1.0.0/16, fd00::1]}\n"
        "  - {ae_title: ROUTER, listen: 127.0.0.1:0, accept: any}\n"
        "  - {ae_title: ROUTER, listen: 127.0.0.1:0, accept: any}\nremotes:",
    )
    assert len(_load(text).config.local) == 4


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (
            ("  - to: pacs\n", ""),
            "c.yaml:1:1: there are no rules; everything that is received will be held",
        ),
        (("  - to: pacs\n", "  - discard: true\n"), "c.yaml:4:9: no rule sends to remote 'pacs'"),
        (
            ("  - to: pacs\n", "  - {to: pacs, final: true}\n  - {name: late, to: pacs}\n"),
            "c.yaml:7:5: rule 'late' is never reached; rule 'rule 1' ends every decision in line 6",
        ),
        (
            ("  - to: pacs\n", "  - discard: true\n  - {name: late, to: pacs}\n"),
            "c.yaml:7:5: rule 'late' is never reached; rule 'rule 1' ends every decision in line 6",
        ),
        (
            ("  - to: pacs\n", "  - to: pacs\n  - {when: {Modality: SR}, discard: true}\n"),
            (
                "c.yaml:7:5: rule 'rule 2' never discards anything; "
                "rule 'rule 1' in line 6 routes everything before it"
            ),
        ),
        (
            ("  - to: pacs\n", "  - {when: {called_ae: ROUTR}, to: pacs}\n"),
            (
                "c.yaml:6:5: rule 'rule 1' waits for called AE 'ROUTR', which is no local AE; "
                "did you mean 'ROUTER'?"
            ),
        ),
        (
            ("host: pacs.example", "host: localhost, port: 11112"),
            (
                "c.yaml:4:9: remote 'pacs' is this gateway itself; "
                "what is sent to it comes back, and round again"
            ),
        ),
        (
            ("rules:", "  ct: {ae_title: PACS}\nrules:"),
            (
                "c.yaml:5:7: remotes 'pacs' and 'ct' have the same AE title; "
                "give them addresses, so that a call of either is known"
            ),
        ),
        (("accept: any", "accept: []"), "c.yaml:2:54: nobody may call 'ROUTER'"),
    ],
)
def test_warnings(change: tuple[str, str], warning: str) -> None:
    text = SOUND.replace(*change)
    assert text != SOUND
    assert warning in _warnings(text)


def test_rules_are_checked_although_a_setting_is_wrong() -> None:
    with pytest.raises(Problems) as caught:
        _load(SOUND.replace("[::]:11112", "nowhere") + "  - {to: pax}\n")
    assert [problem.line for problem in caught.value.problems] == [2, 7]


@pytest.mark.parametrize(
    ("hosts", "warned"),
    [
        (("10.0.0.1", "10.0.0.2"), False),
        (("fd00::1", "fd00:0::1"), True),
        (("10.0.0.1", "ct.example"), True),
        (("pacs.example", "ct.example"), True),
    ],
)
def test_hosts_that_are_names_do_not_tell_callers_apart(
    hosts: tuple[str, str], warned: bool
) -> None:
    """Regression: no warning, and a call of the second was taken for one of the first."""
    text = SOUND.replace("host: pacs.example", f'host: "{hosts[0]}"').replace(
        "rules:", f'  ct: {{ae_title: PACS, host: "{hosts[1]}", port: 105}}\nrules:'
    )
    assert any("have the same AE title" in line for line in _warnings(text)) is warned
