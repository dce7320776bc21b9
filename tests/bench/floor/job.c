/* The least that one job costs if it is kept, captured and logged.
 *
 *   job COUNT PROGRAM FOLDER      runs PROGRAM, COUNT times
 *
 * For each job: a record of the journal (the end of the job before, and the start of
 * this one), a pipe for its output, vfork and execve in a process group of its own, a line
 * of the log, poll(2) on its pidfd and its pipe, the end of its group, and its status.
 * The journal is synced once a second, because an end may be that late on the disk.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 40, LINE = 48 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int opened(const char *folder, const char *name, int flags) {
    char path[512];
    int fd;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    fd = open(path, O_CREAT | O_TRUNC | O_CLOEXEC | flags, 0600);
    if (fd < 0) fail(path);
    return fd;
}

static pid_t start(char *program, int output) {
    char *argv[] = {program, "job", NULL}, *envp[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        setpgid(0, 0);
        dup2(output, 1);
        dup2(output, 2);
        execve(program, argv, envp);
        _exit(127);
    }
    if (pid < 0) fail(program);
    return pid;
}

/* Reads the output of a job until it has ended, and reaps it. */
static void wait_for(pid_t pid, int output) {
    static char bytes[4096];
    siginfo_t end;
    struct pollfd ready[2] = {{syscall(SYS_pidfd_open, pid, 0), POLLIN, 0}, {output, POLLIN, 0}};
    if (ready[0].fd < 0) fail("pidfd_open");
    do {
        if (poll(ready, 2, 1000) < 0) fail("poll");
        if (ready[1].revents && read(output, bytes, sizeof bytes) <= 0) ready[1].fd = -1;
    } while (!ready[0].revents);
    kill(-pid, SIGKILL);
    if (waitid(P_PID, pid, &end, WEXITED) != 0) fail("waitid");
    while (read(output, bytes, sizeof bytes) > 0) {}
    close(output);
    close(ready[0].fd);
}

int main(int argc, char **argv) {
    char record[RECORD] = {3}, line[LINE];
    int journal, log;
    time_t synced = time(0);
    if (argc != 4) return fputs("usage: see job.c\n", stderr), 2;
    memset(line, 'x', LINE - 1);
    line[LINE - 1] = '\n';
    journal = opened(argv[3], "journal", O_RDWR);
    log = opened(argv[3], "log", O_WRONLY | O_APPEND);
    for (long job = 0; job < atol(argv[1]); job++) {
        int pipe_[2];
        pid_t pid;
        if (pwrite(journal, record, RECORD, job * RECORD) != RECORD) fail("journal");
        if (pipe2(pipe_, O_CLOEXEC) != 0 || fcntl(pipe_[0], F_SETFL, O_NONBLOCK) != 0) fail("pipe2");
        pid = start(argv[2], pipe_[1]);
        close(pipe_[1]);
        if (write(log, line, LINE) != LINE) fail("log");
        wait_for(pid, pipe_[0]);
        if (time(0) != synced && fdatasync(journal) == 0) synced = time(0);
    }
    return fdatasync(journal) != 0;
}
