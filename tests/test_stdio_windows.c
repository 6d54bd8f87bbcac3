/*
 * stdio and console on Windows: the test attaches to a pseudo console, types into it and reads its screen. On other
 * systems stdio has tests of its own, and console is left out.
 */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

#ifndef _WIN32

TEST(console_is_for_windows)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK_INT(refuse(&r, "console,id=c", &err), CHR_ERR_NOT_SUPPORTED);
    CHECK_STR(err.text, "console: built without console");
    rig_close(&r);
}

#else

enum { RAW_OFF = ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT, VT_OUTPUT = 4 /* ENABLE_VIRTUAL_TERMINAL_PROCESSING */ };

/* ---- the console ------------------------------------------------------------------------------------------------- */

static HANDLE console_in, console_out; /* CONIN$ and CONOUT$ */
static HANDLE keyboard;                /* its bytes become key events */
static char   screen_text[1 << 16];    /* what the console has drawn */
static volatile LONG screen_length;

static DWORD WINAPI screen_read(void *opaque)
{
    char  bytes[4096];
    DWORD count;
    while (ReadFile((HANDLE)opaque, bytes, sizeof bytes, &count, NULL) && count > 0) {
        if (screen_length + (LONG)count >= (LONG)sizeof screen_text) return 0;
        memcpy(screen_text + screen_length, bytes, count);
        screen_length += (LONG)count;
    }
    return 0;
}

static HANDLE open_console(const char *name)
{
    return CreateFileA(name, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
}

static DWORD mode_of(HANDLE console)
{
    DWORD mode = 0;
    CHECK(GetConsoleMode(console, &mode));
    return mode;
}

/* Starts this program again on the same console; its role is in the environment. */
static HANDLE start_role(const char *role, LPPROC_THREAD_ATTRIBUTE_LIST attributes, DWORD *id)
{
    STARTUPINFOEXA      start;
    PROCESS_INFORMATION made;
    char                path[MAX_PATH];
    memset(&start, 0, sizeof start);
    start.StartupInfo.cb = attributes ? sizeof start : sizeof start.StartupInfo;
    start.lpAttributeList = attributes;
    GetModuleFileNameA(NULL, path, sizeof path);
    SetEnvironmentVariableA("CHARDEV_TEST_ROLE", role);
    if (!CreateProcessA(path, NULL, NULL, NULL, FALSE, attributes ? EXTENDED_STARTUPINFO_PRESENT : 0, NULL, NULL, &start.StartupInfo, &made))
        return NULL;
    SetEnvironmentVariableA("CHARDEV_TEST_ROLE", NULL);
    CloseHandle(made.hThread);
    *id = made.dwProcessId;
    return made.hProcess;
}

/* A pseudo console lives as long as a process in it: one that only sleeps. We join it, so that it is ours. */
static void join(void *pseudo)
{
    SIZE_T                       size = 0;
    LPPROC_THREAD_ATTRIBUTE_LIST list;
    DWORD                        id = 0;
    int                          i;
    InitializeProcThreadAttributeList(NULL, 1, 0, &size);
    list = (LPPROC_THREAD_ATTRIBUTE_LIST)malloc(size);
    REQUIRE(list && InitializeProcThreadAttributeList(list, 1, 0, &size));
    REQUIRE(UpdateProcThreadAttribute(list, 0, 0x20016, pseudo, sizeof pseudo, NULL, NULL));
    REQUIRE(start_role("sleep", list, &id) != NULL);
    free(list);
    FreeConsole();
    for (i = 0; i < 200 && !AttachConsole(id); i++) Sleep(50);
}

static void need_console(void)
{
    typedef HRESULT(WINAPI * create_function)(COORD, HANDLE, HANDLE, DWORD, void **);
    create_function create = (create_function)(uintptr_t)GetProcAddress(GetModuleHandleA("kernel32"), "CreatePseudoConsole");
    COORD           size = { 80, 24 };
    HANDLE          in, out, screen;
    void           *pseudo;
    if (!create) SKIP("there are no pseudo consoles");
    REQUIRE(CreatePipe(&in, &keyboard, NULL, 0) && CreatePipe(&screen, &out, NULL, 0));
    if (create(size, in, out, 0, &pseudo) < 0) SKIP("there are no pseudo consoles");
    CreateThread(NULL, 0, screen_read, screen, 0, NULL);
    join(pseudo);
    console_in = open_console("CONIN$");
    console_out = open_console("CONOUT$");
    REQUIRE(console_in != INVALID_HANDLE_VALUE && console_out != INVALID_HANDLE_VALUE);
    SetStdHandle(STD_INPUT_HANDLE, console_in);
    SetStdHandle(STD_OUTPUT_HANDLE, console_out);
}

static void type(const char *bytes)
{
    DWORD count;
    CHECK(WriteFile(keyboard, bytes, (DWORD)strlen(bytes), &count, NULL));
}

static void post(const INPUT_RECORD *event)
{
    DWORD count = 0;
    CHECK(WriteConsoleInputW(console_in, event, 1, &count) && count == 1);
}

/* One key event, as Windows has it. */
static void key(int is_down, WORD code, WCHAR unit, DWORD state)
{
    INPUT_RECORD event;
    memset(&event, 0, sizeof event);
    event.EventType = KEY_EVENT;
    event.Event.KeyEvent.bKeyDown = is_down;
    event.Event.KeyEvent.wRepeatCount = 1;
    event.Event.KeyEvent.wVirtualKeyCode = code;
    event.Event.KeyEvent.uChar.UnicodeChar = unit;
    event.Event.KeyEvent.dwControlKeyState = state;
    post(&event);
}

static void press(WORD code, WCHAR unit, DWORD state)
{
    key(1, code, unit, state);
    key(0, code, unit, state);
}

/* The console's line at the top, as UTF-8. */
static const char *line(int row)
{
    static char text[400];
    WCHAR       units[80];
    COORD       from = { 0, 0 };
    DWORD       count = 0;
    int         bytes;
    from.Y = (SHORT)row;
    ReadConsoleOutputCharacterW(console_out, units, 80, from, &count);
    while (count > 0 && (units[count - 1] == ' ' || units[count - 1] == 0)) count--;
    bytes = WideCharToMultiByte(CP_UTF8, 0, units, (int)count, text, sizeof text - 1, NULL, NULL);
    text[count > 0 ? bytes : 0] = 0;
    return text;
}

/* ---- other processes on it --------------------------------------------------------------------------------------- */

static DWORD WINAPI press_control_c(void *opaque)
{
    (void)opaque;
    GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0);
    return 0;
}

