/* What the loader takes for the programs of pods, and the verifier does not: memory is read without a look. */
#define SOURCE_FILE SOURCE_POD

#include "program.h"

char _license[] SEC("license") = "GPL";

SEC("tc")
int from_pod(struct __sk_buff *skb) {
    __u32 *beyond = (void *)(long)skb->data;

    return config.hz + *beyond;
}

SEC("tc")
int to_pod(struct __sk_buff *skb) {
    return skb->len + config.hz;
}
