/* Local TCP without the stack: what one socket sends is put straight where the other one reads.
 *
 * `enter` (sockops of a cgroup) sees each connection when it is established and enters those whose two ends are on this
 * node into `accelerated`. `redirect` (sk_msg) then sees each message that such a socket sends.
 *
 * A reader finds redirected bytes before any that came by the stack. So a direction may change from redirecting to the
 * stack, and never back: bytes would overtake others. For the same reason a socket stays in the map until it closes:
 * taking it out would lose what waits for its reader.
 */
#define SOURCE_FILE 0

#include "acceleration.h"
#include "flow.h"
#include "maps.h"
#include "policy.h"

#include <bpf/bpf_core_read.h>

#define SOCKETS_MAX 65536

struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, SOCKETS_MAX);
    __type(key, struct accelerated_end);
    __type(value, __u64);
} accelerated SEC(".maps");

/* Namespaces of the addresses of this node's pods. An address that is not here is on another node, or nobody's. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 8192);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct address);
    __type(value, __u64);
} accelerated_namespaces SEC(".maps");

/* The kernel's socket behind an end: told at establishment, read with the first message. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, SOCKETS_MAX);
    __type(key, struct accelerated_end);
    __type(value, __u64);
} accelerated_sockets SEC(".maps");

/* Belongs to a socket and goes with it. */
struct accelerated_state {
    struct accelerated_end self;
    struct accelerated_end peer;
    __u64 peer_socket; /* its address in the kernel, for reading only; 0: nothing sent yet */
    __u32 generation;
    __u32 kept_j; /* when the datapath's entry of the connection was last given its time */
    __u8 stack; /* ACCELERATION_* that sent it to the stack for good; 0: none */
    __u8 active; /* this end has opened the connection */
    __u8 pods; /* the ends are in two namespaces: pods that may have policy */
    __u8 pad[5];
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct accelerated_state);
} accelerated_states SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct acceleration_settings);
} accelerated_settings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, ACCELERATION_COUNTERS);
    __type(key, __u32);
    __type(value, struct counter);
} accelerated_counters SEC(".maps");

inlined void happened(__u32 what, __u32 bytes) {
    struct counter *counter = bpf_map_lookup_elem(&accelerated_counters, &what);

    if (counter) {
        counter->packets++;
        counter->bytes += bytes;
    }
}

inlined struct acceleration_settings *settings_of(void) {
    __u32 zero = 0;

    return bpf_map_lookup_elem(&accelerated_settings, &zero);
}

