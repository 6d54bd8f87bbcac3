/*
 * test.h - the harness. Each TEST runs in a process of its own with a time limit; a crash, a leak that a sanitizer reports at exit
 * and a hang are failures like any other. The last line printed is `N passed, N failed, N skipped`.
 *
 *     TEST(name) { CHECK_INT(1 + 1, 2); }
 *
 * CHECK... note a failure and go on; REQUIRE ends the test. SKIP ends it with a reason that is always printed.
 * Run with `-v` to see every test, `-l` to list them, and words to run only tests whose name contains one of them; with `-x` those
 * whose name is one of them. TEST_TIME_SCALE=10 in the environment multiplies all time limits, for valgrind and the like;
 * TEST_LIMIT=5 is the most seconds that a test may take.
 */
#ifndef CHARDEV_TEST_H
#define CHARDEV_TEST_H

#ifdef _WIN32
#include "windows/posix.h"
#else
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

enum { TEST_SKIPPED = 77, TEST_SECONDS = 60 };

/* A test is a function and an argument, so that a loop can register one test per combination. */
typedef struct test_case {
    const char       *name;
    void            (*run)(const void *arg);
    const void       *arg;
    unsigned          seconds;
    struct test_case *next;
} test_case;

static test_case *test_first, **test_last = &test_first;
static int        test_failures; /* of the running test */

static inline void test_add(test_case *test)
{
    *test_last = test;
    test_last = &test->next;
}

/* Registers one test of a generated family. The name is copied. */
static inline void test_add_case(const char *name, void (*run)(const void *), const void *arg, unsigned seconds)
{
    test_case *test = (test_case *)calloc(1, sizeof *test);
    if (!test) abort();
    test->name = strdup(name);
    test->run = run;
    test->arg = arg;
    test->seconds = seconds;
    test_add(test);
}

