/* Who has an address, and how a packet gets there. */
#ifndef PLIMSOLL_TARGET_H
#define PLIMSOLL_TARGET_H

#include "program.h"
#include "events.h"
#include "flow.h"
#include "maps.h"
#include "packet.h"

/* The entry of an address alone. Linux 6.1 takes no argument of a function for a key, hence the copy; and the stack is
 * short. */
inlined struct target *exactly(const struct address *address) {
    struct scratch *scratch = scratch_of();

    if (!scratch)
        return NULL;
    scratch->address = *address;
    return bpf_map_lookup_elem(&addresses, &scratch->address);
}

/* The entry of an address, or that of the longest range that covers it; NULL: the world. */
inlined struct target *target_of(const struct address *address) {
    struct scratch *scratch = scratch_of();
    struct target *target = exactly(address);

    if (target || !scratch)
        return target;
    scratch->range.prefix_bits = 128;
    __builtin_memcpy(scratch->range.address_be, address, sizeof(scratch->range.address_be));
    return bpf_map_lookup_elem(&cidrs, &scratch->range);
}

inlined __u32 identity_of(const struct target *target) {
    return target ? target->identity : IDENTITY_WORLD;
}

inlined __u32 mark_of(__u32 kind, __u32 identity) {
    return kind | identity << 16 | ((identity >> 16) & 0xff);
}

inlined __u32 marked_identity(__u32 mark) {
    return mark >> 16 | (mark & 0xff) << 16;
}

/* Linux 6.3; the constant is not in the types of older ones. */
#define FIB_SKIP_NEIGHBOUR (1 << 2)

/* Asks the kernel's routing tables, by rules on the packet's source too, as a packet that comes by this device. */
inlined int routing_tables(struct __sk_buff *skb, const struct packet *packet, const struct address *to,
                           struct bpf_fib_lookup *fib, __u32 flags) {
    __builtin_memset(fib, 0, sizeof(*fib));
    fib->ifindex = skb->ifindex;
    fib->l4_protocol = packet->protocol;
    fib->sport = packet->source_port_be;
    fib->dport = packet->destination_port_be;
    fib->tot_len = 1; /* asks for the route's MTU; nothing is too big */
    if (packet->flags & PACKET_IPV6) {
        fib->family = AF_INET6;
        __builtin_memcpy(fib->ipv6_src, &packet->source, 16);
        __builtin_memcpy(fib->ipv6_dst, to, 16);
    } else {
        fib->family = AF_INET;
        fib->tos = packet->tos & 0x1c;
        fib->ipv4_src = packet->source.word_be[3];
        fib->ipv4_dst = to->word_be[3];
    }
    return bpf_fib_lookup(skb, fib, sizeof(*fib), flags);
}

apart int route(struct __sk_buff *skb, const struct packet *packet, const struct address *to, struct path *path) {
    if (!packet || !to || !path)
        return 0;
    struct scratch *scratch = scratch_of();
    struct bpf_fib_lookup *fib;
    int status;

    path->action = ACTION_STACK;
    if (!scratch)
        return 0;
    fib = &scratch->fib;
    status = routing_tables(skb, packet, to, fib, 0);
    if (status == BPF_FIB_LKUP_RET_SUCCESS) {
        path->action = ACTION_DEVICE;
        path->out_ifindex = fib->ifindex;
        path->mtu = fib->mtu_result;
        copy_mac(path->destination_mac, fib->dmac);
        copy_mac(path->source_mac, fib->smac);
    } else if (status == BPF_FIB_LKUP_RET_NO_NEIGH) {
        path->action = ACTION_NEIGHBOUR;
        path->out_ifindex = fib->ifindex;
        /* Without a neighbour the answer has no MTU. */
        if (routing_tables(skb, packet, to, fib, FIB_SKIP_NEIGHBOUR) == BPF_FIB_LKUP_RET_SUCCESS)
            path->mtu = fib->mtu_result;
    } else if (status == BPF_FIB_LKUP_RET_BLACKHOLE) {
        path->flags |= PATH_DENIED;
        path->reason = DROP_BLACKHOLE;
    }
    /* Else local, unreachable (the sender is told), or something that only the stack can do. */
    return 0;
}

/* Fills action, MAC addresses and MTU of a path to a pod of this node. */
inlined void route_to_pod(const struct target *target, struct path *path) {
    path->out_ifindex = target->ifindex;
    path->mtu = target->mtu;
    copy_mac(path->destination_mac, target->mac);
    copy_mac(path->source_mac, target->host_mac);
    path->action = config.flags & CONFIG_ENDPOINT_ROUTES ? ACTION_STACK : ACTION_POD;
}

inlined void route_by_tunnel(const struct target *target, struct path *path) {
    struct device *overlay;
    __u32 ifindex = config.tunnel_ifindex;

    path->action = ACTION_TUNNEL;
    path->node = target->node;
    path->out_ifindex = ifindex;
    /* The overlay's device has the same address on every node, and drops what bears it as the source. */
    for (int i = 0; i < 6; i++) {
        path->destination_mac[i] = config.tunnel_mac[i];
        path->source_mac[i] = config.host_mac[i];
    }
    overlay = bpf_map_lookup_elem(&devices, &ifindex);
    path->mtu = overlay ? overlay->mtu : 0;
}

/* Straight to the node that has the pod: the routing tables say by which device the node is reached. */
inlined void route_by_node(struct __sk_buff *skb, const struct packet *packet, const struct target *target,
                           struct path *path) {
    struct address next_hop;
    __u32 index = target->node;
    struct node *node = bpf_map_lookup_elem(&nodes, &index);

    if (!node || no_address(&node->address)) {
        path->flags |= PATH_DENIED;
        path->reason = DROP_NO_TUNNEL;
        return;
    }
    next_hop = node->address;
    route(skb, packet, &next_hop, path);
    if (path->action == ACTION_NEIGHBOUR) {
        path->action = ACTION_DIRECT;
        path->node = index;
    }
}

#endif
