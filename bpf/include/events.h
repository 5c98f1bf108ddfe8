/* Counters of every packet, and events of those that people ask about. */
#ifndef PLIMSOLL_EVENTS_H
#define PLIMSOLL_EVENTS_H

#include "program.h"
#include "maps.h"
#include "packet.h"

/* Slots of the budget: drop reasons first, then the other kinds of event, then ICMP errors that we send. */
#define BUDGET_EVENTS DROP_REASONS
#define BUDGET_ICMP (DROP_REASONS + 8)
#define BUDGETS (DROP_REASONS + 9)

struct budget {
    __u32 tick_j;
    __u32 used;
    __u32 suppressed;
    __u32 pad;
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, BUDGETS);
    __type(key, __u32);
    __type(value, struct budget);
} budgets SEC(".maps");

/* Events that found no room in the ring. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} lost_events SEC(".maps");

/* Counts down to the next traced packet of a CPU. */
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} samples SEC(".maps");

inlined struct runtime *running(void) {
    __u32 zero = 0;

    return bpf_map_lookup_elem(&runtime, &zero);
}

inlined void count(__u32 hook, __u32 reason, __u32 bytes) {
    __u32 index = hook * DROP_REASONS + reason;
    struct counter *counter = tracing() ? NULL : bpf_map_lookup_elem(&counters, &index);

    if (counter) {
        counter->packets++;
        counter->bytes += bytes;
    }
}

/* True while this CPU may still send one of this kind in this jiffy. Counts what is left out; `suppressed` receives and
 * clears that count. */
inlined bool granted(__u32 slot, __u32 most, __u32 now, __u32 *suppressed) {
    struct budget *budget = bpf_map_lookup_elem(&budgets, &slot);

    if (!budget)
        return false;
    if (budget->tick_j != now) {
        budget->tick_j = now;
        budget->used = 0;
    }
    if (budget->used >= most) {
        budget->suppressed++;
        return false;
    }
    budget->used++;
    *suppressed = budget->suppressed;
    budget->suppressed = 0;
    return true;
}

/* What an event says beyond its packet. */
struct told {
    __u8 type;
    __u8 reason;
    __u8 verdict;
    __u8 action;
    __u16 line;
    __u16 pad;
    __u32 out_ifindex;
    __u32 source_identity;
    __u32 destination_identity;
    __u32 rule;
};

apart int tell(struct __sk_buff *skb, const struct packet *packet, const struct told *told) {
    if (!packet || !told)
        return 0;
    struct runtime *run = running();
    __u32 suppressed = 0, length = skb->len;
    struct event *event;

    if (!run)
        return 0;
    if (told->type == EVENT_DROP) {
        if (!tracing() && !granted(told->reason, run->drop_events_per_tick, packet->now_j, &suppressed))
            return 0;
    } else if (!tracing() &&
               !granted(BUDGET_EVENTS + (told->type & 7), run->drop_events_per_tick * 4, packet->now_j, &suppressed)) {
        return 0;
    }
    event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event) {
        __u32 zero = 0;
        __u64 *lost = bpf_map_lookup_elem(&lost_events, &zero);

        if (lost)
            ++*lost;
        return 0;
    }
    event->time_ns = bpf_ktime_get_ns();
    event->type = told->type;
    event->hook = packet->hook;
    event->reason = told->reason;
    event->verdict = told->verdict;
    event->line = told->line;
    event->protocol = packet->protocol;
    event->action = told->action;
    event->source = packet->source;
    event->destination = packet->destination;
    event->source_port_be = packet->source_port_be;
    event->destination_port_be = packet->destination_port_be;
    event->ifindex = skb->ifindex;
    event->out_ifindex = told->out_ifindex;
    event->source_identity = told->source_identity;
    event->destination_identity = told->destination_identity;
    event->rule = told->rule;
    event->suppressed = suppressed;
    event->length = length > 0xffff ? 0xffff : length;
    event->file = SOURCE_FILE;
    event->cpu = bpf_get_smp_processor_id();
    /* The helper takes no length that may be zero; what is not copied must not leak what the ring held before. */
    if (length >= EVENT_DATA_BYTES) {
        event->data_length = EVENT_DATA_BYTES;
        if (bpf_skb_load_bytes(skb, 0, event->data, EVENT_DATA_BYTES))
            event->data_length = 0;
    } else {
        /* Linux 6.1 does not see that what is not 0 is at least 1: it does see the sum. */
        __u32 last = length - 1;

        barrier_var(last);
        __builtin_memset(event->data, 0, EVENT_DATA_BYTES);
        event->data_length = 0;
        if (last < EVENT_DATA_BYTES - 1 && !bpf_skb_load_bytes(skb, 0, event->data, last + 1))
            event->data_length = last + 1;
    }
    bpf_ringbuf_submit(event, 0);
    return 0;
}

/* Any other event, in a frame of its own: the callers' stacks are short. `what`: type, then reason, verdict and action, a
 * byte each from the lowest. */
apart int note(struct __sk_buff *skb, const struct packet *packet, __u32 what, __u32 line, __u32 out_ifindex) {
    if (!packet)
        return 0;
    struct told told = {
        .type = what,
        .reason = what >> 8,
        .verdict = what >> 16,
        .action = what >> 24,
        .line = line,
        .out_ifindex = out_ifindex,
        .source_identity = packet->source_identity,
        .destination_identity = packet->destination_identity,
        .rule = packet->rule,
    };

    tell(skb, packet, &told);
    return 0;
}

#define NOTE(type, reason, verdict, action, out_ifindex)                                                               \
    note(skb, packet, (type) | (__u32)(reason) << 8 | (__u32)(verdict) << 16 | (__u32)(action) << 24, __LINE__,        \
         out_ifindex)

/* Ends a packet: counted by hook and reason, told of within the budget. */
apart int dropped(struct __sk_buff *skb, const struct packet *packet, __u32 reason, __u32 line) {
    if (!packet)
        return SHOT;
    count(packet->hook, reason, skb->len);
    if (reason != DROP_CONTROL)
        note(skb, packet, EVENT_DROP | reason << 8, line, 0);
    return SHOT;
}

#define DROP(reason) dropped(skb, packet, reason, __LINE__)

/* A step of a dry run; nothing otherwise. */
#define STEP(step, verdict, action, out_ifindex)                                                                       \
    do {                                                                                                               \
        if (tracing())                                                                                                 \
            NOTE(EVENT_STEP, step, verdict, action, out_ifindex);                                                      \
    } while (0)

#endif
