/* What the programs and the node daemon share: keys, values, events and numbers. datapath/layout.py mirrors this file;
 * a test compares both with the BTF of the compiled objects.
 *
 * Addresses are 16 bytes in network order, IPv4 ones as ::ffff:a.b.c.d, so one set of maps and one code path serve both
 * families. Byte order stands in names: _be is the network's, everything else the machine's. Times are jiffies, low 32
 * bits (suffix _j): they wrap, so compare differences only.
 */
#ifndef PLIMSOLL_TYPES_H
#define PLIMSOLL_TYPES_H

/* Raised when a key or value changes its meaning without changing its size. Pinned maps of another number are migrated or
 * refused. */
#define LAYOUT_VERSION 1

struct address {
    union {
        __u32 word_be[4];
        __u64 half[2]; /* as the machine reads them: for comparing and copying only */
    };
};

/* ---- identities ------------------------------------------------------------------------------------------------- */

#define IDENTITY_UNKNOWN 0
#define IDENTITY_HOST 1 /* this node */
#define IDENTITY_WORLD 2 /* everything that no entry of the address map covers */
#define IDENTITY_REMOTE_NODE 3
#define IDENTITY_UNMANAGED 4 /* a pod whose labels the registry has not told yet */
#define IDENTITY_FIRST 256 /* from here on: sets of labels, numbered by the registry, 24 bits */
#define IDENTITY_MAX 0xffffff

/* skb->mark as the programs leave it: a kind in bits 8-11, an identity in the upper 16 bits (its low half) and the lower
 * 8 bits (its bits 16-23). 0xe00 and 0xd00 are kept for encryption. */
#define MARK_KIND_MASK 0x0f00
#define MARK_IDENTITY 0x0500 /* from a pod of this identity; nothing else was done */
#define MARK_DONE 0x0600 /* from_pod has finished with the packet: devices let it pass untouched */

/* ---- address map: who has this address ------------------------------------------------------------------------- */

/* struct target.kind */
#define TARGET_NONE 0
#define TARGET_POD 1 /* a pod of this node: ifindex, endpoint, mac are set */
#define TARGET_REMOTE_POD 2 /* a pod of another node: node is set if it is reached by tunnel or direct route */
#define TARGET_HOST 3 /* an address of this node */
#define TARGET_REMOTE_NODE 4
#define TARGET_RANGE 5 /* a range (cidrs map only): identity and flags count */
#define TARGET_STACK 6 /* the node's stack decides, such as for a service range of kube-proxy's */

/* struct target.flags */
#define TARGET_INGRESS_POLICY (1 << 0) /* packets to this pod pass its policy */
#define TARGET_EGRESS_POLICY (1 << 1) /* packets from this pod pass its policy */
#define TARGET_CLUSTER (1 << 2) /* a range that is never masqueraded towards */
#define TARGET_TUNNEL (1 << 3) /* reached by VXLAN to `node` */
#define TARGET_DIRECT (1 << 4) /* reached by the address of `node` as the next hop */
#define TARGET_INGRESS_AUDIT (1 << 5) /* what policy denies is told of, and passes */
#define TARGET_EGRESS_AUDIT (1 << 6)
#define TARGET_ANY_SOURCE (1 << 7) /* the pod may send from any address (a router, a test) */

struct target {
    __u8 kind;
    __u8 flags;
    __u16 mtu; /* of a local pod's link; 0: not known */
    __u32 identity;
    __u32 ifindex; /* of the node's end of a local pod's pair */
    __u32 endpoint; /* number of a local pod, unique on the node while it lives */
    __u32 node; /* index into the nodes map; 0: none */
    __u8 mac[6]; /* of the pod's end */
    __u8 host_mac[6]; /* of the node's end */
};

/* Key of `cidrs` (LPM). prefix_bits counts over all 16 bytes: 96 + n for IPv4. */
struct cidr_key {
    __u32 prefix_bits;
    __u32 address_be[4];
};

/* `endpoints`: a local pod by the ifindex of the node's end of its pair. */
struct endpoint {
    struct address address4; /* zero: none */
    struct address address6; /* zero: none */
    struct target target; /* as in the address map */
};

/* `nodes`: other nodes by a small number the daemon gives them. */
struct node {
    struct address address; /* tunnel end, or next hop of direct routes */
    __u32 flags;
    __u32 pad;
};

