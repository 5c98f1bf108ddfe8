/* ICMP errors: those we send, and those about masqueraded flows on their way through. */
#ifndef PLIMSOLL_ICMP_H
#define PLIMSOLL_ICMP_H

#include "program.h"
#include "events.h"
#include "flow.h"
#include "maps.h"
#include "nat.h"
#include "packet.h"
#include "target.h"

/* How much of the packet an error quotes: its header and eight bytes (RFC 792); for IPv6, whatever has extension headers is
 * left to the stack. */
#define QUOTED4 (20 + 8)
#define QUOTED6 (40 + 8)

inlined __u16 sum_of(const void *bytes, __u32 length, __u32 seed) {
    return ~folded(bpf_csum_diff(0, 0, (__be32 *)bytes, length, seed));
}

/* The Ethernet header of an answer to the packet. In the tunnel both directions bear the same one. */
inlined void answer_ethernet(const struct packet *packet, __u8 *to, void *data) {
    struct ethhdr *ethernet = data;
    bool turned = packet->hook != HOOK_FROM_OVERLAY;

    copy_mac(to, turned ? ethernet->h_source : ethernet->h_dest);
    copy_mac(to + 6, turned ? ethernet->h_dest : ethernet->h_source);
    *(__u16 *)(to + 12) = ethernet->h_proto;
}

/* Names the tunnel's far end that the packet came from as the one that it goes to. Returns 0, or the kernel's refusal. */
inlined int turn_tunnel(struct __sk_buff *skb) {
    struct bpf_tunnel_key key = {}, back = {.tunnel_id = IDENTITY_HOST, .tunnel_ttl = 64};

    if (!bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
        back.remote_ipv4 = key.remote_ipv4;
        return bpf_skb_set_tunnel_key(skb, &back, sizeof(back), BPF_F_ZERO_CSUM_TX);
    }
    if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
        return -1;
    __builtin_memcpy(back.remote_ipv6, key.remote_ipv6, 16);
    return bpf_skb_set_tunnel_key(skb, &back, sizeof(back), BPF_F_TUNINFO_IPV6 | BPF_F_ZERO_CSUM_TX);
}

/* Sends back where it came from. No program of ours looks at it again. */
inlined int send_back(struct __sk_buff *skb) {
    skb->mark = MARK_DONE;
    return bpf_redirect(skb->ifindex, 0);
}

