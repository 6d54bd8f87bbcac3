/*
 * fd_handoff_windows - how a manager gives a virtual machine its monitor socket, without a race and without a retry
 * loop: the steps of fd_handoff.c, with Winsock alone. The Makefile builds it as fd_handoff.exe. Like fd_handoff.c it
 * is a demonstration that prints and checks every step, not an example of one page.
 *
 *     fd_handoff                        with tinyvm.exe of the same directory
 *     fd_handoff -- VM command...       with another one that has -chardev, -mon and -serial as tinyvm does
 *
 * A SOCKET is a kernel handle. A child that inherits it has it under the same value, which the command line states
 * (fd=VALUE). There is no SCM_RIGHTS: for a running process, WSADuplicateSocket() fills in a structure, which is sent
 * over the monitor as base64 (get-win32-socket). One connect() is enough, as on other systems.
 */
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MS = 10000, LINE = 16384, COMMAND_LINE = 8192 };

#define BAD_OPTIONS "socket,id=extra,pth=/nowhere"

static PROCESS_INFORMATION vm; /* the VM that runs; no process = none */

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

/* At exit: no VM outlives a manager that has failed. */
static void clean_up(void)
{
    if (vm.hProcess) TerminateProcess(vm.hProcess, 1);
}

static void fail(const char *what, DWORD error)
{
    char text[256] = "failed";

    if (error)
        FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS, NULL, error, 0, text, sizeof text,
                       NULL);
    text[strcspn(text, "\r\n")] = '\0';
    fprintf(stderr, "fd_handoff: %s: %s\n", what, text);
    exit(1);
}

/* For Winsock's calls, which return 0 for success. */
static void checked(int result, const char *what)
{
    if (result != 0) fail(what, (DWORD)WSAGetLastError());
}

/* For the other calls, which return 0 for failure. */
static void check_made(int result, const char *what)
{
    if (!result) fail(what, GetLastError());
}

static void step(const char *text)
{
    printf("\n* %s\n", text);
    fflush(stdout);
}

/* ---- the sockets ------------------------------------------------------------------------------------------------- */

/* Not inheritable, unlike a socket of socket(): inheritable() makes it so for the VM. */
static SOCKET new_socket(void)
{
    SOCKET s = WSASocketW(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0, WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);

    if (s == INVALID_SOCKET) fail("socket", (DWORD)WSAGetLastError());
    return s;
}

static struct sockaddr_in loopback(unsigned short port)
{
    struct sockaddr_in address;

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

/* Listens on a port that the system chooses. */
static SOCKET listen_somewhere(unsigned short *port)
{
    struct sockaddr_in address = loopback(0);
    int                size = sizeof address, on = 1;
    SOCKET             s = new_socket();

    checked(setsockopt(s, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (const char *)&on, sizeof on), "SO_EXCLUSIVEADDRUSE");
    checked(bind(s, (struct sockaddr *)&address, size), "bind");
    checked(listen(s, 1), "listen");
    checked(getsockname(s, (struct sockaddr *)&address, &size), "getsockname");
    *port = ntohs(address.sin_port);
    printf("  listening on 127.0.0.1:%u\n", *port);
    return s;
}

/* The only attempt. Returns the connection, or INVALID_SOCKET when it was refused. */
static SOCKET connect_once(unsigned short port)
{
    struct sockaddr_in address = loopback(port);
    DWORD              limit = ANSWER_MS;
    SOCKET             s = new_socket();

    checked(setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, (const char *)&limit, sizeof limit), "SO_RCVTIMEO");
    if (connect(s, (struct sockaddr *)&address, sizeof address) == 0) return s;
    if (WSAGetLastError() != WSAECONNREFUSED) fail("connect", (DWORD)WSAGetLastError());
    closesocket(s);
    return INVALID_SOCKET;
}

/* ---- the VM's process -------------------------------------------------------------------------------------------- */

static void add_word(char *line, const char *word)
{
    size_t len = strlen(line);

    if (len + strlen(word) + 4 >= COMMAND_LINE || strchr(word, '"')) fail("the VM command", ERROR_INVALID_PARAMETER);
    snprintf(line + len, COMMAND_LINE - len, strpbrk(word, " \t") || !*word ? "%s\"%s\"" : "%s%s", len ? " " : "",
             word);
}

static HANDLE inheritable(HANDLE handle)
{
    check_made(SetHandleInformation(handle, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT), "SetHandleInformation");
    return handle;
}