/* `devices`: external devices and the overlay by ifindex. */
#define DEVICE_MASQUERADE4 (1 << 0)
#define DEVICE_MASQUERADE6 (1 << 1)
#define DEVICE_NO_ETHERNET (1 << 2)
#define DEVICE_OVERLAY (1 << 3)
struct device {
    struct address masquerade4; /* the address that pods' packets leave with */
    struct address masquerade6;
    __u32 flags;
    __u16 mtu;
    __u8 mac[6];
    __u32 pad;
};

/* ---- flows: connection tracking and the cached decision --------------------------------------------------------- */

/* Both directions of a connection share an entry. The ends are ordered: (half[0], half[1], port_be) of the low end <=
 * that of the high end, each compared as the machine reads it. ICMP echo: port of the requester is the id, of the
 * answerer 0. */
struct flow_key {
    struct address low;
    struct address high;
    __u16 low_port_be;
    __u16 high_port_be;
    __u8 protocol;
    __u8 pad[3];
};

/* struct path.action */
#define ACTION_NONE 0 /* not decided */
#define ACTION_POD 1 /* to a pod of this node, by redirect to the far end of its pair */
#define ACTION_DEVICE 2 /* out by a device, link layer addresses known */
#define ACTION_NEIGHBOUR 3 /* out by a device, the kernel resolves the neighbour */
#define ACTION_TUNNEL 4
#define ACTION_STACK 5 /* the node's own network stack */
#define ACTION_DIRECT 6 /* out by a device, next hop is the address of `node` */

/* struct path.flags */
#define PATH_NAT (1 << 0) /* rewrite the source to nat_address, nat_port */
#define PATH_DENIED (1 << 1) /* dropped by policy: the entry remembers the verdict */

#define IN_STACK 0xffffffff

/* One direction: how its packets go on. Valid while generation equals the running one and, for devices, for a second. */
struct path {
    struct address nat_address; /* the source that a masqueraded packet leaves with */
    __u32 generation;
    __u32 checked_j; /* when the next hop was looked up */
    __u32 in_ifindex; /* the device that packets of this direction come by; 0: any external one; or IN_STACK */
    __u32 out_ifindex;
    __u8 action;
    __u8 flags;
    __u16 mtu;
    __u8 in_mac[6]; /* source address that a pod must use */
    __u8 destination_mac[6];
    __u8 source_mac[6];
    __u16 nat_port_be;
    __u32 node;
    __u32 mark;
    __u16 pad;
    __u16 reason; /* of the drop, if denied */
    __u32 rule; /* of the policy that decided */
    __u32 packets;
    __u32 checksum_diff; /* what the new address adds to a checksum that covers it */
    __u64 bytes;
};

/* struct flow.state */
#define FLOW_OPENING 1 /* TCP: SYN seen, others: one direction seen */
#define FLOW_OPEN 2
#define FLOW_CLOSING 3 /* TCP: a FIN seen, or RST */

/* struct flow.flags */
#define FLOW_SEEN_LOW (1 << 0) /* packets from the low end have been seen */
#define FLOW_SEEN_HIGH (1 << 1)
#define FLOW_FIN_LOW (1 << 2)
#define FLOW_FIN_HIGH (1 << 3)
#define FLOW_RST (1 << 4)
#define FLOW_ORIGIN_HIGH (1 << 5) /* the high end began */
#define FLOW_NAT (1 << 6) /* masqueraded: nat entries belong to it */
#define FLOW_TOLD_CLOSED (1 << 7)
#define FLOW_BY_STACK (1 << 8) /* came to the pod by the node's stack: answers go back the same way */

struct flow {
    __u32 expires_j;
    __u32 created_j;
    __u8 state;
    __u8 pad;
    __u16 flags;
    __u32 low_identity;
    __u32 high_identity;
    __u32 pad2;
    struct path from_low;
    struct path from_high;
};

/* ---- masquerade -------------------------------------------------------------------------------------------------- */

/* direction */
#define NAT_OUT 0 /* key: the pod's packet; value: its new source */
#define NAT_IN 1 /* key: the answer as it comes in, source first; value: its new destination, the pod */
struct nat_key {
    struct address source;
    struct address destination;
    __u16 source_port_be;
    __u16 destination_port_be;
    __u8 protocol;
    __u8 direction;
    __u8 pad[2];
};

