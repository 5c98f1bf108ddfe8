/*
 * The CNI plugin: hands a request to the node daemon and its answer to the runtime. It decides nothing.
 *
 *   request   "PLQ1" environment_length_be32 config_length_be32 environment config
 *   answer    "PLA1" exit_code_be32 length_be32 body
 *
 * The environment is every variable whose name starts with CNI_, as NAME=VALUE, each ended by a zero byte.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "scan.h"

#define NEWEST "1.1.0"
#define SUPPORTED "\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\""

enum {
	CONFIG_MAX = 1 << 20,
	ANSWER_MAX = 4 << 20,
	ENVIRONMENT_MAX = 64 << 10,
	TIMEOUT_DEFAULT_MS = 60000,
	/* of the CNI specification */
	E_ENVIRONMENT = 4,
	E_IO = 5,
	E_DECODE = 6,
	E_CONFIG = 7,
	E_LATER = 11,
	E_NOT_AVAILABLE = 50,
};

extern char **environ;

static struct config config;
static const char *command = "";

static void put_escaped(const char *text)
{
	for (const unsigned char *c = (const unsigned char *)text; *c != 0; c++) {
		if (*c == '"' || *c == '\\')
			printf("\\%c", *c);
		else if (*c < 0x20)
			printf("\\u%04x", *c);
		else
			putchar(*c);
	}
}

/* Prints a CNI error and ends. */
static void __attribute__((format(printf, 3, 4), noreturn)) fail(int code, const char *remedy, const char *format, ...)
{
	char message[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	fputs("{\"cniVersion\":\"", stdout);
	put_escaped(config.cni_version[0] ? config.cni_version : NEWEST);
	printf("\",\"code\":%d,\"msg\":\"", code);
	put_escaped(message);
	fputs("\",\"details\":\"", stdout);
	put_escaped(remedy);
	fputs("\"}\n", stdout);
	fflush(stdout);
	exit(1);
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether trying again may help; for STATUS the answer has a code of its own. */
static int transient_code(void)
{
	return strcmp(command, "STATUS") == 0 ? E_NOT_AVAILABLE : E_LATER;
}

static void __attribute__((noreturn)) fail_daemon(const char *what)
{
	fail(transient_code(), "look at the node daemon's log; the runtime may try again",
	     "the node daemon at %s %s", config.socket, what);
}

static void await(int fd, short events, int64_t deadline_ms)
{
	struct pollfd wait = {.fd = fd, .events = events};
	for (;;) {
		int64_t left_ms = deadline_ms - now_ms();
		if (left_ms <= 0)
			fail_daemon("did not answer in time");
		int ready = poll(&wait, 1, (int)left_ms);
		if (ready > 0)
			return;
		if (ready < 0 && errno != EINTR)
			fail(E_IO, "", "poll: %s", strerror(errno));
	}
}

static void send_all(int fd, const char *bytes, size_t length, int64_t deadline_ms)
{
	while (length > 0) {
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) {
			bytes += sent;
			length -= (size_t)sent;
		} else if (errno == EAGAIN) {
			await(fd, POLLOUT, deadline_ms);
		} else if (errno != EINTR) {
			fail_daemon("hung up before it had read the request");
		}
	}
}

static void receive_all(int fd, char *bytes, size_t length, int64_t deadline_ms)
{
	while (length > 0) {
		await(fd, POLLIN, deadline_ms);
		ssize_t received = recv(fd, bytes, length, 0);
		if (received > 0) {
			bytes += received;
			length -= (size_t)received;
		} else if (received == 0 || (errno != EINTR && errno != EAGAIN)) {
			fail_daemon("died, or hung up, in the middle of the request");
		}
	}
}

static size_t read_config(char *bytes)
{
	size_t length = 0;
	for (;;) {
		ssize_t got = read(STDIN_FILENO, bytes + length, CONFIG_MAX - length);
		if (got > 0)
			length += (size_t)got;
		else if (got == 0)
			return length;
		else if (errno != EINTR)
			fail(E_IO, "give the network configuration on standard input", "reading the configuration: %s",
			     strerror(errno));
		if (length == CONFIG_MAX)
			fail(E_DECODE, "this is no network configuration", "the configuration is longer than %d bytes",
			     CONFIG_MAX);
	}
}

static size_t collect_environment(char *bytes)
{
	size_t length = 0;
	for (char **variable = environ; *variable != NULL; variable++) {
		size_t size = strlen(*variable) + 1;
		if (strncmp(*variable, "CNI_", 4) != 0)
			continue;
		if (size > ENVIRONMENT_MAX - length)
			fail(E_ENVIRONMENT, "shorten CNI_ARGS", "the CNI_ variables are longer than %d bytes", ENVIRONMENT_MAX);
		memcpy(bytes + length, *variable, size);
		length += size;
	}
	return length;
}

static int connect_daemon(int64_t deadline_ms)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, config.socket, strlen(config.socket));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		fail(E_IO, "", "socket: %s", strerror(errno));
	while (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		/* A full backlog: the daemon is busy, and there is nothing to poll for. */
		if (errno != EAGAIN && errno != EINTR)
			fail(transient_code(), "start the node daemon, or correct \"socket\" in the network configuration",
			     "the node daemon cannot be reached at %s: %s", config.socket, strerror(errno));
		if (now_ms() >= deadline_ms)
			fail_daemon("did not answer in time");
		struct timespec pause = {.tv_nsec = 5000000};
		nanosleep(&pause, NULL);
	}
	return fd;
}

