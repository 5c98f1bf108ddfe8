/* Policy of local pods: asked for the first packet of a flow, and again when a generation ends. */
#ifndef PLIMSOLL_POLICY_H
#define PLIMSOLL_POLICY_H

#include "program.h"
#include "events.h"
#include "maps.h"
#include "packet.h"

/* The verdict for a packet with the peer `identity`. The rule that decided is left in packet->rule. */
inlined __u8 policy_verdict(struct packet *packet, __u32 endpoint, __u8 direction, __u32 identity) {
    void *trie = bpf_map_lookup_elem(&policies, &endpoint);
    struct policy_key key = {
        .prefix_bits = POLICY_PORT_BITS,
        .direction = direction,
        .identity = identity,
        .protocol = packet->protocol,
        .port_be = packet->policy_port_be,
    };
    struct policy *exact, *any, *best;

    packet->rule = 0;
    if (!trie)
        return POLICY_DENY;
    exact = bpf_map_lookup_elem(trie, &key);
    key.identity = 0;
    any = bpf_map_lookup_elem(trie, &key);
    if (!exact)
        best = any;
    else if (!any)
        best = exact;
    else if ((exact->verdict == POLICY_DENY) != (any->verdict == POLICY_DENY))
        best = exact->verdict == POLICY_DENY ? exact : any;
    else
        best = any->bits > exact->bits ? any : exact;
    if (!best)
        return POLICY_DENY;
    packet->rule = best->rule;
    if (!tracing())
        __sync_fetch_and_add(&best->packets, 1);
    return best->verdict;
}

inlined void tell_verdict(struct __sk_buff *skb, const struct packet *packet, __u8 verdict, __u8 direction) {
    struct runtime *run = running();

    if (tracing())
        STEP(direction == DIRECTION_EGRESS ? STEP_POLICY_EGRESS : STEP_POLICY_INGRESS, verdict, 0, 0);
    else if (run && (run->verdict_events || verdict == POLICY_AUDIT))
        NOTE(EVENT_VERDICT, direction == DIRECTION_EGRESS ? DROP_POLICY_EGRESS : DROP_POLICY_INGRESS, verdict, 0, 0);
}

/* Asks the policy of `target`, a local pod, if it has one for this direction. Returns a drop reason. */
apart int policy_asked(struct __sk_buff *skb, struct packet *packet, const struct target *target, __u32 direction) {
    if (!packet || !target)
        return DROP_MALFORMED;
    bool egress = direction == DIRECTION_EGRESS;
    __u8 verdict;

    if (!(target->flags & (egress ? TARGET_EGRESS_POLICY : TARGET_INGRESS_POLICY)))
        return DROP_NONE;
    verdict = policy_verdict(packet, target->endpoint, direction,
                             egress ? packet->destination_identity : packet->source_identity);
    if (verdict == POLICY_DENY && (target->flags & (egress ? TARGET_EGRESS_AUDIT : TARGET_INGRESS_AUDIT)))
        verdict = POLICY_AUDIT;
    tell_verdict(skb, packet, verdict, direction);
    if (verdict != POLICY_DENY)
        return DROP_NONE;
    return egress ? DROP_POLICY_EGRESS : DROP_POLICY_INGRESS;
}

#endif