/* A copy of our own stderr, for the VM. */
static HANDLE our_errors(void)
{
    HANDLE copy, process = GetCurrentProcess();

    check_made(
        DuplicateHandle(process, GetStdHandle(STD_ERROR_HANDLE), process, &copy, 0, FALSE, DUPLICATE_SAME_ACCESS),
        "our stderr");
    return copy;
}

static HANDLE open_nowhere(void)
{
    HANDLE nowhere = CreateFileA("NUL", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
                                 OPEN_EXISTING, 0, NULL);

    if (nowhere == INVALID_HANDLE_VALUE) fail("NUL", GetLastError());
    return inheritable(nowhere);
}

/* The child inherits these handles and no others. */
static LPPROC_THREAD_ATTRIBUTE_LIST list_of(HANDLE *handles, int count)
{
    LPPROC_THREAD_ATTRIBUTE_LIST list;
    SIZE_T                       size = 0;

    InitializeProcThreadAttributeList(NULL, 1, 0, &size);
    list = (LPPROC_THREAD_ATTRIBUTE_LIST)malloc(size);
    if (!list) fail("memory", ERROR_OUTOFMEMORY);
    check_made(InitializeProcThreadAttributeList(list, 1, 0, &size), "InitializeProcThreadAttributeList");
    check_made(UpdateProcThreadAttribute(list, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, handles,
                                         (size_t)count * sizeof *handles, NULL, NULL),
               "UpdateProcThreadAttribute");
    return list;
}

/* Takes over `listener`, and `errors`, the VM's stderr: our handles are closed. */
static void start(char *line, SOCKET listener, HANDLE errors)
{
    STARTUPINFOEXA info;
    HANDLE         nowhere = open_nowhere(), handles[3];

    handles[0] = inheritable((HANDLE)listener);
    handles[1] = nowhere;
    handles[2] = inheritable(errors);
    memset(&info, 0, sizeof info);
    info.StartupInfo.cb = sizeof info;
    info.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    info.StartupInfo.hStdInput = info.StartupInfo.hStdOutput = nowhere;
    info.StartupInfo.hStdError = errors;
    info.lpAttributeList = list_of(handles, 3);
    printf("  %s\n", line);
    fflush(stdout);
    check_made(
        CreateProcessA(NULL, line, NULL, NULL, TRUE, EXTENDED_STARTUPINFO_PRESENT, NULL, NULL, &info.StartupInfo, &vm),
        "the VM is not there");
    DeleteProcThreadAttributeList(info.lpAttributeList);
    free(info.lpAttributeList);
    CloseHandle(nowhere);
    CloseHandle(errors);
    closesocket(listener); /* The VM has the only copy now: when it ends, nothing listens. */
}

static int status_of_vm(void)
{
    DWORD status = 1;

    if (WaitForSingleObject(vm.hProcess, ANSWER_MS) != WAIT_OBJECT_0) fail("the VM doesn't end", 0);
    GetExitCodeProcess(vm.hProcess, &status);
    CloseHandle(vm.hThread);
    CloseHandle(vm.hProcess);
    vm.hProcess = NULL;
    printf("  the VM's exit status: %lu\n", status);
    return (int)status;
}

/* ---- QMP: one line of JSON each way ------------------------------------------------------------------------------ */

/* Reads up to a newline or EOF. Returns the length; 0 = EOF. A time-out is an error, so that a hanging VM doesn't
 * hang its manager. */
static int read_line(SOCKET s, char *line, size_t size)
{
    size_t len = 0;
    int    n = 1;

    while (n > 0 && len + 1 < size && (len == 0 || line[len - 1] != '\n')) {
        n = recv(s, line + len, 1, 0);
        if (n < 0 && WSAGetLastError() != WSAECONNRESET) fail("waiting for an answer", (DWORD)WSAGetLastError());
        if (n > 0) len += (size_t)n;
    }
    line[len] = '\0';
    return (int)len;
}

/* Sends all of it: send() may do a short write. */
static void send_text(SOCKET s, const char *text)
{
    int len = (int)strlen(text), sent;

    for (; len > 0; text += sent, len -= sent)
        if ((sent = send(s, text, len, 0)) < 0) fail("send", (DWORD)WSAGetLastError());
}

/* Prints the VM's lines until one contains `word` (NULL: until EOF). Returns whether such a line was received. */
static int print_until(SOCKET s, const char *word)
{
    char line[LINE];

    while (read_line(s, line, sizeof line) > 0) {
        line[strcspn(line, "\r\n")] = '\0';
        printf("  <- %s\n", line);
        if (word && strstr(line, word)) return 1;
        if (word && strstr(line, "\"error\"")) break;
    }
    fflush(stdout);
    return 0;
}

