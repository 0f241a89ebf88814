"""`rules explain`, `rules replay` and `rules test`: what a person and a script see of them."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from perf.rules_replay import make_spool
from tests.cli.support import Site, ok, ok_json, run, write_dicom

CONFIG = """
data_dir: {data}
timezone: Europe/Stockholm
local: [{{ae_title: ROUTER, listen: 127.0.0.1:11112, accept: any}}]
remotes:
  ct-1: {{ae_title: CT1}}
  pacs: {{ae_title: PACS, host: 127.0.0.1, port: 104}}
  tele: {{ae_title: TELE, host: 127.0.0.1, port: 105}}
  tele-2: {{ae_title: TELE2, host: 127.0.0.1, port: 106}}
schedules:
  night: {{open: "18:00-07:00"}}
rules:
  - {{name: everything to the PACS, to: pacs}}
  - name: CT at night
    when: {{Modality: CT, received: {{in: night}}}}
    to: {{failover: [tele, tele-2]}}
    send: {{schedule: night, priority: high}}
    tag: night
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(data=tmp_path / "data"))
    return path


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 40 instances, half of them CT, all of which went to `pacs`."""
    directory = tmp_path_factory.mktemp("received") / "data"
    make_spool(directory, 40, time.time())
    return directory


@pytest.fixture
def site(tmp_path: Path, received: Path) -> Iterator[Path]:
    """Its configuration; the directory must be left as it was."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(data=received))
    before = {p: p.stat().st_mtime_ns for p in received.rglob("*")}
    yield path
    assert {p: p.stat().st_mtime_ns for p in received.rglob("*")} == before


