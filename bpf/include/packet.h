/* Reading packets: Ethernet, IPv4 with options, IPv6 with extension headers, TCP, UDP, SCTP, ICMP, and the packet that an
 * ICMP error is about. */
#ifndef PLIMSOLL_PACKET_H
#define PLIMSOLL_PACKET_H

#include "program.h"

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_ICMP6 58
#define PROTO_SCTP 132
#define PROTO_UDPLITE 136

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_REDIRECT 5
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_FRAGMENTATION_NEEDED 4

#define ICMP6_UNREACHABLE 1
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_PARAMETER 4
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_MLD_FIRST 130
#define ICMP6_ROUTER_SOLICIT 133
#define ICMP6_NEIGHBOUR_SOLICIT 135
#define ICMP6_NEIGHBOUR_ADVERT 136
#define ICMP6_REDIRECT 137
#define ICMP6_MLD2_REPORT 143

/* What is made readable for the others: 60 bytes of IPv4 or a chain of IPv6 headers, and as much again within an ICMP
 * error. */
#define DEEP_BYTES 320
#define EXTENSION_HEADERS_MAX 6

#define PACKET_FRAGMENT (1 << 0) /* any but whole ones */
#define PACKET_LATER (1 << 1) /* a fragment but the first: no ports */
#define PACKET_ICMP_ERROR (1 << 2)
#define PACKET_CONTROL (1 << 3) /* neighbour discovery and the like */
#define PACKET_DF (1 << 4)
#define PACKET_OPTIONS (1 << 5) /* IPv4 options or IPv6 extension headers */
#define PACKET_IPV6 (1 << 6)
#define PACKET_ARP (1 << 7)

struct packet {
    struct address source;
    struct address destination;
    __u16 source_port_be;
    __u16 destination_port_be;
    __u16 l4; /* offset of the transport header */
    __u16 policy_port_be; /* destination port, or ICMP type and code */
    __u32 now_j;
    __u8 protocol;
    __u8 flags;
    __u8 tcp_flags;
    __u8 ttl;
    __u8 hook;
    __u8 icmp_type;
    __u8 icmp_code;
    __u8 tos;
    __u32 fragment_id_be;
    __u32 l4_bytes; /* length of the transport header where segments are cut: TCP, UDP */
    __u32 source_identity;
    __u32 destination_identity;
    __u32 rule;
};

struct ports {
    __be16 source;
    __be16 destination;
};

struct icmp_head {
    __u8 type;
    __u8 code;
    __be16 checksum;
    __be16 id;
    __be16 sequence;
};

/* By hand, as the verifier refuses what the compiler makes of two branches that load from the context: one load at an
 * offset it computes. */
inlined void *begin_of(struct __sk_buff *skb) {
    void *data;

    asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(data) : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, data)));
    return data;
}

inlined void *end_of(struct __sk_buff *skb) {
    void *end;

    asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(end) : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, data_end)));
    return end;
}

/* Makes `bytes` from the start readable, or all if there are fewer. */
inlined void readable(struct __sk_buff *skb, __u32 bytes) {
    __u32 length = skb->len;

    if (begin_of(skb) + bytes > end_of(skb) && (__u32)(long)(end_of(skb) - begin_of(skb)) < length)
        bpf_skb_pull_data(skb, bytes < length ? bytes : length);
}

inlined bool is_icmp(__u8 protocol) {
    return protocol == PROTO_ICMP || protocol == PROTO_ICMP6;
}

/* Types that ask or answer with an id, and go through conntrack like ports. The asker's id is its port. */
inlined bool icmp_asks(bool ipv6, __u8 type) {
    return ipv6 ? type == ICMP6_ECHO : type == ICMP_ECHO || type == 13 || type == 15 || type == 17;
}

inlined bool icmp_answers(bool ipv6, __u8 type) {
    return ipv6 ? type == ICMP6_ECHO_REPLY : type == ICMP_ECHO_REPLY || type == 14 || type == 16 || type == 18;
}

