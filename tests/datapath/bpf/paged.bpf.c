/* Counts the packets whose end lies in pages still, as their sender left it: nobody has copied it into their head. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} seen SEC(".maps");

SEC("tc")
int paged(struct __sk_buff *skb) {
    __u32 zero = 0;
    __u64 *count = bpf_map_lookup_elem(&seen, &zero);

    if (count && skb->data_end - skb->data < skb->len)
        __sync_fetch_and_add(count, 1);
    return -1;
}

char _license[] SEC("license") = "GPL";