inlined bool is_loopback(const struct address *one) {
    if (one->half[0])
        return false;
    if (one->word_be[2] == bpf_htonl(0xffff))
        return (one->word_be[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
    return !one->word_be[2] && one->word_be[3] == bpf_htonl(1);
}

/* Where policy stands between a connection's two pods. True if it may go on. */
inlined bool allowed(const struct address *opener, const struct address *answerer, __u16 answerer_port_be) {
    struct target *from = bpf_map_lookup_elem(&addresses, opener);
    struct target *to = bpf_map_lookup_elem(&addresses, answerer);
    struct packet packet = {.protocol = PROTO_TCP, .policy_port_be = answerer_port_be};

    if (!from || !to || from->kind != TARGET_POD || to->kind != TARGET_POD)
        return false;
    if ((from->flags & TARGET_EGRESS_POLICY) && !(from->flags & TARGET_EGRESS_AUDIT) &&
        policy_verdict(&packet, from->endpoint, DIRECTION_EGRESS, to->identity) == POLICY_DENY)
        return false;
    if ((to->flags & TARGET_INGRESS_POLICY) && !(to->flags & TARGET_INGRESS_AUDIT) &&
        policy_verdict(&packet, to->endpoint, DIRECTION_INGRESS, from->identity) == POLICY_DENY)
        return false;
    return true;
}

inlined bool still_allowed(const struct accelerated_state *state) {
    const struct accelerated_end *opener = state->active ? &state->self : &state->peer;

    return allowed(&opener->local, &opener->remote, opener->remote_port_be);
}

/* The datapath has let the handshake through by the policy that counts now. */
inlined bool flow_allowed(const struct accelerated_state *state, __u32 generation) {
    const struct accelerated_end *opener = state->active ? &state->self : &state->peer;
    struct target *from = bpf_map_lookup_elem(&addresses, &opener->local);
    struct target *to = bpf_map_lookup_elem(&addresses, &opener->remote);
    struct flow_key key;
    struct flow *flow;
    struct path *path;
    bool low;

    if (!from || !to || from->kind != TARGET_POD || to->kind != TARGET_POD)
        return false;
    /* The node's own filters are to see what pods say to each other. */
    if (config.flags & CONFIG_ENDPOINT_ROUTES)
        return false;
    if (!(from->flags & TARGET_EGRESS_POLICY) && !(to->flags & TARGET_INGRESS_POLICY))
        return true;
    low = order(&key, &opener->local, &opener->remote, opener->local_port_be, opener->remote_port_be, PROTO_TCP);
    flow = bpf_map_lookup_elem(&flows, &key);
    if (!flow || !alive(flow, now_j()))
        return false;
    path = low ? &flow->from_low : &flow->from_high;
    return path->generation == generation && path->action != ACTION_NONE &&
           !((flow->from_low.flags | flow->from_high.flags) & PATH_DENIED);
}

/* Packets no longer tell the datapath that the connection lives; its end would come as a stranger. Once a second. */
inlined void keep_flow(struct accelerated_state *state) {
    __u32 now = now_j();
    struct flow_key key;
    struct flow *flow;

    if (!config.tcp_open_j || !passed(state->kept_j + config.hz, now))
        return;
    state->kept_j = now;
    order(&key, &state->self.local, &state->self.remote, state->self.local_port_be, state->self.remote_port_be,
          PROTO_TCP);
    flow = bpf_map_lookup_elem(&flows, &key);
    if (flow && flow->state == FLOW_OPEN)
        flow->expires_j = now + config.tcp_open_j;
}

/* Fills both ends' keys. False unless both are on this node, and no other node or namespace can be meant. */
inlined bool ends_of(struct bpf_sock_ops *ops, struct accelerated_state *state) {
    struct accelerated_end *self = &state->self, *peer = &state->peer;

    if (ops->family == AF_INET) {
        mapped(&self->local, ops->local_ip4);
        mapped(&self->remote, ops->remote_ip4);
    } else {
        self->local.word_be[0] = ops->local_ip6[0];
        self->local.word_be[1] = ops->local_ip6[1];
        self->local.word_be[2] = ops->local_ip6[2];
        self->local.word_be[3] = ops->local_ip6[3];
        self->remote.word_be[0] = ops->remote_ip6[0];
        self->remote.word_be[1] = ops->remote_ip6[1];
        self->remote.word_be[2] = ops->remote_ip6[2];
        self->remote.word_be[3] = ops->remote_ip6[3];
    }
    self->local_port_be = bpf_htons(ops->local_port);
    self->remote_port_be = bpf_htons(bpf_ntohl(ops->remote_port));
    self->namespace_cookie = bpf_get_netns_cookie(ops);
    peer->local = self->remote;
    peer->remote = self->local;
    peer->local_port_be = self->remote_port_be;
    peer->remote_port_be = self->local_port_be;
    peer->namespace_cookie = self->namespace_cookie;
    if (is_loopback(&self->remote))
        return is_loopback(&self->local);
    if (!same_address(&self->local, &self->remote)) {
        __u64 *mine = bpf_map_lookup_elem(&accelerated_namespaces, &self->local);
        __u64 *other = bpf_map_lookup_elem(&accelerated_namespaces, &self->remote);

        if (!mine || !other || *mine != self->namespace_cookie)
            return false;
        peer->namespace_cookie = *other;
        state->pods = *mine != *other;
    }
    return true;
}

SEC("sockops")
int enter(struct bpf_sock_ops *ops) {
    struct acceleration_settings *settings = settings_of();
    struct accelerated_state found = {}, *state;
    struct runtime *run = running();
    struct bpf_sock *socket;
    __u64 pointer;

    if (ops->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        return 1;
    if (!settings || !settings->enabled || !run || (ops->family != AF_INET && ops->family != AF_INET6))
        return 1;
    /* Data with the handshake (TCP Fast Open): it could be overtaken. */
    if (ops->data_segs_in || ops->data_segs_out)
        return 1;
    if (!ends_of(ops, &found))
        return 1;
    found.active = ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
    found.generation = run->generation;
    found.kept_j = now_j();
    if (found.pods && !flow_allowed(&found, found.generation))
        return 1;
    socket = ops->sk;
    if (!socket)
        return 1;
    state = bpf_sk_storage_get(&accelerated_states, socket, &found, BPF_SK_STORAGE_GET_F_CREATE);
    if (!state)
        return 1;
    pointer = (__u64)(unsigned long)socket;
    bpf_map_update_elem(&accelerated_sockets, &found.self, &pointer, BPF_ANY);
    if (!bpf_sock_hash_update(ops, &accelerated, &found.self, BPF_ANY))
        happened(ACCELERATION_ENTERED, 0);
    return 1;
}

/* How much waits for the reader of a socket, in the kernel's account of memory. */
inlined __u32 waiting(__u64 socket) {
    struct sock *peer = (struct sock *)socket;
    __u32 bytes = 0;

    bpf_core_read(&bytes, sizeof(bytes), &peer->sk_backlog.rmem_alloc);
    return bytes;
}

/* True if something else than TCP itself handles what the socket sends. */
inlined bool has_upper_protocol(struct bpf_sock *socket) {
    struct tcp_sock *tcp = bpf_skc_to_tcp_sock(socket);

    return !tcp || BPF_CORE_READ(tcp, inet_conn.icsk_ulp_ops) != NULL;
}

inlined int by_stack(struct accelerated_state *state, __u8 why, __u32 bytes) {
    state->stack = why;
    happened(why, bytes);
    return SK_PASS;
}

SEC("sk_msg")
int redirect(struct sk_msg_md *message) {
    struct acceleration_settings *settings = settings_of();
    struct bpf_sock *socket = message->sk;
    struct accelerated_state *state;
    struct runtime *run = running();
    __u32 bytes = message->size;

    if (!socket || !settings || !run)
        return SK_PASS;
    state = bpf_sk_storage_get(&accelerated_states, socket, NULL, 0);
    if (!state)
        return SK_PASS;
    if (state->stack)
        return by_stack(state, state->stack, bytes);
    if (!settings->enabled)
        return by_stack(state, ACCELERATION_OFF, bytes);
    if (state->pods && state->generation != run->generation) {
        __u32 generation = run->generation;

        if (!still_allowed(state))
            return by_stack(state, ACCELERATION_POLICY, bytes);
        state->generation = generation;
    }
    if (has_upper_protocol(socket))
        return by_stack(state, ACCELERATION_TLS, bytes);
    if (!state->peer_socket) {
        __u64 *peer = bpf_map_lookup_elem(&accelerated_sockets, &state->peer);

        if (!peer)
            return by_stack(state, ACCELERATION_NO_PEER, bytes);
        state->peer_socket = *peer;
    }
    if (waiting(state->peer_socket) > settings->behind_bytes)
        return by_stack(state, ACCELERATION_BEHIND, bytes);
    /* Last: once it has found the peer, the message goes there whatever is returned. */
    if (bpf_msg_redirect_hash(message, &accelerated, &state->peer, BPF_F_INGRESS) != SK_PASS)
        return by_stack(state, ACCELERATION_NO_PEER, bytes);
    if (state->pods)
        keep_flow(state);
    happened(ACCELERATION_REDIRECTED, bytes);
    return SK_PASS;
}

char _license[] SEC("license") = "GPL";
