/* What the programs of pods and of devices decide alike: new flows, and ICMP errors about known ones. */
#ifndef PLIMSOLL_DECIDE_H
#define PLIMSOLL_DECIDE_H

#include "program.h"
#include "events.h"
#include "flow.h"
#include "forward.h"
#include "icmp.h"
#include "maps.h"
#include "nat.h"
#include "packet.h"
#include "policy.h"
#include "target.h"

/* What deciding returns besides a verdict: forward the packet by the path in the scratch. */
#define FORWARD 100

/* The entry as it stands for a packet that asks for a decision. */
struct standing {
    struct flow *flow; /* NULL: none that counts */
    bool answer; /* the other end began: no policy is asked */
    bool replaced; /* there is one, be it that it counts no more: a new one takes its place */
};

inlined struct standing standing_of(struct flow *flow, bool low, const struct packet *packet) {
    struct standing standing = {.flow = flow, .replaced = flow};
    bool opening = packet->protocol == PROTO_TCP && (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    const struct path *origin;

    if (!flow)
        return standing;
    origin = flow->flags & FLOW_ORIGIN_HIGH ? &flow->from_high : &flow->from_low;
    standing.answer = !from_origin(flow, low);
    /* A SYN on a closed connection begins another one. What was denied never began: it gives the other end no right, and
     * when it is allowed it is new, or it would not be masqueraded. */
    if (!alive(flow, packet->now_j) || (opening && flow->state == FLOW_CLOSING) || (origin->flags & PATH_DENIED)) {
        standing.flow = NULL;
        standing.answer = false;
    }
    return standing;
}

/* Whether policy let this direction pass in this generation: only the way is asked for again, and nothing is told twice. */
inlined bool settled(const struct standing *standing, bool low, const struct packet *packet, __u32 in_ifindex,
                     __u32 generation) {
    const struct path *path;

    if (!standing->flow || tracing())
        return false;
    path = path_of(standing->flow, low);
    return path->generation == generation && path->in_ifindex == in_ifindex && !(path->flags & PATH_DENIED) &&
           (packet->protocol != PROTO_TCP || !(packet->tcp_flags & TCP_SYN) || (packet->tcp_flags & TCP_ACK));
}

/* A blank decision for this packet, in its place of a blank flow: a new entry is then ready to be inserted. */
inlined struct path *fresh_path(struct scratch *scratch, const struct packet *packet, bool low, __u32 in_ifindex,
                                __u32 generation) {
    struct path *path = path_of(&scratch->flow, low);

    __builtin_memset(&scratch->flow, 0, sizeof(scratch->flow));
    path->generation = generation;
    path->checked_j = packet->now_j;
    path->in_ifindex = in_ifindex;
    return path;
}

inlined void denied(struct path *path, const struct packet *packet, __u32 reason) {
    path->flags |= PATH_DENIED;
    path->reason = reason;
    path->rule = packet->rule;
}

/* Puts the decision into the flow's entry, a new one if it does not stand. `flags` are added. Returns a drop reason. */
inlined int remember(struct __sk_buff *skb, const struct packet *packet, const struct flow_key *key, bool low,
                     const struct standing *standing, struct scratch *scratch, struct path *path, __u16 flags,
                     bool reversed) {
    struct flow *flow = &scratch->flow, *known = standing->flow;
    struct runtime *run;

    if (tracing())
        return DROP_NONE;
    if (known) {
        struct path *old = path_of(known, low);

        redecide(old, path);
        if ((flags & ~known->flags) != 0)
            known->flags |= flags;
        if (low)
            known->low_identity = packet->source_identity;
        else
            known->high_identity = packet->source_identity;
        track(skb, known, low, packet);
        counted(old, skb->len);
        return DROP_NONE;
    }
    flow->created_j = packet->now_j;
    flow->state = FLOW_OPENING;
    flow->flags = flags | (low == reversed ? FLOW_ORIGIN_HIGH : 0);
    flow->low_identity = low ? packet->source_identity : packet->destination_identity;
    flow->high_identity = low ? packet->destination_identity : packet->source_identity;
    counted(path, skb->len);
    if (path->flags & PATH_DENIED)
        flow->expires_j = packet->now_j + config.other_opening_j;
    else
        track(skb, flow, low, packet);
    scratch->inner_key = *key; /* as in exactly() */
    if (bpf_map_update_elem(&flows, &scratch->inner_key, flow, BPF_ANY))
        return DROP_FLOW_FULL;
    if (!standing->replaced)
        one_more(CREATED_FLOWS);
    run = running();
    if (run && run->flow_events && !(path->flags & PATH_DENIED))
        NOTE(EVENT_FLOW_NEW, 0, 0, path->action, path->out_ifindex);
    return DROP_NONE;
}

inlined bool never_masqueraded(const struct target *target) {
    return target && (target->kind == TARGET_POD || target->kind == TARGET_REMOTE_POD || target->kind == TARGET_HOST ||
                      target->kind == TARGET_STACK || (target->flags & TARGET_CLUSTER));
}

/* Masquerades a path that leaves by `device`. Returns a drop reason. */
inlined int masquerade_by(struct __sk_buff *skb, struct packet *packet, const struct device *device, struct path *path,
                          const struct flow *known) {
    bool ipv6 = packet->flags & PACKET_IPV6;
    struct address to = ipv6 ? device->masquerade6 : device->masquerade4;
    __u8 state = known ? known->state : FLOW_OPENING;
    int reason;

    if (no_address(&to))
        return DROP_NAT_NO_ADDRESS;
    reason = masqueraded(skb, packet, &to, path, lifetime_j(packet->protocol, state));
    if (!reason && tracing()) {
        struct scratch *scratch = scratch_of();

        if (!scratch)
            return DROP_FLOW_FULL;
        scratch->inner = *packet;
        packet = &scratch->inner;
        packet->source = path->nat_address;
        packet->source_port_be = path->nat_port_be;
        STEP(STEP_MASQUERADE, 0, 0, path->out_ifindex);
    }
    return reason;
}

inlined bool masquerade_on(const struct packet *packet) {
    return config.flags & (packet->flags & PACKET_IPV6 ? CONFIG_MASQUERADE6 : CONFIG_MASQUERADE4);
}

#endif