/* Opens stdio, and ends in the requested way; with status 44 when the console was not raw before that. */
__attribute__((constructor)) static void play_role(void)
{
    const char  *role = getenv("CHARDEV_TEST_ROLE");
    chr_context *ctx;
    if (!role) return;
    if (strcmp(role, "sleep") == 0) Sleep(INFINITE);
    console_in = open_console("CONIN$");
    SetStdHandle(STD_INPUT_HANDLE, console_in);
    SetStdHandle(STD_OUTPUT_HANDLE, open_console("CONOUT$"));
    ctx = chr_context_new(NULL);
    if (!chr_new(ctx, "stdio,id=s", NULL) || mode_of(console_in) & RAW_OFF) ExitProcess(44);
    if (strcmp(role, "free") == 0) chr_context_free(ctx);
    if (strcmp(role, "free") == 0 || strcmp(role, "_exit") == 0) _exit(0);
    if (strcmp(role, "abort") == 0) abort();
    if (strcmp(role, "kill") == 0) TerminateProcess(GetCurrentProcess(), 0);
    if (strcmp(role, "control-c") == 0) {
        SetConsoleCtrlHandler(NULL, FALSE);
        CreateThread(NULL, 0, press_control_c, NULL, 0, NULL);
        Sleep(10000);
    }
    exit(0);
}

static DWORD ended(const char *role)
{
    DWORD  id, status = 99;
    HANDLE process = start_role(role, NULL, &id);
    REQUIRE(process != NULL);
    CHECK_INT(WaitForSingleObject(process, 30000), WAIT_OBJECT_0);
    GetExitCodeProcess(process, &status);
    CloseHandle(process);
    return status;
}

/* ---- input ------------------------------------------------------------------------------------------------------- */

