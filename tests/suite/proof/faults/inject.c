/* Runs a program and has one of its system calls fail.
 *
 *   inject -r REPORT [-w] [-s CALL -k K -a ACTION] -- PROGRAM ARG...
 *
 * CALL is a number or one of the names below. Calls are counted for all
 * processes together that the first one forks. One that executes a program, be it
 * the same, is let go at its exec. Of the calls about processes in /proc, of which
 * there are as many as the machine has, each kind counts eight times. The K-th
 * CALL gets the ACTION:
 *
 *   ERRNO   a number: the call is not executed and fails with it (close is
 *           executed: a descriptor is gone whatever close says)
 *   short   half of the bytes are asked for, so that less is really done
 *   cut     of a recvmsg: the descriptor that comes along is lost, as it is for a
 *           process that may have no more of them (MSG_CTRUNC)
 *   kill    the process is killed before the call
 *
 * An errno that the kernel cannot give for that descriptor is not injected:
 * EAGAIN where calls block, EINTR where they do not, errors of a disk for
 * what is on no disk, and of locks and new descriptors for other commands of
 * fcntl(2). A message of a socket that keeps them whole is not made shorter.
 *
 * With -w nothing is counted before SIGUSR2; nothing is after SIGUSR1.
 * REPORT gets lines: `exit CODE` when the first process ends (128 and the
 * number of a signal), `fired ...` with what the call was about, and at the end
 * `count CALL N` for each kind, and `done`. The tracer runs until all processes
 * have ended; they die with it (PTRACE_O_EXITKILL), and it with its parent.
 *
 * ptrace(2), x86_64 only. Signals are handed on as they come, stops of a whole
 * group too, so the program runs as it does alone, only more slowly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __x86_64__
#error "the registers of x86_64 are named here"
#endif

#define CALLS_MAX 512
#define PROCESSES_MAX 64
#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE \
                 | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

/* The kind of a call's first arguments, for the report: a descriptor, a path, or
 * a path after a directory's descriptor. */
enum shape { OTHER, FD, PATH, AT };

static const struct { const char *name; int number; enum shape shape; } calls[] = {
#define CALL(name, shape) { #name, SYS_##name, shape }
    CALL(read, FD), CALL(write, FD), CALL(pread64, FD), CALL(pwrite64, FD), CALL(close, FD),
    CALL(openat, AT), CALL(renameat, AT), CALL(renameat2, AT), CALL(unlinkat, AT), CALL(mkdirat, AT), CALL(faccessat, AT),
    CALL(faccessat2, AT), CALL(newfstatat, AT), CALL(fchmodat, AT), CALL(fchownat, AT), CALL(readlinkat, AT),
    CALL(statx, AT), CALL(openat2, AT), CALL(fstat, FD), CALL(fchmod, FD), CALL(fchown, FD), CALL(ftruncate, FD), CALL(fallocate, FD), CALL(fdatasync, FD),
    CALL(fsync, FD), CALL(getdents64, FD), CALL(lseek, FD), CALL(fcntl, FD), CALL(ioctl, FD), CALL(fstatfs, FD),
    CALL(statfs, PATH), CALL(chdir, PATH), CALL(execve, PATH), CALL(access, PATH), CALL(stat, PATH), CALL(lstat, PATH), CALL(chmod, PATH), CALL(chown, PATH), CALL(lchown, PATH),
    CALL(inotify_init1, OTHER), CALL(inotify_add_watch, FD), CALL(pipe2, OTHER), CALL(dup2, FD), CALL(dup3, FD),
    CALL(close_range, OTHER), CALL(socket, OTHER), CALL(bind, FD), CALL(listen, FD), CALL(connect, FD),
    CALL(accept4, FD), CALL(sendto, FD), CALL(sendmsg, FD), CALL(recvfrom, FD), CALL(recvmsg, FD), CALL(shutdown, FD),
    CALL(getsockopt, FD), CALL(setsockopt, FD), CALL(poll, OTHER), CALL(ppoll, OTHER), CALL(fork, OTHER),
    CALL(vfork, OTHER), CALL(clone, OTHER), CALL(wait4, OTHER), CALL(waitid, OTHER), CALL(kill, OTHER),
    CALL(pidfd_open, OTHER), CALL(pidfd_send_signal, FD), CALL(setsid, OTHER), CALL(setpgid, OTHER), CALL(getpgid, OTHER),
    CALL(prctl, OTHER), CALL(madvise, OTHER), CALL(getcwd, OTHER), CALL(rt_sigaction, OTHER),
    CALL(rt_sigprocmask, OTHER), CALL(umask, OTHER), CALL(prlimit64, OTHER), CALL(getrlimit, OTHER), CALL(exit_group, OTHER),
    CALL(rt_sigreturn, OTHER), CALL(getpid, OTHER), CALL(getppid, OTHER), CALL(getsid, OTHER), CALL(getuid, OTHER),
    CALL(geteuid, OTHER), CALL(getgid, OTHER), CALL(getegid, OTHER), CALL(clock_gettime, OTHER),
    CALL(arch_prctl, OTHER), CALL(clock_nanosleep, OTHER), CALL(nanosleep, OTHER), CALL(uname, OTHER),
    CALL(setgroups, OTHER), CALL(setresuid, OTHER), CALL(setresgid, OTHER), CALL(socketpair, OTHER),
    CALL(chroot, PATH), CALL(setrlimit, OTHER),
#undef CALL
};

