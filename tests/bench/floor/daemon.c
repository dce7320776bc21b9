/* The least start: two forks, a session, a PID file under a lock, and a pipe that
 * reports to the waiting process.
 *
 *   daemon PIDFILE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int serve(const char *path, int tell) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char digits[12], *at = digits + sizeof digits;
    int null = open("/dev/null", O_RDWR), file;
    umask(027);
    if (chdir("/") != 0) return 1;
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    close(null);
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0 || fcntl(file, F_SETLK, &lock) != 0 || ftruncate(file, 0) != 0) return 1;
    *--at = '\n';
    for (pid_t pid = getpid(); pid > 0; pid /= 10) *--at = '0' + pid % 10;
    if (write(file, at, digits + sizeof digits - at) < 0 || write(tell, "+", 1) != 1) return 1;
    close(tell);
    for (;;) pause();
}

int main(int argc, char **argv) {
    int ends[2];
    char told;
    if (argc != 2 || pipe2(ends, O_CLOEXEC) != 0) return 2;
    switch (fork()) {
    case -1: return 1;
    case 0:
        setsid();
        switch (fork()) {
        case -1: return 1;
        case 0: return serve(argv[1], ends[1]);
        default: _exit(0);
        }
    default:
        close(ends[1]);
        return read(ends[0], &told, 1) == 1 ? 0 : 1;
    }
}
