"""What waits for a study or a schedule, as the commands show it."""

from pathlib import Path

import pytest

from router.spool.index import Filter, Index
from router.spool.plan import Plan
from tests.cli.support import Site, ok, ok_json
from tests.spool.index_samples import T0, add, meta, ref


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """At rest; one waits for its study, one for a schedule, one for nothing."""
    site = Site(tmp_path, 1)
    (site.data_dir / "spool").mkdir(parents=True)
    index = Index.open(site.data_dir / "index.sqlite")
    add(
        index,
        (ref(1), meta(1, "archive", plan=Plan(after="study-complete"), tags=("night", "trial"))),
        (ref(2), meta(2, "archive", plan=Plan(schedule="weekend"))),
        (ref(3), meta(3, "archive", tags=("night",))),
    )
    index.hold(Filter(ids=(3,)), "for a reason", at=T0)
    index.close()
    return site


def test_a_list_of_queues_says_what_some_wait_for(site: Site) -> None:
    text = ok("queue", "list", "-c", site.config)
    assert "study not complete, schedule weekend shut" in text
    (ready, *_) = ok_json("queue", "list", "-c", site.config)["queues"]
    assert (ready["instances"], ready["gated"], ready["next_due_at"]) == (2, 2, None)


def test_each_delivery_says_what_it_waits_for(site: Site) -> None:
    lines = ok("queue", "show", "-c", site.config).splitlines()
    for why in ("study not complete", "schedule weekend shut", "for a reason"):
        assert sum(why in line for line in lines) == 1
    assert "study not complete" in ok("instances", "show", "1", "-c", site.config)


def test_instances_have_their_labels_and_are_found_by_them(site: Site) -> None:
    assert "night, trial" in ok("instances", "show", "1", "-c", site.config)
    found = ok_json("queue", "show", "-c", site.config, "--tag", "night")["entries"]
    assert [e["instance_id"] for e in found] == [1, 3]
    found = ok_json("instances", "list", "-c", site.config, "--tag", "trial")["entries"]
    assert [(e["id"], e["tags"]) for e in found] == [(1, ["night", "trial"])]