struct process {
    pid_t pid;
    char role[16];        /* '0' is the first; a child adds f (fork) or c (clone) */
    int held;             /* it stopped before the report of its parent's fork, and waits for that */
    int changed;          /* the running call got the action */
    long long result;     /* the result of the running call, or 1 for none */
    unsigned long long rdx; /* the third argument of the running call as it was */
    unsigned long long cut; /* the address of the call's struct msghdr, if its descriptor is to be lost */
};

static struct process processes[PROCESSES_MAX];
static unsigned long counts[CALLS_MAX];
static volatile sig_atomic_t counting = 1;
static int started, report_fd, wanted = -1, error, is_short, is_kill, is_cut;
static unsigned long wanted_count;
static unsigned proc_counts[CALLS_MAX];
static char program[PATH_MAX];

static void die(const char *what) {
    perror(what);
    exit(125);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    char line[PATH_MAX + 256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2)
        length = sizeof line - 2;
    line[length++] = '\n';
    if (write(report_fd, line, length) != length)
        die("report");
}

static int call_of(long number) {
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].number == number)
            return (int)i;
    return -1;
}

static struct process *find(pid_t pid) {
    for (struct process *p = processes; p < processes + PROCESSES_MAX; p++)
        if (p->pid == pid)
            return p;
    return NULL;
}

/* The entry of a process, made if it is new. */
static struct process *meet(pid_t pid) {
    struct process *p = find(pid);
    if (!p && (p = find(0))) {
        memset(p, 0, sizeof *p);
        p->pid = pid;
    }
    if (!p)
        die("too many processes");
    return p;
}

static void name_child(struct process *parent, pid_t pid, char how) {
    struct process *child = meet(pid);
    snprintf(child->role, sizeof child->role, "%.13s%c", parent->role, how);
    if (child->held)
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
    child->held = 0;
}

/* Describes the object of a call: the name that its descriptor has, or its path. */
static void describe(pid_t pid, enum shape shape, const unsigned long long *arguments, char *out, size_t size) {
    char link[64];
    *out = 0;
    if (shape == FD) {
        snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, (int)arguments[0]);
        ssize_t length = readlink(link, out, size - 1);
        out[length < 0 ? 0 : length] = 0;
    } else if (shape == PATH || shape == AT) {
        /* The read ends at the end of the page, because the next page may not exist. */
        uintptr_t at = arguments[shape == AT];
        size_t most = 4096 - at % 4096;
        struct iovec here = { out, most < size ? most : size - 1 }, there = { (void *)at, here.iov_len };
        ssize_t length = process_vm_readv(pid, &here, 1, &there, 1, 0);
        out[length < 0 ? 0 : length] = 0;
        for (char *c = out; *c; c++)
            if (*c == '\n' || *c == ' ')
                *c = '?';
    }
}

/* Whether the descriptor is a socket that keeps messages whole. */
static int keeps_messages(pid_t pid, int fd) {
    int type = 0, process = (int)syscall(SYS_pidfd_open, pid, 0);
    socklen_t length = sizeof type;
    int copy = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, fd, 0);
    if (copy >= 0 && getsockopt(copy, SOL_SOCKET, SO_TYPE, &type, &length) < 0)
        type = 0;
    close(copy);
    close(process);
    return type == SOCK_SEQPACKET || type == SOCK_DGRAM;
}

/* Reads or writes the struct msghdr of a process. */
static int move_header(pid_t pid, unsigned long long at, struct msghdr *header, int writes) {
    struct iovec here = { header, sizeof *header }, there = { (void *)(uintptr_t)at, sizeof *header };
    ssize_t length = writes ? process_vm_writev(pid, &here, 1, &there, 1, 0)
                            : process_vm_readv(pid, &here, 1, &there, 1, 0);
    return length == (ssize_t)sizeof *header;
}