class TestExplain:
    NIGHT = ("--calling-ae", "CT1", "--at", "2026-11-21T02:00")

    def test_rule_by_rule_in_eighty_columns(self, config: Path, tmp_path: Path) -> None:
        file = write_dicom(tmp_path / "a.dcm", Modality="CT")
        text = ok("rules", "explain", file, "-c", config, *self.NIGHT)
        lines = text.splitlines()
        assert max(map(len, lines[1:])) <= 80
        assert "from CT1 (ct-1) to ROUTER" in lines
        assert "received 2026-11-21 02:00:00 Europe/Stockholm" in lines
        assert "  1  everything to the PACS: holds" in lines
        assert "  2  CT at night: holds" in lines
        assert "      yes Modality (0008,0060) is CT: it is CT" in lines
        flat = " ".join(text.split())
        assert "tele: by rule 'CT at night'; failover, else tele-2; at once; " in flat
        assert "schedule night, open then, until 2026-11-21 07:00:00; priority high" in flat
        assert lines[-1] == "labels: night"
        assert "\x1b" not in text

    def test_the_time_and_the_sender_count(self, config: Path, tmp_path: Path) -> None:
        file = write_dicom(tmp_path / "a.dcm", Modality="CT")
        day = ("--calling-ae", "X", "--at", "2026-11-21T12:00", "--source", "10.0.0.7")
        text = ok("rules", "explain", file, "-c", config, *day)
        assert "  2  CT at night: does not hold" in text.splitlines()
        assert "from X (no remote by name) at 10.0.0.7 to ROUTER" in text

    def test_for_scripts(self, config: Path, tmp_path: Path) -> None:
        file = write_dicom(tmp_path / "a.dcm", Modality="CT")
        found = ok_json("rules", "explain", file, "-c", config, *self.NIGHT)
        (one,) = found["instances"]
        assert (one["disposition"], one["tags"], one["remote"]) == ("route", ["night"], "ct-1")
        assert [r["destination"] for r in one["routes"]] == ["pacs", "tele"]
        assert one["routes"][1]["members"] == ["tele", "tele-2"]
        assert (one["routes"][1]["schedule_open"], one["routes"][1]["priority"]) == (True, 10)
        assert [r["verdict"] for r in one["rules"]] == ["holds", "holds"]
        assert one["rules"][1]["clauses"][0]["held"] is True
        assert found["skipped"] == []

    def test_what_is_too_large_to_compare_is_held_as_the_gateway_holds_it(
        self, config: Path, tmp_path: Path
    ) -> None:
        rule = "  - {name: others, when: {not: {PatientComments: '*secret*'}}, to: pacs}\n"
        config.write_text(config.read_text().replace("rules:\n", f"rules:\n{rule}"))
        directory = tmp_path / "files"
        write_dicom(directory / "a.dcm", 1, Modality="CT", PatientComments="secret" * 20_000)
        write_dicom(directory / "b.dcm", 2, Modality="MR", PatientComments="x")
        why = "PatientComments (0010,4000), which rules look at, is too large to be compared"
        lines = ok("rules", "explain", directory, "-c", config, *self.NIGHT).splitlines()
        assert "is held" in lines[0]
        assert why in lines[0]
        assert lines[1] == f"{directory}/b.dcm: goes to pacs"
        text = ok("rules", "explain", directory / "a.dcm", "-c", config, *self.NIGHT)
        assert why in " ".join(text.split())
        found = ok_json("rules", "explain", directory / "a.dcm", "-c", config, *self.NIGHT)
        (one,) = found["instances"]
        assert (one["disposition"], one["routes"]) == ("hold", [])

    def test_a_directory_is_a_line_per_file(self, config: Path, tmp_path: Path) -> None:
        directory = tmp_path / "files"
        write_dicom(directory / "a.dcm", 1, Modality="CT")
        write_dicom(directory / "b.dcm", 2, Modality="MR")
        (directory / "c.txt").write_text("no DICOM, but some text")
        (directory / "d.txt").write_text("no DICOM, but some text")
        result = run("rules", "explain", directory, "-c", config, *self.NIGHT)
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            f"{directory}/a.dcm: goes to pacs, {{failover: [tele, tele-2]}}",
            f"{directory}/b.dcm: goes to pacs",
        ]
        assert f"{directory}/c.txt: not a DICOM file: no element at byte 0" in result.stderr
        assert "2 files not read" in result.stderr
        whole = ok("rules", "explain", directory, "-c", config, *self.NIGHT, "--verbose")
        assert whole.count("  1  everything to the PACS: holds") == 2

    def test_nothing_could_be_read(self, config: Path, tmp_path: Path) -> None:
        (tmp_path / "c.txt").write_text("no DICOM, but some text")
        result = run("rules", "explain", tmp_path / "c.txt", "-c", config, *self.NIGHT)
        assert result.exit_code == 1
        result = run("rules", "explain", tmp_path / "c.txt", "-c", config, *self.NIGHT, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["skipped"][0]["path"] == str(tmp_path / "c.txt")

    def test_what_the_gateway_could_not_parse(self, config: Path, tmp_path: Path) -> None:
        file = write_dicom(tmp_path / "a.dcm", Modality="CT")
        whole = file.read_bytes()
        file.write_bytes(whole[: whole.index(b"CT", 300) + 1])
        text = ok("rules", "explain", file, "-c", config, *self.NIGHT)
        assert "it is held, whatever the rules say: it cannot be parsed: " in text
        (tmp_path / "files").mkdir()
        file = file.rename(tmp_path / "files" / "a.dcm")
        config.write_text(config.read_text() + "storage: {unparsable: refuse}\n")
        line = ok("rules", "explain", tmp_path / "files", "-c", config, *self.NIGHT)
        assert line.startswith(f"{file}: is refused, whatever the rules say: it cannot be parsed: ")

    def test_an_instance_as_it_was_received(self, site: Path) -> None:
        text = ok("rules", "explain", 2, "-c", site)
        assert "instance 2: MR" in text
        assert "from SCANNER1 (no remote by name) at 10.0.0.7 to ROUTER" in text
        found = ok_json("rules", "explain", 1, "-c", site, "--at", "2026-11-21T02:00")
        assert found["instances"][0]["tags"] == ["night"]
        changed = ok_json("rules", "explain", 1, "-c", site, "--calling-ae", "CT1")
        assert changed["instances"][0]["remote"] == "ct-1"

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("none.dcm", "--calling-ae", "A"), 2, "there is no file none.dcm; give a file"),
            ((".",), 2, "it is not said who sends it; use --calling-ae AE"),
            (("1",), 1, "nothing was ever received in"),
            ((".", "--calling-ae", "A", "--at", "noon"), 2, "'noon' is no time; write it as 2026"),
            ((".", "--calling-ae", "A", "--remote", "ct1"), 2, "did you mean 'ct-1'?"),
            ((".", "--calling-ae", "A" * 17), 2, "they have 1 to 16 characters"),
            ((".", "--calling-ae", "A", "--source", "host"), 2, "'host' is no address"),
        ],
    )
    def test_bad_usage(
        self, config: Path, arguments: tuple[str, ...], code: int, message: str
    ) -> None:
        result = run("rules", "explain", *arguments, "-c", config)
        assert (result.exit_code, result.stdout) == (code, "")
        assert message in result.stderr

    def test_an_instance_that_is_not_there(self, site: Path) -> None:
        result = run("rules", "explain", "999", "-c", site)
        assert result.exit_code == 1
        assert "there is no instance 999" in result.stderr