static void check_config(const char *text, size_t length)
{
	size_t where = 0;
	switch (scan_config(text, length, &config, &where)) {
	case SCAN_MALFORMED:
		fail(E_DECODE, "correct the file in the CNI configuration folder",
		     "the network configuration is not a JSON object: wrong at byte %zu of %zu", where, length);
	case SCAN_BAD_SOCKET:
		fail(E_CONFIG, "give the path of the node daemon's CNI socket, such as \"/run/plimsoll/cni.sock\"",
		     "\"socket\" must be a string of at most %d bytes", SOCKET_MAX - 1);
	case SCAN_BAD_VERSION:
		config.cni_version[0] = '\0';
		fail(E_CONFIG, "write \"cniVersion\": \"" NEWEST "\"", "\"cniVersion\" must be a short string");
	case SCAN_BAD_TIMEOUT:
		fail(E_CONFIG, "leave it out for 60 seconds", "\"timeout_s\" must be a number above 0, up to 3600");
	case SCAN_OK:
		break;
	}
	if (config.socket[0] == '\0')
		fail(E_CONFIG, "add \"socket\": \"/run/plimsoll/cni.sock\", or where the node daemon listens",
		     "the network configuration has no \"socket\"");
	if (config.socket[0] != '/')
		fail(E_CONFIG, "write an absolute path", "\"socket\" is not an absolute path: %s", config.socket);
}

static int relay(const char *text, size_t length)
{
	static char environment[ENVIRONMENT_MAX];
	int64_t timeout_ms = config.timeout_s > 0 ? (int64_t)(config.timeout_s * 1000) + 1 : TIMEOUT_DEFAULT_MS;
	int64_t deadline_ms = now_ms() + timeout_ms;
	size_t environment_length = collect_environment(environment);
	char head[12] = "PLQ1";
	uint32_t number = htonl((uint32_t)environment_length);
	memcpy(head + 4, &number, sizeof number);
	number = htonl((uint32_t)length);
	memcpy(head + 8, &number, sizeof number);

	int fd = connect_daemon(deadline_ms);
	send_all(fd, head, sizeof head, deadline_ms);
	send_all(fd, environment, environment_length, deadline_ms);
	send_all(fd, text, length, deadline_ms);
	receive_all(fd, head, sizeof head, deadline_ms);
	uint32_t exit_code, body_length;
	memcpy(&exit_code, head + 4, sizeof exit_code);
	memcpy(&body_length, head + 8, sizeof body_length);
	exit_code = ntohl(exit_code);
	body_length = ntohl(body_length);
	if (memcmp(head, "PLA1", 4) != 0 || body_length > ANSWER_MAX || exit_code > 255)
		fail(E_IO, "correct \"socket\" in the network configuration", "what listens at %s is no node daemon",
		     config.socket);
	char *body = malloc(body_length + 1);
	if (body == NULL)
		fail(E_IO, "", "out of memory");
	receive_all(fd, body, body_length, deadline_ms);
	if (fwrite(body, 1, body_length, stdout) != body_length || fflush(stdout) != 0)
		fail(E_IO, "", "writing the answer: %s", strerror(errno));
	return (int)exit_code;
}

int main(void)
{
	static char text[CONFIG_MAX];
	const char *given = getenv("CNI_COMMAND");
	if (given == NULL || *given == '\0')
		fail(E_ENVIRONMENT, "container runtimes set it: ADD, DEL, CHECK, GC, STATUS or VERSION",
		     "the environment has no CNI_COMMAND");
	command = given;
	size_t length = read_config(text);
	if (strcmp(command, "VERSION") == 0) {
		size_t where;
		scan_config(text, length, &config, &where);
		fputs("{\"cniVersion\":\"", stdout);
		put_escaped(config.cni_version[0] ? config.cni_version : NEWEST);
		fputs("\",\"supportedVersions\":[" SUPPORTED "]}\n", stdout);
		return fflush(stdout) == 0 ? 0 : 1;
	}
	check_config(text, length);
	return relay(text, length);
}
