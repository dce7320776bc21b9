/* Measures a logger: what it costs to pass lines of 100 bytes from a pipe to files.
 *
 *   log run big|small LINES PROGRAM [ARG]...
 *        writes the lines to the standard input of PROGRAM, 64 KiB or one line to a
 *        write(2), and prints the CPU time of PROGRAM a line, in ns, and the lines
 *        a second
 *   log floor FILE SIZE KEEP
 *        the least that the kernel asks for: read 64 KiB, write them, rename a
 *        chain of files when SIZE is passed
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, BLOCK = 65536 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static double seconds(struct timeval t) {
    return t.tv_sec + t.tv_usec / 1e6;
}

/* Line `number`: its digits, then filler. */
static void line(char *to, long number) {
    memset(to, 'x', LINE);
    for (int at = 9; at >= 0; at--, number /= 10) to[at] = '0' + number % 10;
    to[10] = ' ';
    to[LINE - 1] = '\n';
}

static void write_all(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t count = write(fd, data, length);
        if (count <= 0) fail("write");
        data += count;
        length -= count;
    }
}

/* (The lines of a round are made before anybody looks at the clock.) */
static void write_lines(int fd, char *lines, long count, int big) {
    size_t all = (size_t)count * LINE, step = big ? BLOCK : LINE;
    for (size_t at = 0; at < all; at += step) write_all(fd, lines + at, all - at < step ? all - at : step);
}

static void run(int big, long count, char **argv) {
    char *lines = malloc((size_t)count * LINE);
    int ends[2], status;
    struct rusage usage;
    double began, took;
    pid_t pid;
    if (!lines || pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
    for (long number = 0; number < count; number++) line(lines + number * LINE, number);
    began = now();
    pid = vfork();
    if (pid == 0) {
        dup2(ends[0], 0);
        execvp(argv[0], argv);
        _exit(127);
    }
    close(ends[0]);
    write_lines(ends[1], lines, count, big);
    close(ends[1]);
    if (wait4(pid, &status, 0, &usage) != pid || status != 0) fail(argv[0]);
    took = now() - began;
    printf("%.0f %.0f\n", (seconds(usage.ru_utime) + seconds(usage.ru_stime)) * 1e9 / count, count / took);
}

static void copy(const char *path, long size, int keep) {
    static char buffer[BLOCK];
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
        write_all(fd, buffer, count);
        held += count;
    }
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc > 4 && !strcmp(argv[1], "run")) run(!strcmp(argv[2], "big"), atol(argv[3]), argv + 4);
    else if (argc == 5 && !strcmp(argv[1], "floor")) copy(argv[2], atol(argv[3]), atoi(argv[4]));
    else return fputs("usage: see log.c\n", stderr), 2;
    return 0;
}
