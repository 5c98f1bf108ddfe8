/* Reads inputs from standard input, each behind its length (4 bytes, big endian), and tells what the scanner makes of
 * them: one line each, "result length-of-socket socket version timeout". Built with sanitizers by the test. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "scan.h"

int main(void)
{
	uint32_t length;
	while (fread(&length, sizeof length, 1, stdin) == 1) {
		length = ntohl(length);
		/* Exactly as long as the input, so that the sanitizer sees the first byte read behind it. */
		char *text = malloc(length ? length : 1);
		if (text == NULL || fread(text, 1, length, stdin) != length)
			return 2;
		struct config config;
		size_t where = 0;
		enum scan_result result = scan_config(text, length, &config, &where);
		if (where > length)
			return 3;
		printf("%d ", (int)result);
		for (const unsigned char *c = (const unsigned char *)config.socket; *c; c++)
			printf("%02x", *c);
		printf(" %s\n", result == SCAN_OK ? "ok" : "-");
		free(text);
	}
	return 0;
}
