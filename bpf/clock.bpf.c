/* Tells the daemon what the programs' clock says: they measure in jiffies, which user space cannot read. Run by
 * BPF_PROG_TEST_RUN, never attached. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

struct clock_context {
    __u64 jiffies;
    __u64 time_ns; /* CLOCK_MONOTONIC */
};

SEC("syscall")
int read_clock(struct clock_context *context) {
    context->jiffies = bpf_jiffies64();
    context->time_ns = bpf_ktime_get_ns();
    return 0;
}

char _license[] SEC("license") = "GPL";
