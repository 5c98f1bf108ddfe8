"""What the commands answer about a site, and how they end when something is wrong with it."""

from __future__ import annotations

import pytest

from services.api.ipam.v1 import ipam_pb2
from services.api.node.v1 import node_pb2
from services.api.registry.v1 import registry_pb2
from tests.unit.cli.conftest import Plimsoll, Site

EVERY_READ = [
    ("status",),
    ("nodes", "list"),
    ("nodes", "show", "node-1"),
    ("pods", "list"),
    ("pods", "list", "--local"),
    ("identities", "list"),
    ("ipam", "pool", "list"),
    ("ipam", "pool", "show", "node-1"),
    ("ipam", "status"),
    ("ipam", "intents"),
    ("ipam", "explain", "node-1"),
    ("ipam", "explain", "shop/web-1"),
    ("queue", "dead-letters", "list"),
    ("datapath", "status"),
    ("datapath", "maps"),
    ("datapath", "endpoints"),
    ("datapath", "drops"),
    ("datapath", "addresses"),
    ("datapath", "devices"),
    ("datapath", "ct", "list"),
    ("datapath", "nat", "list"),
    ("datapath", "policy", "list"),
    ("datapath", "prefilter", "list"),
    ("datapath", "trace", "shop/web", "shop/db:5432"),
]


@pytest.mark.parametrize("args", EVERY_READ, ids=" ".join)
def test_every_command_answers_people_and_programs(plimsoll: Plimsoll, site: Site, args: tuple[str, ...]) -> None:
    people, programs = plimsoll(*args), plimsoll(*args, "--json")
    assert people.code == programs.code == 0
    assert people.out.strip()
    assert programs.json is not None
    assert people.err == programs.err == ""


@pytest.mark.parametrize("args", EVERY_READ, ids=" ".join)
def test_every_command_says_when_nothing_can_be_reached(plimsoll: Plimsoll, site: Site, args: tuple[str, ...]) -> None:
    site.stop()
    answer = plimsoll(*args, "--json")
    if args[:2] == ("ipam", "explain"):
        assert answer.code == 1, "what cannot be asked is a finding"
        assert any("cannot be reached" in one["message"] for one in answer.json["findings"])
        return
    assert answer.code == 3
    assert answer.out == ""
    assert answer.error["kind"] == "unreachable"
    assert str(site.folder) in answer.error["message"], "the target is named"
    assert answer.error["remedy"]
    assert "Traceback" not in plimsoll(*args).err


