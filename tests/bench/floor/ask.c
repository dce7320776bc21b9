/* The least `status`: a connection, one request, one answer, which is printed.
 *
 *   ask SOCKET
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const char request[] = "status\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[2048];
    ssize_t length;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) return 2;
    strcpy(address.sun_path, argv[1]);
    if (connect(fd, (void *)&address, sizeof address) != 0) return 1;
    if (write(fd, request, sizeof request - 1) != sizeof request - 1) return 1;
    length = read(fd, answer, sizeof answer);
    return length <= 0 || write(1, answer, length) != length;
}
