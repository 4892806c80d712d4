"""A lab without the stack: what people do in it, and what follows."""

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from lab.network import sandbox
from lab.network.namespaces import inside
from lab.traffic import Mix
from lab.view import Instance, Mirror
from lab.vpc import Lab, LabError
from tests.waiting import until

pytestmark = pytest.mark.network(whole=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(Path("none is deployed")) as lab:
        yield lab


def test_instances_run_answer_stop_start_and_end(lab: Lab) -> None:
    lab.drive(None)
    [one] = lab.launch(tags={"Name": "one"})
    lab.running([one])
    url = f"http://{lab.address(one)}/hello"
    assert _asked(url) == 200
    lab.stop([one])
    until("it stops", lambda: lab.instance(one)["State"]["Name"] == "stopped")
    assert one not in lab.fabric.hosts
    lab.start([one])
    lab.running([one])
    assert _asked(url) == 200
    lab.terminate([one])
    until("it is gone", lambda: lab.instance(one)["State"]["Name"] == "terminated")
    assert not Path(f"/run/netns/{one}").exists()


def _asked(url: str) -> int:
    """As a client in the internet."""
    with inside("internet"), urlopen(url, timeout=5) as answer:
        return int(answer.status)


def test_deeds_have_their_events(lab: Lab) -> None:
    number = len(lab.cloud.events())
    [one] = lab.launch(image="plain")
    lab.running([one])
    lab.tag(one, {"Team": "shop"})
    lab.untag(one, "Team")
    lab.terminate([one])
    wanted = ["pending", "running", ["Team"], ["Team"], "shutting-down", "terminated"]
    until("all have happened", lambda: _told(lab, number) == wanted)


def _told(lab: Lab, after: int) -> list[str | list[str]]:
    details = [event.event["detail"] for event in lab.cloud.events()[after:]]
    return [detail.get("state") or detail["changed-tag-keys"] for detail in details]


def test_a_group_grows_and_shrinks_with_clients_at_each_instance(lab: Lab) -> None:
    lab.drive(Mix(gets=20, get_connections=1, posts=0, fresh=0, uploads=0, seconds=60))
    lab.group("web", 1, tags={"Env": "production"})
    [one] = until("one is in service", lambda: lab.members("web"))
    lab.scale("web", 2)
    until("two are in service", lambda: len(lab.members("web")) == 2)
    seen = until("clients ask both", lambda: _busy(lab, 2))
    assert {(each.name, each.state, each.mirror) for each in seen} == {("web", "running", Mirror.NO)}
    lab.scale("web", 0)
    until("none is left", lambda: not _shown(lab, "web"))
    until("its clients have left", lambda: lab.traffic.alive(one) == 0)


def _busy(lab: Lab, n: int) -> list[Instance]:
    shown = _shown(lab, "web")
    return shown if len(shown) == n and all(each.production > 10 for each in shown) else []


def _shown(lab: Lab, name: str) -> list[Instance]:
    return [each for each in lab.snapshot().instances if each.name == name]


def test_what_does_not_come_is_said(lab: Lab) -> None:
    with pytest.raises(LabError, match="not running within 0 s"):
        lab.running(lab.launch(image="plain"), 0)


def test_the_test_environment_has_its_name(lab: Lab) -> None:
    assert _asked("http://test.internal/") == 200
    assert (sandbox.FILES / "hosts").read_text().split()[-1] == "test.internal"
