/* What each packet of a run looks like, and which flow it belongs to. Written by plan.py, read by the programs here. */
#ifndef PLAN_H
#define PLAN_H

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define HEAD_WORDS 10

struct plan {
    __u64 head[HEAD_WORDS]; /* Ethernet, IP and the header with the ports, before any program saw them */
    __u32 mark;
    __u32 flow_mask; /* flows - 1: 0, 4095, ... 0xffffffff: each packet a new flow */
    __u32 low_offset; /* of the port that varies with the flow's lower 16 bits */
    __u32 high_offset; /* of the one that varies with its upper 16 bits */
    __u16 low_first;
    __u16 high_first;
    __u32 out_ifindex; /* where frames go that are made here */
};

/* An array, not globals: it is written while programs run. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct plan);
} plan SEC(".maps");

static __always_inline int write_port(void *data, void *data_end, __u32 offset, __u16 port) {
    __u8 *place = (__u8 *)data + (offset & 0x7f);

    if (place + sizeof(port) > (__u8 *)data_end)
        return -1;
    *(__u16 *)place = bpf_htons(port);
    return 0;
}

/* Makes the packet one of this flow, as if it had just come in. */
static __always_inline int write_head(const struct plan *made, void *data, void *data_end, __u32 flow) {
    __u64 *words = data;

    if ((void *)(words + HEAD_WORDS) > data_end)
        return -1;
#pragma unroll
    for (int word = 0; word < HEAD_WORDS; word++)
        words[word] = made->head[word];
    return write_port(data, data_end, made->low_offset, made->low_first + flow) ||
           write_port(data, data_end, made->high_offset, made->high_first + (flow >> 16));
}

#endif