inlined int send_error4(struct __sk_buff *skb, struct packet *packet, struct scratch *scratch, __u8 type, __u8 code,
                        __u16 mtu) {
    __u8 *bytes = scratch->bytes;
    struct iphdr *ip = (void *)bytes + ETH_HEADER;
    struct icmphdr *icmp = (void *)(ip + 1);
    void *data = begin_of(skb);

    if (data + ETH_HEADER + QUOTED4 > end_of(skb))
        return SHOT;
    answer_ethernet(packet, bytes, data);
    __builtin_memset(ip, 0, sizeof(*ip) + sizeof(*icmp));
    *(__u8 *)ip = 0x45;
    ip->tos = 0xc0;
    ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*icmp) + QUOTED4);
    ip->ttl = 64;
    ip->protocol = PROTO_ICMP;
    ip->saddr = config.gateway4.word_be[3];
    ip->daddr = packet->source.word_be[3];
    ip->check = sum_of(ip, sizeof(*ip), 0);
    icmp->type = type;
    icmp->code = code;
    icmp->un.frag.mtu = bpf_htons(mtu);
    __builtin_memcpy(icmp + 1, data + ETH_HEADER, QUOTED4);
    icmp->checksum = sum_of(icmp, sizeof(*icmp) + QUOTED4, 0);
    if (bpf_skb_change_tail(skb, ETH_HEADER + sizeof(*ip) + sizeof(*icmp) + QUOTED4, 0) ||
        bpf_skb_store_bytes(skb, 0, bytes, ETH_HEADER + sizeof(*ip) + sizeof(*icmp) + QUOTED4,
                            BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
        return SHOT;
    if (packet->hook == HOOK_FROM_OVERLAY && turn_tunnel(skb))
        return SHOT;
    return send_back(skb);
}

struct pseudo6 {
    struct address source;
    struct address destination;
    __be32 length;
    __be32 next;
};

inlined int send_error6(struct __sk_buff *skb, struct packet *packet, struct scratch *scratch, __u8 type, __u8 code,
                        __u16 mtu) {
    __u8 *bytes = scratch->bytes;
    struct ipv6hdr *ip = (void *)bytes + ETH_HEADER;
    struct icmp6hdr *icmp = (void *)(ip + 1);
    struct pseudo6 pseudo;
    void *data = begin_of(skb);
    __u32 sum;

    if (data + ETH_HEADER + QUOTED6 > end_of(skb))
        return SHOT;
    answer_ethernet(packet, bytes, data);
    __builtin_memset(ip, 0, sizeof(*ip) + sizeof(*icmp));
    *(__u8 *)ip = 0x60;
    ip->payload_len = bpf_htons(sizeof(*icmp) + QUOTED6);
    ip->nexthdr = PROTO_ICMP6;
    ip->hop_limit = 64;
    for (int i = 0; i < 4; i++)
        pseudo.source.word_be[i] = config.gateway6.word_be[i];
    pseudo.destination = packet->source;
    pseudo.length = bpf_htonl(sizeof(*icmp) + QUOTED6);
    pseudo.next = bpf_htonl(PROTO_ICMP6);
    __builtin_memcpy(&ip->saddr, &pseudo.source, 16);
    __builtin_memcpy(&ip->daddr, &pseudo.destination, 16);
    icmp->icmp6_type = type;
    icmp->icmp6_code = code;
    icmp->icmp6_dataun.un_data32[0] = bpf_htonl(mtu);
    __builtin_memcpy(icmp + 1, data + ETH_HEADER, QUOTED6);
    sum = bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
    icmp->icmp6_cksum = sum_of(icmp, sizeof(*icmp) + QUOTED6, sum);
    if (bpf_skb_change_tail(skb, ETH_HEADER + sizeof(*ip) + sizeof(*icmp) + QUOTED6, 0) ||
        bpf_skb_store_bytes(skb, 0, bytes, ETH_HEADER + sizeof(*ip) + sizeof(*icmp) + QUOTED6,
                            BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
        return SHOT;
    if (packet->hook == HOOK_FROM_OVERLAY && turn_tunnel(skb))
        return SHOT;
    return send_back(skb);
}

/* True if an error about this packet may be sent (RFC 1122, RFC 4443), by what it is and by the budget. */
inlined bool error_allowed(const struct packet *packet, const struct address *from) {
    struct runtime *run = running();
    __u32 suppressed;

    if (tracing() || no_address(from) || (packet->flags & (PACKET_LATER | PACKET_ICMP_ERROR | PACKET_OPTIONS)))
        return false;
    return run && granted(BUDGET_ICMP, run->icmp_errors_per_tick, packet->now_j, &suppressed);
}

/* Turns the packet into an error about it and sends it back, if that may be. */
apart int answered(struct __sk_buff *skb, struct packet *packet, __u32 reason, __u32 mtu) {
    if (!packet)
        return SHOT;
    bool ipv6 = packet->flags & PACKET_IPV6;
    struct scratch *scratch = scratch_of();
    struct address from;

    for (int i = 0; i < 4; i++)
        from.word_be[i] = ipv6 ? config.gateway6.word_be[i] : config.gateway4.word_be[i];
    if (!scratch || !error_allowed(packet, &from))
        return SHOT;
    if (ipv6)
        return send_error6(skb, packet, scratch, reason == DROP_TTL ? ICMP6_TIME_EXCEEDED : ICMP6_TOO_BIG, 0, mtu);
    return send_error4(skb, packet, scratch, reason == DROP_TTL ? ICMP_TIME_EXCEEDED : ICMP_UNREACHABLE,
                       reason == DROP_TTL ? 0 : ICMP_FRAGMENTATION_NEEDED, mtu);
}

/* Tells the sender that the packet's hops are used up, or that it is too big for `mtu`, and drops it. Counting and
 * answering have frames of their own: one after the other, they fit on the stack. */
apart int refused(struct __sk_buff *skb, struct packet *packet, __u32 reason, __u32 mtu) {
    if (!packet)
        return SHOT;
    DROP(reason);
    return answered(skb, packet, reason, mtu);
}

/* The flow of the packet that an ICMP error is about; NULL: there is none, or the packet never got through. */
inlined struct flow *related(struct scratch *scratch, const struct packet *inner, __u32 now) {
    bool low = key_of(&scratch->inner_key, inner);
    struct flow *flow = bpf_map_lookup_elem(&flows, &scratch->inner_key);

    if (!flow || !alive(flow, now))
        return NULL;
    return path_of(flow, low)->flags & PATH_DENIED ? NULL : flow;
}

/* Reads the packet that an ICMP error is about into `inner`. Returns a drop reason. */
apart int read_inner(struct __sk_buff *skb, const struct packet *packet, struct packet *inner) {
    if (!packet || !inner)
        return DROP_MALFORMED;
    __u32 at = packet->l4 + 8, l4;
    void *data, *end;
    int reason;

    readable(skb, DEEP_BYTES);
    data = begin_of(skb);
    end = end_of(skb);
    __builtin_memset(inner, 0, sizeof(*inner));
    if (at > DEEP_BYTES - 60)
        return DROP_MALFORMED;
    reason = packet->flags & PACKET_IPV6 ? read_ipv6(data, end, at, inner, 0) : read_ipv4(data, end, at, inner, 0);
    if (reason)
        return reason;
    l4 = inner->l4;
    if (l4 > DEEP_BYTES)
        return DROP_EXTENSION_HEADERS;
    /* Eight bytes of the transport header are promised, no more: a TCP header is not whole. */
    if (inner->protocol == PROTO_TCP) {
        struct ports *ports = data + l4;

        if ((void *)(ports + 1) > end)
            return DROP_MALFORMED;
        inner->source_port_be = ports->source;
        inner->destination_port_be = ports->destination;
        return DROP_NONE;
    }
    reason = read_transport(data, end, l4, inner);
    if (!reason && (inner->flags & (PACKET_ICMP_ERROR | PACKET_CONTROL)))
        return DROP_ICMP_UNRELATED;
    return reason;
}

/* The rewrite of an error about a masqueraded flow: outside, the error's own source or destination; inside, the other end
 * of the packet it is about. `out`: the error leaves the node. Returns 0, or the kernel's refusal. */
apart int rewrite_error(struct __sk_buff *skb, const struct packet *packet, const struct packet *inner,
                        const struct nat *nat_entry, bool out) {
    if (!packet || !inner || !nat_entry)
        return -1;
    bool ipv6 = packet->flags & PACKET_IPV6;
    const struct address *to = &nat_entry->address;
    __u32 diff = nat_entry->checksum_diff, sum_at = packet->l4 + 2, inner_at = packet->l4 + 8;
    __u16 old_be = out ? inner->destination_port_be : inner->source_port_be, new_be = nat_entry->port_be;
    __u32 inner_sum_at = inner->l4 + checksum_offset(inner->protocol);

    if (is_icmp(inner->protocol))
        old_be = inner->source_port_be ? inner->source_port_be : inner->destination_port_be;
    if (ports_can_change(inner->protocol)) {
        __u32 port_at = inner->l4 + (is_icmp(inner->protocol) ? 4 : out ? 2 : 0);
        __u16 before;

        if (bpf_skb_store_bytes(skb, port_at, &new_be, 2, 0) || bpf_l4_csum_replace(skb, sum_at, old_be, new_be, 2))
            return -1;
        /* The quoted checksum is kept right too, where it is quoted (TCP's mostly is not); what it gains, the outer one
         * loses. */
        if (!bpf_skb_load_bytes(skb, inner_sum_at, &before, 2) && (before || inner->protocol != PROTO_UDP)) {
            __u32 moved = folded((__u16)~before + (__u16)~old_be + new_be);
            __u16 after;

            if (inner->protocol != PROTO_ICMP)
                moved = folded(moved + folded(diff));
            after = ~moved;
            if (!after && inner->protocol == PROTO_UDP)
                after = 0xffff;
            if (bpf_skb_store_bytes(skb, inner_sum_at, &after, 2, 0) ||
                bpf_l4_csum_replace(skb, sum_at, before, after, 2))
                return -1;
        }
    }
    if (ipv6) {
        if (bpf_skb_store_bytes(skb, inner_at + (out ? 24 : 8), to, 16, 0) ||
            bpf_l4_csum_replace(skb, sum_at, 0, diff, 0) ||
            bpf_skb_store_bytes(skb, ETH_HEADER + (out ? 8 : 24), to, 16, 0) ||
            replace_address_sum(skb, sum_at, diff, true, 0))
            return -1;
        return 0;
    }
    /* The inner header's checksum takes up what its address adds: the ICMP checksum stays. */
    if (bpf_l3_csum_replace(skb, inner_at + 10, 0, diff, 0) ||
        bpf_skb_store_bytes(skb, inner_at + (out ? 16 : 12), &to->word_be[3], 4, 0) ||
        bpf_l3_csum_replace(skb, ETH_HEADER + 10, 0, diff, 0) ||
        bpf_skb_store_bytes(skb, ETH_HEADER + (out ? 12 : 16), &to->word_be[3], 4, 0))
        return -1;
    return 0;
}

#endif
