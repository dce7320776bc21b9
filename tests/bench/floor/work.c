/* The least that the kernel asks for the same work.
 *
 *   work sync SECONDS BYTES FILE    write and fdatasync; prints how often a second
 *   work spawn COUNT PROGRAM        vfork, exec, wait, COUNT times
 *   work copy FILE SIZE KEEP        reads 64 KiB, writes them, renames a chain of
 *                                   files when SIZE is passed
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static void sync_loop(double seconds, size_t bytes, const char *file) {
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char *data = calloc(1, bytes);
    double began = now(), count = 0;
    if (fd < 0 || !data) fail(file);
    while (now() - began < seconds) {
        if (write(fd, data, bytes) != (ssize_t)bytes || fdatasync(fd) != 0) fail("fdatasync");
        count++;
    }
    printf("%.1f\n", count / (now() - began));
    unlink(file);
}

static void spawn(char *program) {
    char *argv[] = {program, "job", NULL}, *envp[] = {NULL};
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
        execve(program, argv, envp);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) fail(program);
}

static void copy(const char *path, long size, int keep) {
    static char buffer[65536];
    char from[512], to[512];
    long held = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0640);
    ssize_t count;
    if (fd < 0) fail(path);
    while ((count = read(0, buffer, sizeof buffer)) > 0) {
        if (held + count > size) {
            for (int n = keep - 1; n >= 0; n--) {
                snprintf(from, sizeof from, n ? "%s.%d" : "%s", path, n);
                snprintf(to, sizeof to, "%s.%d", path, n + 1);
                rename(from, to);
            }
            close(fd);
            fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0640);
            if (fd < 0) fail(path);
            held = 0;
        }
        if (write(fd, buffer, count) != count) fail(path);
        held += count;
    }
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "sync") && argc == 5) sync_loop(atof(argv[2]), strtoul(argv[3], 0, 10), argv[4]);
    else if (!strcmp(mode, "spawn") && argc == 4)
        for (long count = atol(argv[2]); count > 0; count--) spawn(argv[3]);
    else if (!strcmp(mode, "copy") && argc == 5) copy(argv[2], atol(argv[3]), atoi(argv[4]));
    else return fputs("usage: see work.c\n", stderr), 2;
    return 0;
}
