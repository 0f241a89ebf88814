"""What is stored with an instance: read again, by earlier versions and from them."""

import json

import pytest

from router.spool.plan import Plan
from router.spool.record import InstanceMeta, RouteMeta
from tests.spool.index_samples import meta

_PLAN = Plan(mode="failover", members=("pacs", "vna"), after="study-complete").to_text()


def test_tags_and_plans_are_read_as_they_were_written() -> None:
    plain = meta(1, "pacs", "vna")
    for tags in ((), ("night", "trial.7")):
        for plans in (("", ""), (_PLAN, ""), ("", _PLAN)):
            routes = tuple(
                RouteMeta(name, "r", 5, plan)
                for name, plan in zip(("pacs", "vna"), plans, strict=True)
            )
            what = plain._replace(routes=routes, tags=tags)
            assert InstanceMeta.from_bytes(what.to_bytes()) == what


def test_without_tags_and_plans_a_record_has_not_a_byte_more_than_before() -> None:
    values, routes = json.loads(meta(1, "pacs").to_bytes())
    assert len(values) == 16
    assert routes == [["pacs", "everything", 0]]


def test_a_program_that_knows_neither_reads_the_rest() -> None:
    values, routes = json.loads(meta(1, "pacs", plan=_PLAN, tags=("a",)).to_bytes())
    # It takes as many values as it knows, and hands each route to a class of three fields.
    assert values[:16] == json.loads(meta(1, "pacs").to_bytes())[0]
    assert routes == [["pacs", "everything", 0]]


def test_a_record_of_before_tags_and_plans_is_read() -> None:
    old = (
        b'[[1.5,"a1","CT1","ROUTER","10.0.0.7","ct","1.2","1.2.3.4","1.2.840.10008.1.2",'
        b'"1.2.3","1.2.3.1","CT","route","",false,"r1"],[["pacs","everything",0],["vna","x"]]]'
    )
    found = InstanceMeta.from_bytes(old)
    assert found.routes == (RouteMeta("pacs", "everything", 0, ""), RouteMeta("vna", "x", 0, ""))
    assert (found.rules_version, found.tags) == ("r1", ())


def test_what_a_later_version_adds_is_left_out() -> None:
    kept = meta(1, "pacs", plan=_PLAN, tags=("a",))._replace(keep=90.0)
    values, routes = json.loads(kept.to_bytes())
    routes[0].append("new")
    later = json.dumps([[*values, {"new": 1}], routes]).encode()
    assert InstanceMeta.from_bytes(later) == kept


@pytest.mark.parametrize("tags", [(), ("a", "b")])
@pytest.mark.parametrize("plan", ["", _PLAN])
@pytest.mark.parametrize("keep", [0.0, 1.0, 2592000.0])
def test_the_time_to_keep_is_written_with_and_without_the_others(
    tags: tuple[str, ...], plan: str, keep: float
) -> None:
    what = meta(1, "pacs", plan=plan, tags=tags)._replace(keep=keep)
    assert InstanceMeta.from_bytes(what.to_bytes()) == what


@pytest.mark.parametrize("keep", ["1", True, -1, 1e300, None, [], "Infinity"])
def test_a_time_to_keep_that_is_none_is_no_description(keep: object) -> None:
    text = json.dumps([[*_VALUES, [], [], keep], []])
    with pytest.raises(ValueError, match="not an instance description"):
        InstanceMeta.from_bytes(text.replace('"Infinity"', "Infinity").encode())


_VALUES = ["x"] * 16


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        [_VALUES],
        [{"a": 1}, []],
        ["text of more than sixteen characters", []],
        [[*_VALUES, 5], []],
        [[*_VALUES, [], 5], []],
        [[*_VALUES, [], ["", ""]], [["pacs", "r", 0]]],
        [[*_VALUES, [], [""]], [["pacs", "r", 0], ["vna", "r", 0]]],
        [_VALUES, [["pacs"]]],
        [_VALUES, [5]],
        [[None], []],
    ],
)
def test_what_is_not_a_description_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not an instance description"):
        InstanceMeta.from_bytes(json.dumps(value).encode())


class _Name(str):
    """As pydicom's UID is one."""


def test_a_value_of_a_derived_class_is_written_as_what_it_is_derived_from() -> None:
    plain = meta(1, "pacs")
    derived = plain._replace(sop_instance_uid=_Name(plain.sop_instance_uid))
    assert derived.to_bytes() == plain.to_bytes()


def test_what_json_has_no_word_for_is_refused() -> None:
    odd = meta(1, "pacs")._replace(reason=object())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text and numbers, not object"):
        odd.to_bytes()
    with pytest.raises(UnicodeEncodeError):
        meta(1, "pacs")._replace(reason="\ud800").to_bytes()
