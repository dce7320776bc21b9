/* Keeps programs running for as long as its standard input is open.
 *
 *   keep NAMES <FIFO            NAMES: lines of KEY, PIDFILE, FOLDER and words,
 *                               between tabs
 *
 * It starts each in FOLDER (-: here) and prints KEY and its PID. With a PIDFILE
 * the command has to end with 0, and the PID is that in the file, of a process that
 * the command left running. Without a PIDFILE (-) the command itself keeps running.
 * When all have been started it prints a line with a dot. At the end of its input it
 * ends them, and all processes that they have started.
 */
#include "common.h"

/* Returns the process that the file names, once it is a child of this process. */
static pid_t named(const char *path) {
    long long began = now();
    while (now() - began < 10000000000LL) {
        FILE *file = fopen(path, "r");
        siginfo_t info = {0};
        int pid = 0;
        if (file && fscanf(file, "%d", &pid) != 1) pid = 0;
        if (file) fclose(file);
        if (pid > 1 && waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && !info.si_pid) return pid;
        nap(5);
    }
    return 0;
}

/* Without this a program that was killed would still have its number, and monit would not
 * see its end. */
static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, 0, WNOHANG) > 0) {}
}

int main(int argc, char **argv) {
    char *words[WORDS], byte;
    int hold = dup(0);
    if (argc != 2) return fputs("usage: see keep.c\n", stderr), 2;
    if (hold < 0 || !freopen(argv[1], "r", stdin)) fail(argv[1]);
    fcntl(hold, F_SETFD, FD_CLOEXEC);
    adopt();
    while (next_line(words) > 3) {
        char *folder = strcmp(words[2], "-") ? words[2] : 0;
        int daemon = strcmp(words[1], "-");
        int status = 0;
        pid_t pid;
        words[3] = resolved(words[3]);
        pid = launch(words + 3, folder, -1);
        if (daemon && (waitpid(pid, &status, 0) != pid || status || !(pid = named(words[1])))) {
            fprintf(stderr, "bench: %s was not started\n", words[0]);
            end_children();
            return 1;
        }
        printf("%s\t%d\n", words[0], pid);
    }
    puts(".");
    fflush(stdout);
    signal(SIGCHLD, reap);
    while (read(hold, &byte, 1) > 0) {}
    end_children();
    return 0;
}
