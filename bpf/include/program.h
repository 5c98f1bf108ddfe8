/* What every program begins with. vmlinux.h is made from the running kernel's BTF when the programs are built. */
#ifndef PLIMSOLL_PROGRAM_H
#define PLIMSOLL_PROGRAM_H

#include "kernel.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

#define ETH_HEADER 14
#define ETH_IPV4 bpf_htons(0x0800)
#define ETH_IPV6 bpf_htons(0x86dd)
#define ETH_ARP bpf_htons(0x0806)
#define AF_INET 2
#define AF_INET6 10

/* The next program, or the stack, goes on. */
#define PASS (-1)
#define SHOT 2

#define inlined static __always_inline
/* Not static, so that the verifier looks at it once by itself, and not again on each way that leads to it: loading takes a
 * tenth of the time. In return it must check its own pointers, though they are never NULL. */
#define apart __attribute__((noinline)) __attribute__((unused))

/* Fixed when a program is loaded; the verifier removes what it switches off. */
const volatile struct config config = {.hz = 250, .flags = CONFIG_IPV4 | CONFIG_IPV6};

inlined bool tracing(void) {
    return config.flags & CONFIG_TRACE;
}

inlined __u32 now_j(void) {
    return (__u32)bpf_jiffies64();
}

/* Wraps as jiffies do. */
inlined bool passed(__u32 when_j, __u32 now) {
    return (__s32)(when_j - now) <= 0;
}

inlined bool same_address(const struct address *one, const struct address *other) {
    return one->half[0] == other->half[0] && one->half[1] == other->half[1];
}

inlined bool no_address(const struct address *one) {
    return !(one->half[0] | one->half[1]);
}

inlined bool same_mac(const __u8 *one, const __u8 *other) {
    return *(const __u32 *)one == *(const __u32 *)other && *(const __u16 *)(one + 4) == *(const __u16 *)(other + 4);
}

inlined void copy_mac(__u8 *to, const __u8 *from) {
    *(__u32 *)to = *(const __u32 *)from;
    *(__u16 *)(to + 4) = *(const __u16 *)(from + 4);
}

/* ::ffff:a.b.c.d */
inlined void mapped(struct address *to, __be32 address_be) {
    to->word_be[0] = 0;
    to->word_be[1] = 0;
    to->word_be[2] = bpf_htonl(0xffff);
    to->word_be[3] = address_be;
}

#endif
