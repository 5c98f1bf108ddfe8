/* Gives a packet the tunnel's far end, as if it had come by the tunnel, and goes on with the program in `next`. Test runs
 * cannot: their packets have no metadata. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

struct far_end {
    __u32 remote[4]; /* the machine's order for IPv4 */
    __u32 ipv6;
    __u32 identity;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct far_end);
} far SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} next SEC(".maps");

SEC("tc")
int enter(struct __sk_buff *skb) {
    struct bpf_tunnel_key key = {.tunnel_ttl = 64};
    __u32 zero = 0;
    struct far_end *end = bpf_map_lookup_elem(&far, &zero);
    __u64 flags = 0;

    if (!end)
        return 3;
    key.tunnel_id = end->identity;
    /* What is set as ours is read as the far end's: metadata of packets that leave and of those that came look alike. */
    if (end->ipv6) {
        __builtin_memcpy(key.local_ipv6, end->remote, 16);
        flags = BPF_F_TUNINFO_IPV6;
    } else {
        key.local_ipv4 = end->remote[0];
    }
    if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags))
        return 4;
    bpf_tail_call(skb, &next, 0);
    return 5;
}

char _license[] SEC("license") = "GPL";