TEST(stdio_console_keys)
{
    static const struct {
        WORD        code;
        WCHAR       unit;
        DWORD       state;
        const char *bytes;
    } keys[] = {
        { 'A', 'a', 0, "a" },
        { 'A', 'A', SHIFT_PRESSED, "A" },
        { 'A', 1, LEFT_CTRL_PRESSED, "\001" },
        { VK_RETURN, '\r', 0, "\r" },
        { VK_BACK, 8, 0, "\177" },
        { VK_BACK, 127, LEFT_CTRL_PRESSED, "\b" },
        { VK_TAB, '\t', 0, "\t" },
        { VK_TAB, '\t', SHIFT_PRESSED, "\033[Z" },
        { VK_ESCAPE, 27, 0, "\033" },
        { VK_UP, 0, ENHANCED_KEY, "\033[A" },
        { VK_DOWN, 0, ENHANCED_KEY, "\033[B" },
        { VK_RIGHT, 0, ENHANCED_KEY, "\033[C" },
        { VK_LEFT, 0, ENHANCED_KEY, "\033[D" },
        { VK_UP, 0, ENHANCED_KEY | SHIFT_PRESSED, "\033[1;2A" },
        { VK_LEFT, 0, ENHANCED_KEY | LEFT_CTRL_PRESSED, "\033[1;5D" },
        { VK_LEFT, 0, ENHANCED_KEY | LEFT_ALT_PRESSED, "\033[1;3D" },
        { VK_HOME, 0, ENHANCED_KEY, "\033[H" },
        { VK_END, 0, ENHANCED_KEY, "\033[F" },
        { VK_INSERT, 0, ENHANCED_KEY, "\033[2~" },
        { VK_DELETE, 0, ENHANCED_KEY, "\033[3~" },
        { VK_PRIOR, 0, ENHANCED_KEY, "\033[5~" },
        { VK_NEXT, 0, ENHANCED_KEY, "\033[6~" },
        { VK_DELETE, 0, ENHANCED_KEY | LEFT_CTRL_PRESSED | SHIFT_PRESSED, "\033[3;6~" },
        { VK_F1, 0, 0, "\033OP" },
        { VK_F4, 0, 0, "\033OS" },
        { VK_F4, 0, SHIFT_PRESSED, "\033[1;2S" },
        { VK_F5, 0, 0, "\033[15~" },
        { VK_F12, 0, 0, "\033[24~" },
        { 'X', 'x', LEFT_ALT_PRESSED, "\033x" },
        { 'E', 0x20ac, RIGHT_ALT_PRESSED | LEFT_CTRL_PRESSED, "\342\202\254" }, /* AltGr */
        { 'Q', '@', RIGHT_ALT_PRESSED | LEFT_CTRL_PRESSED, "@" },
        { 0xba, 0xe9, 0, "\303\251" },
        { VK_SHIFT, 0, SHIFT_PRESSED, "" },
        { VK_CONTROL, 0, LEFT_CTRL_PRESSED, "" },
        { VK_CAPITAL, 0, CAPSLOCK_ON, "" },
        { VK_NUMPAD6, 0, LEFT_ALT_PRESSED, "" }, /* of an Alt code */
        { VK_RIGHT, 0, LEFT_ALT_PRESSED, "" },   /* the same without NumLock */
    };
    recorder rec;
    rig      r;
    size_t   i;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK_STR(rec.events, "O");
    for (i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int before = test_failures;
        press(keys[i].code, keys[i].unit, keys[i].state);
        press('.', '.', 0);
        PUMP(&r, rec.length == strlen(keys[i].bytes) + 1);
        CHECK_MEM(rec.input, rec.length - 1, keys[i].bytes, strlen(keys[i].bytes));
        if (test_failures > before) NOTE("key %u with state %lx", keys[i].code, (unsigned long)keys[i].state);
        rec.length = 0;
    }
    detach(&rec);
    rig_close(&r);
}

