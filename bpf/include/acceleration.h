/* What bpf/sockmap.bpf.c shares with the daemon; datapath/acceleration/layout.py mirrors it, a test compares both. */
#ifndef PLIMSOLL_ACCELERATION_H
#define PLIMSOLL_ACCELERATION_H

#include "program.h"

/* One end of a connection. The cookie of its network namespace keeps equal addresses of different namespaces apart. */
struct accelerated_end {
    struct address local;
    struct address remote;
    __u64 namespace_cookie;
    __u16 local_port_be;
    __u16 remote_port_be;
    __u32 pad;
};

/* What happened to messages, by index of `accelerated_counters` (struct counter, per CPU). From ACCELERATION_OFF on: why
 * a message of a socket that had entered went through the stack. */
#define ACCELERATION_ENTERED 0 /* sockets, not messages */
#define ACCELERATION_REDIRECTED 1
#define ACCELERATION_OFF 2 /* switched off since */
#define ACCELERATION_NO_PEER 3 /* the other end had not entered when the first message came, or is gone */
#define ACCELERATION_POLICY 4 /* policy no longer allows it, or an end is no longer a pod of this node */
#define ACCELERATION_BEHIND 5 /* the reader is too far behind: the stack holds the sender back */
#define ACCELERATION_TLS 6 /* the kernel encrypts for the program, or another protocol sits on the socket */
#define ACCELERATION_COUNTERS 7

struct acceleration_settings {
    __u32 enabled;
    __u32 behind_bytes; /* how much may wait for a reader */
};

#endif
