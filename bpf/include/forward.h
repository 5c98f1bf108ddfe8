/* Sends a packet on as its path says. */
#ifndef PLIMSOLL_FORWARD_H
#define PLIMSOLL_FORWARD_H

#include "program.h"
#include "events.h"
#include "flow.h"
#include "icmp.h"
#include "maps.h"
#include "nat.h"
#include "packet.h"
#include "target.h"

inlined bool too_big(const struct __sk_buff *skb, const struct packet *packet, __u32 mtu) {
    __u32 segment = skb->gso_size;
    __u32 length = segment ? packet->l4 - ETH_HEADER + packet->l4_bytes + segment : skb->len - ETH_HEADER;

    return mtu && length > mtu;
}

/* One hop less, and the link layer's addresses for the next one. Returns 0, or -1 for what cannot be written to. */
inlined int next_hop(struct __sk_buff *skb, const struct packet *packet, const struct path *path) {
    void *data = begin_of(skb), *end = end_of(skb);
    struct ethhdr *ethernet = data;

    if (packet->flags & PACKET_IPV6) {
        struct ipv6hdr *ip = data + ETH_HEADER;

        if ((void *)(ip + 1) > end)
            return -1;
        ip->hop_limit--;
    } else {
        struct iphdr *ip = data + ETH_HEADER;
        __u32 sum;

        if ((void *)(ip + 1) > end)
            return -1;
        ip->ttl--;
        /* RFC 1141 */
        sum = (__u32)ip->check + bpf_htons(0x0100);
        ip->check = sum + (sum >= 0xffff);
    }
    copy_mac(ethernet->h_dest, path->destination_mac);
    copy_mac(ethernet->h_source, path->source_mac);
    return 0;
}

/* A sample of what passes, if the daemon wants one. */
inlined void sampled(struct __sk_buff *skb, struct packet *packet, const struct path *path, const struct runtime *run) {
    __u32 zero = 0, *left;

    if (!run || !run->trace_every)
        return;
    left = bpf_map_lookup_elem(&samples, &zero);
    if (!left)
        return;
    if (*left > 1 && *left <= run->trace_every) {
        (*left)--;
        return;
    }
    *left = run->trace_every;
    NOTE(EVENT_TRACE, 0, 0, path->action, path->out_ifindex);
}

/* Writes the tunnel's far end and the source's identity beside the packet. Returns PASS, or a verdict. */
apart int tunnelled(struct __sk_buff *skb, struct packet *packet, const struct path *path) {
    if (!packet || !path)
        return SHOT;
    struct bpf_tunnel_key key = {.tunnel_id = marked_identity(path->mark), .tunnel_ttl = 64};
    __u32 index = path->node;
    __u64 flags = BPF_F_ZERO_CSUM_TX;
    struct node *node = bpf_map_lookup_elem(&nodes, &index);

    if (!node || no_address(&node->address))
        return DROP(DROP_NO_TUNNEL);
    if (node->address.half[0] == 0 && node->address.word_be[2] == bpf_htonl(0xffff)) {
        key.remote_ipv4 = bpf_ntohl(node->address.word_be[3]);
    } else {
        __builtin_memcpy(key.remote_ipv6, &node->address, 16);
        flags |= BPF_F_TUNINFO_IPV6;
    }
    return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags) ? DROP(DROP_REWRITE) : PASS;
}

inlined int by_tunnel(struct __sk_buff *skb, struct packet *packet, const struct path *path) {
    int verdict = tunnelled(skb, packet, path);

    if (verdict != PASS)
        return verdict;
    count(packet->hook, DROP_NONE, skb->len);
    return bpf_redirect(path->out_ifindex, 0);
}

apart int by_node(struct __sk_buff *skb, struct packet *packet, const struct path *path) {
    if (!packet || !path)
        return SHOT;
    struct bpf_redir_neigh next = {};
    __u32 index = path->node;
    struct node *node = bpf_map_lookup_elem(&nodes, &index);

    if (!node || no_address(&node->address))
        return DROP(DROP_NO_TUNNEL);
    if (node->address.half[0] == 0 && node->address.word_be[2] == bpf_htonl(0xffff)) {
        next.nh_family = AF_INET;
        next.ipv4_nh = node->address.word_be[3];
    } else {
        next.nh_family = AF_INET6;
        __builtin_memcpy(next.ipv6_nh, &node->address, 16);
    }
    count(packet->hook, DROP_NONE, skb->len);
    return bpf_redirect_neigh(path->out_ifindex, &next, sizeof(next), 0);
}

/* What is too big and may be cut is left to the stack, which cuts it; but it knows no tunnels. */
apart int oversized(struct __sk_buff *skb, struct packet *packet, const struct path *path) {
    if (!packet || !path)
        return SHOT;
    if (!(packet->flags & PACKET_DF) && path->action != ACTION_TUNNEL) {
        skb->mark = mark_of(MARK_IDENTITY, marked_identity(path->mark));
        count(packet->hook, DROP_NONE, skb->len);
        return PASS;
    }
    return refused(skb, packet, DROP_MTU, path->mtu);
}

inlined int forward(struct __sk_buff *skb, struct packet *packet, const struct path *path, const struct runtime *run) {
    __u8 action = path->action;

    if (path->flags & PATH_DENIED) {
        packet->rule = path->rule;
        return DROP(path->reason);
    }
    STEP(STEP_FORWARD, 0, action, path->out_ifindex);
    if (tracing())
        return action == ACTION_STACK ? PASS : 7 /* TC_ACT_REDIRECT */;
    if (action == ACTION_STACK) {
        skb->mark = path->mark;
        count(packet->hook, DROP_NONE, skb->len);
        sampled(skb, packet, path, run);
        return PASS;
    }
    if (packet->ttl <= 1)
        return refused(skb, packet, DROP_TTL, 0);
    if (too_big(skb, packet, path->mtu))
        return oversized(skb, packet, path);
    sampled(skb, packet, path, run);
    if ((path->flags & PATH_NAT) &&
        rewrite(skb, packet, true, &path->nat_address, path->nat_port_be, path->checksum_diff))
        return DROP(DROP_REWRITE);
    if (next_hop(skb, packet, path))
        return DROP(DROP_REWRITE);
    if (action == ACTION_POD) {
        count(packet->hook, DROP_NONE, skb->len);
        return bpf_redirect_peer(path->out_ifindex, 0);
    }
    skb->mark = path->mark;
    if (action == ACTION_TUNNEL)
        return by_tunnel(skb, packet, path);
    if (action == ACTION_DIRECT)
        return by_node(skb, packet, path);
    count(packet->hook, DROP_NONE, skb->len);
    return action == ACTION_DEVICE ? bpf_redirect(path->out_ifindex, 0)
                                   : bpf_redirect_neigh(path->out_ifindex, 0, 0, 0);
}

#endif
