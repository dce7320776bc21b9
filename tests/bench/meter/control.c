/* A client of control sockets.
 *
 *   control trips ROUNDS COUNT <LINES     round trips, in us: lines of KEY, HOW and
 *                                         a socket or file, between tabs. Each round
 *                                         makes COUNT of each, in another order
 *       one    `status` over one connection
 *       each   a connection for each `status`
 *       file   open, read, close
 *       monit, supervisord   their answers to the same question, a connection for
 *                                         each, a tenth of COUNT
 *   control load SECONDS CLIENTS SOCKET DEPTH   jobs acknowledged a second, with
 *                                         DEPTH requests sent ahead by each client
 *   control hold CLIENTS SOCKET           keeps as many connections until the end of
 *                                         the input. All ask for `status` (it prints
 *                                         `asked`), and after the first byte of input
 *                                         for a page of the queue (`listed`)
 *   control jobs COUNT SOCKET QUEUE       appends COUNT lines to QUEUE; prints
 *                                         `whole` and the jobs a second until the last
 *                                         has run, `steady` and those since the first
 *   control ask SOCKET                    prints the answer to `status`
 */
#include "common.h"

static const char rpc[] = "<?xml version='1.0'?><methodCall><methodName>supervisor.getAllProcessInfo"
                          "</methodName><params></params></methodCall>";

static int connected(const char *path) {
    int fd = try_connect(path);
    if (fd < 0) fail(path);
    return fd;
}

static void http(const char *path, const char *request) {
    char answer[16384];
    int fd = connected(path);
    ssize_t count = write(fd, request, strlen(request)), all = 0;
    while (count > 0 && (count = read(fd, answer, sizeof answer)) > 0) all += count;
    if (all < 100) fail(path);
    close(fd);
}

static void trips(const char *how, const char *path, int count) {
    char answer[2048], request[512] = "GET /_status?format=text HTTP/1.0\r\n\r\n";
    if (!strcmp(how, "one")) {
        int fd = connected(path);
        while (count--)
            if (asked(fd, "status\n", answer, sizeof answer) < 10) fail(path);
        close(fd);
    } else if (!strcmp(how, "each"))
        while (count--) {
            int fd = connected(path);
            if (asked(fd, "status\n", answer, sizeof answer) < 10) fail(path);
            close(fd);
        }
    else if (!strcmp(how, "file"))
        while (count--) {
            int fd = open(path, O_RDONLY);
            if (read(fd, answer, sizeof answer) < 10) fail(path);
            close(fd);
        }
    else {
        if (strcmp(how, "monit"))
            snprintf(request, sizeof request,
                     "POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof rpc - 1, rpc);
        while (count--) http(path, request);
    }
}

static void all_trips(int rounds, int count) {
    static char *lines[LINES][WORDS];
    int number = 0;
    while (number < LINES && next_line(lines[number]) == 3) number++;
    /* Each subject answers before the first sample, so that none is cold. */
    for (int at = 0; at < number; at++) trips(lines[at][1], lines[at][2], 10);
    for (int round = 0; round < rounds; round++) {
        int *order = shuffled(number);
        for (int turn = 0; turn < number; turn++) {
            char **line = lines[order[turn]];
            int some = line[1][0] == 'm' || line[1][0] == 's' ? count / 10 : count;
            long long began = now();
            trips(line[1], line[2], some);
            printf("%s\t%.3f\n", line[0], (now() - began) / 1e3 / some);
        }
    }
}

static void load(double seconds, int clients, const char *path, int depth) {
    static const char request[] = "queue a job of some thirty bytes\n";
    struct pollfd *fds = calloc(clients, sizeof *fds);
    char answers[4096];
    long long began;
    double count = 0;
    for (int i = 0; i < clients; i++) fds[i] = (struct pollfd){connected(path), POLLIN, 0};
    began = now();
    for (int i = 0; i < clients; i++)
        for (int n = 0; n < depth; n++)
            if (write(fds[i].fd, request, sizeof request - 1) < 0) fail("write");
    while (now() - began < seconds * 1e9) {
        if (poll(fds, clients, 5000) <= 0) fail("poll");
        for (int i = 0; i < clients; i++) {
            char batch[sizeof request * 128];
            size_t length = 0;
            ssize_t got;
            if (!fds[i].revents) continue;
            got = read(fds[i].fd, answers, sizeof answers);
            if (got <= 0 || answers[0] != 'o') wrong("a job was refused");
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
    printf("%.1f\n", count * 1e9 / (now() - began));
}

/* Requests a page of the queue, and reads all of it. */
static void list(int fd) {
    char page[4096];
    long expected = 0, lines = 0;
    if (write(fd, "list waiting\n", 13) != 13) fail("list");
    while (lines <= expected) {
        ssize_t count = read(fd, page, sizeof page - 1);
        if (count <= 0) fail("list");
        page[count] = 0;
        if (!lines) expected = field(page, "ok ");
        for (ssize_t at = 0; at < count; at++) lines += page[at] == '\n';
    }
}

static void hold(int clients, const char *path) {
    int *fds = calloc(clients, sizeof *fds);
    char answer[2048], byte;
    for (int i = 0; i < clients; i++)
        if (asked(fds[i] = connected(path), "status\n", answer, sizeof answer) < 10) fail("status");
    puts("asked");
    fflush(stdout);
    if (read(0, &byte, 1) != 1) return;
    for (int i = 0; i < clients; i++) list(fds[i]);
    puts("listed");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) {}
}

static long jobs_ended(int fd) {
    char answer[2048];
    if (asked(fd, "status\n", answer, sizeof answer) < 10) fail("status");
    return field(answer, " jobs=");
}

static void jobs(long count, const char *path, const char *queue) {
    int fd = connected(path), file = open(queue, O_WRONLY | O_CREAT | O_APPEND, 0600);
    long before = jobs_ended(fd), first = 0, ended = before;
    char *lines = malloc(count * 4);
    long long began, since = 0, last;
    if (file < 0 || !lines) fail(queue);
    for (long at = 0; at < count; at++) memcpy(lines + at * 4, "job\n", 4);
    last = began = now();
    if (write(file, lines, count * 4) != count * 4) fail(queue);
    while (ended - before < count) {
        /* The questions are rare enough not to change the result. */
        nap(4);
        ended = jobs_ended(fd);
        last = now();
        if (!first && ended > before) first = ended, since = last;
        if (last - began > 60000000000LL) wrong("the jobs do not end");
    }
    printf("whole\t%.1f\n", count * 1e9 / (last - began));
    if (ended > first) printf("steady\t%.1f\n", (ended - first) * 1e9 / (last - since));
}

static void ask(const char *path) {
    char answer[2048];
    if (asked(connected(path), "status\n", answer, sizeof answer) < 10) fail("status");
    fputs(answer, stdout);
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "trips") && argc == 4) all_trips(atoi(argv[2]), atoi(argv[3]));
    else if (!strcmp(mode, "load") && argc == 6) load(atof(argv[2]), atoi(argv[3]), argv[4], atoi(argv[5]));
    else if (!strcmp(mode, "hold") && argc == 4) hold(atoi(argv[2]), argv[3]);
    else if (!strcmp(mode, "jobs") && argc == 5) jobs(atol(argv[2]), argv[3], argv[4]);
    else if (!strcmp(mode, "ask") && argc == 3) ask(argv[2]);
    else return fputs("usage: see control.c\n", stderr), 2;
    return 0;
}
