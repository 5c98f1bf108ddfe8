/* The maps that programs share with each other and with the daemon; all are pinned by name. Sizes here are defaults: the
 * loader sets those of flows, nat and fragments from the machine's memory. */
#ifndef PLIMSOLL_MAPS_H
#define PLIMSOLL_MAPS_H

#include "program.h"

#define CIDRS_MAX 65536
#define POLICY_ENTRIES_MAX 16384

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 131072);
    __type(key, struct flow_key);
    __type(value, struct flow);
} flows SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 131072);
    __type(key, struct nat_key);
    __type(value, struct nat);
} nat SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, struct fragment_key);
    __type(value, struct fragment);
} fragments SEC(".maps");

/* Who has an address: pods of this and of other nodes, this and other nodes themselves. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 131072);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct address);
    __type(value, struct target);
} addresses SEC(".maps");

/* Ranges: asked when no address matches. */
struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, CIDRS_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct cidr_key);
    __type(value, struct target);
} cidrs SEC(".maps");

/* Pods of this node by the ifindex of the node's end of their pair. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct endpoint);
} endpoints SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 16384);
    __type(key, __u32);
    __type(value, struct node);
} nodes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 256);
    __type(key, __u32);
    __type(value, struct device);
} devices SEC(".maps");

struct policy_map {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, POLICY_ENTRIES_MAX);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    /* By size: the compiler leaves the types of an inner map's entries out of its BTF. */
    __uint(key_size, sizeof(struct policy_key));
    __uint(value_size, sizeof(struct policy));
};

/* Endpoint number -> its policy. Enforced by a flag of the endpoint; without an entry an enforced direction denies. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __array(values, struct policy_map);
} policies SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct runtime);
} runtime SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, HOOKS *DROP_REASONS);
    __type(key, __u32);
    __type(value, struct counter);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CREATED_MAPS);
    __type(key, __u32);
    __type(value, __u64);
} created SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4 << 20);
} events SEC(".maps");

/* Counts an entry put into `map`. The kernel pushes old ones out of a full map and tells nobody: the daemon knows how many
 * by what is there, what was put there and what it took out. */
inlined void one_more(__u32 map) {
    __u64 *count = bpf_map_lookup_elem(&created, &map);

    if (count)
        *count += 1;
}

#endif
