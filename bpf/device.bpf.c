/* Programs of external devices and of the overlay.
 *
 *   network ──▶ from_device ──▶ pod, or the node's stack
 *   tunnel  ──▶ from_overlay ─▶ pod, or the node's stack
 *   the node's stack ──▶ to_device ──▶ network      masquerades what pods send by the stack
 *   the node's stack ──▶ to_overlay ─▶ tunnel       finds the node of a pod that the node itself talks to
 *
 * What is not for a pod is none of their business: it passes untouched. */
#define SOURCE_FILE SOURCE_DEVICE

#include "include/decide.h"

char _license[] SEC("license") = "GPL";

/* The entry of an answer to a masqueraded packet, or NULL. */
inlined struct nat *masqueraded_answer(struct scratch *scratch, const struct address *source,
                                       const struct address *destination, __u16 source_port_be,
                                       __u16 destination_port_be, const struct packet *packet, __u8 protocol) {
    struct nat_key *key = &scratch->nat_answer;
    __u16 port = bpf_ntohs(destination_port_be);
    struct nat *entry;

    if (!(config.flags & (CONFIG_MASQUERADE4 | CONFIG_MASQUERADE6)))
        return NULL;
    /* Ports that are never given out spare the look-up: those that most servers and pods use. */
    if (ports_can_change(protocol) && (port < config.nat_port_low || port > config.nat_port_high))
        return NULL;
    *(__u64 *)&key->source_port_be = 0;
    key->source = *source;
    key->destination = *destination;
    key->source_port_be = source_port_be;
    key->destination_port_be = destination_port_be;
    key->protocol = protocol;
    key->direction = NAT_IN;
    entry = bpf_map_lookup_elem(&nat, key);
    return entry && !passed(entry->expires_j, packet->now_j) ? entry : NULL;
}

/* What is not for a pod of this node: by a device it is none of our business, by the tunnel it has to be for the node. */
apart int left_to_node(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return SHOT;
    struct target *target;

    if (packet->hook == HOOK_FROM_DEVICE)
        return PASS;
    target = target_of(&packet->destination);
    if (!target || target->kind != TARGET_HOST)
        return DROP(DROP_OVERLAY_UNKNOWN);
    /* The tunnel's inner MAC address is nobody's in particular. */
    bpf_skb_change_type(skb, 0);
    return PASS;
}

/* Both entries of a masqueraded flow live as long as it does, also if packets come in only. Each time the flow's decision
 * is made anew is often enough. `nat_answer` is the key that this packet was found by. */
inlined void renewed(struct scratch *scratch, const struct packet *packet, const struct flow *flow) {
    __u32 until_j = flow ? flow->expires_j : packet->now_j + lifetime_j(packet->protocol, FLOW_OPENING);
    struct nat *in = bpf_map_lookup_elem(&nat, &scratch->nat_answer), *out;
    struct nat_key *key = &scratch->nat_key;

    *(__u64 *)&key->source_port_be = 0;
    key->source = packet->destination;
    key->destination = packet->source;
    key->source_port_be = packet->destination_port_be;
    key->destination_port_be = packet->source_port_be;
    key->protocol = packet->protocol;
    key->direction = NAT_OUT;
    out = bpf_map_lookup_elem(&nat, key);
    if (in)
        in->expires_j = until_j + config.recheck_j;
    if (out)
        out->expires_j = until_j + config.recheck_j;
}

