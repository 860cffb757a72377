"""Policy and layouts in config/ name the topics, services and actions that the node has."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from package_files import ROOT

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("litevlm_ros.msg", reason="needs the built package")

from lifecycle_bench import Bench
from ros_process import wait_for

pytestmark = pytest.mark.ros
POLICY = ElementTree.parse(ROOT / "config" / "sros2" / "policy.xml").getroot()
RVIZ = yaml.safe_load((ROOT / "config" / "litevlm.rviz").read_text())
FOXGLOVE = json.loads((ROOT / "config" / "foxglove.json").read_text())


def rules(node: str, kind: str, rule: str) -> list[str]:
    """Absolute names that the policy allows `node`; those of `kind` (topic, service, action) with `rule`."""
    [profile] = POLICY.findall(f".//profile[@node='{node}']")
    groups = [group for group in profile if group.tag == f"{kind}s" and group.get(rule) == "ALLOW"]
    names = [element.text or "" for group in groups for element in group]
    return [re.sub(r"^~", f"/{node}", name) if name[0] in "/~" else f"/{name}" for name in names]


def known(ask: Callable[[], list[Any]], made: Iterable[object]) -> list[Any]:
    """Returns what `ask` tells once that is as much as was `made`. Several may have one name."""
    names = {getattr(each, "topic_name", None) or getattr(each, "service_name", "") for each in made}
    wait_for(lambda: len(ask()) >= len(names))
    return ask()


@pytest.fixture(scope="module")
def names() -> Iterator[dict[str, set[str]]]:
    bench = Bench()
    node = bench.start()
    place = (node.get_name(), node.get_namespace())
    # The graph of ROS learns of a node's own publishers and services a moment after they are made.
    found: dict[str, list[tuple[str, Any]]] = {
        "publish": known(lambda: node.get_publisher_names_and_types_by_node(*place), node.publishers),
        "subscribe": known(lambda: node.get_subscriber_names_and_types_by_node(*place), node.subscriptions),
        "reply": known(lambda: node.get_service_names_and_types_by_node(*place), node.services),
    }
    yield {rule: {name for name, _ in pairs} for rule, pairs in found.items()}
    bench.close()


def without_action(found: set[str]) -> set[str]:
    return {name for name in found if "/_action/" not in name}


@pytest.mark.parametrize(("kind", "rule"), [("topic", "publish"), ("topic", "subscribe"), ("service", "reply")])
def test_the_policy_allows_what_the_node_does(names: dict[str, set[str]], kind: str, rule: str) -> None:
    allowed = rules("litevlm", kind, rule)
    for name in without_action(names[rule]):
        assert any(fnmatch(name, pattern) for pattern in allowed), f"{name} is not in config/sros2/policy.xml"


@pytest.mark.parametrize(("kind", "rule"), [("topic", "publish"), ("service", "reply")])
def test_the_policy_allows_no_more(names: dict[str, set[str]], kind: str, rule: str) -> None:
    for pattern in rules("litevlm", kind, rule):
        assert any(fnmatch(name, pattern) for name in names[rule]), f"the node has no {pattern}"


def test_the_policy_has_the_action(names: dict[str, set[str]]) -> None:
    actions = {name.partition("/_action/")[0] for name in names["reply"] if "/_action/" in name}
    assert set(rules("litevlm", "action", "execute")) == actions


def test_users_may_ask_and_listen_but_not_change_anything(names: dict[str, set[str]]) -> None:
    assert rules("litevlm_user", "service", "request") == ["/litevlm/query"]
    assert rules("litevlm_user", "action", "call") == rules("litevlm", "action", "execute")
    for pattern in rules("litevlm_user", "topic", "subscribe"):
        if pattern.startswith("/litevlm/"):
            assert any(fnmatch(name, pattern) for name in names["publish"]), pattern


def test_the_policy_has_the_form_that_sros2_reads() -> None:
    assert POLICY.get("version") == "0.2.0"
    text = (ROOT / "config" / "sros2" / "policy.xml").read_text()
    assert "<!--" not in text.partition("<enclaves>")[2]  # sros2 takes one for an enclave
    assert [enclave.get("path") for enclave in POLICY.iter("enclave")] == ["/litevlm", "/litevlm_user"]


def test_rviz_shows_an_overlay(names: dict[str, set[str]]) -> None:
    displays = RVIZ["Visualization Manager"]["Displays"]
    assert [display["Topic"]["Value"] for display in displays] == ["/litevlm/overlay/compressed"]
    assert "/litevlm/overlay/compressed" in names["publish"]


def test_foxglove_shows_what_there_is(names: dict[str, set[str]]) -> None:
    panels = FOXGLOVE["configById"]
    topics = {re.match(r"[\w/]+", path)[0] for path in _values(panels, {"topicPath", "value", "imageTopic"})}
    assert topics <= names["publish"]
    assert set(_values(panels, {"topicToRender"})) <= names["publish"]
    assert set(_values(panels, {"serviceName"})) <= names["reply"]
    placed = re.findall(r'"(?:first|second)": "([^"]+)"', json.dumps(FOXGLOVE["layout"]))
    assert sorted(placed) == sorted(panels)


def test_foxglove_plots_fields_that_there_are() -> None:
    from litevlm_ros.msg import Caption

    for path in _values(FOXGLOVE["configById"]["Plot!timings"], {"value"}):
        value: Any = Caption()
        for field in path.split(".")[1:]:
            value = getattr(value, field)
        assert isinstance(value, float)


def _values(content: Any, keys: set[str]) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key in keys and isinstance(value, str):
                yield value
            yield from _values(value, keys)
    elif isinstance(content, list):
        for item in content:
            yield from _values(item, keys)
