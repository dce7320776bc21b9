/* The least server: a line comes, a line of BYTES bytes goes back.
 *
 *   pingpong SOCKET BYTES         one client after the other: accept, read, write
 *   pingpong SOCKET BYTES poll    up to 16 at once, by poll(2)
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char answer[2048], request[2048];
static size_t bytes;

static int served(int fd) {
    return read(fd, request, sizeof request) > 0 && write(fd, answer, bytes) == (ssize_t)bytes;
}

static void each_in_turn(int listener) {
    for (;;) {
        int fd = accept(listener, 0, 0);
        while (served(fd)) {}
        close(fd);
    }
}

static void whoever_is_ready(int listener) {
    struct pollfd fds[17] = {{listener, POLLIN, 0}};
    int count = 1;
    for (;;) {
        int had = count;
        if (poll(fds, count, -1) < 0) exit(1);
        if (fds[0].revents && count < 17) fds[count++] = (struct pollfd){accept(listener, 0, 0), POLLIN, 0};
        for (int at = had - 1; at > 0; at--) {
            if (!fds[at].revents || served(fds[at].fd)) continue;
            close(fds[at].fd);
            fds[at] = fds[--count];
        }
    }
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc < 3 || (bytes = strtoul(argv[2], 0, 10)) < 2 || bytes > sizeof answer) return 2;
    memset(answer, 'x', bytes);
    answer[bytes - 1] = '\n';
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (bind(listener, (void *)&address, sizeof address) != 0 || listen(listener, 16) != 0) return 1;
    if (argc > 3) whoever_is_ready(listener);
    each_in_turn(listener);
    return 0;
}