/* A packet from outside that no flow speaks for. `translated`: it answers a masqueraded one. */
apart int decide_from_outside(struct __sk_buff *skb, struct packet *packet, const struct flow_key *key, __u32 low_bits,
                              struct flow *flow) {
    if (!packet || !key)
        return SHOT;
    bool low = low_bits & 1, translated = low_bits & 2;
    struct target *target = target_of(&packet->destination), *source;
    struct scratch *scratch = scratch_of();
    struct runtime *run = running();
    struct standing standing;
    struct path *path;
    int reason;

    if (!target || target->kind != TARGET_POD) {
        return translated ? DROP(DROP_NO_ENDPOINT) : left_to_node(skb, packet);
    }
    if (!scratch || !run)
        return DROP(DROP_FLOW_FULL);
    source = target_of(&packet->source);
    if (source && (source->kind == TARGET_POD || source->kind == TARGET_HOST))
        return DROP(DROP_SPOOFED_ADDRESS);
    if (packet->protocol == PROTO_TCP && !(packet->flags & PACKET_LATER) && !tcp_flags_possible(packet->tcp_flags))
        return DROP(DROP_INVALID_TCP);
    if (packet->hook == HOOK_FROM_DEVICE)
        packet->source_identity = identity_of(source);
    packet->destination_identity = target->identity;
    standing = standing_of(flow, low, packet);
    path = fresh_path(scratch, packet, low, 0, run->generation);
    if (!standing.answer && !(translated && !standing.flow) && !settled(&standing, low, packet, 0, run->generation)) {
        reason = policy_asked(skb, packet, target, DIRECTION_INGRESS);
        if (reason)
            denied(path, packet, reason);
    }
    route_to_pod(target, path);
    path->mtu = 0; /* it is here: a pod's link takes it, and who is told would not know the masqueraded packet */
    if (standing.answer && (standing.flow->flags & FLOW_BY_STACK))
        path->action = ACTION_STACK;
    path->mark = mark_of(MARK_IDENTITY, packet->source_identity);
    reason = remember(skb, packet, key, low, &standing, scratch, path, translated ? FLOW_NAT : 0, translated);
    if (reason)
        return DROP(reason);
    if (translated)
        renewed(scratch, packet, standing.flow);
    return FORWARD;
}

/* An ICMP error from outside: about a packet of a pod, or none of our business. */
apart int error_from_outside(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return SHOT;
    struct scratch *scratch = scratch_of();
    struct runtime *run = running();
    struct packet *inner;
    struct target *target;
    struct path *path;
    struct nat *entry;
    struct flow *flow;
    bool by_stack;

    if (!scratch || !run)
        return PASS;
    inner = &scratch->inner;
    if (read_inner(skb, packet, inner) || !same_address(&inner->source, &packet->destination))
        return left_to_node(skb, packet);
    entry = masqueraded_answer(scratch, &inner->destination, &inner->source, inner->destination_port_be,
                               inner->source_port_be, packet, inner->protocol);
    if (entry) {
        if (rewrite_error(skb, packet, inner, entry, false))
            return DROP(DROP_REWRITE);
        packet->destination = entry->address;
        inner->source = entry->address;
        if (is_icmp(inner->protocol) && !inner->source_port_be)
            inner->destination_port_be = entry->port_be;
        else
            inner->source_port_be = entry->port_be;
    }
    target = target_of(&packet->destination);
    if (!target || target->kind != TARGET_POD)
        return left_to_node(skb, packet);
    packet->destination_identity = target->identity;
    flow = related(scratch, inner, packet->now_j);
    if (!flow)
        return DROP(DROP_ICMP_UNRELATED);
    by_stack = flow->flags & FLOW_BY_STACK;
    path = fresh_path(scratch, packet, true, 0, run->generation);
    route_to_pod(target, path);
    path->mtu = 0;
    if (by_stack)
        path->action = ACTION_STACK;
    path->mark = mark_of(MARK_IDENTITY, IDENTITY_WORLD);
    return FORWARD;
}

