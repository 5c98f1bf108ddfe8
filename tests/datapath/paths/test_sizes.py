"""Links of other sizes, and how senders learn what fits: ICMP errors that the programs send, and those on their way
through masquerade. lab.py draws the topology.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.paths.lab import OUTSIDE4, OUTSIDE6, A, B, C, Lab
from tests.datapath.paths.traffic import datagrams, echoing, path_mtu, transfer

pytestmark = [pytest.mark.root, pytest.mark.tool("ip", "ping")]
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def outside(family: int) -> str:
    return OUTSIDE6 if family == 6 else OUTSIDE4


@pytest.mark.parametrize(("mode", "mtu"), [("native", 1280), ("native", 9000), ("tunnel", 1350), ("tunnel6", 9000)])
def test_links_of_another_size(mode: str, mtu: int) -> None:
    with Lab(mode, mtu=mtu, outside_mtu=mtu) as lab:
        for family in (4, 6):
            for other, address in (("b", B.address(family)), ("c", C.address(family)), ("outside", outside(family))):
                transfer(lab, "a", other, address, 1 << 20)
                datagrams(lab, "a", other, address, (100, lab.pod_mtu - 48, lab.pod_mtu, 30000))
                full = str(lab.pod_mtu - (48 if family == 6 else 28))
                assert lab.ping("a", address, "-M", "do", "-s", full)
        assert lab.drops() == {}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Lab]:
    """The router's link to the outside is smaller than all else."""
    with Lab("native", outside_mtu=1300) as one:
        yield one


@FAMILIES
def test_a_narrow_place_outside(narrow: Lab, family: int) -> None:
    """The router's error is about the masqueraded packet; the pod's kernel has to recognise it as its own."""
    with echoing(narrow, "outside", outside(family)) as (port, _):
        assert path_mtu(narrow, "b", outside(family), port, 1400) == 1300
    transfer(narrow, "a", "outside", outside(family))
    assert narrow.drops() == {}


@pytest.fixture(scope="module")
def wide_pods() -> Iterator[Lab]:
    """Pods do not know how little the tunnel has room for."""
    with Lab("tunnel") as lab:
        for node in lab.nodes:
            for pod in node.pods:
                lab.spaces.ip(lab.space(node.name), f"link set plm{pod.name} mtu 1500")
                lab.spaces.ip(lab.space(pod.name), "link set eth0 mtu 1500")
        yield lab


@FAMILIES
def test_a_narrow_tunnel(wide_pods: Lab, family: int) -> None:
    """The program's own error: kernels believe only what is right in every byte."""
    lab = wide_pods
    with echoing(lab, "c", C.address(family)) as (port, _):
        assert path_mtu(lab, "b", C.address(family), port, 1440) == lab.pod_mtu
    transfer(lab, "a", "c", C.address(family))
    transfer(lab, "c", "a", A.address(family))


@FAMILIES
def test_hops(wide_pods: Lab, family: int) -> None:
    """Each node is one, and says so when they are used up; the second by the tunnel."""
    lab = wide_pods
    for hops, node in ((1, lab.one), (2, lab.two)):
        done = lab.spaces.run(lab.space("a"), "ping", "-n", "-c", "1", "-W", "2", "-t", str(hops), C.address(family))
        assert f"From {node.address(family)}" in done.stdout, done.stdout
    assert lab.ping("a", C.address(family), "-t", "3")
    done = lab.spaces.run(lab.space("a"), "ping", "-n", "-c", "1", "-W", "2", "-t", "2", outside(family))
    assert f"From {'2001:db8::fe' if family == 6 else '192.0.2.254'}" in done.stdout, "the router, through masquerade"


@FAMILIES
def test_nobody_listens(wide_pods: Lab, family: int) -> None:
    """Port unreachable comes back on every way, through masquerade too."""
    lab = wide_pods
    for target in (B.address(family), C.address(family), lab.one.address(family), outside(family)):
        with lab.socket("a", family, 2) as one:
            one.connect((target, 9))
            one.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                one.recv(100)


@pytest.mark.parametrize("mode", ["native", "tunnel", "tunnel6"])
@pytest.mark.parametrize("family", [4, 6])
def test_pods_of_one_family(mode: str, family: int) -> None:
    with Lab(mode, families=(family,)) as lab:
        for who, other, address in (
            ("a", "b", B.address(family)),
            ("a", "c", C.address(family)),
            ("one", "a", A.address(family)),
            ("a", "outside", outside(family)),
        ):
            transfer(lab, who, other, address, 1 << 18)
            datagrams(lab, who, other, address, (10, 5000))


@FAMILIES
def test_a_port_of_the_node_that_its_stack_translates(narrow: Lab, family: int) -> None:
    """As node ports of kube-proxy do, with the client's address kept; the answers leave with the node's."""
    lab, tables = narrow, "ip6tables-nft" if family == 6 else "iptables-nft"
    node = lab.one.address(family)
    target = f"[{A.address(family)}]" if family == 6 else A.address(family)
    rule = ["PREROUTING", "-t", "nat", "-d", node, "-p", "tcp", "--dport", "30080:30090", "-j", "DNAT"]
    with lab.serving("a", A.address(family), lambda connection: connection.sendall(b"hello")) as port:
        rule += ["--to-destination", f"{target}:{port}"]
        done = lab.spaces.run(lab.space("one"), tables, "-A", *rule)
        if done.returncode:
            pytest.skip(f"{tables}: {done.stderr}")
        with lab.socket("outside", family, 1) as client:
            client.connect((node, 30080))
            assert client.recv(100) == b"hello"


@FAMILIES
def test_endpoint_routes_by_the_tunnel(family: int) -> None:
    with Lab("tunnel", endpoint_routes=True) as lab:
        for who, other, pod in (("a", "b", B), ("a", "c", C), ("one", "c", C)):
            address = pod.address(family)
            transfer(lab, who, other, address, 1 << 20)
            datagrams(lab, who, other, address, (10, 1400, 5000))
        assert lab.drops() == {}