class TestReplay:
    CANDIDATE = """
  - {name: CT, when: {Modality: CT}, to: [pacs, tele], send: {priority: high}}
  - {name: one scanner, when: {calling_ae: SCANNER1}, discard: not kept}
"""

    @pytest.fixture
    def candidate(self, site: Path, tmp_path: Path) -> Path:
        path = tmp_path / "new.yaml"
        path.write_text(site.read_text().partition("rules:\n")[0] + "rules:" + self.CANDIDATE)
        return path

    def test_the_same_rules(self, site: Path) -> None:
        same = site.read_text().partition("  - name: CT at night")[0]
        site.write_text(same)
        text = ok("rules", "replay", "--with", site)
        assert "over 40 instances" in text
        assert text.splitlines()[-1] == "nothing would have been other"
        assert text.count("would have been other") == 1

    def test_for_people(self, site: Path, candidate: Path) -> None:
        lines = ok("rules", "replay", "-c", site, "--with", candidate).splitlines()
        assert lines[2] == "40 would have been other"
        assert "pacs            40    20       0        20        20" in "\n".join(
            line.strip() for line in lines
        )
        assert "discarded, routed then (rule 'one scanner': not kept): 2 instances" in lines
        assert "held, routed then (no rule matched): 18 instances" in lines
        assert "pacs, priority 0 → 10: 20 instances" in lines
        assert "  … and 15 more" in lines
        assert not any("SYN0000" in line for line in lines)

    def test_for_scripts(self, site: Path, candidate: Path) -> None:
        found = ok_json("rules", "replay", "-c", site, "--with", candidate, "--show-patient")
        assert (found["replayed"], found["same"], found["purged"]) == (40, 0, 0)
        lines = {line["destination"]: line for line in found["destinations"]}
        assert (lines["pacs"]["before"], lines["pacs"]["after"]) == (40, 20)
        assert lines["tele"]["added"]["count"] == 20
        example = lines["tele"]["added"]["examples"][0]
        assert (example["modality"], example["patient_id"]) == ("CT", "SYN000000")
        moves = {(m["before"], m["after"], m["reason"]): m["count"] for m in found["moves"]}
        assert moves == {
            ("routed", "discarded", "rule 'one scanner': not kept"): 2,
            ("routed", "held", "no rule matched"): 18,
        }

    def test_the_latest_and_since_when(self, candidate: Path) -> None:
        latest = ok_json("rules", "replay", "--with", candidate, "--limit", 3)
        assert latest["replayed"] == 3
        since = ok_json("rules", "replay", "--with", candidate, "--since", "30m")
        assert 15 <= since["replayed"] <= 20  # they came evenly over the hour before the tests
        none = ok("rules", "replay", "--with", candidate, "--since", "1s")
        assert "nothing to replay of that time" in none

    def test_bad_usage(self, site: Path, candidate: Path, tmp_path: Path) -> None:
        result = run("rules", "replay", "--with", candidate, "--since", "yesterday")
        assert result.exit_code == 2
        assert "--since: expected a duration such as" in result.stderr
        candidate.write_text(candidate.read_text().replace("to: [pacs, tele]", "to: [pacs, tell]"))
        result = run("rules", "replay", "-c", site, "--with", candidate)
        assert result.exit_code == 2
        assert "new.yaml:13:" in result.stderr
        assert "did you mean 'tele'?" in result.stderr

    def test_nothing_was_ever_received(self, config: Path) -> None:
        result = run("rules", "replay", "--with", config)
        assert result.exit_code == 1
        assert "it has no index" in result.stderr


