/* The kernel's types, out of the running one's BTF. It has names that we use for other things, and another kernel has others:
 * they are moved out of the way. */
#ifndef PLIMSOLL_KERNEL_H
#define PLIMSOLL_KERNEL_H

#define address kernel_address
#define config kernel_config
#define counter kernel_counter
#define device kernel_device
#define endpoint kernel_endpoint
#define event kernel_event
#define flow kernel_flow
#define fragment kernel_fragment
#define nat kernel_nat
#define node kernel_node
#define packet kernel_packet
#define path kernel_path
#define policy kernel_policy
#define ports kernel_ports
#define runtime kernel_runtime
#define search kernel_search
#define target kernel_target

#include "vmlinux.h"

#undef address
#undef config
#undef counter
#undef device
#undef endpoint
#undef event
#undef flow
#undef fragment
#undef nat
#undef node
#undef packet
#undef path
#undef policy
#undef ports
#undef runtime
#undef search
#undef target

#endif
