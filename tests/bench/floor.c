/* The floors: the least that the kernel asks for the same work.
 *
 *   floor sync SECONDS BYTES FILE    write + fdatasync, times a second
 *   floor spawn SECONDS PROGRAM      vfork + exec + wait, times a second
 *   floor load SECONDS CLIENTS SOCKET [DEPTH]
 *                                    jobs acknowledged a second by zigsvc, with
 *                                    DEPTH requests sent ahead by each client
 *
 * Each prints one number. Static, no threads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void report(double count, double began) {
    printf("%.1f\n", count / (now() - began));
}

static void sync_loop(double seconds, size_t bytes, const char *file) {
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char *data = calloc(1, bytes);
    double began = now(), count = 0;
    if (fd < 0 || !data) fail(file);
    while (now() - began < seconds) {
        if (write(fd, data, bytes) != (ssize_t)bytes || fdatasync(fd) != 0) fail("fdatasync");
        count++;
    }
    report(count, began);
    unlink(file);
}

static void spawn_loop(double seconds, char *program) {
    char *argv[] = {program, "job", NULL}, *envp[] = {NULL};
    double began = now(), count = 0;
    while (now() - began < seconds) {
        int status;
        pid_t pid = vfork();
        if (pid == 0) {
            execve(program, argv, envp);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) fail(program);
        count++;
    }
    report(count, began);
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (fd < 0 || connect(fd, (void *)&address, sizeof address) != 0) fail(path);
    return fd;
}

static void load(double seconds, int clients, const char *path, int depth) {
    static const char request[] = "queue a job of some thirty bytes\n";
    struct pollfd *fds = calloc(clients, sizeof *fds);
    char answers[4096];
    double began, count = 0;
    for (int i = 0; i < clients; i++) fds[i] = (struct pollfd){connect_to(path), POLLIN, 0};
    began = now();
    for (int i = 0; i < clients; i++)
        for (int n = 0; n < depth; n++)
            if (write(fds[i].fd, request, sizeof request - 1) < 0) fail("write");
    while (now() - began < seconds) {
        if (poll(fds, clients, 1000) <= 0) fail("poll");
        for (int i = 0; i < clients; i++) {
            ssize_t got;
            char batch[sizeof request * 128];
            size_t length = 0;
            if (!fds[i].revents) continue;
            got = read(fds[i].fd, answers, sizeof answers);
            if (got <= 0 || answers[0] != 'o') fail("answer");
            for (ssize_t at = 0; at < got; at++)
                if (answers[at] == '\n') {
                    count++;
                    if (length + sizeof request < sizeof batch) {
                        memcpy(batch + length, request, sizeof request - 1);
                        length += sizeof request - 1;
                    }
                }
            if (write(fds[i].fd, batch, length) < 0) fail("write");
        }
    }
    report(count, began);
}

int main(int argc, char **argv) {
    const char *mode = argc > 3 ? argv[1] : "";
    double seconds = argc > 2 ? atof(argv[2]) : 1;
    if (!strcmp(mode, "sync") && argc == 5) sync_loop(seconds, strtoul(argv[3], 0, 10), argv[4]);
    else if (!strcmp(mode, "spawn")) spawn_loop(seconds, argv[3]);
    else if (!strcmp(mode, "load") && argc >= 5)
        load(seconds, atoi(argv[3]), argv[4], argc > 5 ? atoi(argv[5]) : 1);
    else return fputs("usage: see floor.c\n", stderr), 2;
    return 0;
}