class TestTest:
    def write(self, tmp_path: Path, text: str, name: str = "cases.yaml") -> Path:
        path = tmp_path / "cases" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    GOOD = """
rules: ../config.yaml
given: {calling_ae: CT1, Modality: CT}
cases:
  - name: at night
    given: {received: "2026-11-21T02:00"}
    expect: {to: [pacs, {failover: [tele, tele-2]}], tag: night, schedule: {tele: night}}
  - name: by day
    given: {received: "2026-11-21T12:00"}
    expect: {to: pacs, not_to: [tele, tele-2]}
"""

    def test_all_as_expected(self, config: Path, tmp_path: Path) -> None:
        assert config.exists()
        path = self.write(tmp_path, self.GOOD)
        assert ok("rules", "test", path).splitlines() == ["2 cases, all as expected"]
        found = ok_json("rules", "test", path)
        assert (found["passed"], found["failed"]) == (2, 0)
        assert [c["destinations"] for c in found["cases"]] == [["pacs", "tele"], ["pacs"]]

    def test_what_is_not_as_expected_is_explained(self, config: Path, tmp_path: Path) -> None:
        assert config.exists()
        path = self.write(tmp_path, self.GOOD.replace("T02:00", "T17:59"))
        result = run("rules", "test", path)
        assert result.exit_code == 1
        lines = result.stdout.splitlines()
        assert lines[0] == f"{path}:5: at night"
        assert lines[1] == "  it does not go to {failover: [tele, tele-2]}"
        assert "  it has no label night" in lines
        assert "  what happens: it goes to pacs" in lines
        assert "  2  CT at night: does not hold" in lines
        assert any(line.startswith("      no  received ") for line in lines)
        assert not any("everything to the PACS" in line for line in lines)
        assert lines[-1] == "2 cases, 1 NOT AS EXPECTED"
        result = run("rules", "test", path, "--json")
        assert result.exit_code == 1
        case = json.loads(result.stdout)["cases"][0]
        assert case["mismatches"][0] == "it does not go to {failover: [tele, tele-2]}"
        assert [trace["rule"] for trace in case["rules"]] == ["CT at night"]

    def test_other_rules_by_the_command_line_but_not_by_the_environment(
        self, config: Path, tmp_path: Path
    ) -> None:
        path = self.write(tmp_path, self.GOOD)
        other = tmp_path / "other.yaml"
        other.write_text(config.read_text().replace("18:00-07:00", "03:00-07:00"))
        assert run("rules", "test", path, "-c", other).exit_code == 1
        assert run("rules", "test", path, env={"DCMROUTER_CONFIG": str(other)}).exit_code == 0
        path.write_text(self.GOOD.replace("rules: ../config.yaml\n", ""))
        assert run("rules", "test", path, env={"DCMROUTER_CONFIG": str(other)}).exit_code == 1
        result = run("rules", "test", path)
        assert result.exit_code == 2
        assert "does not say which rules it is about; add 'rules: config.yaml'" in result.stderr

    def test_mistakes_of_all_files_at_once(self, config: Path, tmp_path: Path) -> None:
        assert config.exists()
        first = self.write(tmp_path, self.GOOD.replace("to: pacs", "to: pac"))
        second = self.write(tmp_path, "rules: none.yaml\ncases: []\n", "second.yaml")
        third = self.write(tmp_path, "rules: [\n", "third.yaml")
        result = run("rules", "test", first, second, third, tmp_path / "none.yaml")
        assert result.exit_code == 2
        assert result.stdout == ""
        assert f"{first}:10:18: no destination is called 'pac'" in result.stderr
        assert f"{second}:1:8: there is no file" in result.stderr
        assert f"{third}:2:1: expected the node content" in result.stderr
        assert f"{tmp_path / 'none.yaml'}: cannot be read: No such file" in result.stderr

    def test_a_configuration_with_mistakes_is_told_once(self, config: Path, tmp_path: Path) -> None:
        config.write_text(config.read_text().replace("to: pacs", "to: pac"))
        paths = [self.write(tmp_path, self.GOOD, name) for name in ("a.yaml", "b.yaml")]
        result = run("rules", "test", *paths)
        assert result.exit_code == 2
        assert result.stderr.count("'pac'") == 1


