/* Answers to pods that ask who has an address: the node, always. */
#ifndef PLIMSOLL_NEIGHBOUR_H
#define PLIMSOLL_NEIGHBOUR_H

#include "program.h"
#include "events.h"
#include "flow.h"
#include "icmp.h"
#include "packet.h"

struct arp_packet {
    __be16 hardware;
    __be16 protocol;
    __u8 hardware_bytes;
    __u8 protocol_bytes;
    __be16 operation;
    __u8 sender_mac[6];
    __be32 sender_be __attribute__((packed));
    __u8 target_mac[6];
    __be32 target_be;
} __attribute__((packed));

/* RFC 826. Who probes its own address (RFC 5227) gets no answer: nobody else has it. */
apart int answer_arp(struct __sk_buff *skb, struct packet *packet, const struct endpoint *endpoint) {
    if (!packet || !endpoint)
        return SHOT;
    struct scratch *scratch = scratch_of();
    struct arp_packet *asked, *answer;
    __u8 *bytes;
    void *data;

    if (!scratch)
        return SHOT;

    readable(skb, ETH_HEADER + sizeof(*asked));
    data = begin_of(skb);
    asked = data + ETH_HEADER;
    if ((void *)(asked + 1) > end_of(skb))
        return DROP(DROP_MALFORMED);
    if (!same_mac(((struct ethhdr *)data)->h_source, endpoint->target.mac))
        return DROP(DROP_SPOOFED_MAC);
    if (asked->operation != bpf_htons(1) || asked->protocol != ETH_IPV4 ||
        asked->target_be == endpoint->address4.word_be[3])
        return DROP(DROP_CONTROL);
    if (tracing())
        return SHOT;
    bytes = scratch->bytes;
    answer = (void *)bytes + ETH_HEADER;
    copy_mac(bytes, asked->sender_mac);
    copy_mac(bytes + 6, endpoint->target.host_mac);
    *(__u16 *)(bytes + 12) = ETH_ARP;
    *answer = *asked;
    answer->operation = bpf_htons(2);
    copy_mac(answer->sender_mac, endpoint->target.host_mac);
    answer->sender_be = asked->target_be;
    copy_mac(answer->target_mac, asked->sender_mac);
    answer->target_be = asked->sender_be;
    if (bpf_skb_store_bytes(skb, 0, bytes, ETH_HEADER + sizeof(*answer), 0))
        return DROP(DROP_REWRITE);
    count(packet->hook, DROP_NONE, skb->len);
    return send_back(skb);
}

#define ADVERT_BYTES (ETH_HEADER + 40 + 32)

/* RFC 4861, 7.2.4. Other neighbour discovery and multicast listeners' reports have nobody to talk to. */
apart int answer_ndp(struct __sk_buff *skb, struct packet *packet, const struct endpoint *endpoint) {
    if (!packet || !endpoint)
        return SHOT;
    struct scratch *scratch = scratch_of();
    struct pseudo6 pseudo;
    struct ipv6hdr *ip;
    void *data = begin_of(skb);
    struct address target;
    __u8 *bytes, *advert;

    if (!scratch)
        return SHOT;
    if (packet->icmp_type != ICMP6_NEIGHBOUR_SOLICIT || no_address(&packet->source) || packet->ttl != 255 ||
        packet->l4 != ETH_HEADER + 40)
        return DROP(DROP_CONTROL);
    if (data + ETH_HEADER + 40 + 24 > end_of(skb))
        return DROP(DROP_MALFORMED);
    if (!same_mac(((struct ethhdr *)data)->h_source, endpoint->target.mac))
        return DROP(DROP_SPOOFED_MAC);
    __builtin_memcpy(&target, data + ETH_HEADER + 40 + 8, 16);
    if (same_address(&target, &endpoint->address6))
        return DROP(DROP_CONTROL);
    if (tracing())
        return SHOT;
    bytes = scratch->bytes;
    answer_ethernet(packet, bytes, data);
    copy_mac(bytes + 6, endpoint->target.host_mac);
    ip = (void *)bytes + ETH_HEADER;
    advert = (void *)(ip + 1);
    __builtin_memset(ip, 0, sizeof(*ip) + 32);
    *(__u8 *)ip = 0x60;
    ip->payload_len = bpf_htons(32);
    ip->nexthdr = PROTO_ICMP6;
    ip->hop_limit = 255;
    __builtin_memcpy(&ip->saddr, &target, 16);
    __builtin_memcpy(&ip->daddr, &packet->source, 16);
    advert[0] = ICMP6_NEIGHBOUR_ADVERT;
    advert[4] = 0xe0; /* router, solicited, override */
    __builtin_memcpy(advert + 8, &target, 16);
    advert[24] = 2; /* target link-layer address */
    advert[25] = 1;
    copy_mac(advert + 26, endpoint->target.host_mac);
    pseudo.source = target;
    pseudo.destination = packet->source;
    pseudo.length = bpf_htonl(32);
    pseudo.next = bpf_htonl(PROTO_ICMP6);
    *(__u16 *)(advert + 2) = sum_of(advert, 32, bpf_csum_diff(0, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
    if (bpf_skb_change_tail(skb, ADVERT_BYTES, 0) ||
        bpf_skb_store_bytes(skb, 0, bytes, ADVERT_BYTES, BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
        return DROP(DROP_REWRITE);
    count(packet->hook, DROP_NONE, skb->len);
    return send_back(skb);
}

#endif
