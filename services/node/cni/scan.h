/* Finds the few top-level strings of a network configuration that the plugin itself needs. */
#ifndef PLIMSOLL_SCAN_H
#define PLIMSOLL_SCAN_H

#include <stddef.h>

enum {
	SOCKET_MAX = 108,  /* sun_path, with its zero */
	VERSION_MAX = 16,
	SCAN_DEPTH_MAX = 64,
};

struct config {
	char socket[SOCKET_MAX];         /* empty: not given */
	char cni_version[VERSION_MAX];   /* empty: not given */
	double timeout_s;                /* 0: not given */
};

enum scan_result {
	SCAN_OK = 0,
	SCAN_MALFORMED,      /* no JSON object */
	SCAN_BAD_SOCKET,     /* "socket" is no string, or too long */
	SCAN_BAD_VERSION,    /* "cniVersion" is no string, or too long */
	SCAN_BAD_TIMEOUT,    /* "timeout_s" is no number, or out of range */
};

/* Reads `length` bytes of `text`, which need no terminator. On SCAN_MALFORMED, `*where` is the offset that is wrong. */
enum scan_result scan_config(const char *text, size_t length, struct config *config, size_t *where);

#endif
