/* Gives a packet what test runs cannot: a tag that the kernel has taken out, or an end before its IP header's. Goes on with
 * the program in `next`. */
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct shape {
    __u32 length; /* 0: as it is */
    __u32 tag; /* 0: none */
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct shape);
} shapes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

SEC("tc")
int shape(struct __sk_buff *skb) {
    __u32 zero = 0;
    struct shape *wanted = bpf_map_lookup_elem(&shapes, &zero);

    if (!wanted)
        return 3;
    if (wanted->tag && bpf_skb_vlan_push(skb, bpf_htons(0x8100), wanted->tag))
        return 4;
    if (wanted->length && bpf_skb_change_tail(skb, wanted->length, 0))
        return 5;
    bpf_tail_call(skb, &next, 0);
    return 6;
}

char _license[] SEC("license") = "GPL";