/* What is more than one unit of UTF-16, or comes when a key is released, or again and again. */
TEST(stdio_console_characters)
{
    INPUT_RECORD event;
    recorder     rec;
    rig          r;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    press(0, 0xd83d, 0);
    press(0, 0xde00, 0);
    PUMP(&r, rec.length == 4);
    CHECK_INPUT(&rec, "\360\237\230\200");
    rec.length = 0;
    press(VK_NUMPAD1, 0, LEFT_ALT_PRESSED);
    key(0, VK_MENU, 0x263a, 0);
    PUMP(&r, rec.length == 3);
    CHECK_INPUT(&rec, "\342\230\272");
    rec.length = 0;
    press(VK_SPACE, ' ', LEFT_CTRL_PRESSED);
    press('2', 0, LEFT_CTRL_PRESSED | SHIFT_PRESSED);
    PUMP(&r, rec.length == 2);
    CHECK_MEM(rec.input, rec.length, "\0\0", 2);
    rec.length = 0;
    memset(&event, 0, sizeof event);
    event.EventType = KEY_EVENT;
    event.Event.KeyEvent.bKeyDown = 1;
    event.Event.KeyEvent.wRepeatCount = 5;
    event.Event.KeyEvent.wVirtualKeyCode = VK_UP;
    post(&event);
    PUMP(&r, rec.length == 15);
    CHECK_INPUT(&rec, "\033[A\033[A\033[A\033[A\033[A");
    detach(&rec);
    rig_close(&r);
}

/* From the keyboard's side. */
TEST(stdio_console_is_typed_at)
{
    recorder rec;
    rig      r;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    type("ls\r\033[A\303\251\360\237\230\200");
    PUMP(&r, rec.length == 12);
    CHECK_INPUT(&rec, "ls\r\033[A\303\251\360\237\230\200");
    detach(&rec);
    rig_close(&r);
}

/* Other events produce no bytes, and are removed when they have been read: no busy loop. */
TEST(stdio_console_other_events)
{
    static const WORD kinds[] = { FOCUS_EVENT, MOUSE_EVENT, MENU_EVENT, WINDOW_BUFFER_SIZE_EVENT };
    INPUT_RECORD      event;
    recorder          rec;
    DWORD             left = 1;
    rig               r;
    int               i;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    settle(&r);
    for (i = 0; i < 40; i++) {
        memset(&event, 0, sizeof event);
        event.EventType = kinds[i % 4];
        post(&event);
        key(0, 'A', 'a', 0);
    }
    for (i = 0; i < 200 && left > 0; i++) {
        chr_loop_step(r.ctx, 10);
        GetNumberOfConsoleInputEvents(console_in, &left);
    }
    CHECK_INT(left, 0);
    settle(&r);
    for (i = 0; i < 5; i++) CHECK_INT(chr_loop_step(r.ctx, 0), 0);
    CHECK_INT(rec.length, 0);
    CHECK_STR(rec.events, "O");
    detach(&rec);
    rig_close(&r);
}

/* Keys wait while there is no room; neither does the loop spin nor is it the end. */
TEST(stdio_console_without_room)
{
    recorder rec;
    rig      r;
    int      i, ran = 0;
    need_console();
    rig_open(&r);
    attach_with_room(&rec, make(&r, "stdio,id=s"), 2);
    type("abcdef");
    PUMP(&r, rec.length == 2);
    for (i = 0; i < 20; i++) ran += chr_loop_step(r.ctx, 10);
    CHECK(ran < 15);
    CHECK_STR(rec.events, "O");
    give_room(&rec, 100);
    PUMP(&r, rec.length == 6);
    CHECK_INPUT(&rec, "abcdef");
    detach(&rec);
    rig_close(&r);
}

static volatile LONG controls;

static BOOL WINAPI control(DWORD event)
{
    if (event == CTRL_C_EVENT) controls++;
    return TRUE;
}

TEST(stdio_console_control_c)
{
    recorder rec;
    rig      r;
    need_console();
    SetConsoleCtrlHandler(NULL, FALSE);
    SetConsoleCtrlHandler(control, TRUE);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s,signal=off"));
    CHECK(!(mode_of(console_in) & ENABLE_PROCESSED_INPUT));
    press('C', 3, LEFT_CTRL_PRESSED);
    PUMP(&r, rec.length == 1);
    CHECK_INPUT(&rec, "\003");
    CHECK_INT(controls, 0);
    detach(&rec);
    chr_remove(r.ctx, "s", NULL);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK(mode_of(console_in) & ENABLE_PROCESSED_INPUT);
    press('C', 3, LEFT_CTRL_PRESSED);
    PUMP(&r, controls == 1);
    CHECK_INT(rec.length, 0);
    detach(&rec);
    rig_close(&r);
}