inlined bool icmp_error_type(bool ipv6, __u8 type) {
    return ipv6 ? type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER
                : type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER;
}

/* Reads the transport header at `l4`. Returns a drop reason. */
inlined int read_transport(void *data, void *end, __u32 l4, struct packet *packet) {
    __u8 *at = data + l4;
    bool ipv6 = packet->flags & PACKET_IPV6;

    switch (packet->protocol) {
    case PROTO_TCP: {
        struct tcphdr *tcp = (void *)at;

        if ((void *)(tcp + 1) > end)
            return DROP_MALFORMED;
        packet->source_port_be = tcp->source;
        packet->destination_port_be = tcp->dest;
        packet->tcp_flags = at[13];
        packet->l4_bytes = (at[12] >> 4) * 4;
        if (packet->l4_bytes < sizeof(*tcp))
            return DROP_MALFORMED;
        break;
    }
    case PROTO_UDP:
    case PROTO_SCTP:
    case PROTO_UDPLITE: {
        struct ports *ports = (void *)at;

        if ((void *)at + 8 > end)
            return DROP_MALFORMED;
        packet->source_port_be = ports->source;
        packet->destination_port_be = ports->destination;
        packet->l4_bytes = 8;
        break;
    }
    case PROTO_ICMP:
    case PROTO_ICMP6: {
        struct icmp_head *icmp = (void *)at;

        if ((packet->protocol == PROTO_ICMP6) != ipv6)
            return DROP_UNSUPPORTED;
        if ((void *)(icmp + 1) > end)
            return DROP_MALFORMED;
        packet->icmp_type = icmp->type;
        packet->icmp_code = icmp->code;
        if (icmp_asks(ipv6, icmp->type)) {
            packet->source_port_be = icmp->id;
            packet->destination_port_be = 0;
        } else if (icmp_answers(ipv6, icmp->type)) {
            packet->source_port_be = 0;
            packet->destination_port_be = icmp->id;
        } else if (icmp_error_type(ipv6, icmp->type)) {
            packet->flags |= PACKET_ICMP_ERROR;
        } else if (ipv6 && ((icmp->type >= ICMP6_MLD_FIRST && icmp->type <= ICMP6_REDIRECT) ||
                            icmp->type == ICMP6_MLD2_REPORT)) {
            packet->flags |= PACKET_CONTROL;
        } else {
            return DROP_UNSUPPORTED;
        }
        packet->policy_port_be = bpf_htons((__u16)icmp->type << 8 | icmp->code);
        return DROP_NONE;
    }
    default: /* others are followed by their addresses alone */
        break;
    }
    packet->policy_port_be = packet->destination_port_be;
    return DROP_NONE;
}

/* Reads the IP header at `at`. `length`: of the packet that begins there; 0: an ICMP error quotes it, and may have cut it. */
inlined int read_ipv4(void *data, void *end, __u32 at, struct packet *packet, __u32 length) {
    struct iphdr *ip = data + at;
    bool whole = length;
    __u32 header_bytes;
    __u16 fragment;

    if ((void *)(ip + 1) > end)
        return DROP_MALFORMED;
    header_bytes = ip->ihl * 4;
    if (ip->version != 4 || header_bytes < sizeof(*ip) || bpf_ntohs(ip->tot_len) < header_bytes)
        return DROP_MALFORMED;
    if (whole && bpf_ntohs(ip->tot_len) > length)
        return DROP_MALFORMED;
    mapped(&packet->source, ip->saddr);
    mapped(&packet->destination, ip->daddr);
    packet->protocol = ip->protocol;
    packet->ttl = ip->ttl;
    packet->tos = ip->tos;
    packet->l4 = at + header_bytes;
    if (header_bytes > sizeof(*ip))
        packet->flags |= PACKET_OPTIONS;
    fragment = bpf_ntohs(ip->frag_off);
    if (fragment & IP_DF)
        packet->flags |= PACKET_DF;
    if (whole && (fragment & (IP_MF | IP_OFFSET))) {
        packet->flags |= PACKET_FRAGMENT;
        packet->fragment_id_be = ip->id;
    }
    if (fragment & IP_OFFSET) {
        packet->flags |= PACKET_LATER;
        return whole ? DROP_NONE : DROP_MALFORMED;
    }
    return DROP_NONE;
}

