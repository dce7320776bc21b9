/* The least supervisor: fork, exec and waitpid in a loop.
 *
 *   supervisor PROGRAM [ARG...]
 */
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    while (argc > 1) {
        pid_t pid = fork();
        if (pid == 0) {
            execv(argv[1], argv + 1);
            _exit(127);
        }
        if (pid < 0 || waitpid(pid, 0, 0) != pid) return 1;
    }
    return 2;
}