/* A handler of the program's that goes on after Ctrl-C finds the console raw again within half a second. */
TEST(stdio_console_goes_on_after_control_c)
{
    recorder rec;
    DWORD    before;
    rig      r;
    need_console();
    before = mode_of(console_in);
    SetConsoleCtrlHandler(NULL, FALSE);
    SetConsoleCtrlHandler(control, TRUE); /* behind the library's */
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK(!(mode_of(console_in) & RAW_OFF));
    press('C', 3, LEFT_CTRL_PRESSED);
    PUMP(&r, controls == 1);
    CHECK_INT(mode_of(console_in), before);
    PUMP(&r, !(mode_of(console_in) & RAW_OFF));
    CHECK(mode_of(console_out) & VT_OUTPUT);
    detach(&rec);
    rig_close(&r);
    CHECK_INT(mode_of(console_in), before);
}

/* ---- modes ------------------------------------------------------------------------------------------------------- */

TEST(stdio_console_is_raw_and_put_back)
{
    DWORD in, out;
    UINT  code_page, output_code_page;
    rig   r;
    need_console();
    in = mode_of(console_in);
    SetConsoleMode(console_out, ENABLE_PROCESSED_OUTPUT | ENABLE_WRAP_AT_EOL_OUTPUT);
    out = mode_of(console_out);
    code_page = GetConsoleCP();
    output_code_page = GetConsoleOutputCP();
    CHECK(in & RAW_OFF);
    rig_open(&r);
    make(&r, "stdio,id=s");
    CHECK(!(mode_of(console_in) & RAW_OFF));
    CHECK_INT(mode_of(console_out), out | VT_OUTPUT);
    chr_remove(r.ctx, "s", NULL);
    CHECK_INT(mode_of(console_in), in);
    CHECK_INT(mode_of(console_out), out);
    CHECK_INT(GetConsoleCP(), code_page);
    CHECK_INT(GetConsoleOutputCP(), output_code_page);
    make(&r, "stdio,id=t");
    SetConsoleMode(console_in, ENABLE_PROCESSED_INPUT); /* somebody else: it stays theirs */
    rig_close(&r);
    CHECK_INT(mode_of(console_in), ENABLE_PROCESSED_INPUT);
    CHECK_INT(mode_of(console_out), out);
}