#define TEST(name) TEST_WITHIN(name, TEST_SECONDS)
#define TEST_WITHIN(name, seconds)                                                       \
    static void test_##name(const void *test_arg);                                       \
    __attribute__((constructor)) static void test_register_##name(void)                  \
    {                                                                                    \
        static test_case test = { #name, test_##name, NULL, (seconds), NULL };           \
        test_add(&test);                                                                 \
    }                                                                                    \
    static void test_##name(const void *test_arg __attribute__((unused)))

/* A family: the function that follows the macro registers its members with test_add_case(). */
#define TEST_FAMILY(name) __attribute__((constructor)) static void test_family_##name(void)

static inline void test_fail(const char *file, int line)
{
    test_failures++;
    printf("    %s:%d: ", file, line);
}

static inline int test_check(int ok, const char *file, int line, const char *text)
{
    if (ok) return 1;
    test_fail(file, line);
    printf("failed: %s\n", text);
    return 0;
}

static inline int test_check_int(long long got, long long want, const char *file, int line, const char *text)
{
    if (got == want) return 1;
    test_fail(file, line);
    printf("%s is %lld, not %lld\n", text, got, want);
    return 0;
}

static inline int test_check_str(const char *got, const char *want, const char *file, int line, const char *text)
{
    if (got && want && strcmp(got, want) == 0) return 1;
    test_fail(file, line);
    printf("%s is \"%s\", not \"%s\"\n", text, got ? got : "(null)", want ? want : "(null)");
    return 0;
}

static inline int test_check_has(const char *got, const char *want, const char *file, int line, const char *text)
{
    if (got && strstr(got, want)) return 1;
    test_fail(file, line);
    printf("%s is \"%s\" and lacks \"%s\"\n", text, got ? got : "(null)", want);
    return 0;
}

static inline int test_check_mem(const void *got, size_t got_len, const void *want, size_t want_len, const char *file, int line,
                                 const char *text)
{
    size_t same = 0;
    if (got_len == want_len && (!want_len || memcmp(got, want, want_len) == 0)) return 1;
    while (same < got_len && same < want_len && ((const char *)got)[same] == ((const char *)want)[same]) same++;
    test_fail(file, line);
    printf("%s: %zu bytes, not %zu, different from byte %zu on\n", text, got_len, want_len, same);
    return 0;
}

#define CHECK(expr)          test_check(!!(expr), __FILE__, __LINE__, #expr)
#define CHECK_INT(got, want) test_check_int((long long)(got), (long long)(want), __FILE__, __LINE__, #got)
#define CHECK_STR(got, want) test_check_str((got), (want), __FILE__, __LINE__, #got)
#define CHECK_HAS(got, want) test_check_has((got), (want), __FILE__, __LINE__, #got) /* a substring */
#define CHECK_MEM(got, got_len, want, want_len) \
    test_check_mem((got), (size_t)(got_len), (want), (size_t)(want_len), __FILE__, __LINE__, #got)
#define REQUIRE(expr)                                                             \
    do {                                                                          \
        if (!test_check(!!(expr), __FILE__, __LINE__, #expr)) exit(EXIT_FAILURE); \
    } while (0)
/* Says which member of a table failed: `if (!CHECK(...)) NOTE("for %s", text);` */
#define NOTE(...)                   \
    do {                            \
        printf("        ");         \
        printf(__VA_ARGS__);        \
        putchar('\n');              \
    } while (0)
#define SKIP(reason)                                     \
    do {                                                 \
        printf("    skipped because: %s\n", (reason));   \
        exit(test_failures ? EXIT_FAILURE : TEST_SKIPPED); \
    } while (0)

static inline unsigned test_time_scale(void)
{
    const char *text = getenv("TEST_TIME_SCALE");
    int         scale = text ? atoi(text) : 1;
    return scale > 0 ? (unsigned)scale : 1;
}

/* In seconds. */
static inline unsigned test_time_limit(const test_case *test)
{
    const char *text = getenv("TEST_LIMIT");
    int         most = text ? atoi(text) : 0;
    unsigned    limit = test->seconds * test_time_scale();
    return most > 0 && (unsigned)most < limit ? (unsigned)most : limit;
}

/* ---- the process that a test runs in ---------------------------------------------------------------------------------------- */

static inline void test_run_here(const test_case *test)
{
    test->run(test->arg);
    exit(test_failures ? EXIT_FAILURE : EXIT_SUCCESS);
}

static inline const char *test_exit_verdict(long code)
{
    return code == EXIT_SUCCESS ? "ok" : code == TEST_SKIPPED ? "skip" : "FAIL";
}

#ifdef _WIN32

/* The child is this program again, told the number of its test. */
static inline long test_child_number(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], "--child") == 0 ? atol(argv[2]) : -1;
}

/* In place of the dialog that would wait for somebody. */
static inline LONG WINAPI test_crashed(EXCEPTION_POINTERS *what)
{
    TerminateProcess(GetCurrentProcess(), what->ExceptionRecord->ExceptionCode);
    return EXCEPTION_EXECUTE_HANDLER;
}

static inline int test_child(const test_case *test, long number)
{
    setvbuf(stdout, NULL, _IONBF, 0); /* what was said before a crash is to be read */
    SetUnhandledExceptionFilter(test_crashed);
    for (; test && number > 0; number--) test = test->next;
    if (test) test_run_here(test);
    return EXIT_FAILURE;
}

/* What the child starts is in its job, and ends with it. */
static inline HANDLE test_start(const char *command, HANDLE *job)
{
    STARTUPINFOA        start;
    PROCESS_INFORMATION made;
    memset(&start, 0, sizeof start);
    start.cb = sizeof start;
    *job = CreateJobObjectA(NULL, NULL);
    if (!CreateProcessA(NULL, (char *)(uintptr_t)command, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &start, &made)) {
        printf("    CreateProcess() fails: error %lu\n", GetLastError());
        CloseHandle(*job);
        return NULL;
    }
    AssignProcessToJobObject(*job, made.hProcess);
    ResumeThread(made.hThread);
    CloseHandle(made.hThread);
    return made.hProcess;
}

static inline const char *test_run(const test_case *test, long number, char *text, size_t size)
{
    char   path[MAX_PATH], command[MAX_PATH + 40];
    HANDLE child, job;
    DWORD  code = EXIT_FAILURE, waited;
    int    tries = 0;
    fflush(stdout);
    GetModuleFileNameA(NULL, path, sizeof path);
    snprintf(command, sizeof command, "\"%s\" --child %ld", path, number);
    /* Wine may fail to start one on a busy machine. Nothing of the test has run then, so that it may be tried again. */
    for (child = NULL; !child && tries < 3; tries++) child = test_start(command, &job);
    if (!child) return "FAIL (no process)";
    waited = WaitForSingleObject(child, test_time_limit(test) * 1000);
    if (waited == WAIT_OBJECT_0) GetExitCodeProcess(child, &code);
    TerminateJobObject(job, EXIT_FAILURE);
    CloseHandle(child);
    CloseHandle(job);
    if (waited != WAIT_OBJECT_0) return "FAIL (time limit)";
    if (code < 0x80000000) return test_exit_verdict((long)code);
    snprintf(text, size, "FAIL (exception 0x%lx)", (unsigned long)code);
    return text;
}

#else

static inline long test_child_number(int argc, char **argv)
{
    (void)argc, (void)argv;
    return -1;
}

/* The child: a session of its own, so that nothing it starts outlives it and no terminal is at hand by accident. */
static inline int test_child(const test_case *test, long number)
{
    (void)number;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was said before a crash is to be read */
    setsid();
    alarm(test_time_limit(test));
    test_run_here(test);
    return EXIT_FAILURE;
}

static inline const char *test_run(const test_case *test, long number, char *text, size_t size)
{
    int   status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid < 0) return "FAIL (no process)";
    if (pid == 0) exit(test_child(test, number));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    kill(-pid, SIGKILL);
    if (WIFEXITED(status)) return test_exit_verdict(WEXITSTATUS(status));
    if (WTERMSIG(status) == SIGALRM) return "FAIL (time limit)";
    snprintf(text, size, "FAIL (signal %d, %s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return text;
}

#endif

/* ---- which tests ----------------------------------------------------------------------------------------------------------- */

static inline int test_has_flag(const char *flag, int argc, char **argv)
{
    int i;
    for (i = 1; i < argc; i++)
        if (strcmp(argv[i], flag) == 0) return 1;
    return 0;
}

static inline int test_wanted(const char *name, int argc, char **argv)
{
    int words = 0, whole = test_has_flag("-x", argc, argv), i;
    for (i = 1; i < argc; i++) {
        if (argv[i][0] == '-') continue;
        words++;
        if (whole ? strcmp(name, argv[i]) == 0 : strstr(name, argv[i]) != NULL) return 1;
    }
    return words == 0;
}

/* TEST_PART=2of4 in the environment: the second of four parts of the tests, which another process may run beside the others. */
static inline int test_in_part(long number)
{
    const char *text = getenv("TEST_PART");
    long        part, parts;
    if (!text || sscanf(text, "%ldof%ld", &part, &parts) != 2 || parts < 1) return 1;
    return number % parts == part - 1;
}

/* Why a test is not to be run, in a static buffer; NULL = it is. TEST_EXCEPT in the environment is a file with lines
 * `PROGRAM TEST: REASON`. */
static inline const char *test_except(const char *program, const char *name)
{
    static char line[300];
    const char *path = getenv("TEST_EXCEPT");
    FILE       *file = path ? fopen(path, "r") : NULL;
    size_t      program_len = strlen(program), len = strlen(name);
    int         found = 0;
    if (!file) return NULL;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        found = strncmp(line, program, program_len) == 0 && line[program_len] == ' ' &&
                strncmp(line + program_len + 1, name, len) == 0 && strncmp(line + program_len + 1 + len, ": ", 2) == 0;
    }
    fclose(file);
    return found ? line + program_len + len + 3 : NULL;
}

/* The name without folders and ".exe", in a static buffer. */
static inline const char *test_program(const char *path)
{
    static char name[80];
    const char *slash = strpbrk(path, "/\\");
    char       *end;
    for (; slash; slash = strpbrk(path, "/\\")) path = slash + 1;
    snprintf(name, sizeof name, "%s", path);
    if ((end = strstr(name, ".exe")) != NULL) *end = 0;
    return name;
}

int main(int argc, char **argv)
{
    long             number = 0, place = 0;
    int              passed = 0, failed = 0, skipped = 0, verbose = test_has_flag("-v", argc, argv);
    const test_case *test;
    char             text[80];
    const char      *program = test_program(argv[0]);

    if (test_child_number(argc, argv) >= 0) return test_child(test_first, test_child_number(argc, argv));
    if (!test_first) {
        printf("    %s: no tests: this compiler has no constructors (__attribute__); gcc and clang do\n", program);
        failed++;
    }
    for (test = test_first; test; test = test->next, place++) {
        const char *verdict;
        if (!test_wanted(test->name, argc, argv) || !test_in_part(number++)) continue;
        if (test_has_flag("-l", argc, argv)) {
            puts(test->name);
            continue;
        }
        verdict = "skip";
        if (test_except(program, test->name)) printf("    skipped because: %s\n", test_except(program, test->name));
        else verdict = test_run(test, place, text, sizeof text);
        if (strcmp(verdict, "ok") == 0) passed++;
        else if (strcmp(verdict, "skip") == 0) skipped++;
        else failed++;
        if (verbose || strcmp(verdict, "ok") != 0) printf("%s: %s: %s\n", program, test->name, verdict);
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
