/* Connection tracking: one entry for both directions of a flow, which also remembers how its packets go on. */
#ifndef PLIMSOLL_FLOW_H
#define PLIMSOLL_FLOW_H

#include "program.h"
#include "events.h"
#include "maps.h"
#include "packet.h"

/* What is too large for the stack. Programs do not interrupt each other on a CPU (bottom halves are off). */
struct scratch {
    struct bpf_fib_lookup fib;
    struct flow flow; /* a decision is made in the place of its direction */
    struct nat_key nat_key;
    struct nat_key nat_answer;
    struct nat nat;
    struct flow_key inner_key;
    struct address address;
    struct cidr_key range;
    struct packet inner; /* what an ICMP error is about */
    __u8 bytes[256];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct scratch);
} scratches SEC(".maps");

inlined struct scratch *scratch_of(void) {
    __u32 zero = 0;

    return bpf_map_lookup_elem(&scratches, &zero);
}

/* Fills the key of the flow that goes from `source` to `destination`. True if its source is the low end. */
inlined bool order(struct flow_key *key, const struct address *source, const struct address *destination,
                   __u16 source_port_be, __u16 destination_port_be, __u8 protocol) {
    bool low;

    if (source->half[0] != destination->half[0])
        low = source->half[0] < destination->half[0];
    else if (source->half[1] != destination->half[1])
        low = source->half[1] < destination->half[1];
    else
        low = source_port_be <= destination_port_be;
    *(__u64 *)&key->low_port_be = 0;
    key->protocol = protocol;
    if (low) {
        key->low = *source;
        key->high = *destination;
        key->low_port_be = source_port_be;
        key->high_port_be = destination_port_be;
    } else {
        key->low = *destination;
        key->high = *source;
        key->low_port_be = destination_port_be;
        key->high_port_be = source_port_be;
    }
    return low;
}

inlined bool key_of(struct flow_key *key, const struct packet *packet) {
    return order(key, &packet->source, &packet->destination, packet->source_port_be, packet->destination_port_be,
                 packet->protocol);
}

inlined struct path *path_of(struct flow *flow, bool low) {
    return low ? &flow->from_low : &flow->from_high;
}

inlined bool alive(const struct flow *flow, __u32 now) {
    return !passed(flow->expires_j, now);
}

inlined bool from_origin(const struct flow *flow, bool from_low) {
    return from_low == !(flow->flags & FLOW_ORIGIN_HIGH);
}

inlined bool tcp_flags_possible(__u8 flags) {
    __u8 set = flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK);

    return set && (set & (TCP_SYN | TCP_FIN)) != (TCP_SYN | TCP_FIN) &&
           (set & (TCP_SYN | TCP_RST)) != (TCP_SYN | TCP_RST) && (set & (TCP_FIN | TCP_RST)) != (TCP_FIN | TCP_RST);
}

inlined __u32 lifetime_j(__u8 protocol, __u8 state) {
    if (protocol == PROTO_TCP)
        return state == FLOW_OPENING ? config.tcp_opening_j
               : state == FLOW_OPEN  ? config.tcp_open_j
                                     : config.tcp_closing_j;
    return state == FLOW_OPENING ? config.other_opening_j : config.other_open_j;
}