/* Whether the kernel could give `error` to a call on this descriptor. */
static int is_plausible(pid_t pid, int call, const unsigned long long *arguments) {
    char path[64], line[128];
    struct stat stat;
    struct msghdr header;
    int flags = 0;
    if (calls[call].shape != FD)
        return 1;
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", pid, (int)arguments[0]);
    FILE *info = fopen(path, "re");
    while (info && fgets(line, sizeof line, info))
        sscanf(line, "flags: %o", (unsigned *)&flags);
    if (info)
        fclose(info);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, (int)arguments[0]);
    if (!info || fstatat(AT_FDCWD, path, &stat, 0) < 0)
        return 0;
    int on_disk = S_ISREG(stat.st_mode) || S_ISDIR(stat.st_mode);
    switch (error) {
    case EAGAIN:
        if (calls[call].number == SYS_sendto || calls[call].number == SYS_recvfrom)
            return (flags & O_NONBLOCK) || (arguments[3] & MSG_DONTWAIT);
        if (calls[call].number == SYS_sendmsg || calls[call].number == SYS_recvmsg)
            return (flags & O_NONBLOCK) || (arguments[2] & MSG_DONTWAIT);
        return !on_disk && (flags & O_NONBLOCK);
    case EINTR:
        return on_disk || !(flags & O_NONBLOCK);
    case ENOSPC:
        return on_disk || calls[call].number == SYS_inotify_add_watch || calls[call].number == SYS_bind;
    case EIO:
    case EDQUOT:
    case EROFS:
        return on_disk || calls[call].number == SYS_bind;
    case ENOLCK:
        return arguments[1] == F_SETLK || arguments[1] == F_SETLKW || arguments[1] == F_GETLK;
    case EMFILE:
    case ENOMEM:
        return calls[call].number != SYS_fcntl || arguments[1] == F_DUPFD || arguments[1] == F_DUPFD_CLOEXEC
               || (error == ENOMEM && arguments[1] == F_SETLK);
    case ETOOMANYREFS:
        return move_header(pid, arguments[1], &header, 0) && header.msg_controllen > 0;
    default:
        return 1;
    }
}

static int takes_bytes(long number) {
    return number == SYS_read || number == SYS_write || number == SYS_pread64 || number == SYS_pwrite64
           || number == SYS_sendto || number == SYS_recvfrom;
}

/* The K-th call is about to be executed. */
static void act(struct process *p, int call) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, p->pid, NULL, &registers) < 0)
        return;
    unsigned long long arguments[4] = { registers.rdi, registers.rsi, registers.rdx, registers.r10 };
    char about[PATH_MAX];
    describe(p->pid, calls[call].shape, arguments, about, sizeof about);
    long number = calls[call].number;
    if (is_cut) {
        /* Whether there is a descriptor is known afterwards. */
        struct msghdr header;
        if (number == SYS_recvmsg && move_header(p->pid, arguments[1], &header, 0)) {
            header.msg_controllen = 0;
            p->changed = move_header(p->pid, arguments[1], &header, 1);
            p->cut = arguments[1];
        }
        return;
    }
    int fits = is_short ? takes_bytes(number) && registers.rdx > 1
                              && !keeps_messages(p->pid, (int)arguments[0])
                        : is_kill || is_plausible(p->pid, call, arguments);
    say("%s %s role=%s %s", fits ? "fired" : "unfit", calls[call].name, p->role, about);
    if (!fits)
        return;
    p->result = 1;
    p->rdx = registers.rdx;
    if (is_short) {
        registers.rdx /= 2;
    } else {
        p->result = -error;
        if (number != SYS_close)
            registers.orig_rax = -1;
    }
    p->changed = !is_kill;
    ptrace(PTRACE_SETREGS, p->pid, NULL, &registers);
    if (is_kill)
        kill(p->pid, SIGKILL);
}

/* The changed call has returned. */
static void undo(struct process *p) {
    struct user_regs_struct registers;
    p->changed = 0;
    if (p->cut) {
        struct msghdr header;
        int lost = move_header(p->pid, p->cut, &header, 0) && (header.msg_flags & MSG_CTRUNC);
        say("%s recvmsg role=%s", lost ? "fired" : "unfit", p->role);
        p->cut = 0;
        return;
    }
    if (ptrace(PTRACE_GETREGS, p->pid, NULL, &registers) < 0)
        return;
    if (p->result <= 0)
        registers.rax = p->result;
    registers.rdx = p->rdx;
    ptrace(PTRACE_SETREGS, p->pid, NULL, &registers);
}

/* Whether a call is one more about a process in /proc. */
static int is_boring(pid_t pid, long number, const unsigned long long *arguments) {
    char about[PATH_MAX];
    int call = call_of(number);
    if (call < 0 || calls[call].shape == OTHER)
        return 0;
    describe(pid, calls[call].shape, arguments, about, sizeof about);
    return strncmp(about, "/proc/", 6) == 0 && about[6] >= '0' && about[6] <= '9' && ++proc_counts[number] > 8;
}

