/* Times whole processes: from before vfork until they were waited for.
 *
 *   process ROUNDS <LINES        each line WHAT, KEY and words, between tabs
 *
 *   time[/N] KEY COMMAND...      run once a round (or in every Nth), in another
 *                                order each round; prints KEY and ms
 *   rate/N KEY COMMAND...        the same; prints KEY and N a second
 *   before KEY COMMAND...        run before each run of KEY, not timed
 *   check KEY COMMAND...         run after it; prints KEY:check and 100 (it ended
 *                                with 0) or 0
 *   after KEY [COMMAND...]       run at last; then all remaining processes of KEY
 *                                are ended
 *
 * COMMAND has to end with 0.
 */
#include "common.h"

struct entry {
    char *key, *timed[WORDS], *before[WORDS], *check[WORDS], *after[WORDS];
    int every, ends;
    double amount;
};
static struct entry entries[LINES];
static int count;

static struct entry *entry_of(char *key) {
    for (int at = 0; at < count; at++)
        if (!strcmp(entries[at].key, key)) return entries + at;
    if (count == LINES) wrong("too many lines");
    entries[count].key = key;
    return entries + count++;
}

static void read_entries(void) {
    char *words[WORDS];
    int number;
    while ((number = next_line(words)) > 0) {
        struct entry *entry = entry_of(number > 1 ? words[1] : "?");
        char *what = words[0], *divided = strchr(what, '/'), **to = entry->timed;
        if (divided) *divided++ = 0;
        if (!strcmp(what, "before")) to = entry->before;
        else if (!strcmp(what, "check")) to = entry->check;
        else if (!strcmp(what, "after")) to = entry->after, entry->ends = 1;
        else if (!strcmp(what, "rate")) entry->amount = divided ? atof(divided) : 1, entry->every = 1;
        else entry->every = divided ? atoi(divided) : 1;
        if (number > 2) {
            memcpy(to, words + 2, (number - 1) * sizeof *words);
            to[0] = resolved(to[0]);
        }
    }
}

static void must(const char *key, char **argv) {
    int status = argv[0] ? ran(argv) : 0;
    if (status == 0) return;
    fprintf(stderr, "bench: %s: %s ended with %d\n", key, argv[0], status);
    end_children();
    exit(1);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 1;
    read_entries();
    adopt();
    for (int round = 0; round < rounds; round++) {
        int *order = shuffled(count);
        for (int turn = 0; turn < count; turn++) {
            struct entry *entry = entries + order[turn];
            long long began, took;
            if (!entry->timed[0] || round % entry->every) continue;
            must(entry->key, entry->before);
            began = now();
            must(entry->key, entry->timed);
            took = now() - began;
            if (entry->amount > 0) printf("%s\t%.1f\n", entry->key, entry->amount * 1e9 / took);
            else printf("%s\t%.4f\n", entry->key, took / 1e6);
            if (entry->check[0]) printf("%s:check\t%d\n", entry->key, ran(entry->check) ? 0 : 100);
            must(entry->key, entry->after);
            if (entry->ends) end_children();
        }
    }
    return 0;
}
