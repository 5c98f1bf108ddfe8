/* Programs of pods' devices, attached to the node's end of each pair.
 *
 *   pod ──▶ from_pod ──▶ another pod, a device, the tunnel, or the node's stack
 *   the node's stack ──▶ to_pod ──▶ pod
 *
 * A packet of a known flow takes one look-up; see decided() for when its entry may be used. */
#define SOURCE_FILE SOURCE_POD

#include "include/decide.h"
#include "include/neighbour.h"

char _license[] SEC("license") = "GPL";

inlined bool link_local(const struct address *address) {
    return (address->word_be[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* To many at once: there is no network of pods that could carry it. */
inlined bool to_many(const struct packet *packet) {
    const struct address *to = &packet->destination;

    if (packet->flags & PACKET_IPV6)
        return *(const __u8 *)to == 0xff;
    return (to->word_be[3] & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || to->word_be[3] == 0xffffffff;
}

/* Whether the pod may send this. Returns a drop reason. */
inlined int source_refused(struct __sk_buff *skb, const struct packet *packet, const struct endpoint *endpoint) {
    bool ipv6 = packet->flags & PACKET_IPV6;
    struct ethhdr *ethernet = begin_of(skb);

    if ((void *)(ethernet + 1) > end_of(skb))
        return DROP_MALFORMED;
    if (!same_mac(ethernet->h_source, endpoint->target.mac))
        return DROP_SPOOFED_MAC;
    if ((endpoint->target.flags & TARGET_ANY_SOURCE) ||
        (!no_address(&packet->source) &&
         same_address(&packet->source, ipv6 ? &endpoint->address6 : &endpoint->address4)))
        return DROP_NONE;
    if (ipv6 && (link_local(&packet->source) || *(const __u8 *)&packet->destination == 0xff))
        return DROP_CONTROL;
    return DROP_SPOOFED_ADDRESS;
}

/* Where a packet of a pod goes, whatever policy says. Returns a drop reason. */
inlined int routed(struct __sk_buff *skb, struct packet *packet, const struct target *target, struct path *path,
                   const struct flow *known, bool answer) {
    struct device *device;

    path->action = ACTION_STACK;
    if (answer && known && (known->flags & FLOW_BY_STACK))
        return DROP_NONE;
    if (target && (target->kind == TARGET_HOST || target->kind == TARGET_STACK))
        return DROP_NONE;
    if (target && target->kind == TARGET_POD) {
        route_to_pod(target, path);
        return DROP_NONE;
    }
    if (target && (target->flags & TARGET_TUNNEL)) {
        if (!target->node || !config.tunnel_ifindex)
            return DROP_NO_TUNNEL;
        route_by_tunnel(target, path);
        return DROP_NONE;
    }
    if (target && (target->flags & TARGET_DIRECT))
        route_by_node(skb, packet, target, path);
    else
        route(skb, packet, &packet->destination, path);
    if (path->action == ACTION_STACK)
        return DROP_NONE;
    device = bpf_map_lookup_elem(&devices, &path->out_ifindex);
    if (!device || (device->flags & DEVICE_NO_ETHERNET)) {
        /* Not one of the external devices: the stack knows what it is for. */
        path->action = ACTION_STACK;
        return DROP_NONE;
    }
    if (!path->mtu)
        path->mtu = device->mtu;
    if (known ? known->flags & FLOW_NAT && !answer : masquerade_on(packet) && !never_masqueraded(target))
        return masquerade_by(skb, packet, device, path, known);
    return DROP_NONE;
}

/* A packet of no known flow, or whose decision is not valid any more. */
apart int decide_from_pod(struct __sk_buff *skb, struct packet *packet, const struct flow_key *key, bool low,
                          struct flow *flow) {
    if (!packet || !key)
        return SHOT;
    __u32 ifindex = skb->ifindex;
    struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
    struct scratch *scratch = scratch_of();
    struct runtime *run = running();
    struct standing standing;
    struct target *target;
    struct path *path;
    __u32 kind;
    int reason;

    if (!endpoint)
        return DROP(DROP_NO_ENDPOINT);
    if (!scratch || !run)
        return DROP(DROP_FLOW_FULL);
    reason = source_refused(skb, packet, endpoint);
    if (reason)
        return DROP(reason);
    if (to_many(packet))
        return DROP(DROP_UNSUPPORTED);
    if (packet->protocol == PROTO_TCP && !(packet->flags & PACKET_LATER) && !tcp_flags_possible(packet->tcp_flags))
        return DROP(DROP_INVALID_TCP);
    packet->source_identity = endpoint->target.identity;
    target = target_of(&packet->destination);
    packet->destination_identity = identity_of(target);
    STEP(STEP_SOURCE, 0, 0, 0);
    STEP(STEP_DESTINATION, 0, target ? target->kind : TARGET_NONE, 0);
    standing = standing_of(flow, low, packet);
    path = fresh_path(scratch, packet, low, ifindex, run->generation);
    copy_mac(path->in_mac, endpoint->target.mac);
    if (standing.flow)
        STEP(STEP_FLOW_FOUND, 0, 0, 0);
    else
        STEP(STEP_FLOW_NEW, 0, 0, 0);
    if (standing.answer) {
        STEP(STEP_ANSWER, 0, 0, 0);
    } else if (!settled(&standing, low, packet, ifindex, run->generation)) {
        reason = policy_asked(skb, packet, &endpoint->target, DIRECTION_EGRESS);
        if (!reason && target && target->kind == TARGET_POD)
            reason = policy_asked(skb, packet, target, DIRECTION_INGRESS);
        if (reason)
            denied(path, packet, reason);
    }
    if (!(path->flags & PATH_DENIED)) {
        reason = routed(skb, packet, target, path, standing.flow, standing.answer);
        if (reason)
            return DROP(reason);
        STEP(STEP_ROUTE, 0, path->action, path->out_ifindex);
    }
    kind = path->action == ACTION_STACK ? MARK_IDENTITY : MARK_DONE;
    path->mark = mark_of(kind, packet->source_identity);
    reason = remember(skb, packet, key, low, &standing, scratch, path, path->flags & PATH_NAT ? FLOW_NAT : 0, false);
    if (reason)
        return DROP(reason);
    return FORWARD;
}

/* An ICMP error of a pod about a packet that it got. */
apart int error_from_pod(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return SHOT;
    __u32 ifindex = skb->ifindex;
    struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
    struct scratch *scratch = scratch_of();
    struct runtime *run = running();
    struct packet *inner;
    struct target *target;
    struct path *path;
    struct flow *flow;
    int reason;

    if (!endpoint)
        return DROP(DROP_NO_ENDPOINT);
    if (!scratch || !run)
        return DROP(DROP_FLOW_FULL);
    inner = &scratch->inner;
    reason = source_refused(skb, packet, endpoint);
    if (!reason)
        reason = read_inner(skb, packet, inner);
    if (reason)
        return DROP(reason);
    flow = related(scratch, inner, packet->now_j);
    packet->source_identity = endpoint->target.identity;
    target = target_of(&packet->destination);
    packet->destination_identity = identity_of(target);
    /* To whom sent it, about what came to this pod: else it could break the connections of others. */
    if (!flow || !same_address(&inner->source, &packet->destination) ||
        !(same_address(&inner->destination, &packet->source) || (endpoint->target.flags & TARGET_ANY_SOURCE)))
        return DROP(DROP_ICMP_UNRELATED);
    path = fresh_path(scratch, packet, true, ifindex, run->generation);
    reason = routed(skb, packet, target, path, flow, true);
    if (reason)
        return DROP(reason);
    path->mark = mark_of(path->action == ACTION_STACK ? MARK_IDENTITY : MARK_DONE, packet->source_identity);
    if ((flow->flags & FLOW_NAT) && path->action != ACTION_STACK) {
        struct nat_key *out = &scratch->nat_key;
        struct nat *entry;

        *(__u64 *)&out->source_port_be = 0;
        out->source = inner->destination;
        out->destination = inner->source;
        out->source_port_be = inner->destination_port_be;
        out->destination_port_be = inner->source_port_be;
        out->protocol = inner->protocol;
        out->direction = NAT_OUT;
        entry = bpf_map_lookup_elem(&nat, out);
        if (!entry)
            return DROP(DROP_ICMP_UNRELATED);
        if (!tracing() && rewrite_error(skb, packet, inner, entry, true))
            return DROP(DROP_REWRITE);
    }
    return FORWARD;
}

/* ARP and neighbour discovery. */
apart int control_from_pod(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return SHOT;
    __u32 ifindex = skb->ifindex;
    struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);

    if (!endpoint)
        return DROP(DROP_NO_ENDPOINT);
    return packet->flags & PACKET_ARP ? answer_arp(skb, packet, endpoint) : answer_ndp(skb, packet, endpoint);
}

SEC("tc")
int from_pod(struct __sk_buff *skb) {
    struct packet storage = {.hook = HOOK_FROM_POD, .now_j = now_j()}, *packet = &storage;
    int reason = read_packet(skb, packet), verdict;
    struct runtime *run = running();
    struct scratch *scratch;
    struct flow_key key;
    struct flow *flow;
    bool low;

    if (reason)
        return DROP(reason);
    if (packet->flags & (PACKET_ARP | PACKET_CONTROL))
        return control_from_pod(skb, packet);
    if (packet->flags & PACKET_FRAGMENT) {
        reason = fragment_ports(packet);
        if (reason)
            return DROP(reason);
    }
    if (packet->flags & PACKET_ICMP_ERROR) {
        low = true;
        verdict = error_from_pod(skb, packet);
    } else {
        low = key_of(&key, packet);
        flow = bpf_map_lookup_elem(&flows, &key);
        if (flow && run && !tracing()) {
            struct path *path = path_of(flow, low);
            struct ethhdr *ethernet = begin_of(skb);

            if (decided(flow, path, packet, skb->ifindex, run->generation) && (void *)(ethernet + 1) <= end_of(skb) &&
                same_mac(ethernet->h_source, path->in_mac)) {
                track(skb, flow, low, packet);
                counted(path, skb->len);
                return forward(skb, packet, path, run);
            }
        }
        verdict = decide_from_pod(skb, packet, &key, low, flow);
    }
    scratch = scratch_of();
    if (verdict != FORWARD || !scratch)
        return verdict;
    return forward(skb, packet, path_of(&scratch->flow, low), run);
}

/* A packet that the stack brings to a pod, and that no flow speaks for. */
apart int decide_to_pod(struct __sk_buff *skb, struct packet *packet, const struct flow_key *key, bool low,
                        struct flow *flow) {
    if (!packet || !key)
        return SHOT;
    __u32 ifindex = skb->ifindex, mark = skb->mark;
    struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &ifindex);
    struct scratch *scratch = scratch_of();
    struct runtime *run = running();
    struct standing standing;
    struct path *path;
    int reason;

    if (!endpoint)
        return DROP(DROP_NO_ENDPOINT);
    if (!scratch || !run)
        return DROP(DROP_FLOW_FULL);
    packet->source_identity =
        (mark & MARK_KIND_MASK) == MARK_IDENTITY ? marked_identity(mark) : identity_of(target_of(&packet->source));
    packet->destination_identity = endpoint->target.identity;
    standing = standing_of(flow, low, packet);
    path = fresh_path(scratch, packet, low, IN_STACK, run->generation);
    path->action = ACTION_STACK;
    path->out_ifindex = ifindex;
    /* The node itself may always reach its pods: health checks must not depend on policy. */
    if (!standing.answer && packet->source_identity != IDENTITY_HOST &&
        !settled(&standing, low, packet, IN_STACK, run->generation)) {
        reason = policy_asked(skb, packet, &endpoint->target, DIRECTION_INGRESS);
        if (reason)
            denied(path, packet, reason);
    }
    reason = remember(skb, packet, key, low, &standing, scratch, path, standing.flow ? 0 : FLOW_BY_STACK, false);
    if (reason)
        return DROP(reason);
    return FORWARD;
}

/* An ICMP error that the stack brings to a pod. */
apart int error_to_pod(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return SHOT;
    struct scratch *scratch = scratch_of();
    int reason;

    if (!scratch)
        return DROP(DROP_FLOW_FULL);
    reason = read_inner(skb, packet, &scratch->inner);
    if (reason)
        return DROP(reason);
    if (!related(scratch, &scratch->inner, packet->now_j) ||
        !same_address(&scratch->inner.source, &packet->destination))
        return DROP(DROP_ICMP_UNRELATED);
    count(packet->hook, DROP_NONE, skb->len);
    return PASS;
}

/* By the stack a packet is where it should be already. */
inlined int passed_on(struct __sk_buff *skb, struct packet *packet, const struct path *path,
                      const struct runtime *run) {
    if (path->flags & PATH_DENIED) {
        packet->rule = path->rule;
        return DROP(path->reason);
    }
    count(packet->hook, DROP_NONE, skb->len);
    sampled(skb, packet, path, run);
    return PASS;
}

SEC("tc")
int to_pod(struct __sk_buff *skb) {
    struct packet storage = {.hook = HOOK_TO_POD, .now_j = now_j()}, *packet = &storage;
    bool from_pod = (skb->mark & MARK_KIND_MASK) == MARK_IDENTITY;
    struct runtime *run = running();
    struct flow_key key;
    struct scratch *scratch;
    struct flow *flow;
    int reason, verdict;
    bool low;

    if ((skb->mark & MARK_KIND_MASK) == MARK_DONE)
        return PASS;
    reason = read_packet(skb, packet);
    if (reason)
        return DROP(reason);
    if (packet->flags & (PACKET_ARP | PACKET_CONTROL))
        return PASS;
    if (packet->flags & PACKET_FRAGMENT) {
        reason = fragment_ports(packet);
        if (reason)
            return DROP(reason);
    }
    if (packet->flags & PACKET_ICMP_ERROR)
        return error_to_pod(skb, packet);
    low = key_of(&key, packet);
    flow = bpf_map_lookup_elem(&flows, &key);
    if (flow && run && !tracing()) {
        struct path *path = path_of(flow, low);

        if (decided(flow, path, packet, IN_STACK, run->generation)) {
            track(skb, flow, low, packet);
            counted(path, skb->len);
            return passed_on(skb, packet, path, run);
        }
        /* from_pod or from_device decided, and gave it to the stack to deliver or to cut. */
        if (from_pod && decided(flow, path, packet, path->in_ifindex, run->generation) &&
            path->in_ifindex != IN_STACK && !(path->flags & PATH_DENIED)) {
            count(packet->hook, DROP_NONE, skb->len);
            return PASS;
        }
    }
    verdict = decide_to_pod(skb, packet, &key, low, flow);
    scratch = scratch_of();
    if (verdict != FORWARD || !scratch)
        return verdict;
    return passed_on(skb, packet, path_of(&scratch->flow, low), run);
}
