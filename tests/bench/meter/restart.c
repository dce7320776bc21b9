/* Measures how soon a killed program runs again.
 *
 *   restart child|socket ROUNDS FOLDER <COMMANDS
 *   restart kept ROUNDS FOLDER <FIFOS
 *
 * A line of COMMANDS is KEY and words, between tabs, in which % stands for a
 * folder below FOLDER, a new one each round. A round starts them all, lets the
 * supervised programs live for 1.2 s or more, and kills these by signal 9, one after
 * the other, in another order each round. Prints KEY and ms.
 *
 * child: %/run is this program; it reports its begin by a FIFO. The time ends at its
 *        first line of main().
 * socket: the service `jobs` in that folder; the time ends when it answers `status`.
 * kept: other programs have started FOLDER/NAME/run, which is this program. A line of
 *        FIFOS is KEY and FOLDER/NAME/stamps. Each is killed once.
 *
 * Several supervisors delay the restart of what died within a second of its
 * start, and zigsvc from the second death within 10 s on. Therefore each sample has a
 * supervisor of its own. s6-supervise waits a second in any case.
 */
#include "common.h"
#include <sys/inotify.h>

struct stamp {
    pid_t pid;
    long long at;
};
struct ward {
    char *words[WORDS], *argv[WORDS], folder[PATH];
    int fifo;
    pid_t pid;
};
static struct ward wards[LINES];

static int child(void) {
    struct stamp own = {getpid(), now()};
    const char *stamps = getenv("STAMPS");
    char path[PATH + 16] = "";
    int fifo;
    if (!stamps) {
        if (readlink("/proc/self/exe", path, PATH) < 4) return 1;
        strcpy(path + strlen(path) - strlen("run"), "stamps");
        stamps = path;
    }
    fifo = open(stamps, O_WRONLY);
    if (fifo < 0 || write(fifo, &own, sizeof own) != sizeof own) return 1;
    for (;;) pause();
}

static struct stamp stamped(struct ward *ward) {
    struct stamp got;
    struct pollfd ready = {ward->fifo, POLLIN, 0};
    if (poll(&ready, 1, 20000) != 1 || read(ward->fifo, &got, sizeof got) != sizeof got) {
        end_children();
        wrong(ward->words[0]);
    }
    return got;
}

/* Returns the process that answers, unless it is `old`. */
static struct stamp answered(struct ward *ward, pid_t old) {
    char path[PATH + 16], answer[1200];
    long long began = now();
    struct timeval patience = {1, 0};
    snprintf(path, sizeof path, "%s/zigsvc.sock", ward->folder);
    while (now() - began < 20000000000LL) {
        int fd = try_connect(path);
        if (fd >= 0) {
            pid_t pid = 0;
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
            if (asked(fd, "status\n", answer, sizeof answer) > 0) pid = field(answer, "pid=");
            close(fd);
            if (pid > 1 && pid != old) return (struct stamp){pid, now()};
        }
        usleep(50);
    }
    end_children();
    wrong(ward->words[0]);
    return (struct stamp){0, 0};
}

/* Sleeps until the socket is made again, because repeated questions would take the
 * processor from the programs that start. */
static void wait_for_socket(int events) {
    char found[4096];
    struct pollfd ready = {events, POLLIN, 0};
    while (poll(&ready, 1, 20000) == 1) {
        ssize_t count = read(events, found, sizeof found);
        for (char *at = found; at < found + count;) {
            struct inotify_event *event = (struct inotify_event *)at;
            if (event->len && !strcmp(event->name, "zigsvc.sock")) return;
            at += sizeof *event + event->len;
        }
    }
    wrong("there is no new socket");
}

/* Copies this program to a place from which it can be linked into the folders of the
 * children. */
static void copy_own(const char *path) {
    static char bytes[1 << 20];
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
    ssize_t count = read(from, bytes, sizeof bytes);
    if (count <= 0 || write(to, bytes, count) != count) fail(path);
    close(from);
    close(to);
}

