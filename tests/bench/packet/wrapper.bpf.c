/* Runs a program on a fresh packet each time: BPF_PROG_TEST_RUN with `repeat` hands the same packet on from run to run, so a
 * program that rewrites it takes another path from the second run on, and one flow is always the same flow.
 *
 * `wrapper` writes the head of the packet anew, gives it the next flow's ports, clears what programs keep in the skb, and
 * calls the target by a tail call out of a subprogram, so that the target returns to it. What it costs itself is known by
 * a run with `empty` as the target.
 */
#include <linux/pkt_cls.h>

#include "plan.h"

#define CODES 8
#define MISSING 6 /* no target; nobody returns TC_ACT_REPEAT */

struct state {
    __u64 codes[CODES]; /* how often the target returned which verdict */
    __u32 next; /* flow */
    __u32 pad;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct state);
} state SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} target SEC(".maps");

static __attribute__((noinline)) int call(struct __sk_buff *skb) {
    volatile int missing = MISSING;

    bpf_tail_call(skb, &target, 0);
    return missing;
}

SEC("tc")
int wrapper(struct __sk_buff *skb) {
    __u32 zero = 0, code;
    struct state *now;
    struct plan *made;

    made = bpf_map_lookup_elem(&plan, &zero);
    now = bpf_map_lookup_elem(&state, &zero);
    if (!made || !now)
        return TC_ACT_SHOT;
    if (write_head(made, (void *)(long)skb->data, (void *)(long)skb->data_end, now->next++ & made->flow_mask))
        return TC_ACT_SHOT;
    skb->mark = made->mark;
    skb->cb[0] = skb->cb[1] = skb->cb[2] = skb->cb[3] = skb->cb[4] = 0;
    code = (__u32)call(skb);
    now->codes[code & (CODES - 1)]++;
    return (int)code;
}

SEC("tc")
int empty(struct __sk_buff *skb __attribute__((unused))) {
    return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