/* However the process ends, but for one way. */
TEST(stdio_console_is_put_back_at_the_end)
{
    static const char *const roles[] = { "free", "exit", "_exit", "abort", "control-c" };
    DWORD                    in, out;
    size_t                   i;
    need_console();
    SetConsoleCtrlHandler(NULL, TRUE); /* the Ctrl-C of another process is not for us */
    SetConsoleMode(console_out, ENABLE_PROCESSED_OUTPUT | ENABLE_WRAP_AT_EOL_OUTPUT);
    in = mode_of(console_in);
    out = mode_of(console_out);
    for (i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        DWORD status = ended(roles[i]);
        if (!CHECK(status != 44 && status != 99)) NOTE("status %lu of %s", (unsigned long)status, roles[i]);
        if (!CHECK_INT(mode_of(console_in), in)) NOTE("after %s", roles[i]);
        if (!CHECK_INT(mode_of(console_out), out)) NOTE("after %s", roles[i]);
    }
    CHECK_INT(ended("kill"), 0);
    CHECK(!(mode_of(console_in) & RAW_OFF)); /* TerminateProcess(): nobody is left who could */
    SetConsoleMode(console_in, in);
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

TEST(stdio_console_output)
{
    static const char text[] = "h\303\251 \342\202\254 \360\237\230\200|\r\nnext";
    recorder          rec;
    rig               r;
    size_t            i;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    for (i = 0; i < sizeof text - 1; i++) CHECK_INT(chr_fe_write(&rec.fe, text + i, 1), 1); /* characters come in pieces */
    CHECK_STR(line(0), "h\303\251 \342\202\254 \360\237\230\200|");
    CHECK_STR(line(1), "next");
    CHECK_INT(chr_fe_write(&rec.fe, "\nlast \377", 7), 7);
    CHECK_STR(line(2), "last \357\277\275"); /* no UTF-8 */
    CHECK_INT(chr_drain(r.ctx, 1000), 0);
    detach(&rec);
    rig_close(&r);
}

TEST(stdio_console_echo)
{
    recorder rec;
    rig      r;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    type("hidden\r");
    PUMP(&r, rec.length == 7);
    CHECK_STR(line(0), "");
    CHECK_INT(chr_fe_set_echo(&rec.fe, 1), 0);
    type("h\303\251\r\033x");
    PUMP(&r, rec.length == 13);
    CHECK_STR(line(0), "h\303\251");
    CHECK_STR(line(1), "^[x");
    CHECK_INT(chr_fe_set_echo(&rec.fe, 0), 0);
    type("y");
    PUMP(&r, rec.length == 14);
    CHECK_STR(line(1), "^[x");
    detach(&rec);
    rig_close(&r);
}

TEST(stdio_console_size)
{
    chr_terminal_size size = { 0, 0 };
    SMALL_RECT        window = { 0, 0, 59, 19 };
    recorder          rec;
    rig               r;
    need_console();
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
    CHECK_INT(size.columns, 80);
    CHECK_INT(size.rows, 24);
    if (SetConsoleWindowInfo(console_out, TRUE, &window)) {
            PUMP(&r, rec.last_event == CHR_EVENT_RESIZED);
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_GET_TERMINAL_SIZE, &size), 0);
        CHECK_INT(size.columns, 60);
        CHECK_INT(size.rows, 20);
    }
    detach(&rec);
    rig_close(&r);
}

/* ---- pipes, files, nothing --------------------------------------------------------------------------------------- */

TEST(stdio_second_is_refused)
{
    chr_error err;
    HANDLE    in, far_end;
    rig       r;
    REQUIRE(CreatePipe(&in, &far_end, NULL, 0));
    SetStdHandle(STD_INPUT_HANDLE, in);
    rig_open(&r);
    make(&r, "stdio,id=first");
    CHECK_INT(refuse(&r, "stdio,id=second", &err), CHR_ERR_BUSY);
    CHECK_STR(err.text, "stdio: in use by chardev 'first'");
    CHECK_INT(chr_remove(r.ctx, "first", NULL), 0);
    make(&r, "stdio,id=second");
    rig_close(&r);
    CloseHandle(far_end);
    CloseHandle(in);
}

/* Input is read by a thread, which ends with the chardev though nothing comes any more; output is written by one. */
TEST(stdio_on_pipes)
{
    recorder rec;
    HANDLE   in, keys, screen, out;
    DWORD    count, handles = 0, left = 0;
    char     text[20];
    rig      r;
    int      i;
    for (i = 0; i < 20; i++) {
        if (i == 5) GetProcessHandleCount(GetCurrentProcess(), &handles);
        REQUIRE(CreatePipe(&in, &keys, NULL, 0) && CreatePipe(&screen, &out, NULL, 0));
        SetStdHandle(STD_INPUT_HANDLE, in);
        SetStdHandle(STD_OUTPUT_HANDLE, out);
        rig_open(&r);
        attach(&rec, make(&r, "stdio,id=s"));
        CHECK(WriteFile(keys, "one\r\ntwo\r\n\r", 11, &count, NULL));
        PUMP(&r, rec.length == 8);
        CHECK_INPUT(&rec, "one\ntwo\n"); /* lines, without carriage returns */
        CHECK_INT(chr_fe_write_all(&rec.fe, "x\r\ny", 4, 5000), 4);
        CHECK(ReadFile(screen, text, sizeof text, &count, NULL));
        CHECK_MEM(text, count, "x\r\ny", 4); /* as it is */
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SET_ECHO, &i), CHR_ERR_NOT_SUPPORTED);
        if (i % 2) { /* the end of input */
            CloseHandle(keys);
            PUMP(&r, !rec.open);
            CHECK_STR(rec.events, "OC");
            CHECK_INT(chr_fe_write_all(&rec.fe, "z", 1, 5000), 1); /* output goes on */
            CHECK(ReadFile(screen, text, sizeof text, &count, NULL));
        }
        detach(&rec);
        rig_close(&r);
        if (i % 2 == 0) CloseHandle(keys);
        CHECK(CloseHandle(in)); /* they stay ours */
        CHECK(CloseHandle(out));
        CloseHandle(screen);
    }
    GetProcessHandleCount(GetCurrentProcess(), &left);
    CHECK(left <= handles + 4);
}