static void on_call(struct process *p) {
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, p->pid, sizeof info, &info) < 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && p->changed)
        undo(p);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || !counting || !started || info.entry.nr >= CALLS_MAX)
        return;
    unsigned long long arguments[2] = { info.entry.args[0], info.entry.args[1] };
    if (is_boring(p->pid, info.entry.nr, arguments))
        return;
    unsigned long count = ++counts[info.entry.nr];
    if ((int)info.entry.nr == wanted && count == wanted_count)
        act(p, call_of(wanted));
}

/* A process stopped: what it is continued with, or -1 if it is let go. */
static int on_stop(struct process *p, int status, int *request) {
    int signal = WSTOPSIG(status), event = status >> 16;
    unsigned long message = 0;
    *request = PTRACE_SYSCALL;
    if (signal == (SIGTRAP | 0x80)) {
        on_call(p);
        return 0;
    }
    switch (event) {
    case 0:
        return signal;
    case PTRACE_EVENT_STOP:
        /* A new process, or one that a signal stopped, which stays so. */
        if (signal != SIGTRAP)
            *request = PTRACE_LISTEN;
        return 0;
    case PTRACE_EVENT_EXEC:
        if (p->role[1])
            *request = PTRACE_DETACH;
        started = 1;
        return 0;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
        if (ptrace(PTRACE_GETEVENTMSG, p->pid, NULL, &message) == 0)
            name_child(p, (pid_t)message, event == PTRACE_EVENT_FORK ? 'f' : 'c');
        return 0;
    default:
        return 0;
    }
}

static void follow(pid_t first) {
    int status, request;
    pid_t pid;
    while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
        if (pid < 0)
            continue;
        struct process *p = meet(pid);
        if (WIFSTOPPED(status) && !*p->role) {
            p->held = 1;
            continue;
        }
        if (WIFSTOPPED(status)) {
            int signal = on_stop(p, status, &request);
            /* The process may have been killed meanwhile. */
            ptrace(request, pid, NULL, (void *)(long)signal);
            if (request == PTRACE_DETACH)
                p->pid = 0;
            continue;
        }
        if (pid == first)
            say("exit %d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        p->pid = 0;
    }
}

static void on_signal(int number) {
    counting = number == SIGUSR2;
}

static void parse(int argc, char **argv) {
    int option;
    const char *report = NULL, *action = NULL;
    while ((option = getopt(argc, argv, "+r:ws:k:a:")) != -1) {
        switch (option) {
        case 'r': report = optarg; break;
        case 'w': counting = 0; break;
        case 'k': wanted_count = strtoul(optarg, NULL, 10); break;
        case 'a': action = optarg; break;
        case 's':
            wanted = atoi(optarg);
            for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
                if (strcmp(optarg, calls[i].name) == 0)
                    wanted = calls[i].number;
            break;
        default: exit(125);
        }
    }
    if (!report || optind >= argc || (wanted >= 0 && (!action || call_of(wanted) < 0)))
        exit(125);
    if (action) {
        is_short = strcmp(action, "short") == 0;
        is_kill = strcmp(action, "kill") == 0;
        is_cut = strcmp(action, "cut") == 0;
        error = atoi(action);
    }
    report_fd = open(report, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (report_fd < 0 || !realpath(argv[optind], program))
        die(argv[optind]);
}

int main(int argc, char **argv) {
    int gate[2];
    char byte;
    parse(argc, argv);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (pipe2(gate, O_CLOEXEC) < 0)
        die("pipe2");
    pid_t first = fork();
    if (first < 0)
        die("fork");
    if (first == 0) {
        close(gate[1]);
        if (read(gate[0], &byte, 1) == 1)
            execv(program, argv + optind);
        _exit(126);
    }
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    if (ptrace(PTRACE_SEIZE, first, NULL, (void *)OPTIONS) < 0) {
        kill(first, SIGKILL);
        die("PTRACE_SEIZE");
    }
    strcpy(meet(first)->role, "0");
    if (ptrace(PTRACE_INTERRUPT, first, NULL, NULL) < 0 || write(gate[1], "", 1) != 1)
        die("start");
    /* The tracer keeps no copy of the program's outputs, so that they end with the program. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    follow(first);
    for (int number = 0; number < CALLS_MAX; number++)
        if (counts[number] && call_of(number) >= 0)
            say("count %s %lu", calls[call_of(number)].name, counts[number]);
        else if (counts[number])
            say("count %d %lu", number, counts[number]);
    say("done");
    return 0;
}
