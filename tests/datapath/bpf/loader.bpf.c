/* What the loader's tests load. -DMOVED: struct seen has another layout; -DLARGE: its second field is wider;
 * -DBROKEN: a program that the verifier refuses. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

struct settings {
    __u32 number;
    __u32 verdict;
};

struct seen {
#ifdef MOVED
    __u32 bytes;
    __u32 packets;
#elif defined(LARGE)
    __u32 packets;
    __u64 bytes;
#else
    __u32 packets;
    __u32 bytes;
#endif
};

const volatile struct settings settings = {};
const volatile __u64 other = 7;

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 1024);
    __type(key, __u32);
    __type(value, struct seen);
} table SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, __u32);
} facts SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 4);
    __type(key, __u32);
    __type(value, __u64);
} totals SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, __u64);
} knob SEC(".maps");

struct inner {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 16);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, __u32);
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 8);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __array(values, struct inner);
} outer SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 16384);
} ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} lost SEC(".maps");

static __always_inline void count(__u32 bytes) {
    __u32 key = settings.number;
    struct seen *found = bpf_map_lookup_elem(&table, &key);
    if (found) {
        __sync_fetch_and_add(&found->packets, 1);
        found->bytes += bytes;
    } else {
        struct seen first = {.packets = 1, .bytes = bytes};
        bpf_map_update_elem(&table, &key, &first, BPF_ANY);
    }
    __u32 zero = 0;
    __u64 *total = bpf_map_lookup_elem(&totals, &zero);
    if (total)
        *total += 1;
}

/* Returns its verdict; the mark becomes its number, so the tests see which build saw the packet. */
SEC("tc")
int classify(struct __sk_buff *skb) {
    count(skb->len);
    skb->mark = settings.number;
    return settings.verdict;
}

SEC("xdp")
int early(struct xdp_md *context) {
    count(context->data_end - context->data);
    return XDP_PASS;
}

SEC("sockops")
int sockets(struct bpf_sock_ops *context) {
    __u32 key = context->op;
    return bpf_map_lookup_elem(&outer, &key) ? 0 : 1;
}

/* Writes a record as long as the packet is, less the Ethernet header; odd ones are discarded when the mark says so. */
SEC("tc")
int tell(struct __sk_buff *skb) {
    __u32 zero = 0;
    __u64 *place = bpf_ringbuf_reserve(&ring, 24, 0);
    if (!place) {
        __u64 *number = bpf_map_lookup_elem(&lost, &zero);
        if (number)
            *number += 1;
        return 1;
    }
    place[0] = skb->mark;
    place[1] = skb->priority;
    place[2] = bpf_ktime_get_ns();
    if (skb->priority & 1)
        bpf_ringbuf_discard(place, 0);
    else
        bpf_ringbuf_submit(place, 0);
    __u64 *value = bpf_map_lookup_elem(&knob, &zero);
    return value ? *value : 0;
}

/* A record of another length, so that they wrap at odd places. */
SEC("tc")
int tell_more(struct __sk_buff *skb) {
    char data[104] = {};
    data[0] = skb->mark;
    bpf_ringbuf_output(&ring, data, sizeof(data), 0);
    return 0;
}

#ifdef BROKEN
SEC("tc")
int broken(struct __sk_buff *skb) {
    __u32 sum = 0;
    for (int step = 0; step < 2000; step++) {
        __u32 key = step + sum;
        struct seen *found = bpf_map_lookup_elem(&table, &key);
        if (found)
            sum += found->packets;
    }
    __u32 key = sum;
    struct seen *found = bpf_map_lookup_elem(&table, &key);
    return found->packets + skb->len;
}
#endif

char _license[] SEC("license") = "GPL";
