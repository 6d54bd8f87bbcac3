/*
 * manager - starts a VM and connects to its monitor exactly once. Copy it into a manager of yours. fd_handoff.c shows
 * more: a second socket passed over the running monitor, a start that fails. Plain POSIX: a manager needs no
 * chardev.h.
 *
 *     build/manager build/tinyvm -chardev socket,id=mon,fd=3,server=on,wait=off -mon chardev=mon,mode=control
 *
 * It prints the monitor's greeting and sends quit. The exit status is the VM's; 1 when there was no greeting.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VM_FD = 3 };

static int failed(const char *what) { return perror(what), 1; }

/* In the child: the listener becomes descriptor 3. dup2() clears FD_CLOEXEC on it; not needed when it is 3 already. */
static void exec_vm(char **command, int listener)
{
    if (listener != VM_FD && (dup2(listener, VM_FD) < 0 || close(listener) < 0)) _exit(126);
    execvp(command[0], command);
    perror(command[0]);
    _exit(127);
}

int main(int argc, char **argv)
{
    static const char  quit[] = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n";
    char               directory[] = "/tmp/manager.XXXXXX", text[4096];
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int                listener, monitor, status;
    ssize_t            n = 0;
    pid_t              vm;

    if (argc < 2) return fprintf(stderr, "usage: manager VM ARGUMENTS...\n"), 2;
    if (!mkdtemp(directory)) return failed("mkdtemp"); /* only its owner may enter */
    snprintf(address.sun_path, sizeof address.sun_path, "%s/monitor", directory);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
        return failed(address.sun_path);
    if ((vm = fork()) < 0) return failed("fork");
    if (vm == 0) exec_vm(argv + 1, listener);
    close(listener); /* The VM has the only copy: when it ends, connect() is refused or read() reports EOF. */

    monitor = socket(AF_UNIX, SOCK_STREAM, 0);
    if (monitor < 0 || connect(monitor, (struct sockaddr *)&address, sizeof address) < 0) perror("connect");
    else if ((n = read(monitor, text, sizeof text)) <= 0) fprintf(stderr, "manager: the VM has ended\n");
    else {
        printf("%.*s", (int)n, text);
        if (send(monitor, quit, sizeof quit - 1, MSG_NOSIGNAL) == sizeof quit - 1)
            while (read(monitor, text, sizeof text) > 0) {}
    }
    unlink(address.sun_path);
    rmdir(directory);
    if (waitpid(vm, &status, 0) < 0) return failed("waitpid");
    return n <= 0 ? 1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