/* Follows the states of a connection, and moves its end on. A closing one lives no longer however much is sent. */
inlined void track(struct __sk_buff *skb, struct flow *flow, bool from_low, const struct packet *packet) {
    __u16 flags = flow->flags;
    __u8 state = flow->state;

    if (state == FLOW_CLOSING)
        return;
    flags |= from_low ? FLOW_SEEN_LOW : FLOW_SEEN_HIGH;
    if (state == FLOW_OPENING && (flags & (FLOW_SEEN_LOW | FLOW_SEEN_HIGH)) == (FLOW_SEEN_LOW | FLOW_SEEN_HIGH))
        state = FLOW_OPEN;
    if (packet->protocol == PROTO_TCP && (packet->tcp_flags & (TCP_FIN | TCP_RST))) {
        if (packet->tcp_flags & TCP_RST)
            flags |= FLOW_RST;
        else
            flags |= from_low ? FLOW_FIN_LOW : FLOW_FIN_HIGH;
        if ((flags & FLOW_RST) || (flags & (FLOW_FIN_LOW | FLOW_FIN_HIGH)) == (FLOW_FIN_LOW | FLOW_FIN_HIGH)) {
            struct runtime *run = running();

            state = FLOW_CLOSING;
            /* What was denied was never told of as new. */
            if (run && run->flow_events && !(path_of(flow, from_low)->flags & PATH_DENIED)) {
                flags |= FLOW_TOLD_CLOSED;
                NOTE(EVENT_FLOW_CLOSED, 0, 0, 0, 0);
            }
        }
    }
    if (flags != flow->flags)
        flow->flags = flags;
    if (state != flow->state)
        flow->state = state;
    flow->expires_j = packet->now_j + lifetime_j(packet->protocol, state);
}

inlined void counted(struct path *path, __u32 bytes) {
    path->packets++;
    path->bytes += bytes;
}

/* True if the entry's decision for this direction may be used as it is. */
inlined bool decided(const struct flow *flow, const struct path *path, const struct packet *packet, __u32 in_ifindex,
                     __u32 generation) {
    return path->generation == generation && path->in_ifindex == in_ifindex && alive(flow, packet->now_j) &&
           !passed(path->checked_j + config.recheck_j, packet->now_j) &&
           (packet->protocol != PROTO_TCP || !(packet->tcp_flags & TCP_SYN) || (packet->tcp_flags & TCP_ACK));
}

/* Writes a decision over the entry's. Readers on other CPUs look at the generation first: it goes first and comes last. */
inlined void redecide(struct path *to, const struct path *from) {
    __u32 packets = to->packets;
    __u64 bytes = to->bytes;

    *(volatile __u32 *)&to->generation = 0;
    barrier();
    to->nat_address = from->nat_address;
    to->checked_j = from->checked_j;
    to->in_ifindex = from->in_ifindex;
    to->out_ifindex = from->out_ifindex;
    to->action = from->action;
    to->flags = from->flags;
    to->mtu = from->mtu;
    copy_mac(to->in_mac, from->in_mac);
    copy_mac(to->destination_mac, from->destination_mac);
    copy_mac(to->source_mac, from->source_mac);
    to->nat_port_be = from->nat_port_be;
    to->node = from->node;
    to->mark = from->mark;
    to->reason = from->reason;
    to->rule = from->rule;
    to->checksum_diff = from->checksum_diff;
    to->packets = packets;
    to->bytes = bytes;
    barrier();
    *(volatile __u32 *)&to->generation = from->generation;
}

/* Ports of a fragment: kept from the first one, found for the later ones. Returns a drop reason. */
apart int fragment_ports(struct packet *packet) {
    if (!packet)
        return DROP_MALFORMED;
    struct fragment_key key = {
        .source = packet->source,
        .destination = packet->destination,
        .id_be = packet->fragment_id_be,
        .protocol = packet->protocol,
    };

    if (packet->flags & PACKET_LATER) {
        struct fragment *first = bpf_map_lookup_elem(&fragments, &key);

        if (!first || passed(first->seen_j + config.fragment_j, packet->now_j))
            return DROP_FRAGMENT_UNKNOWN;
        packet->source_port_be = first->source_port_be;
        packet->destination_port_be = first->destination_port_be;
        packet->policy_port_be = first->destination_port_be;
    } else if (!tracing()) {
        struct fragment first = {
            .source_port_be = packet->source_port_be,
            .destination_port_be = packet->destination_port_be,
            .seen_j = packet->now_j,
        };
        bool known = bpf_map_lookup_elem(&fragments, &key);

        if (!bpf_map_update_elem(&fragments, &key, &first, BPF_ANY) && !known)
            one_more(CREATED_FRAGMENTS);
    }
    return DROP_NONE;
}

#endif