static void begin(struct ward *ward, const char *below, int round, int sockets) {
    char path[PATH + 16], own[PATH];
    snprintf(own, sizeof own, "%s/run", below);
    snprintf(ward->folder, sizeof ward->folder, "%s/%d-%s", below, round, ward->words[0]);
    if (mkdir(ward->folder, 0700) != 0) fail(ward->folder);
    if (!sockets) {
        snprintf(path, sizeof path, "%s/run", ward->folder);
        if (link(own, path) != 0) fail(path);
        snprintf(path, sizeof path, "%s/stamps", ward->folder);
        /* It is opened for reading and writing, so that no open(2) waits, and no
         * close(2) of a writer ends it. */
        if (mkfifo(path, 0600) != 0 || (ward->fifo = open(path, O_RDWR | O_CLOEXEC)) < 0) fail(path);
        setenv("STAMPS", path, 1);
    }
    for (int at = 1;; at++) {
        char word[PATH * 2], *word_at = ward->words[at], *sign = word_at ? strchr(word_at, '%') : 0;
        if (sign) {
            snprintf(word, sizeof word, "%.*s%s%s", (int)(sign - word_at), word_at, ward->folder, sign + 1);
            word_at = strdup(word);
        }
        ward->argv[at - 1] = word_at;
        if (!word_at) break;
    }
    launch(ward->argv, ward->folder, -1);
    if (!sockets) ward->pid = stamped(ward).pid;
    else ward->pid = answered(ward, 0).pid;
}

static void sample(struct ward *ward, int sockets) {
    struct stamp again;
    long long killed;
    int events = inotify_init1(IN_CLOEXEC);
    if (sockets && inotify_add_watch(events, ward->folder, IN_CREATE | IN_MOVED_TO) < 0) fail("inotify");
    killed = now();
    if (kill(ward->pid, SIGKILL) != 0) fail("kill");
    if (sockets) wait_for_socket(events);
    again = sockets ? answered(ward, ward->pid) : stamped(ward);
    close(events);
    printf("%s\t%.4f\n", ward->words[0], (again.at - killed) / 1e6);
    nap(100);
}

/* Kills each of the programs that others keep running, in another order each time. */
static int sample_kept(void) {
    int count = 0, *order;
    while (count < LINES && next_line(wards[count].words) > 1) {
        if ((wards[count].fifo = open(wards[count].words[1], O_RDWR | O_CLOEXEC)) < 0) fail(wards[count].words[1]);
        count++;
    }
    for (int at = 0; at < count; at++) wards[at].pid = stamped(wards + at).pid;
    nap(1200);
    order = shuffled(count);
    for (int turn = 0; turn < count; turn++) {
        struct ward *ward = wards + order[turn];
        long long killed = now();
        if (kill(ward->pid, SIGKILL) != 0) fail("kill");
        printf("%s\t%.4f\n", ward->words[0], (stamped(ward).at - killed) / 1e6);
        nap(20);
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/');
    int rounds, sockets, count = 0;
    if (!strcmp(name ? name + 1 : argv[0], "run")) return child();
    if (argc != 4) return fputs("usage: see restart.c\n", stderr), 2;
    if (!strcmp(argv[1], "kept")) return sample_kept();
    sockets = !strcmp(argv[1], "socket");
    rounds = atoi(argv[2]);
    while (count < LINES && next_line(wards[count].words) > 1) {
        wards[count].words[1] = resolved(wards[count].words[1]);
        count++;
    }
    adopt();
    if (!sockets) {
        char path[PATH];
        snprintf(path, sizeof path, "%s/run", argv[3]);
        copy_own(path);
    }
    for (int round = 0; round < rounds; round++) {
        int *order = shuffled(count);
        for (int at = 0; at < count; at++) begin(wards + at, argv[3], round, sockets);
        nap(1200);
        for (int turn = 0; turn < count; turn++) sample(wards + order[turn], sockets);
        end_children();
        for (int at = 0; at < count && !sockets; at++) close(wards[at].fifo);
    }
    return 0;
}
