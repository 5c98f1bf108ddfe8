/* Request and response over one TCP connection, a byte each way, one after the other:
 *
 *     rr serve ADDRESS PORT            answers until killed; says "ready" when it listens
 *     rr ask ADDRESS PORT SECONDS      prints transactions a second
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void undelayed(int connection) {
    int one = 1;

    if (setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
        fail("TCP_NODELAY");
}

static void serve(int listener) {
    char byte;

    if (listen(listener, 16))
        fail("listen");
    puts("ready");
    fflush(stdout);
    for (;;) {
        int connection = accept(listener, NULL, NULL);

        if (connection < 0)
            fail("accept");
        undelayed(connection);
        while (read(connection, &byte, 1) == 1)
            if (write(connection, &byte, 1) != 1)
                break;
        close(connection);
    }
}

static void ask(int connection, double seconds) {
    double began = now(), passed;
    long count = 0;
    char byte = 'x';

    undelayed(connection);
    do {
        for (int turn = 0; turn < 64; turn++) /* the clock is not read each time */
            if (write(connection, &byte, 1) != 1 || read(connection, &byte, 1) != 1)
                fail("transaction");
        count += 64;
        passed = now() - began;
    } while (passed < seconds);
    printf("%.0f\n", (double)count / passed);
}

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *end;
    int one = 1, fd;

    if (argc < 4 || getaddrinfo(argv[2], argv[3], &hints, &end)) {
        fprintf(stderr, "usage: rr serve ADDRESS PORT | rr ask ADDRESS PORT SECONDS\n");
        return 2;
    }
    fd = socket(end->ai_family, SOCK_STREAM, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)))
        fail("socket");
    if (!strcmp(argv[1], "serve")) {
        if (bind(fd, end->ai_addr, end->ai_addrlen))
            fail("bind");
        serve(fd);
    }
    if (connect(fd, end->ai_addr, end->ai_addrlen))
        fail("connect");
    ask(fd, argc > 4 ? atof(argv[4]) : 1);
    return 0;
}
