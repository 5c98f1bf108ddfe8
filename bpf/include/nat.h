/* Masquerade: pods' packets leave with an address of the node, and answers find back. */
#ifndef PLIMSOLL_NAT_H
#define PLIMSOLL_NAT_H

#include "program.h"
#include "events.h"
#include "flow.h"
#include "maps.h"
#include "packet.h"

#define NAT_TRIES 256
/* Linux 6.16; see rewrite_checksum. */
#define CSUM_IPV6 (1ULL << 7)
#define CSUM_PSEUDO (1ULL << 4)
#define CSUM_MANGLED_0 (1ULL << 5)
#define CSUM_NONE 0

inlined __u16 folded(__u32 sum) {
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

/* Offset of the checksum within the transport header; 0: none that covers addresses or ports we change. */
inlined __u32 checksum_offset(__u8 protocol) {
    switch (protocol) {
    case PROTO_TCP:
        return 16;
    case PROTO_UDP:
    case PROTO_UDPLITE:
        return 6;
    case PROTO_ICMP:
    case PROTO_ICMP6:
        return 2;
    }
    return 0;
}

inlined bool ports_can_change(__u8 protocol) {
    /* SCTP's checksum is a CRC over the whole packet; other protocols have no ports that we know. */
    return protocol == PROTO_TCP || protocol == PROTO_UDP || protocol == PROTO_UDPLITE || is_icmp(protocol);
}

/* Adds to a checksum at `offset` what a changed address adds. A kernel that receives with a checksum over the whole packet
 * must be told that IPv6 has no header checksum to even it out; older ones cannot be, and get it wrong there. */
inlined int replace_address_sum(struct __sk_buff *skb, __u32 offset, __u32 diff, bool ipv6, __u64 flags) {
    int status;

    if (!ipv6)
        return bpf_l4_csum_replace(skb, offset, 0, diff, CSUM_PSEUDO | flags);
    status = bpf_l4_csum_replace(skb, offset, 0, diff, CSUM_PSEUDO | CSUM_IPV6 | flags);
    if (status == -22 /* EINVAL */)
        status = bpf_l4_csum_replace(skb, offset, 0, diff, CSUM_PSEUDO | flags);
    return status;
}

/* Writes another source (or destination) into the packet, with all checksums. Returns 0, or the kernel's refusal. */
inlined int rewrite(struct __sk_buff *skb, const struct packet *packet, bool source, const struct address *to,
                    __u16 port_be, __u32 diff) {
    bool ipv6 = packet->flags & PACKET_IPV6;
    __u8 protocol = packet->protocol;
    __u32 l4 = packet->l4, sum_at = checksum_offset(protocol), port_at = 0;
    void *data, *end;

    barrier_var(l4);
    if (l4 > DEEP_BYTES)
        return -1;
    if (!(packet->flags & PACKET_LATER) && sum_at) {
        __u64 mangled = protocol == PROTO_UDP ? CSUM_MANGLED_0 : 0;
        __u16 old_be = source || is_icmp(protocol) ? packet->source_port_be : packet->destination_port_be;

        if (is_icmp(protocol) && !packet->source_port_be)
            old_be = packet->destination_port_be;
        if (protocol != PROTO_ICMP && replace_address_sum(skb, l4 + sum_at, diff, ipv6, mangled))
            return -1;
        if (old_be != port_be) {
            port_at = l4 + (is_icmp(protocol) ? 4 : source ? 0 : 2);
            if (bpf_l4_csum_replace(skb, l4 + sum_at, old_be, port_be, mangled | 2))
                return -1;
        }
    }
    data = begin_of(skb);
    end = end_of(skb);
    if (port_at) {
        __u16 *port;

        barrier_var(port_at);
        port = data + (port_at & 0x1ff);
        if ((void *)(port + 1) > end)
            return -1;
        *port = port_be;
    }
    if (ipv6) {
        struct ipv6hdr *ip = data + ETH_HEADER;

        if ((void *)(ip + 1) > end)
            return -1;
        __builtin_memcpy(source ? &ip->saddr : &ip->daddr, to, 16);
    } else {
        struct iphdr *ip = data + ETH_HEADER;

        if ((void *)(ip + 1) > end)
            return -1;
        *(source ? &ip->saddr : &ip->daddr) = to->word_be[3];
        ip->check = ~folded((__u16)~ip->check + folded(diff));
    }
    return 0;
}

inlined __u32 address_diff(const struct address *from, const struct address *to) {
    return bpf_csum_diff((__be32 *)from, 16, (__be32 *)to, 16, 0);
}

/* True if a socket of the node's own would take what comes back to this port. */
inlined bool socket_owns(struct __sk_buff *skb, const struct nat_key *answer, bool ipv6) {
    struct bpf_sock_tuple tuple = {};
    struct bpf_sock *socket;
    __u32 bytes;

    if (answer->protocol != PROTO_TCP && answer->protocol != PROTO_UDP)
        return false;
    if (ipv6) {
        __builtin_memcpy(tuple.ipv6.saddr, &answer->source, 16);
        __builtin_memcpy(tuple.ipv6.daddr, &answer->destination, 16);
        tuple.ipv6.sport = answer->source_port_be;
        tuple.ipv6.dport = answer->destination_port_be;
        bytes = sizeof(tuple.ipv6);
    } else {
        tuple.ipv4.saddr = answer->source.word_be[3];
        tuple.ipv4.daddr = answer->destination.word_be[3];
        tuple.ipv4.sport = answer->source_port_be;
        tuple.ipv4.dport = answer->destination_port_be;
        bytes = sizeof(tuple.ipv4);
    }
    if (answer->protocol == PROTO_TCP)
        socket = bpf_skc_lookup_tcp(skb, &tuple, bytes, BPF_F_CURRENT_NETNS, 0);
    else
        socket = bpf_sk_lookup_udp(skb, &tuple, bytes, BPF_F_CURRENT_NETNS, 0);
    if (!socket)
        return false;
    bpf_sk_release(socket);
    return true;
}

struct search {
    struct __sk_buff *skb;
    struct scratch *scratch;
    __u32 port;
    __u32 now_j;
    __u32 ipv6;
    __u32 fixed; /* the port cannot change: one try */
    __u32 found;
};

/* One try of bpf_loop: takes the port if nobody has it. Returns 1 to stop. */
static long try_port(__u32 number, void *context) {
    struct search *search = context;
    struct scratch *scratch = search->scratch;
    struct nat_key *answer = &scratch->nat_answer;
    struct nat *other;

    (void)number;
    if (!search->fixed) {
        answer->destination_port_be = bpf_htons(search->port);
        search->port = search->port >= config.nat_port_high ? config.nat_port_low : search->port + 1;
        if (socket_owns(search->skb, answer, search->ipv6))
            return 0;
    }
    if (tracing()) {
        search->found = !bpf_map_lookup_elem(&nat, answer);
        return (search->found | search->fixed) != 0;
    }
    if (!bpf_map_update_elem(&nat, answer, &scratch->nat, BPF_NOEXIST)) {
        one_more(CREATED_NAT);
        search->found = true;
        return 1;
    }
    other = bpf_map_lookup_elem(&nat, answer);
    if (other && (passed(other->expires_j, search->now_j) ||
                  (same_address(&other->address, &scratch->nat.address) && other->port_be == scratch->nat.port_be))) {
        bpf_map_update_elem(&nat, answer, &scratch->nat, BPF_ANY);
        search->found = true;
        return 1;
    }
    return search->fixed != 0;
}

/* Finds or makes the mapping of the packet's flow to `to`, and writes it into `path`. Both entries live as long as the
 * flow, and are renewed when its decision is. Returns a drop reason. */
apart int masqueraded(struct __sk_buff *skb, const struct packet *packet, const struct address *to, struct path *path,
                      __u32 lifetime) {
    if (!packet || !to || !path)
        return DROP_MALFORMED;
    struct scratch *scratch = scratch_of();
    struct search search = {.skb = skb, .scratch = scratch, .now_j = packet->now_j};
    struct nat *known;
    __u32 range;

    if (!scratch)
        return DROP_FLOW_FULL;
    search.ipv6 = !!(packet->flags & PACKET_IPV6);
    search.fixed = !ports_can_change(packet->protocol);
    scratch->nat_key.source = packet->source;
    scratch->nat_key.destination = packet->destination;
    *(__u64 *)&scratch->nat_key.source_port_be = 0;
    scratch->nat_key.source_port_be = packet->source_port_be;
    scratch->nat_key.destination_port_be = packet->destination_port_be;
    scratch->nat_key.protocol = packet->protocol;
    scratch->nat_key.direction = NAT_OUT;

    scratch->nat_answer.source = packet->destination;
    scratch->nat_answer.destination = *to;
    *(__u64 *)&scratch->nat_answer.source_port_be = 0;
    scratch->nat_answer.source_port_be = packet->destination_port_be;
    scratch->nat_answer.destination_port_be = packet->source_port_be;
    scratch->nat_answer.protocol = packet->protocol;
    scratch->nat_answer.direction = NAT_IN;

    scratch->nat.address = packet->source;
    scratch->nat.port_be = packet->source_port_be;
    scratch->nat.pad = 0;
    scratch->nat.created_j = packet->now_j;
    scratch->nat.expires_j = packet->now_j + lifetime + config.recheck_j;
    scratch->nat.checksum_diff = address_diff(to, &packet->source);

    known = bpf_map_lookup_elem(&nat, &scratch->nat_key);
    if (known && same_address(&known->address, to) && !passed(known->expires_j, packet->now_j)) {
        /* The same port again, if the other entry is still ours. */
        struct nat *back;

        scratch->nat_answer.destination_port_be = known->port_be;
        back = bpf_map_lookup_elem(&nat, &scratch->nat_answer);
        if (back && same_address(&back->address, &packet->source) && back->port_be == packet->source_port_be) {
            if (!tracing()) {
                known->expires_j = scratch->nat.expires_j;
                back->expires_j = scratch->nat.expires_j;
            }
            search.found = true;
        } else if (!back && tracing()) {
            search.found = true;
        } else if (!back && !bpf_map_update_elem(&nat, &scratch->nat_answer, &scratch->nat, BPF_NOEXIST)) {
            one_more(CREATED_NAT);
            search.found = true;
        }
    }
    if (!search.found) {
        range = config.nat_port_high - config.nat_port_low + 1;
        search.port = config.nat_port_low + (range ? bpf_get_prandom_u32() % range : 0);
        bpf_loop(NAT_TRIES, try_port, &search, 0);
        if (!search.found)
            return DROP_NAT_NO_PORT;
    }
    path->flags |= PATH_NAT;
    path->nat_address = *to;
    path->nat_port_be = scratch->nat_answer.destination_port_be;
    path->checksum_diff = address_diff(&packet->source, to);
    if (!tracing()) {
        scratch->nat.address = *to;
        scratch->nat.port_be = path->nat_port_be;
        scratch->nat.checksum_diff = path->checksum_diff;
        if (bpf_map_update_elem(&nat, &scratch->nat_key, &scratch->nat, BPF_ANY))
            return DROP_FLOW_FULL;
        if (!known)
            one_more(CREATED_NAT);
    }
    return DROP_NONE;
}

#endif