/* An IPv6 header that bears an IPv4 address would be taken for an IPv4 packet by every map. */
inlined bool poses_as_ipv4(const struct packet *packet) {
    __u64 mapped_be = (__u64)bpf_htonl(0xffff);

    return (!packet->source.half[0] && (packet->source.half[1] & 0xffffffff) == mapped_be) ||
           (!packet->destination.half[0] && (packet->destination.half[1] & 0xffffffff) == mapped_be);
}

/* Hop-by-hop, destination, routing (none but spent ones) and fragment headers, in any order, a few of them. */
inlined int read_ipv6(void *data, void *end, __u32 at, struct packet *packet, __u32 length) {
    struct ipv6hdr *ip = data + at;
    bool whole = length;
    __u32 next_at = at + sizeof(*ip);
    __u8 next;

    if ((void *)(ip + 1) > end)
        return DROP_MALFORMED;
    if (ip->version != 6 || (whole && bpf_ntohs(ip->payload_len) + sizeof(*ip) > length))
        return DROP_MALFORMED;
    packet->flags |= PACKET_IPV6 | PACKET_DF;
    __builtin_memcpy(&packet->source, &ip->saddr, 16);
    __builtin_memcpy(&packet->destination, &ip->daddr, 16);
    if (poses_as_ipv4(packet))
        return DROP_MALFORMED;
    packet->ttl = ip->hop_limit;
    packet->tos = (ip->priority << 4) | (ip->flow_lbl[0] >> 4);
    next = ip->nexthdr;
    /* Linux 6.1 refuses loops that end without a jump, and the compiler makes such of this one. */
#pragma clang loop unroll(full)
    for (int number = 0; number <= EXTENSION_HEADERS_MAX; number++) {
        struct {
            __u8 next;
            __u8 length;
            __be16 offset;
            __be32 id;
        } *extension = data + next_at;

        if (next != 0 && next != 43 && next != 44 && next != 60) {
            packet->protocol = next;
            packet->l4 = next_at;
            return next == 59 || next == PROTO_ICMP ? DROP_UNSUPPORTED : DROP_NONE;
        }
        if (number == EXTENSION_HEADERS_MAX)
            break;
        if ((void *)(extension + 1) > end)
            return DROP_MALFORMED;
        packet->flags |= PACKET_OPTIONS;
        if (next == 44) {
            if (extension->offset & bpf_htons(0xfff9)) {
                if (whole) {
                    packet->flags |= PACKET_FRAGMENT;
                    packet->fragment_id_be = extension->id;
                }
                if (extension->offset & bpf_htons(0xfff8)) {
                    packet->flags |= PACKET_LATER;
                    packet->protocol = extension->next;
                    packet->l4 = next_at + 8;
                    return whole ? DROP_NONE : DROP_MALFORMED;
                }
            }
            next = extension->next;
            next_at += 8;
            continue;
        }
        /* Segments left: the destination is not the last one, and policy must not be fooled. */
        if (next == 43 && (extension->offset & bpf_htons(0x00ff)))
            return DROP_UNSUPPORTED;
        next = extension->next;
        next_at += (extension->length + 1) * 8;
        if (next_at > DEEP_BYTES)
            return DROP_EXTENSION_HEADERS;
    }
    return DROP_EXTENSION_HEADERS;
}