/* What comes by a device or by the tunnel, once it is read. */
inlined int from_outside(struct __sk_buff *skb, struct packet *packet) {
    struct runtime *run = running();
    struct scratch *scratch = scratch_of();
    bool low, translated = false;
    struct flow_key key;
    struct flow *flow;
    struct nat *entry;
    int verdict;

    if (!run || !scratch)
        return PASS;
    if (packet->flags & PACKET_FRAGMENT) {
        int reason = fragment_ports(packet);

        if (reason) {
            struct target *target = target_of(&packet->destination);

            return target && target->kind == TARGET_POD ? DROP(reason) : left_to_node(skb, packet);
        }
    }
    if (packet->flags & PACKET_ICMP_ERROR) {
        low = true;
        verdict = error_from_outside(skb, packet);
    } else {
        entry = masqueraded_answer(scratch, &packet->source, &packet->destination, packet->source_port_be,
                                   packet->destination_port_be, packet, packet->protocol);
        if (entry) {
            struct address pod = entry->address;
            __u16 port_be = entry->port_be;

            /* While the sender still recognises the packet. */
            if (packet->ttl <= 1)
                return refused(skb, packet, DROP_TTL, 0);
            if (rewrite(skb, packet, false, &pod, port_be, entry->checksum_diff))
                return DROP(DROP_REWRITE);
            packet->destination = pod;
            packet->destination_port_be = port_be;
            if (!is_icmp(packet->protocol))
                packet->policy_port_be = port_be;
            translated = true;
        }
        low = key_of(&key, packet);
        flow = bpf_map_lookup_elem(&flows, &key);
        if (flow && !tracing()) {
            struct path *path = path_of(flow, low);

            if (decided(flow, path, packet, 0, run->generation)) {
                track(skb, flow, low, packet);
                counted(path, skb->len);
                return forward(skb, packet, path, run);
            }
        }
        verdict = decide_from_outside(skb, packet, &key, low | translated << 1, flow);
    }
    if (verdict != FORWARD)
        return verdict;
    return forward(skb, packet, path_of(&scratch->flow, low), run);
}

SEC("tc")
int from_device(struct __sk_buff *skb) {
    struct packet storage = {.hook = HOOK_FROM_DEVICE, .now_j = now_j()}, *packet = &storage;

    /* What cannot be read may still be the node's. */
    if (read_packet(skb, packet) || (packet->flags & (PACKET_ARP | PACKET_CONTROL)))
        return PASS;
    return from_outside(skb, packet);
}

/* What comes by the tunnel must come from a node that is known. Whose packet it is, its key says. */
apart int tunnel_refused(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return DROP_MALFORMED;
    struct bpf_tunnel_key key = {};
    struct address from;
    struct target *node;

    if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0)) {
        __builtin_memset(&key, 0, sizeof(key));
        if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
            return DROP_OVERLAY_UNKNOWN;
        __builtin_memcpy(&from, key.remote_ipv6, 16);
    } else {
        mapped(&from, bpf_htonl(key.remote_ipv4));
    }
    /* Each node calls itself the host. */
    packet->source_identity = key.tunnel_id == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : key.tunnel_id;
    node = bpf_map_lookup_elem(&addresses, &from);
    return node && node->kind == TARGET_REMOTE_NODE ? DROP_NONE : DROP_OVERLAY_UNKNOWN;
}

SEC("tc")
int from_overlay(struct __sk_buff *skb) {
    struct packet storage = {.hook = HOOK_FROM_OVERLAY, .now_j = now_j()}, *packet = &storage;
    int reason = read_packet(skb, packet);

    if (!reason && (packet->flags & (PACKET_ARP | PACKET_CONTROL)))
        reason = DROP_CONTROL;
    if (!reason)
        reason = tunnel_refused(skb, packet);
    if (reason)
        return DROP(reason);
    return from_outside(skb, packet);
}

/* A pod's packet that the stack sends, to a device or to the tunnel. What is of no known flow may have got another
 * destination there (kube-proxy's services): the answers have to go back by the stack. */
