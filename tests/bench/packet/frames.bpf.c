/* Live frames: `generate`, test-run with BPF_F_TEST_XDP_LIVE_FRAMES, sends frames out by a device as fast as one CPU can make
 * them, and `count` counts and drops at the far end. Frames come back for reuse with what was written to them, so
 * each is written anew.
 */
#include <linux/pkt_cls.h>

#include "plan.h"

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} frames SEC(".maps");

#define MADE 0
#define SEEN 1

SEC("xdp")
int generate(struct xdp_md *context) {
    __u32 zero = 0, index = MADE;
    struct plan *made;
    __u64 *count;

    made = bpf_map_lookup_elem(&plan, &zero);
    count = bpf_map_lookup_elem(&frames, &index);
    if (!made || !count)
        return XDP_ABORTED;
    if (write_head(made, (void *)(long)context->data, (void *)(long)context->data_end, (__u32)*count & made->flow_mask))
        return XDP_ABORTED;
    (*count)++;
    return (int)bpf_redirect(made->out_ifindex, 0);
}

SEC("tc")
int count(struct __sk_buff *skb __attribute__((unused))) {
    __u32 index = SEEN;
    __u64 *seen;

    seen = bpf_map_lookup_elem(&frames, &index);
    if (seen)
        (*seen)++;
    return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