def test_beside_a_running_gateway_which_decided_the_same(tmp_path: Path) -> None:
    """What was recorded on the way in and what a trial finds are one and the same."""
    site = Site(tmp_path)
    rules = """rules:
  - {name: label, when: {Modality: MR}, tag: [magnet, slow]}
  - {name: by label, when: {tag: magnet}, to: broken, send: {after: study-complete, quiet: 90s}}
  - name: all
    when: {PatientID: "PAT*"}
    to: {failover: [archive, broken]}
    send: {priority: high, after: series-complete}
  - {name: rest, discard: of no patient}
"""
    site.config.write_text(
        re.sub(r"rules:\n.*\n", lambda _: rules, site.text).replace("TEST*", "*")
    )
    files = [
        write_dicom(tmp_path / "1.dcm", 1),
        write_dicom(tmp_path / "2.dcm", 2, Modality="MR"),
        write_dicom(tmp_path / "3.dcm", 3, PatientID="X"),
    ]
    with site.running() as served:
        site.send(*files)
        for _ in range(1000):  # each question is answered behind what the index has to write
            if ok_json("account", "-c", site.config)["received"] == len(files):
                break
        found = ok_json("rules", "replay", "--with", site.config)
        assert (found["replayed"], found["same"], found["damaged"]["count"]) == (3, 3, 0)
        assert {d["destination"]: d["before"] for d in found["destinations"]} == {
            "archive": 2,
            "broken": 1,
        }
        one = ok_json("rules", "explain", 2, "-c", site.config)["instances"][0]
        assert one["tags"] == ["magnet", "slow"]
        assert [r["destination"] for r in one["routes"]] == ["broken", "archive"]
        assert served.end() == 0
    assert ok_json("rules", "replay", "--with", site.config)["same"] == 3


def test_the_cases_of_the_examples_are_as_expected() -> None:
    examples = Path(__file__).parents[2] / "rules" / "examples"
    files = sorted(examples.glob("*.cases.yaml"))
    assert len(files) >= 9
    found = ok_json("rules", "test", *files)
    assert found["failed"] == 0
    assert {case["file"] for case in found["cases"]} == set(map(str, files))


def test_a_caller_known_by_its_address_is_not_guessed(config: Path, tmp_path: Path) -> None:
    text = config.read_text().replace("{ae_title: CT1}", "{ae_title: CT1, addresses: [10.0.0.7]}")
    config.write_text(text + "  - {name: of the CT, when: {remote: ct-1}, to: tele-2}\n")
    file = write_dicom(tmp_path / "a.dcm", Modality="CT")
    asked = run("rules", "explain", file, "-c", config, "--calling-ae", "CT1")
    assert asked.exit_code == 2
    assert "say which address it comes from with --source" in asked.stderr
    ok("rules", "explain", file, "-c", config, "--calling-ae", "CT1", "--source", "10.0.0.7")
    cases = tmp_path / "cases.yaml"
    cases.write_text(
        "given: {calling_ae: CT1, received: 2026-11-21T12:00}\n"
        "cases: [{name: a, expect: {to: [pacs, tele-2]}}]\n"
    )
    refused = run("rules", "test", cases, "-c", config)
    assert refused.exit_code == 2
    assert "case 'a' does not say which address it comes from" in refused.stderr
