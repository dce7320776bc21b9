/* The meter of tests/bench/restart, the child that it kills, and the floor.
 *
 *   restart child                        writes its PID, its parent's and a clock
 *                                        stamp into the FIFO $STAMPS, then sleeps
 *   restart floor PROGRAM ARG...         the least supervisor: fork, exec, waitpid
 *   restart sample MS COMMAND...         starts a supervisor, lets its child live
 *                                        for MS, kills it with signal 9; prints the
 *                                        microseconds until the new child's stamp
 *   restart idle SECONDS COMMAND...      VmRSS and RssAnon of a supervisor in KiB,
 *                                        and its context switches in SECONDS
 *   restart look SECONDS PID             the same of a process that runs
 *   restart socket PID SOCKET            kills a service with signal 9; prints the
 *                                        microseconds until a new one answers
 *                                        `status`
 *
 * A supervisor is its child's parent, whatever became of COMMAND, and ends by
 * signal 9, as does the child. Called `run`, this is `child`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct stamp {
    pid_t pid, parent;
    long long at;
};

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void nap(long long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, 0);
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int child(void) {
    struct stamp own = {getpid(), getppid(), now()};
    int fifo = open(getenv("STAMPS"), O_WRONLY);
    if (fifo < 0 || write(fifo, &own, sizeof own) != sizeof own) fail("STAMPS");
    for (;;) pause();
}

static int floor_loop(char **argv) {
    for (;;) {
        pid_t pid = fork();
        if (pid == 0) {
            execv(argv[0], argv);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, 0, 0) != pid) fail("floor");
    }
}

static struct stamp next(int fifo) {
    struct stamp got;
    struct pollfd ready = {fifo, POLLIN, 0};
    if (poll(&ready, 1, 20000) != 1 || read(fifo, &got, sizeof got) != sizeof got)
        fail("the child was not started");
    return got;
}

/* Starts `argv`; its output goes nowhere. */
static pid_t start(char **argv) {
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR);
        for (int fd = 0; fd < 3; fd++) dup2(null, fd);
        execvp(argv[0], argv);
        _exit(127);
    }
    return pid;
}

static void end(pid_t started, struct stamp last) {
    kill(last.parent, SIGKILL);
    kill(last.pid, SIGKILL);
    if (last.parent != started) kill(started, SIGKILL);
    waitpid(started, 0, 0);
}

static void look(int pid, long *rss, long *anon, long *switches) {
    char path[64], line[256];
    long value;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    file = fopen(path, "r");
    if (!file) fail(path);
    *switches = 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "VmRSS: %ld", &value) == 1) *rss = value;
        if (sscanf(line, "RssAnon: %ld", &value) == 1) *anon = value;
        if (strstr(line, "ctxt_switches:")) *switches += atol(strchr(line, ':') + 1);
    }
    fclose(file);
}

static void watch(int pid, int seconds) {
    long rss, anon, before, after;
    look(pid, &rss, &anon, &before);
    nap(seconds * 1000LL);
    look(pid, &rss, &anon, &after);
    printf("%ld %ld %ld\n", rss, anon, after - before);
}

static void answered(pid_t pid, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {1, 0};
    long long began;
    char answer[3] = "";
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    began = now();
    if (kill(pid, SIGKILL) != 0) fail("kill");
    while (now() - began < 20000000000LL) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (connect(fd, (void *)&address, sizeof address) == 0 &&
            send(fd, "status\n", 7, MSG_NOSIGNAL) == 7 && read(fd, answer, 3) == 3) {
            printf("%lld\n", (now() - began) / 1000);
            return;
        }
        close(fd);
        usleep(50);
    }
    fail("no answer");
}

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/'), *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(name ? name + 1 : argv[0], "run") || !strcmp(mode, "child")) return child();
    if (!strcmp(mode, "floor") && argc > 2) return floor_loop(argv + 2);
    if (!strcmp(mode, "look") && argc == 4) return watch(atoi(argv[3]), atoi(argv[2])), 0;
    if (!strcmp(mode, "socket") && argc == 4) return answered(atoi(argv[2]), argv[3]), 0;
    if ((!strcmp(mode, "sample") || !strcmp(mode, "idle")) && argc > 3) {
        /* (for reading and writing, so that nobody's open waits and none ends it) */
        int fifo = open(getenv("STAMPS"), O_RDWR | O_CLOEXEC);
        pid_t started = fifo < 0 ? -1 : start(argv + 3);
        struct stamp first;
        if (started < 0) fail("STAMPS");
        first = next(fifo);
        if (*mode == 'i') {
            nap(1500);
            watch(first.parent, atoi(argv[2]));
        } else {
            long long killed;
            nap(atoi(argv[2]));
            killed = now();
            kill(first.pid, SIGKILL);
            first = next(fifo);
            printf("%lld\n", (first.at - killed) / 1000);
        }
        end(started, first);
        return 0;
    }
    return fputs("usage: see restart.c\n", stderr), 2;
}
