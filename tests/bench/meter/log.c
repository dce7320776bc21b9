/* Measures loggers: the cost of passing lines of 100 bytes from a pipe to files.
 *
 *   log big|small ROUNDS LINES FOLDER <COMMANDS
 *
 * A line of COMMANDS is KEY and words, between tabs. Each COMMAND runs once a
 * round, in another order each round, in an empty FOLDER (but for svlogd's
 * `config`), and reads the lines from its standard input, 64 KiB or one line to a
 * write(2). Prints KEY and the CPU time of the logger for a line, in us, as the
 * kernel counted it until the logger ended; and KEY:rate and the lines a second.
 */
#include "common.h"

enum { LINE = 100, BLOCK = 65536, RING = 25 * BLOCK };
static char ring[RING]; /* whole lines, and whole blocks */

static double seconds(struct timeval t) {
    return t.tv_sec + t.tv_usec / 1e6;
}

/* Each line: its number, then filler. */
static void fill(void) {
    memset(ring, 'x', sizeof ring);
    for (long number = 0; number < RING / LINE; number++) {
        char digits[12];
        snprintf(digits, sizeof digits, "%010ld ", number);
        memcpy(ring + number * LINE, digits, 11);
        ring[number * LINE + LINE - 1] = '\n';
    }
}

static void write_all(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t count = write(fd, data, length);
        if (count <= 0) fail("the logger does not read");
        data += count;
        length -= count;
    }
}

static void empty(const char *folder) {
    char path[PATH];
    struct dirent *entry;
    DIR *names;
    FILE *config;
    mkdir(folder, 0700);
    names = opendir(folder);
    if (!names) fail(folder);
    while ((entry = readdir(names))) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    closedir(names);
    snprintf(path, sizeof path, "%s/config", folder);
    config = fopen(path, "w");
    if (!config) fail(path);
    fputs("s1000000\nn10\n", config);
    fclose(config);
}

static void measure(char *key, char **command, long count, int big) {
    size_t all = (size_t)count * LINE, step = big ? BLOCK : LINE;
    int ends[2], status;
    struct rusage usage;
    double took;
    long long began;
    pid_t pid;
    if (pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
    began = now();
    pid = launch(command, 0, ends[0]);
    close(ends[0]);
    for (size_t at = 0; at < all; at += step)
        write_all(ends[1], ring + at % RING, all - at < step ? all - at : step);
    close(ends[1]);
    if (wait4(pid, &status, 0, &usage) != pid || status != 0) fail(command[0]);
    took = (now() - began) / 1e9;
    printf("%s\t%.4f\n", key, (seconds(usage.ru_utime) + seconds(usage.ru_stime)) * 1e6 / count);
    printf("%s:rate\t%.0f\n", key, count / took);
}

int main(int argc, char **argv) {
    static char *commands[LINES][WORDS];
    int rounds, count = 0;
    if (argc != 5) return fputs("usage: see log.c\n", stderr), 2;
    signal(SIGPIPE, SIG_IGN);
    rounds = atoi(argv[2]);
    while (count < LINES && next_line(commands[count]) > 1) {
        commands[count][1] = resolved(commands[count][1]);
        count++;
    }
    fill();
    for (int round = 0; round < rounds; round++) {
        int *order = shuffled(count);
        for (int turn = 0; turn < count; turn++) {
            char **command = commands[order[turn]];
            empty(argv[4]);
            measure(command[0], command + 1, atol(argv[3]), !strcmp(argv[1], "big"));
        }
    }
    empty(argv[4]);
    return 0;
}