apart int sent_by_stack(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return SHOT;
    struct target *source = exactly(&packet->source), *target;
    struct scratch *scratch = scratch_of();
    struct runtime *run = running();
    __u32 ifindex = skb->ifindex;
    struct standing standing;
    bool low, masquerade;
    struct device *device;
    struct path *path;
    int reason;

    if (!source || source->kind != TARGET_POD || !scratch || !run)
        return PASS;
    if (packet->flags & PACKET_FRAGMENT) {
        reason = fragment_ports(packet);
        if (reason)
            return DROP(reason);
    }
    target = target_of(&packet->destination);
    packet->source_identity = source->identity;
    packet->destination_identity = identity_of(target);
    device = bpf_map_lookup_elem(&devices, &ifindex);
    low = key_of(&scratch->inner_key, packet);
    standing = standing_of(bpf_map_lookup_elem(&flows, &scratch->inner_key), low, packet);
    if (!device || standing.answer)
        return PASS;
    masquerade = !never_masqueraded(target) && masquerade_on(packet);
    path = fresh_path(scratch, packet, low, IN_STACK, run->generation);
    path->action = ACTION_STACK;
    path->out_ifindex = ifindex;
    if (masquerade) {
        reason = masquerade_by(skb, packet, device, path, standing.flow);
        if (reason)
            return DROP(reason);
    }
    if (!standing.flow) {
        reason = remember(skb, packet, &scratch->inner_key, low, &standing, scratch, path,
                          FLOW_BY_STACK | (masquerade ? FLOW_NAT : 0), false);
        if (reason)
            return DROP(reason);
    } else {
        if (masquerade)
            standing.flow->flags |= FLOW_NAT;
        if (standing.flow->flags & FLOW_BY_STACK)
            track(skb, standing.flow, low, packet);
    }
    if (!masquerade)
        return PASS;
    if (rewrite(skb, packet, true, &path->nat_address, path->nat_port_be, path->checksum_diff))
        return DROP(DROP_REWRITE);
    count(packet->hook, DROP_NONE, skb->len);
    return PASS;
}

SEC("tc")
int to_device(struct __sk_buff *skb) {
    struct packet storage = {.hook = HOOK_TO_DEVICE, .now_j = now_j()}, *packet = &storage;

    if ((skb->mark & MARK_KIND_MASK) == MARK_DONE)
        return PASS;
    if (read_packet(skb, packet) || (packet->flags & (PACKET_ARP | PACKET_CONTROL | PACKET_ICMP_ERROR)))
        return PASS;
    return sent_by_stack(skb, packet);
}

SEC("tc")
int to_overlay(struct __sk_buff *skb) {
    struct packet storage = {.hook = HOOK_TO_OVERLAY, .now_j = now_j()}, *packet = &storage;
    __u32 mark = skb->mark;
    struct target *target;
    struct path *path;
    struct scratch *scratch;
    int reason, verdict;
    __u8 mac[6];

    if ((mark & MARK_KIND_MASK) == MARK_DONE)
        return PASS;
    reason = read_packet(skb, packet);
    if (!reason && (packet->flags & (PACKET_ARP | PACKET_CONTROL)))
        reason = DROP_CONTROL;
    if (reason)
        return DROP(reason);
    target = target_of(&packet->destination);
    scratch = scratch_of();
    if (!target || !target->node || !(target->flags & TARGET_TUNNEL) || !scratch)
        return DROP(DROP_NO_TUNNEL);
    if (!(packet->flags & PACKET_ICMP_ERROR)) {
        verdict = sent_by_stack(skb, packet);
        if (verdict != PASS)
            return verdict;
    }
    for (int i = 0; i < 6; i++)
        mac[i] = config.host_mac[i];
    /* See route_by_tunnel. */
    if (bpf_skb_store_bytes(skb, 6, mac, sizeof(mac), 0))
        return DROP(DROP_REWRITE);
    packet->source_identity = (mark & MARK_KIND_MASK) == MARK_IDENTITY ? marked_identity(mark) : IDENTITY_HOST;
    path = fresh_path(scratch, packet, true, IN_STACK, 0);
    path->node = target->node;
    path->mark = mark_of(MARK_DONE, packet->source_identity);
    verdict = tunnelled(skb, packet, path);
    if (verdict != PASS)
        return verdict;
    skb->mark = path->mark;
    count(packet->hook, DROP_NONE, skb->len);
    return PASS;
}