/* Sends one command and reads its reply. `shown` is printed for it. */
static void command_shown(SOCKET monitor, const char *json, const char *shown)
{
    printf("  -> %s\n", shown);
    send_text(monitor, json);
    send_text(monitor, "\n");
    if (!print_until(monitor, "\"return\"")) fail("the VM refused the command", 0);
}

static void command(SOCKET monitor, const char *json)
{
    command_shown(monitor, json, json);
}

static void base64(const unsigned char *bytes, size_t len, char *text)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned long     group;
    size_t            at, i;

    for (at = 0; at < len; at += 3) {
        group = (unsigned long)bytes[at] << 16 | (at + 1 < len ? bytes[at + 1] * 256ul : 0) |
                (at + 2 < len ? bytes[at + 2] : 0);
        for (i = 0; i < 4; i++) *text++ = at + i <= len ? letters[group >> (18 - 6 * i) & 63] : '=';
    }
    *text = '\0';
}

/* Passes the running VM a socket, under a name. Our copy is closed. */
static void pass_socket(SOCKET monitor, const char *name, SOCKET passed)
{
    WSAPROTOCOL_INFOW info;
    char              text[sizeof info / 3 * 4 + 8], json[sizeof text + 200], shown[200];

    checked(WSADuplicateSocketW(passed, vm.dwProcessId, &info), "WSADuplicateSocket");
    base64((const unsigned char *)&info, sizeof info, text);
    snprintf(json, sizeof json, "{\"execute\":\"get-win32-socket\",\"arguments\":{\"fdname\":\"%s\",\"info\":\"%s\"}}",
             name, text);
    snprintf(shown, sizeof shown,
             "{\"execute\":\"get-win32-socket\",\"arguments\":{\"fdname\":\"%s\",\"info\":\"%.8s...\"}}", name, text);
    command_shown(monitor, json, shown);
    closesocket(passed);
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

/* A second socket, passed over the running monitor: a socket passed there has a name, not a number. */
static void add_a_socket(SOCKET monitor)
{
    unsigned short port;
    SOCKET         connection;

    step("A second listening socket, passed over the monitor (WSADuplicateSocket) under the name 'extra'");
    pass_socket(monitor, "extra", listen_somewhere(&port));
    command(monitor,
            "{\"execute\":\"chardev-add\",\"arguments\":{\"id\":\"extra\",\"backend\":{\"type\":\"socket\",\"data\":"
            "{\"addr\":{\"type\":\"fd\",\"data\":{\"str\":\"extra\"}},\"server\":true,\"wait\":false}}}}");
    connection = connect_once(port);
    printf("  one connect() to it: %s\n", connection == INVALID_SOCKET ? "refused" : "connected");
    if (connection == INVALID_SOCKET) exit(1);
    command(monitor, "{\"execute\":\"query-chardev\"}");
    command(monitor, "{\"execute\":\"chardev-remove\",\"arguments\":{\"id\":\"extra\"}}");
    if (print_until(connection, NULL) == 0) printf("  the VM removed it: our connection has ended\n");
    closesocket(connection);
}

/* In place of socketpair(), which Windows has not. */
static void connected_pair(SOCKET pair[2])
{
    unsigned short port;
    SOCKET         listener = listen_somewhere(&port);

    pair[0] = connect_once(port);
    pair[1] = accept(listener, NULL, NULL);
    if (pair[0] == INVALID_SOCKET || pair[1] == INVALID_SOCKET) fail("a connected pair", (DWORD)WSAGetLastError());
    closesocket(listener);
}

/* Hot swap: the guest's serial line moves to a socket whose other end is ours. Returns whether the guest answered. */
static int talk_to_the_guest(SOCKET monitor)
{
    WSAPOLLFD ready;
    SOCKET    pair[2];
    int       answered;

    step("The guest's serial line, moved while it runs to one end of a connection");
    connected_pair(pair);
    pass_socket(monitor, "line", pair[1]);
    command(monitor,
            "{\"execute\":\"chardev-change\",\"arguments\":{\"id\":\"con\",\"backend\":{\"type\":\"socket\",\"data\":"
            "{\"addr\":{\"type\":\"fd\",\"data\":{\"str\":\"line\"}},\"server\":false}}}}");
    printf("  typed to the guest: hello\n");
    send_text(pair[0], "hello\r");
    ready.fd = pair[0];
    ready.events = POLLRDNORM;
    answered = WSAPoll(&ready, 1, ANSWER_MS / 5) == 1 && print_until(pair[0], "hello");
    if (!answered) printf("  no guest answers\n");
    closesocket(pair[0]);
    return answered;
}

/* The VM's own arguments, then the options of a step, with the listening socket's value. */
static void make_command(char *line, char **words, int count, SOCKET listener, int is_good)
{
    char monitor[80];
    int  i;

    line[0] = '\0';
    for (i = 0; i < count; i++) add_word(line, words[i]);
    snprintf(monitor, sizeof monitor, "-chardev socket,id=mon,fd=%llu,server=on,wait=off",
             (unsigned long long)listener);
    snprintf(line + strlen(line), COMMAND_LINE - strlen(line),
             " %s -mon chardev=mon,mode=control -chardev null,id=con -serial chardev:con%s", monitor,
             is_good ? "" : " -chardev " BAD_OPTIONS);
}

static int run_the_vm(char **words, int count, int has_guest)
{
    char           line[COMMAND_LINE];
    unsigned short port;
    SOCKET         listener, monitor;
    int            answered;

    step("The manager makes the monitor's socket, and starts the VM, which inherits it");
    listener = listen_somewhere(&port);
    make_command(line, words, count, listener, 1);
    start(line, listener, our_errors());

    step("It connects, once: the VM may not even have started");
    monitor = connect_once(port);
    if (monitor == INVALID_SOCKET || !print_until(monitor, "\"QMP\"")) fail("the VM is not there", 0);
    command(monitor, "{\"execute\":\"qmp_capabilities\"}");
    command(monitor, "{\"execute\":\"query-status\"}");
    add_a_socket(monitor);
    answered = talk_to_the_guest(monitor);

    step("The end");
    command(monitor, "{\"execute\":\"quit\"}");
    print_until(monitor, NULL);
    closesocket(monitor);
    return status_of_vm() == 0 && (answered || !has_guest);
}

/* Prints the VM's stderr, until EOF: the VM has ended. */
static void print_errors(HANDLE errors)
{
    char  text[LINE];
    DWORD n;

    while (ReadFile(errors, text, sizeof text, &n, NULL) && n > 0) printf("  its stderr: %.*s", (int)n, text);
    CloseHandle(errors);
}

/* The VM inherits the socket, finds a bad option and exits. A connection made before the exit ends with EOF or
 * ECONNRESET; an attempt after it gets ECONNREFUSED. There is no third case, hence no wait and no retry. */
static int run_a_vm_that_fails(char **words, int count)
{
    char           line[COMMAND_LINE];
    unsigned short port;
    HANDLE         errors[2];
    SOCKET         listener, monitor;

    step("A start that fails: the same socket, and one wrong option");
    check_made(CreatePipe(&errors[0], &errors[1], NULL, 0), "CreatePipe");
    listener = listen_somewhere(&port);
    make_command(line, words, count, listener, 0);
    start(line, listener, errors[1]);

    monitor = connect_once(port);
    if (monitor == INVALID_SOCKET) printf("  one connect(): refused\n");
    else if (print_until(monitor, NULL) == 0) printf("  one connect(): taken, then end-of-file\n");
    print_errors(errors[0]);
    return status_of_vm() != 0;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

/* tinyvm.exe is in this program's directory. */
static char *default_vm(void)
{
    static char path[MAX_PATH + 16];
    DWORD       len = GetModuleFileNameA(NULL, path, MAX_PATH);
    char       *slash = len ? strrchr(path, '\\') : NULL;

    strcpy(slash ? slash + 1 : path, "tinyvm.exe");
    return path;
}

int main(int argc, char **argv)
{
    WSADATA data;
    char   *tinyvm = default_vm();
    int     own_vm = argc > 2 && strcmp(argv[1], "--") == 0;
    char  **words = own_vm ? argv + 2 : &tinyvm;
    int     count = own_vm ? argc - 2 : 1;
    int     good, bad;

    if (argc > 1 && !own_vm) {
        fprintf(stderr, "usage: fd_handoff [-- VM command...]\n");
        return 2;
    }
    if (WSAStartup(MAKEWORD(2, 2), &data) != 0) fail("WSAStartup", 0);
    atexit(clean_up);
    good = run_the_vm(words, count, !own_vm);
    bad = run_a_vm_that_fails(words, count);
    return good && bad ? 0 : 1;
}
