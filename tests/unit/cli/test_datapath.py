"""plimsoll datapath: what is asked, what is told, and how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datapath.errors import DatapathError
from datapath.view.model import Trouble
from services.cli.datapath import split_destination
from services.cli.errors import Usage
from tests.unit.cli.conftest import Plimsoll, Site


class TestStatus:
    def test_all_is_told(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("datapath", "status", "--json").json
        assert (answer["node"], answer["mode"], answer["generation"]) == ("node-1", "ebpf", 12)
        assert answer["programs"][0]["verified_instructions"] == 4321
        assert answer["garbage_collection"]["last_at"].startswith("2023-11-14")
        people = plimsoll("datapath", "status").out
        assert "plmweb (from-pod, tcx)" in people
        assert "1 lost" in people

    def test_a_problem_is_bad_news(self, plimsoll: Plimsoll, site: Site) -> None:
        site.datapath.view.answer_status = replace(
            site.datapath.view.answer_status, troubles=[Trouble("eth1", "has no address", "give it one")]
        )
        answer = plimsoll("datapath", "status")
        assert answer.code == 1
        assert "remedy: give it one" in answer.out

    def test_a_daemon_without_programs_says_so(self, plimsoll: Plimsoll, site: Site) -> None:
        site.datapath.view.fail_next = _Off()
        answer = plimsoll("datapath", "status", "--json")
        assert answer.code == 5
        assert answer.error["remedy"] == "switch it on"


class _Off(DatapathError):
    kind = "precondition"

    def __init__(self) -> None:
        super().__init__("the programs are not loaded", remedy="switch it on")


class TestFilters:
    @pytest.mark.parametrize(
        ("options", "found"),
        [
            ((), 2),
            (("--pod", "shop/db"), 1),
            (("--pod", "shop/db", "--pod", "shop/web"), 2),
            (("--address", "198.51.100.0/24"), 1),
            (("--port", "5432"), 1),
            (("--port", "33000"), 1),
            (("--protocol", "udp"), 0),
            (("--protocol", "6", "--port", "443"), 1),
            (("--limit", "1"), 1),
            (("--state", "opening"), 1),
            (("--state", "open", "--state", "opening", "--order", "bytes"), 2),
        ],
    )
    def test_connections(self, plimsoll: Plimsoll, site: Site, options: tuple[str, ...], found: int) -> None:
        assert len(plimsoll("datapath", "ct", "list", *options, "--json").json) == found

    @pytest.mark.parametrize(
        ("option", "value"), [("--pod", "web"), ("--address", "10.0.1"), ("--port", "70000"), ("--protocol", "tpc")]
    )
    @pytest.mark.parametrize("command", [("datapath", "ct", "list"), ("datapath", "nat", "list"), ("monitor",)])
    def test_a_mistake_is_named(
        self, plimsoll: Plimsoll, site: Site, command: tuple[str, ...], option: str, value: str
    ) -> None:
        answer = plimsoll(*command, option, value, "--json")
        assert answer.code == 2
        assert answer.error["field"] == option.removeprefix("--")
        assert answer.error["remedy"]

    @pytest.mark.parametrize(("option", "value"), [("--order", "size")])
    def test_an_order_that_there_is_not(self, plimsoll: Plimsoll, site: Site, option: str, value: str) -> None:
        answer = plimsoll("datapath", "ct", "list", option, value, "--json")
        assert (answer.code, answer.error["field"]) == (2, "order")

    def test_the_largest_come_first(self, plimsoll: Plimsoll, site: Site) -> None:
        listed = plimsoll("datapath", "ct", "list", "--order", "bytes", "--json").json
        assert [one["destination"]["pod"] for one in listed] == ["shop/db", ""]
        listed = plimsoll("datapath", "ct", "list", "--order", "newest", "--limit", "1", "--json").json
        assert [one["destination"]["pod"] for one in listed] == [""]

    def test_a_cut_list_says_so(self, plimsoll: Plimsoll, site: Site) -> None:
        assert "more with --limit" in plimsoll("datapath", "ct", "list", "--limit", "1").out


class TestFlush:
    def test_what_is_selected_is_forgotten(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("datapath", "ct", "flush", "--pod", "shop/db").out == "1 connection forgotten\n"
        assert plimsoll("datapath", "ct", "flush", "--all", "--json").json == {"deleted": 1}

    def test_all_must_be_said(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("datapath", "ct", "flush")
        assert answer.code == 2
        assert "or all" in answer.err
        assert len(site.datapath.view.answer_flows) == 2

    def test_all_and_some_is_a_contradiction(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("datapath", "ct", "flush", "--all", "--port", "80").code == 2


class TestTrace:
    def test_steps_and_the_end(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("datapath", "trace", "shop/web", "shop/db:5432")
        assert answer.code == 0
        assert "tcp shop/web 10.0.1.5:40000 > shop/db 10.0.1.6:5432" in answer.out
        assert "egress policy: allowed by rule 7" in answer.out
        assert "forwarded: delivered to pod shop/db by plmdb" in answer.out

    def test_a_drop_is_bad_news_with_its_remedy(self, plimsoll: Plimsoll, site: Site) -> None:
        site.datapath.view.answer_traced = replace(
            site.datapath.view.answer_traced,
            verdict="dropped",
            reason="policy-egress",
            sentence="denied",
            remedy="allow",
        )
        answer = plimsoll("datapath", "trace", "shop/web", "198.51.100.7:443")
        assert answer.code == 1
        assert "dropped: denied\nremedy: allow" in answer.out

    def test_a_pod_of_another_node(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("datapath", "trace", "shop/other", "10.0.1.6", "--json")
        assert answer.code == 4
        assert answer.error["field"] == "pod"

    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [
            ("10.0.1.5", "10.0.1.5", 0),
            ("10.0.1.5:443", "10.0.1.5", 443),
            ("fd00::5", "fd00::5", 0),
            ("[fd00::5]", "fd00::5", 0),
            ("[fd00::5]:443", "fd00::5", 443),
            ("shop/db", "shop/db", 0),
            ("shop/db:5432", "shop/db", 5432),
        ],
    )
    def test_destinations(self, text: str, host: str, port: int) -> None:
        assert split_destination(text) == (host, port)

    @pytest.mark.parametrize(
        "text", ["10.0.1.5:", "10.0.1.5:http", "10.0.1.5:0", "[fd00::5", "[fd00::5]443", "a:70000"]
    )
    def test_destinations_that_cannot_be(self, text: str) -> None:
        with pytest.raises(Usage) as caught:
            split_destination(text)
        assert caught.value.field == "destination"


class TestTables:
    def test_drops_are_told_with_remedies_the_most_first(self, plimsoll: Plimsoll, site: Site) -> None:
        drops = plimsoll("datapath", "drops", "--json").json["drops"]
        assert [(one["reason"], one["hook"], one["direction"], one["packets"]) for one in drops] == [
            ("policy-egress", "from-pod", "egress", 7),
            ("icmp-unrelated", "from-device", "ingress", 1),
        ]
        assert "remedy: see `plimsoll datapath policy list POD`" in plimsoll("datapath", "drops").out

    def test_a_map_that_is_not_counted(self, plimsoll: Plimsoll, site: Site) -> None:
        maps = {one["name"]: one for one in plimsoll("datapath", "maps", "--json").json}
        assert maps["events"]["entries"] is None
        assert maps["flows"]["pressure"] == 0.75
        assert "75%" in plimsoll("datapath", "maps").out

    def test_one_address(self, plimsoll: Plimsoll, site: Site) -> None:
        assert [one["pod"] for one in plimsoll("datapath", "addresses", "10.0.2.9", "--json").json] == ["shop/cache"]
        assert "it is the world" in plimsoll("datapath", "addresses", "192.0.2.1").out
        assert plimsoll("datapath", "addresses", "10.0.2").code == 2

    def test_policy_of_one_pod(self, plimsoll: Plimsoll, site: Site) -> None:
        assert len(plimsoll("datapath", "policy", "list", "shop/web", "--json").json) == 2
        assert "any" in plimsoll("datapath", "policy", "list", "shop/web").out
        assert plimsoll("datapath", "policy", "list", "shop/no").code == 4

    def test_prefilter(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("datapath", "prefilter", "add", "203.0.113.0/24", "198.51.100.7/32").out == "2 ranges added\n"
        assert plimsoll("datapath", "prefilter", "add", "203.0.113.0/24", "--json").json == {"added": 0, "deleted": 0}
        assert "203.0.113.0/24" in plimsoll("datapath", "prefilter", "list").out
        assert plimsoll("datapath", "prefilter", "delete", "203.0.113.0/24").out == "1 range deleted\n"


class TestWhichNode:
    def test_the_only_one_is_asked(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("datapath", "maps", "--node", "node-1").code == 0

    def test_of_several_one_must_be_named(self, plimsoll: Plimsoll, site: Site) -> None:
        with site.context.open("a") as file:
            file.write('node-2 = "/run/nowhere.sock"\n')
        answer = plimsoll("datapath", "maps", "--json")
        assert answer.code == 2
        assert answer.error["remedy"] == "choose one: --node node-1 or --node node-2"

    def test_one_that_the_context_lacks(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("datapath", "maps", "--node", "node-9")
        assert answer.code == 4
        assert "node-9" in answer.err

    def test_a_daemon_of_an_older_release(
        self, plimsoll: Plimsoll, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "services.api.node.v1.datapath_pb2_grpc.DatapathServiceStub.__init__",
            lambda self, channel: setattr(
                self, "ListMaps", channel.unary_unary("/plimsoll.node.v1.NodeService/Nothing")
            ),
        )
        monkeypatch.setattr("services.api.node.v1.datapath_pb2.ListMapsRequest", lambda: b"")
        answer = plimsoll("datapath", "maps")
        assert answer.code == 5
        assert "no programs in the kernel" in answer.err


def test_completion_knows_pods_and_nodes(plimsoll: Plimsoll, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.api.node.v1 import node_pb2

    site.node.endpoints.append(node_pb2.Endpoint(container_id="c1", pod="shop/web", address="10.0.1.5"))
    monkeypatch.setenv("_PLIMSOLL_COMPLETE", "complete_bash")
    for words, found in [
        ("plimsoll datapath trace sh", "shop/web"),
        ("plimsoll monitor --pod sh", "shop/web"),
        ("plimsoll monitor --node no", "node-1"),
    ]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert plimsoll().out.split() == [found]