struct nat {
    struct address address;
    __u16 port_be;
    __u16 pad;
    __u32 expires_j;
    __u32 created_j;
    __u32 checksum_diff; /* what the rewrite adds to a checksum that covers the address */
};

/* ---- fragments --------------------------------------------------------------------------------------------------- */

struct fragment_key {
    struct address source;
    struct address destination;
    __u32 id_be;
    __u8 protocol;
    __u8 pad[3];
};

struct fragment {
    __u16 source_port_be;
    __u16 destination_port_be;
    __u32 seen_j;
};

/* ---- policy ------------------------------------------------------------------------------------------------------ */

/* `policies` maps an endpoint's number to an LPM trie with these keys, looked up with the peer's identity, then with 0
 * (any identity). prefix_bits: POLICY_FIXED_BITS for every protocol, POLICY_PROTOCOL_BITS for every port of a protocol,
 * up to POLICY_PORT_BITS for a range of ports that share their first bits. A deny of either look-up wins; else the one
 * with more bits; else the one for the identity. A direction that is enforced and has no match is denied. */
struct policy_key {
    __u32 prefix_bits;
    __u8 direction; /* DIRECTION_INGRESS, DIRECTION_EGRESS */
    __u8 pad[3];
    __u32 identity;
    __u8 protocol;
    __u8 pad_port; /* always 0; counted with the protocol's bits */
    __u16 port_be; /* of the destination; ICMP: type << 8 | code */
} __attribute__((packed));
#define POLICY_FIXED_BITS 64
#define POLICY_PROTOCOL_BITS 80
#define POLICY_PORT_BITS 96

#define DIRECTION_INGRESS 0
#define DIRECTION_EGRESS 1

#define POLICY_ALLOW 1
#define POLICY_DENY 2
#define POLICY_AUDIT 3 /* denied, but told of and let pass */
struct policy {
    __u8 verdict;
    __u8
        bits; /* how specific the rule is: 0 every protocol, 16 every port of one, 32 one port; a range of ports between */
    __u16 pad;
    __u32 rule; /* the daemon's number of the rule, for verdict events */
    __u64 packets; /* of new flows */
};

/* ---- configuration ----------------------------------------------------------------------------------------------- */

/* .rodata: fixed for the life of a loaded program. Times are in jiffies. */
struct config {
    __u32 hz;
    __u32 tunnel_ifindex; /* 0: no overlay */
    __u32 flags;
    __u32 tcp_open_j, tcp_opening_j, tcp_closing_j, other_open_j, other_opening_j;
    __u32 fragment_j;
    __u32 recheck_j; /* how long a next hop may be used without asking the kernel's tables again */
    __u16 nat_port_low, nat_port_high; /* inclusive */
    __u8 host_mac[6];
    __u8 tunnel_mac[6];
    struct address gateway4; /* whom ICMP errors of ours come from: an address of the node */
    struct address gateway6;
};
#define CONFIG_IPV4 (1 << 0)
#define CONFIG_IPV6 (1 << 1)
#define CONFIG_ENDPOINT_ROUTES (1 << 2) /* local pods are reached by the kernel's routes, not by redirect */
#define CONFIG_MASQUERADE4 (1 << 3)
#define CONFIG_MASQUERADE6 (1 << 4)
#define CONFIG_TRACE (1 << 5) /* a dry run: maps stay as they are, every step is told */

/* `runtime`: one entry, mmapable, changed while programs run. */
struct runtime {
    __u32 generation; /* raised by the daemon whenever a cached decision may be wrong; never 0 */
    __u32 trace_every; /* one event for so many forwarded packets of a CPU; 0: none */
    __u32 flow_events; /* 1: tell of new and closed flows */
    __u32 drop_events_per_tick; /* of a CPU and reason */
    __u32 verdict_events; /* 1: tell policy verdicts of new flows */
    __u32 icmp_errors_per_tick; /* that a CPU may send */
    __u32 pad[2];
};

/* ---- counters and events ----------------------------------------------------------------------------------------- */