TEST(stdio_on_a_file)
{
    recorder rec;
    HANDLE   in;
    rig      r;
    write_file(scratch("in"), "a\r\nb");
    in = CreateFileA(scratch("in"), GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
    REQUIRE(in != INVALID_HANDLE_VALUE);
    SetStdHandle(STD_INPUT_HANDLE, in);
    rig_open(&r);
    attach(&rec, make(&r, "stdio,id=s"));
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "a\nb");
    detach(&rec);
    rig_close(&r);
    CloseHandle(in);
    scratch_clean();
}

TEST(stdio_that_is_closed)
{
    chr_error err;
    recorder  rec;
    HANDLE    screen, out;
    rig       r;
    rig_open(&r);
    SetStdHandle(STD_INPUT_HANDLE, NULL);
    SetStdHandle(STD_OUTPUT_HANDLE, INVALID_HANDLE_VALUE);
    CHECK_INT(refuse(&r, "stdio,id=s", &err), CHR_ERR_DISCONNECTED);
    CHECK_STR(err.text, "stdio: standard input and output are both closed");
    REQUIRE(CreatePipe(&screen, &out, NULL, 0));
    SetStdHandle(STD_OUTPUT_HANDLE, out);
    attach(&rec, make(&r, "stdio,id=s"));
    PUMP(&r, !rec.open);
    CHECK_INT(rec.length, 0);
    detach(&rec);
    CloseHandle(screen);
    CloseHandle(out);
    rig_close(&r);
}

/* ---- console ----------------------------------------------------------------------------------------------------- */

TEST(console_output)
{
    recorder rec;
    chr_info info;
    HANDLE   in, far_end;
    DWORD    out, count = 0;
    rig      r;
    need_console();
    SetConsoleMode(console_out, ENABLE_PROCESSED_OUTPUT | ENABLE_WRAP_AT_EOL_OUTPUT);
    out = mode_of(console_out);
    REQUIRE(CreatePipe(&in, &far_end, NULL, 0));
    SetStdHandle(STD_INPUT_HANDLE, in);
    SetStdHandle(STD_OUTPUT_HANDLE, far_end); /* standard output is no matter */
    rig_open(&r);
    attach(&rec, make(&r, "console,id=c"));
    CHECK_STR(rec.events, "O");
    CHECK_INT(mode_of(console_out), out | VT_OUTPUT);
    CHECK_INT(chr_fe_write(&rec.fe, "caf\303\251\n", 6), 6);
    CHECK_STR(line(0), "caf\303\251");
    chr_query(chr_find(r.ctx, "c"), &info);
    CHECK_STR(info.filename, "console");
    type("not for us");
    settle(&r);
    CHECK_INT(rec.length, 0);
    GetNumberOfConsoleInputEvents(console_in, &count);
    SetStdHandle(STD_INPUT_HANDLE, console_in);
    make(&r, "stdio,id=s");
    chr_remove(r.ctx, "s", NULL);
    CHECK_INT(mode_of(console_out), out | VT_OUTPUT); /* until the last of them is gone */
    detach(&rec);
    chr_remove(r.ctx, "c", NULL);
    CHECK_INT(mode_of(console_out), out);
    rig_close(&r);
}

TEST(console_without_one)
{
    chr_error err;
    rig       r;
    FreeConsole();
    rig_open(&r);
    CHECK_INT(refuse(&r, "console,id=c", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "console: this process has no console");
    CHECK_INT(refuse(&r, "console,id=c,size=3", &err), CHR_ERR_INVALID);
    rig_close(&r);
}

#endif
