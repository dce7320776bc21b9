/* The functions that the meters share. Meters are static, small and without threads,
 * because the cost of a process grows with the process that starts it. They start
 * others by vfork. */
#ifndef COMMON_H
#define COMMON_H
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 32, LINES = 160, PATH = 512 };

static inline long long now(void) { /* ns */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void nap(long long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, 0);
}

static inline void wrong(const char *what) {
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

static inline void fail(const char *what) { /* with errno */
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Returns the program of that name with its folder, so that no search is measured. */
static inline char *resolved(char *name) {
    static char path[PATH];
    const char *at = getenv("PATH");
    if (strchr(name, '/') || !at) return name;
    while (*at) {
        size_t length = strcspn(at, ":");
        snprintf(path, sizeof path, "%.*s/%s", (int)length, at, name);
        if (access(path, X_OK) == 0) return strdup(path);
        at += length + (at[length] == ':');
    }
    wrong(name);
    return 0;
}

/* Cuts a line of the standard input into words at its tabs. Returns their number,
 * or 0 at the end of the input. */
static inline int next_line(char **words) {
    static char line[8192];
    char *at;
    int count = 0;
    if (!fgets(line, sizeof line, stdin)) return 0;
    line[strcspn(line, "\n")] = 0;
    at = strdup(line);
    while (count < WORDS - 1 && (words[count] = strsep(&at, "\t"))) count++;
    words[count] = 0;
    return count;
}

/* Returns 0 to count - 1 in another order with each call, because the order decides
 * which subject finds a processor and a cache awake. */
static inline int *shuffled(int count) {
    static int order[LINES], seeded;
    if (!seeded++) srand(now());
    for (int at = 0; at < count; at++) {
        int other = rand() % (at + 1);
        order[at] = order[other];
        order[other] = at;
    }
    return order;
}

/* Starts a program in `folder` (0: here). Its output is dropped. */
static inline pid_t launch(char **argv, const char *folder, int input) {
    static int null = -1;
    extern char **environ;
    pid_t pid;
    if (null < 0 && (null = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0) fail("/dev/null");
    pid = vfork();
    if (pid == 0) {
        if (folder && chdir(folder) != 0) _exit(126);
        dup2(input < 0 ? null : input, 0);
        dup2(null, 1);
        dup2(null, 2);
        execve(argv[0], argv, environ);
        _exit(127);
    }
    if (pid < 0) fail("vfork");
    return pid;
}

/* Runs a program and returns its status. */
static inline int ran(char **argv) {
    int status;
    pid_t pid = launch(argv, 0, -1);
    if (waitpid(pid, &status, 0) != pid) fail(argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* From now on each process that a child leaves running becomes a child of this one. */
static inline void adopt(void) {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) fail("PR_SET_CHILD_SUBREAPER");
}

static inline pid_t parent_of(const char *number) {
    char path[PATH], text[512];
    ssize_t count;
    const char *at;
    int fd;
    snprintf(path, sizeof path, "/proc/%s/stat", number);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    count = read(fd, text, sizeof text - 1);
    close(fd);
    text[count > 0 ? count : 0] = 0;
    at = strrchr(text, ')'); /* the name may hold anything; then " S PPID" */
    return at && strlen(at) > 4 ? atoi(at + 4) : 0;
}

/* Ends all children by signal 9, and their children, which become children of this
 * process. */
static inline void end_children(void) {
    for (;;) {
        struct dirent *entry;
        DIR *processes;
        pid_t ended;
        while ((ended = waitpid(-1, 0, WNOHANG)) > 0) {}
        if (ended < 0) return;
        processes = opendir("/proc");
        if (!processes) fail("/proc");
        while ((entry = readdir(processes)))
            if (isdigit((unsigned char)entry->d_name[0]) && parent_of(entry->d_name) == getpid())
                kill(atoi(entry->d_name), SIGKILL);
        closedir(processes);
        nap(1);
    }
}

static inline int try_connect(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof address.sun_path) wrong(path);
    strcpy(address.sun_path, path);
    if (fd >= 0 && connect(fd, (void *)&address, sizeof address) == 0) return fd;
    close(fd);
    return -1;
}

/* Sends a request and reads the line of its answer. Returns the length of the line. */
static inline ssize_t asked(int fd, const char *request, char *answer, size_t room) {
    size_t length = strlen(request), got = 0;
    if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length) return -1;
    while (got < room - 1) {
        ssize_t count = read(fd, answer + got, room - 1 - got);
        if (count <= 0) return -1;
        got += count;
        if (answer[got - 1] == '\n') break;
    }
    answer[got] = 0;
    return got;
}

/* Returns a number of an answer to `status`, such as " jobs=". */
static inline long field(const char *answer, const char *name) {
    const char *at = strstr(answer, name);
    return at ? atol(at + strlen(name)) : -1;
}
#endif