/* Everything but the common case; see read_packet. */
apart int read_deep(struct __sk_buff *skb, struct packet *packet) {
    if (!packet)
        return DROP_MALFORMED;
    __u32 length = skb->len - ETH_HEADER, l4;
    void *data, *end;
    int reason;

    readable(skb, DEEP_BYTES);
    data = begin_of(skb);
    end = end_of(skb);
    packet->flags = 0;
    if (data + ETH_HEADER > end)
        return DROP_MALFORMED;
    reason = ((struct ethhdr *)data)->h_proto == ETH_IPV6 ? read_ipv6(data, end, ETH_HEADER, packet, length)
                                                          : read_ipv4(data, end, ETH_HEADER, packet, length);
    if (reason || (packet->flags & PACKET_LATER))
        return reason;
    l4 = packet->l4;
    if (l4 > DEEP_BYTES)
        return DROP_EXTENSION_HEADERS;
    return read_transport(data, end, l4, packet);
}

/* Reads the head of the packet. Returns a drop reason; DROP_NONE: all fields are set, but the ports of later fragments.
 *
 * No more is made readable than a header wants: TCP's segments are clones whose data lies in pages, and each byte of it
 * asked for makes the kernel copy the head. */
inlined int read_packet(struct __sk_buff *skb, struct packet *packet) {
    void *data, *end;
    struct ethhdr *ethernet;
    int reason;

    /* The kernel has taken the tag out of the frame; it would put it in again where the packet leaves. */
    if (skb->vlan_present)
        return DROP_UNSUPPORTED;
    data = begin_of(skb);
    end = end_of(skb);
    ethernet = data;
    if ((void *)(ethernet + 1) > end)
        return DROP_MALFORMED;
    if (ethernet->h_proto == ETH_IPV4) {
        struct iphdr *ip = data + ETH_HEADER;

        if (!(config.flags & CONFIG_IPV4))
            return DROP_FAMILY_OFF;
        /* The common case first: no options, not a fragment. */
        if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->version != 4 || (ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)))
            return read_deep(skb, packet);
        if (bpf_ntohs(ip->tot_len) < sizeof(*ip) || bpf_ntohs(ip->tot_len) > skb->len - ETH_HEADER)
            return DROP_MALFORMED;
        mapped(&packet->source, ip->saddr);
        mapped(&packet->destination, ip->daddr);
        packet->protocol = ip->protocol;
        packet->ttl = ip->ttl;
        packet->tos = ip->tos;
        packet->l4 = ETH_HEADER + sizeof(*ip);
        packet->flags = ip->frag_off & bpf_htons(IP_DF) ? PACKET_DF : 0;
        reason = read_transport(data, end, packet->l4, packet);
        return reason == DROP_MALFORMED ? read_deep(skb, packet) : reason;
    }
    if (ethernet->h_proto == ETH_IPV6) {
        struct ipv6hdr *ip = data + ETH_HEADER;

        if (!(config.flags & CONFIG_IPV6))
            return DROP_FAMILY_OFF;
        if ((void *)(ip + 1) > end || ip->version != 6 ||
            (ip->nexthdr != PROTO_TCP && ip->nexthdr != PROTO_UDP && ip->nexthdr != PROTO_ICMP6))
            return read_deep(skb, packet);
        if (bpf_ntohs(ip->payload_len) + sizeof(*ip) > skb->len - ETH_HEADER)
            return DROP_MALFORMED;
        __builtin_memcpy(&packet->source, &ip->saddr, 16);
        __builtin_memcpy(&packet->destination, &ip->daddr, 16);
        if (poses_as_ipv4(packet))
            return DROP_MALFORMED;
        packet->protocol = ip->nexthdr;
        packet->ttl = ip->hop_limit;
        packet->tos = (ip->priority << 4) | (ip->flow_lbl[0] >> 4);
        packet->l4 = ETH_HEADER + sizeof(*ip);
        packet->flags = PACKET_IPV6 | PACKET_DF;
        reason = read_transport(data, end, packet->l4, packet);
        return reason == DROP_MALFORMED ? read_deep(skb, packet) : reason;
    }
    if (ethernet->h_proto == ETH_ARP) {
        packet->flags = PACKET_ARP;
        return DROP_NONE;
    }
    return DROP_UNSUPPORTED;
}

#endif