/* Reasons of drops: their order is part of the interface. datapath/events/words.py has the words. */
#define DROP_NONE 0
#define DROP_MALFORMED 1 /* truncated, or lengths that contradict each other */
#define DROP_UNSUPPORTED 2 /* what pods cannot speak: other Ethernet types, routing headers, multicast */
#define DROP_SPOOFED_ADDRESS 3
#define DROP_SPOOFED_MAC 4
#define DROP_NO_ENDPOINT 5 /* the device belongs to no pod that is known */
#define DROP_POLICY_EGRESS 6
#define DROP_POLICY_INGRESS 7
#define DROP_BLACKHOLE 8 /* a blackhole route */
#define DROP_TTL 9 /* hops used up: the sender was told */
#define DROP_MTU 10 /* too big and not to be fragmented: the sender was told */
#define DROP_FRAGMENT_UNKNOWN 11 /* its first fragment has not been seen */
#define DROP_FLOW_FULL 12
#define DROP_NAT_NO_PORT 13
#define DROP_NAT_NO_ADDRESS 14 /* the device has no address to masquerade with */
#define DROP_NO_TUNNEL 15 /* a pod of another node, but its node is unknown */
#define DROP_INVALID_TCP 16 /* flags that no packet can have */
#define DROP_ICMP_UNRELATED 17 /* an error about a packet that no flow sent */
#define DROP_REWRITE 18 /* the kernel refused to rewrite the packet */
#define DROP_PREFILTER 19
#define DROP_OVERLAY_UNKNOWN 20 /* came by the tunnel for nobody here */
#define DROP_FAMILY_OFF 21 /* IPv4 or IPv6 is switched off */
#define DROP_EXTENSION_HEADERS 22 /* more IPv6 extension headers than are looked at */
#define DROP_CONTROL 23 /* link-local chatter of a pod's kernel, meant for routers there are none of; no events */
#define DROP_REASONS 24

/* Hooks, as counted and told. */
#define HOOK_FROM_POD 0
#define HOOK_TO_POD 1
#define HOOK_FROM_DEVICE 2
#define HOOK_TO_DEVICE 3
#define HOOK_FROM_OVERLAY 4
#define HOOK_TO_OVERLAY 5
#define HOOK_XDP 6
#define HOOKS 7

/* `counters` (per CPU): index hook * DROP_REASONS + reason; reason DROP_NONE counts what passed. */
struct counter {
    __u64 packets;
    __u64 bytes;
};

/* `created` (per CPU): entries that were put into the maps that push old ones out, by map. */
#define CREATED_FLOWS 0
#define CREATED_NAT 1
#define CREATED_FRAGMENTS 2
#define CREATED_MAPS 3

#define EVENT_DROP 1
#define EVENT_TRACE 2
#define EVENT_FLOW_NEW 3
#define EVENT_FLOW_CLOSED 4
#define EVENT_VERDICT 5
#define EVENT_STEP 6 /* of a dry run; a drop ends it with an EVENT_DROP */

#define EVENT_DATA_BYTES 96 /* head of the packet, for --pcap */
struct event {
    __u64 time_ns; /* CLOCK_MONOTONIC */
    __u8 type;
    __u8 hook;
    __u8 reason; /* drop reason; EVENT_STEP: the step */
    __u8 verdict; /* POLICY_*, 0: no policy asked */
    __u16 line; /* in the source of the program */
    __u8 protocol;
    __u8 action;
    struct address source;
    struct address destination;
    __u16 source_port_be;
    __u16 destination_port_be;
    __u32 ifindex;
    __u32 out_ifindex;
    __u32 source_identity;
    __u32 destination_identity;
    __u32 rule;
    __u32 suppressed; /* events of this reason and CPU left out since the last one */
    __u16 length; /* of the packet, bytes */
    __u16 data_length; /* of `data` that count */
    __u32 file; /* SOURCE_* the line is in */
    __u32 cpu;
    __u8 data[EVENT_DATA_BYTES];
};

/* Files that `line` may be in. */
#define SOURCE_POD 1
#define SOURCE_DEVICE 2
#define SOURCE_XDP 3

/* Steps of a dry run, in struct event.reason. */
#define STEP_SOURCE 1 /* source_identity; ifindex */
#define STEP_FLOW_FOUND 2 /* an entry exists: action as it remembers */
#define STEP_FLOW_NEW 3
#define STEP_DESTINATION 4 /* destination_identity; action holds the target's kind */
#define STEP_POLICY_EGRESS 5 /* verdict, rule */
#define STEP_POLICY_INGRESS 6
#define STEP_ROUTE 7 /* action, out_ifindex */
#define STEP_MASQUERADE 8 /* source and source_port_be as they leave */
#define STEP_FORWARD 9 /* action, out_ifindex: the end */
#define STEP_ANSWER 10 /* part of a flow that the other end began: no policy is asked */

#endif