class TestStatus:
    def test_all_is_well(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("status", "--json").json
        assert answer["ok"] is True
        assert answer["nodes"] == {"total": 2, "ready": 2, "lost": 0, "pods": 1}
        assert [row["name"] for row in answer["services"]] == ["registry", "ipam-aws", "node-1"]
        assert answer["problems"] == []

    def test_one_service_down_is_bad_news_and_the_rest_still_answers(self, plimsoll: Plimsoll, site: Site) -> None:
        site.stop("ipam-aws")
        answer = plimsoll("status", "--json")
        assert answer.code == 1
        states = {row["name"]: row["state"] for row in answer.json["services"]}
        assert states == {"registry": "up", "ipam-aws": "down", "node-1": "up"}
        assert answer.json["problems"][0]["subject"] == "ipam-aws"
        assert "systemctl status plimsoll-ipam-aws" in answer.json["problems"][0]["remedy"]

    def test_what_went_wrong_inside_is_told(self, plimsoll: Plimsoll, site: Site) -> None:
        site.registry.nodes["node-2"].state = registry_pb2.NODE_STATE_LOST
        site.ipam.status.leader = False
        site.ipam.status.dead_letters = 2
        site.node.status.waiting_pods = 1
        site.node.status.interfaces.append(node_pb2.InterfaceStatus(id="eni-1", problem="no device with its MAC"))
        answer = plimsoll("status", "--json")
        assert answer.code == 1
        assert [one["subject"] for one in answer.json["problems"]] == [
            "node-2", "leader", "ipam-aws", "node-1", "node-1",
        ]  # fmt: skip
        assert "heartbeat is overdue" in plimsoll("status").out


class TestNodes:
    def test_pages_are_put_together(self, plimsoll: Plimsoll, site: Site) -> None:
        for number in range(5):
            site.registry.nodes[f"extra-{number}"] = registry_pb2.Node(name=f"extra-{number}")
        assert len(plimsoll("nodes", "list", "--json").json) == 7

    def test_a_node_is_shown_with_its_pool_and_pods(self, plimsoll: Plimsoll, site: Site) -> None:
        node = plimsoll("nodes", "show", "node-1", "--json").json
        assert node["state"] == "ready"
        assert node["pool"]["attached"] == 2
        assert node["pods"][0]["pod"] == "shop/web-1"

    def test_a_node_without_pool_is_shown_all_the_same(self, plimsoll: Plimsoll, site: Site) -> None:
        site.stop("ipam-aws")
        node = plimsoll("nodes", "show", "node-2", "--json").json
        assert node["pool"] is None
        assert "cannot be reached" in node["pool_error"]

    def test_an_unknown_node(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("nodes", "show", "node-9")
        assert answer.code == 4
        assert "no node node-9" in answer.err
        assert "remedy: see the list" in answer.err

    def test_a_node_that_lives_is_not_forgotten(self, plimsoll: Plimsoll, site: Site) -> None:
        answer = plimsoll("nodes", "delete", "node-1", "--json")
        assert answer.code == 5
        assert answer.error["remedy"] == "stop its daemon first"
        site.registry.nodes["node-1"].state = registry_pb2.NODE_STATE_LOST
        assert plimsoll("nodes", "delete", "node-1", "--json").json == {"deleted": "node-1"}
        assert "node-1" not in site.registry.nodes


class TestPods:
    def test_pods_of_one_node(self, plimsoll: Plimsoll, site: Site) -> None:
        assert [one["addresses"] for one in plimsoll("pods", "list", "--node", "node-1", "--json").json] == [
            ["10.0.1.9"]
        ]
        assert plimsoll("pods", "list", "--node", "node-2", "--json").json == []
        assert "no pods on node node-2" in plimsoll("pods", "list", "--node", "node-2").out

    def test_pods_of_an_unknown_node(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("pods", "list", "--node", "node-9").code == 4

    def test_pods_as_their_node_tells_while_the_registry_is_down(self, plimsoll: Plimsoll, site: Site) -> None:
        site.stop("registry")
        site.node.endpoints.append(
            node_pb2.Endpoint(container_id="c0ffee", interface_name="eth0", pod="shop/web-1", address="10.0.1.9")
        )
        (pod,) = plimsoll("pods", "list", "--local", "--json").json
        assert pod["id"] == "c0ffee/eth0"
        assert pod["node"] == "node-1"
        assert plimsoll("pods", "list", "--local", "--node", "node-2").code == 4


class TestPool:
    def test_addresses_have_states_in_words(self, plimsoll: Plimsoll, site: Site) -> None:
        pool = plimsoll("ipam", "pool", "show", "node-1", "--json").json
        assert pool["interfaces"][0]["addresses"] == [
            {"address": "10.0.1.9", "state": "in-use"},
            {"address": "10.0.1.10", "state": "available"},
        ]
        assert pool["watermarks"]["pre_allocate"] == 8
        assert pool["last_synced_at"] == "2023-11-14T22:13:20Z"
        text = plimsoll("ipam", "pool", "show", "node-1").out
        assert "1 available, 1 in-use" in text

    def test_an_unknown_node_and_an_unknown_service(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("ipam", "pool", "show", "node-9").code == 4
        answer = plimsoll("ipam", "pool", "list", "--service", "ipam-gcp")
        assert answer.code == 4
        assert "ipam-aws" in answer.err

    def test_calls_and_subnets_of_a_service(self, plimsoll: Plimsoll, site: Site) -> None:
        site.ipam.status.operations.add(operation="CreateNetworkInterface", calls=4, throttled=1)
        site.ipam.status.subnets.add(id="subnet-1", cidr="10.0.1.0/24", free=200)
        (status,) = plimsoll("ipam", "status", "--json").json
        assert (status["api_calls"], status["throttled"]) == (4, 1)
        assert status["subnets"][0]["blocked_until"] is None
        assert "CreateNetworkInterface" in plimsoll("ipam", "status").out

    def test_subnets_name_their_vpcs_where_there_are_several(self, plimsoll: Plimsoll, site: Site) -> None:
        site.ipam.status.subnets.add(id="subnet-1", cidr="10.0.1.0/24", vpc_id="vpc-1")
        assert "vpc-1" not in plimsoll("ipam", "status").out
        site.ipam.status.subnets.add(id="subnet-2", cidr="10.0.1.0/24", vpc_id="vpc-2")
        told = plimsoll("ipam", "status").out
        assert ("vpc-1" in told, "vpc-2" in told) == (True, True)

    def test_capacity_says_what_bounds_each_node_and_when_subnets_run_out(self, plimsoll: Plimsoll, site: Site) -> None:
        pool = site.ipam.pools["node-1"]
        pool.obtainable.CopyFrom(
            ipam_pb2.Obtainable(addresses=7, limited_by="subnets", by_limits=19, by_subnets=7, subnets={"subnet-1": 8})
        )
        subnet = ipam_pb2.SubnetStatus(id="subnet-1", cidr="10.0.0.0/24", zone="a", free=8, taken_per_hour=4.0)
        subnet.runs_out_in.FromSeconds(7200)
        del site.ipam.status.subnets[:]
        site.ipam.status.subnets.append(subnet)
        site.ipam.status.subnets.append(ipam_pb2.SubnetStatus(id="subnet-2", cidr="10.0.1.0/24", zone="a", free=200))
        told = plimsoll("ipam", "capacity").out
        assert "subnets" in told
        assert "2 h" in told
        assert "not in sight" in told
        answer = plimsoll("ipam", "capacity", "--json").json
        node = next(each for each in answer["nodes"] if each["node"] == "node-1")
        assert (node["obtainable"], node["limited_by"], node["subnets_in_reach"]) == (7, "subnets", {"subnet-1": 8})
        assert [each["runs_out_in_s"] for each in answer["subnets"]] == [7200.0, None]

    def test_a_service_is_told_to_do_less_and_says_so_everywhere(self, plimsoll: Plimsoll, site: Site) -> None:
        (before,) = plimsoll("ipam", "level", "show", "--json").json
        assert (before["level"], before["level_until"]) == ("normal", None)
        answer = plimsoll("ipam", "level", "set", "no-mutation", "--for", "90", "--why", "a move")
        assert answer.out.strip() == "ipam-aws: level no-mutation"
        assert site.ipam.asked.lasts.seconds == 90
        assert "by hand: a move" in plimsoll("ipam", "level", "show").out
        status = plimsoll("status")
        assert status.code == 1
        assert "no-mutation" in status.out
        answer = plimsoll("ipam", "level", "set", "slow")
        assert answer.code == 2
        assert "no-release" in answer.err

    def test_a_pool_says_which_marks_are_in_force_and_why(self, plimsoll: Plimsoll, site: Site) -> None:
        pool = ipam_pb2.Pool(node=ipam_pb2.NodeSpec(name="node-7"), marks_why="warm_addresses = 2", overrides=["dmz"])
        pool.marks.pre_allocate = 2
        site.ipam.pools["node-7"] = pool
        told = plimsoll("ipam", "pool", "show", "node-7", "--json").json
        assert (told["marks"]["pre_allocate"], told["overrides"]) == (2, ["dmz"])
        assert "warm_addresses = 2" in plimsoll("ipam", "pool", "show", "node-7").out

    def test_a_resync_is_asked_for(self, plimsoll: Plimsoll, site: Site) -> None:
        assert plimsoll("ipam", "resync", "--json").json == [{"service": "ipam-aws", "intent_id": "i-resync"}]
        site.ipam.status.leader = False
        answer = plimsoll("ipam", "resync")
        assert answer.code == 5
        assert "another replica leads" in answer.err
        assert "ask it; try again in 2 s" in answer.err

    @pytest.mark.parametrize(
        ("args", "when_none_leads"),
        [
            (("ipam", "pool", "list"), 5),
            (("ipam", "pool", "show", "node-1"), 5),
            (("ipam", "intents"), 5),
            (("ipam", "resync"), 5),
            (("queue", "dead-letters", "list"), 5),
            (("ipam", "explain", "node-1"), 1),
            (("ipam", "status"), 0),
            (("status",), 1),
        ],
    )
    def test_a_replica_that_stands_by_is_passed_over(
        self, plimsoll: Plimsoll, site: Site, args: tuple[str, ...], when_none_leads: int
    ) -> None:
        with site.context.open("a") as context:
            context.write(f'[ipam.other]\ntarget = "{site.folder}/standby.sock"\nidentity = "ipam-aws"\n')
        assert plimsoll(*args).code == 0
        assert plimsoll("ipam", "pool", "show", "node-9").code == 4
        site.ipam.status.leader = False
        assert plimsoll(*args).code == when_none_leads

    def test_intents_with_their_steps(self, plimsoll: Plimsoll, site: Site) -> None:
        step = ipam_pb2.Step(number=1, operation="assign-addresses", arguments='{"count": 4}')
        site.ipam.intents = [
            ipam_pb2.Intent(id="i-1", kind=ipam_pb2.INTENT_KIND_ALLOCATE, node="node-1", want=4, steps=[step])
        ]
        (intent,) = plimsoll("ipam", "intents", "--node", "node-1", "--json").json
        assert intent["kind"] == "allocate"
        assert intent["steps"][0]["arguments"] == {"count": 4}
        assert intent["steps"][0]["result"] is None
        assert "0/1" in plimsoll("ipam", "intents").out
        assert plimsoll("ipam", "intents", "--node", "node-2", "--json").json == []


class TestExplain:
    def test_a_problem_is_bad_news(self, plimsoll: Plimsoll, site: Site) -> None:
        site.ipam.findings["node-1"].append(
            ipam_pb2.Finding(
                level=ipam_pb2.FINDING_LEVEL_PROBLEM, subject="subnet", message="subnet-1 is full", remedy="add one"
            )
        )
        answer = plimsoll("ipam", "explain", "node-1", "--json")
        assert answer.code == 1
        assert answer.json["kind"] == "node"
        assert answer.json["findings"][-1] == {
            "asked": "ipam-aws", "level": "problem", "subject": "subnet", "message": "subnet-1 is full",
            "remedy": "add one",
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["shop/web-1", "c0ffee", "c0ffee/eth0"])
    def test_a_pod_is_asked_of_registry_node_and_pool(self, plimsoll: Plimsoll, site: Site, name: str) -> None:
        site.node.findings[name] = [node_pb2.Finding(level="ok", subject="lease", message="journalled")]
        answer = plimsoll("ipam", "explain", name, "--json").json
        assert (answer["kind"], answer["node"]) == ("pod", "node-1")
        assert [one["asked"] for one in answer["findings"]] == ["registry", "node-1", "ipam-aws"]

    def test_a_pod_that_waits_is_known_to_its_node_only(self, plimsoll: Plimsoll, site: Site) -> None:
        waits = node_pb2.Finding(level="waiting", subject="lease", message="the pool is empty")
        site.node.findings["shop/web-2"] = [waits]
        site.node.status.waiting_pods = 1
        answer = plimsoll("ipam", "explain", "shop/web-2", "--json")
        assert answer.code == 0
        assert [(one["asked"], one["level"]) for one in answer.json["findings"]] == [
            ("node-1", "waiting"),
            ("ipam-aws", "ok"),
        ]

    def test_a_pod_is_found_by_its_node_while_the_registry_is_down(self, plimsoll: Plimsoll, site: Site) -> None:
        site.stop("registry")
        site.node.endpoints.append(node_pb2.Endpoint(container_id="beef00", pod="shop/web-3", address="10.0.1.10"))
        site.node.findings["shop/web-3"] = [node_pb2.Finding(level="ok", subject="lease", message="journalled")]
        answer = plimsoll("ipam", "explain", "shop/web-3", "--json")
        assert answer.code == 1, "the registry's silence is a problem"
        assert answer.json["node"] == "node-1"
        assert answer.json["pod"]["addresses"] == ["10.0.1.10"]

    def test_a_pod_is_found_while_the_pools_are_down(self, plimsoll: Plimsoll, site: Site) -> None:
        site.stop("ipam-aws")
        answer = plimsoll("ipam", "explain", "c0ffee", "--json")
        assert answer.code == 1
        assert (answer.json["kind"], answer.json["node"]) == ("pod", "node-1")

    def test_a_whole_container_id_may_be_short(self, plimsoll: Plimsoll, site: Site) -> None:
        site.stop("registry")
        site.node.endpoints.append(node_pb2.Endpoint(container_id="demo", interface_name="eth0", address="10.0.1.10"))
        assert plimsoll("ipam", "explain", "demo", "--json").json["node"] == "node-1"

    def test_nobody_knows_it(self, plimsoll: Plimsoll, site: Site) -> None:
        for name in ("node-9", "shop/web-9"):
            answer = plimsoll("ipam", "explain", name)
            assert answer.code == 4
            assert f"nobody knows a node or a pod {name}" in answer.err

    def test_a_node_whose_daemon_runs_but_that_no_pool_knows(self, plimsoll: Plimsoll, site: Site) -> None:
        site.ipam.findings.clear()
        answer = plimsoll("ipam", "explain", "node-1", "--json")
        assert answer.code == 1
        assert "no IPAM service knows this node" in answer.json["findings"][0]["message"]


class TestDeadLetters:
    @pytest.fixture
    def dead(self, site: Site) -> Site:
        """Two intents that gave up."""
        for id in ("d-1", "d-2"):
            intent = ipam_pb2.Intent(id=f"i-{id}", kind=ipam_pb2.INTENT_KIND_ALLOCATE, node="node-1", attempts=20)
            site.ipam.letters[id] = ipam_pb2.DeadLetter(id=id, intent=intent, why="the subnet does not exist")
        return site

    def test_the_list_is_bad_news(self, plimsoll: Plimsoll, dead: Site) -> None:
        answer = plimsoll("queue", "dead-letters", "list", "--json")
        assert answer.code == 1
        assert [one["id"] for one in answer.json] == ["d-1", "d-2"]
        assert "the subnet does not exist" in plimsoll("queue", "dead-letters", "list").out

    def test_one_is_shown(self, plimsoll: Plimsoll, dead: Site) -> None:
        assert plimsoll("queue", "dead-letters", "show", "d-1", "--json").json["intent"]["attempts"] == 20
        assert "no step was taken" in plimsoll("queue", "dead-letters", "show", "d-1").out
        assert plimsoll("queue", "dead-letters", "show", "d-9").code == 4

    def test_one_is_replayed(self, plimsoll: Plimsoll, dead: Site) -> None:
        answer = plimsoll("queue", "dead-letters", "replay", "d-2", "--json").json
        assert answer == [{"id": "d-2", "service": "ipam-aws", "intent_id": "i-d-2"}]
        assert dead.ipam.replayed == ["d-2"]

    def test_all_are_replayed(self, plimsoll: Plimsoll, dead: Site) -> None:
        assert len(plimsoll("queue", "dead-letters", "replay", "--all", "--json").json) == 2
        assert "nothing gave up" in plimsoll("queue", "dead-letters", "replay", "--all").out

    def test_nothing_is_replayed_when_one_is_unknown(self, plimsoll: Plimsoll, dead: Site) -> None:
        assert plimsoll("queue", "dead-letters", "replay", "d-1", "d-9").code == 4
        assert dead.ipam.replayed == []

    @pytest.mark.parametrize("args", [(), ("d-1", "--all")])
    def test_ids_or_all(self, plimsoll: Plimsoll, dead: Site, args: tuple[str, ...]) -> None:
        assert plimsoll("queue", "dead-letters", "replay", *args).code == 2
