/* Sources that are denied are dropped where packets come in, before the kernel makes anything of them. Everything else
 * passes untouched, what cannot be read too: the stack and the programs behind it know more about that. */
#define SOURCE_FILE SOURCE_XDP

#include "events.h"
#include "maps.h"
#include "prefilter.h"

#define ETH_VLAN bpf_htons(0x8100)
#define ETH_SERVICE_VLAN bpf_htons(0x88a8)
#define VLAN_TAGS_MAX 2
#define VLAN_HEADER 4

/* Single addresses of both families. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, PREFILTER_RULES_MAX / 2);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct address);
    __type(value, struct prefilter_rule);
} prefilter_hosts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, PREFILTER_RULES_MAX / 4);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct prefilter_cidr4);
    __type(value, struct prefilter_rule);
} prefilter_cidrs4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, PREFILTER_RULES_MAX / 4);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct prefilter_cidr6);
    __type(value, struct prefilter_rule);
} prefilter_cidrs6 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PREFILTER_RULES_MAX);
    __type(key, __u32);
    __type(value, struct counter);
} prefilter_counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct prefilter_settings);
} prefilter_settings SEC(".maps");

/* Where things are in a frame that may be dropped. */
struct frame {
    struct address source;
    struct address destination;
    __u32 l4; /* offset of the transport header; 0: none to read */
    __u32 protocol; /* wide, for a structure without gaps: older verifiers refuse to pass what is not filled */
};

inlined struct prefilter_rule *rule_of_ipv4(const struct frame *frame, const struct prefilter_settings *settings) {
    struct prefilter_rule *rule = NULL;

    if (settings->hosts4)
        rule = bpf_map_lookup_elem(&prefilter_hosts, &frame->source);
    if (!rule && settings->cidrs4) {
        struct prefilter_cidr4 key = {.prefix_bits = 32, .address_be = frame->source.word_be[3]};

        rule = bpf_map_lookup_elem(&prefilter_cidrs4, &key);
    }
    return rule;
}

inlined struct prefilter_rule *rule_of_ipv6(const struct frame *frame, const struct prefilter_settings *settings) {
    struct prefilter_rule *rule = NULL;

    if (settings->hosts6)
        rule = bpf_map_lookup_elem(&prefilter_hosts, &frame->source);
    if (!rule && settings->cidrs6) {
        struct prefilter_cidr6 key = {.prefix_bits = 128};

        __builtin_memcpy(key.address_be, &frame->source, sizeof(key.address_be));
        rule = bpf_map_lookup_elem(&prefilter_cidrs6, &key);
    }
    return rule;
}

/* Tells of a dropped frame, within the budget of all drop events. */
apart int tell_frame(struct xdp_md *context, const struct frame *frame, __u32 number, __u32 length, __u32 line) {
    if (!frame)
        return 0;
    struct runtime *run = running();
    struct event *event;
    __be16 ports[2] = {};
    __u32 suppressed = 0;
    __u64 copied;

    if (!run || !granted(DROP_PREFILTER, run->drop_events_per_tick, now_j(), &suppressed))
        return 0;
    event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event) {
        __u32 zero = 0;
        __u64 *lost = bpf_map_lookup_elem(&lost_events, &zero);

        if (lost)
            ++*lost;
        return 0;
    }
    /* What is not filled in must not leak what the ring held before. */
    __builtin_memset(event, 0, sizeof(*event));
    event->time_ns = bpf_ktime_get_ns();
    event->type = EVENT_DROP;
    event->hook = HOOK_XDP;
    event->reason = DROP_PREFILTER;
    event->line = line;
    event->protocol = frame->protocol;
    event->source = frame->source;
    event->destination = frame->destination;
    if (frame->l4 && !bpf_xdp_load_bytes(context, frame->l4, ports, sizeof(ports))) {
        event->source_port_be = ports[0];
        event->destination_port_be = ports[1];
    }
    event->ifindex = context->ingress_ifindex;
    event->source_identity = IDENTITY_WORLD;
    event->rule = number;
    event->suppressed = suppressed;
    event->length = length > 0xffff ? 0xffff : length;
    event->file = SOURCE_FILE;
    event->cpu = bpf_get_smp_processor_id();
    copied = length;
    /* Linux 6.1 forgets bounds of what is kept on the stack, and learns none from "not zero". */
    barrier_var(copied);
    if (copied > EVENT_DATA_BYTES)
        copied = EVENT_DATA_BYTES;
    if (copied >= ETH_HEADER && !bpf_xdp_load_bytes(context, 0, event->data, copied))
        event->data_length = copied;
    bpf_ringbuf_submit(event, 0);
    return 0;
}

inlined bool has_ports(__u8 protocol) {
    return protocol == PROTO_TCP || protocol == PROTO_UDP || protocol == PROTO_SCTP || protocol == PROTO_UDPLITE;
}

/* Frames may lie in several buffers; the first one holds the headers. */
SEC("xdp.frags")
int prefilter(struct xdp_md *context) {
    void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
    struct prefilter_settings *settings;
    struct prefilter_rule *rule;
    struct ethhdr *ethernet = data;
    struct counter *counter;
    struct frame frame;
    __u32 at = ETH_HEADER, zero = 0, length, number;
    __be16 type;

    settings = bpf_map_lookup_elem(&prefilter_settings, &zero);
    if (!settings || (void *)(ethernet + 1) > end)
        return XDP_PASS;
    type = ethernet->h_proto;
    for (int tags = 0; tags < VLAN_TAGS_MAX && (type == ETH_VLAN || type == ETH_SERVICE_VLAN); tags++) {
        if (data + at + VLAN_HEADER > end)
            return XDP_PASS;
        type = *(__be16 *)(data + at + 2);
        at += VLAN_HEADER;
    }
    frame.l4 = 0;
    if (type == ETH_IPV4) {
        struct iphdr *ip = data + at;

        if ((void *)(ip + 1) > end || ip->version != 4)
            return XDP_PASS;
        mapped(&frame.source, ip->saddr);
        rule = rule_of_ipv4(&frame, settings);
        if (!rule)
            goto pass;
        mapped(&frame.destination, ip->daddr);
        frame.protocol = ip->protocol;
        if (has_ports(ip->protocol) && !(ip->frag_off & bpf_htons(IP_OFFSET)))
            frame.l4 = at + ip->ihl * 4;
    } else if (type == ETH_IPV6) {
        struct ipv6hdr *ip = data + at;

        if ((void *)(ip + 1) > end || ip->version != 6)
            return XDP_PASS;
        __builtin_memcpy(&frame.source, &ip->saddr, sizeof(frame.source));
        rule = rule_of_ipv6(&frame, settings);
        if (!rule)
            goto pass;
        __builtin_memcpy(&frame.destination, &ip->daddr, sizeof(frame.destination));
        frame.protocol = ip->nexthdr;
        if (has_ports(ip->nexthdr))
            frame.l4 = at + sizeof(*ip);
    } else {
        goto pass;
    }
    number = rule->number;
    length = bpf_xdp_get_buff_len(context);
    counter = bpf_map_lookup_elem(&prefilter_counters, &number);
    if (counter) {
        counter->packets++;
        counter->bytes += length;
    }
    count(HOOK_XDP, DROP_PREFILTER, length);
    tell_frame(context, &frame, number, length, __LINE__);
    return XDP_DROP;
pass:
    count(HOOK_XDP, DROP_NONE, end - data);
    return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
