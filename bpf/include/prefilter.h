/* What bpf/xdp.bpf.c shares with the daemon; datapath/prefilter/layout.py mirrors it, a test compares both. */
#ifndef PLIMSOLL_PREFILTER_H
#define PLIMSOLL_PREFILTER_H

#include "program.h"

#define PREFILTER_RULES_MAX 131072

/* IPv4 ranges have a trie of their own: it is half as deep, and most packets are IPv4. */
struct prefilter_cidr4 {
    __u32 prefix_bits;
    __u32 address_be;
};

struct prefilter_cidr6 {
    __u32 prefix_bits;
    __u32 address_be[4];
};

/* The value of all three maps: an index of `prefilter_counters` (struct counter, per CPU), never 0. */
struct prefilter_rule {
    __u32 number;
};

/* How many rules of each kind there are: a look-up that cannot find anything is left out. */
struct prefilter_settings {
    __u32 hosts4;
    __u32 cidrs4;
    __u32 hosts6;
    __u32 cidrs6;
};

#endif
