/*
 * serial on Windows: a driver that is simulated in the system calls. Its bytes go through a named pipe, whose other end
 * is the far side. A real line under Wine (a pty) is in peers/windows_serial.py. On other systems see test_serial.c.
 */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <windows.h>
#include <stdio.h>
#include <string.h>

/* ---- the driver -------------------------------------------------------------------------------------------------- */

static struct driver {
    HANDLE      handle, far_end;       /* ours, as the library has it; the other end */
    int         is_unplugged, is_in_use, opens;
    DCB         state;
    int         refuses_odd_speeds, is_8250, sets;
    int         has_modem, status;     /* MS_..._ON */
    DWORD       errors;                /* CE_..., until somebody asks */
    int         has_events, is_void;   /* is_void: it completes at once with nothing, as Wine does */
    DWORD       mask, *found;
    OVERLAPPED *waiting;               /* WaitCommEvent() */
    int         in_break, waits, cancelled, is_stuck; /* is_stuck: it does not end though it was cancelled */
    DWORD       purged, write_error;
} driver;

static int line_number;

static const char *line_pipe(void)
{
    static char name[80];
    snprintf(name, sizeof name, "\\\\.\\pipe\\chardev-line-%lu-%d", GetCurrentProcessId(), line_number);
    return name;
}

static BOOL line_no(DWORD error) { return SetLastError(error), FALSE; }

static HANDLE line_CreateFileW(const WCHAR *name, DWORD access, DWORD share, SECURITY_ATTRIBUTES *security, DWORD how, DWORD flags, HANDLE like)
{
    if (lstrcmpiW(name, L"\\\\.\\COM77") != 0) return CreateFileW(name, access, share, security, how, flags, like);
    if (driver.is_unplugged) return SetLastError(ERROR_FILE_NOT_FOUND), INVALID_HANDLE_VALUE;
    if (driver.is_in_use || share != 0 || !(flags & FILE_FLAG_OVERLAPPED)) return SetLastError(ERROR_ACCESS_DENIED), INVALID_HANDLE_VALUE;
    driver.opens++;
    return driver.handle = CreateFileA(line_pipe(), access, 0, NULL, OPEN_EXISTING, flags, NULL);
}

static DWORD line_GetFileType(HANDLE handle) { return handle == driver.handle ? FILE_TYPE_CHAR : GetFileType(handle); }

static BOOL line_GetCommTimeouts(HANDLE handle, COMMTIMEOUTS *timeouts)
{
    memset(timeouts, 0, sizeof *timeouts);
    return handle == driver.handle ? TRUE : line_no(ERROR_INVALID_FUNCTION);
}

static BOOL line_SetCommTimeouts(HANDLE handle, COMMTIMEOUTS *timeouts)
{
    return handle == driver.handle && !timeouts->ReadIntervalTimeout && !timeouts->ReadTotalTimeoutConstant ? TRUE : line_no(ERROR_INVALID_PARAMETER);
}

static BOOL line_SetupComm(HANDLE handle, DWORD in, DWORD out) { return (void)handle, (void)in, (void)out, TRUE; }

static BOOL line_GetCommState(HANDLE handle, DCB *state)
{
    if (handle != driver.handle || !handle) return line_no(ERROR_INVALID_FUNCTION);
    *state = driver.state;
    return TRUE;
}

static BOOL line_SetCommState(HANDLE handle, DCB *state)
{
    int bits = state->ByteSize;
    if (handle != driver.handle) return line_no(ERROR_INVALID_FUNCTION);
    if (driver.refuses_odd_speeds && state->BaudRate != 115200 && state->BaudRate != 9600 && state->BaudRate != 128000) return line_no(ERROR_INVALID_PARAMETER);
    if (driver.is_8250 && state->StopBits == (bits == 5 ? TWOSTOPBITS : ONE5STOPBITS)) return line_no(ERROR_INVALID_PARAMETER);
    driver.state = *state;
    driver.sets++;
    return TRUE;
}

static BOOL line_GetCommModemStatus(HANDLE handle, DWORD *status)
{
    *status = (DWORD)driver.status;
    return handle == driver.handle && driver.has_modem ? TRUE : line_no(ERROR_NOT_SUPPORTED);
}

static BOOL line_ClearCommError(HANDLE handle, DWORD *errors, COMSTAT *queue)
{
    DWORD count = 0;
    if (handle != driver.handle) return line_no(ERROR_INVALID_FUNCTION);
    *errors = driver.errors;
    driver.errors = 0;
    if (queue) {
        memset(queue, 0, sizeof *queue);
        PeekNamedPipe(handle, NULL, 0, NULL, &count, NULL);
        queue->cbInQue = count;
    }
    return TRUE;
}

static BOOL line_SetCommMask(HANDLE handle, DWORD mask)
{
    if (handle != driver.handle || (!driver.has_modem && mask & EV_CTS)) return line_no(ERROR_NOT_SUPPORTED);
    driver.mask = mask;
    return TRUE;
}

static BOOL line_WaitCommEvent(HANDLE handle, DWORD *found, OVERLAPPED *operation)
{
    if (handle != driver.handle || !driver.has_events) return line_no(ERROR_NOT_SUPPORTED);
    driver.waits++;
    driver.found = found;
    driver.waiting = operation;
    ResetEvent(operation->hEvent);
    operation->Internal = (ULONG_PTR)STATUS_PENDING;
    if (driver.is_void) {
        operation->Internal = 0;
        SetEvent(operation->hEvent);
    }
    return line_no(ERROR_IO_PENDING);
}

static BOOL line_GetOverlappedResult(HANDLE handle, OVERLAPPED *operation, DWORD *count, BOOL waits)
{
    if (!operation || operation != driver.waiting) return GetOverlappedResult(handle, operation, count, waits);
    if (operation->Internal == (ULONG_PTR)STATUS_PENDING) return line_no(ERROR_IO_INCOMPLETE);
    SetLastError(ERROR_IO_INCOMPLETE); /* what worked says nothing about the last error */
    return operation->Internal ? line_no(ERROR_OPERATION_ABORTED) : TRUE;
}

static BOOL line_CancelIoEx(HANDLE handle, OVERLAPPED *operation)
{
    if (!operation || operation != driver.waiting) return CancelIoEx(handle, operation);
    operation->Internal = 1;
    driver.waiting = NULL;
    driver.cancelled++;
    if (!driver.is_stuck) SetEvent(operation->hEvent);
    return TRUE;
}

static BOOL line_SetCommBreak(HANDLE handle) { return driver.in_break = 1, handle == driver.handle; }
static BOOL line_ClearCommBreak(HANDLE handle) { return driver.in_break = 0, handle == driver.handle; }
static BOOL line_PurgeComm(HANDLE handle, DWORD what) { return driver.purged |= what, handle == driver.handle; }

static BOOL line_WriteFile(HANDLE handle, const void *bytes, DWORD size, DWORD *count, OVERLAPPED *operation)
{
    if (handle == driver.handle && driver.write_error) return line_no(driver.write_error);
    return WriteFile(handle, bytes, size, count, operation);
}

#define CreateFileW         line_CreateFileW
#define GetFileType         line_GetFileType
#define GetCommTimeouts     line_GetCommTimeouts
#define SetCommTimeouts     line_SetCommTimeouts
#define SetupComm           line_SetupComm
#define GetCommState        line_GetCommState
#define SetCommState        line_SetCommState
#define GetCommModemStatus  line_GetCommModemStatus
#define ClearCommError      line_ClearCommError
#define SetCommMask         line_SetCommMask
#define WaitCommEvent       line_WaitCommEvent
#define GetOverlappedResult line_GetOverlappedResult
#define CancelIoEx          line_CancelIoEx
#define SetCommBreak        line_SetCommBreak
#define ClearCommBreak      line_ClearCommBreak
#define PurgeComm           line_PurgeComm
#define WriteFile           line_WriteFile
#endif

#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
#include "rig.h"

#ifndef _WIN32

/* Names of ports are not devices here. */
TEST(serial_port_names_are_for_windows)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(!chr_new_any(r.ctx, "s", "COM77", &err));
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "'COM77' is not the name of a backend");
    rig_close(&r);
}

#else

/* ---- the far side ------------------------------------------------------------------------------------------------ */

static void plug(void)
{
    line_number++;
    driver.far_end = CreateNamedPipeA(line_pipe(), PIPE_ACCESS_DUPLEX, PIPE_TYPE_BYTE | PIPE_WAIT, 1, 65536, 65536, 0, NULL);
    REQUIRE(driver.far_end != INVALID_HANDLE_VALUE);
    driver.is_unplugged = 0;
}

static void unplug(void)
{
    CloseHandle(driver.far_end);
    driver.is_unplugged = 1;
}

static void begin(rig *r)
{
    memset(&driver, 0, sizeof driver);
    driver.has_modem = driver.has_events = 1;
    driver.state.DCBlength = sizeof driver.state;
    driver.state.BaudRate = 1200;
    driver.state.ByteSize = 7;
    driver.state.Parity = EVENPARITY;
    driver.state.fErrorChar = driver.state.fNull = driver.state.fAbortOnError = driver.state.fOutxDsrFlow = driver.state.fOutX = 1;
    plug();
    rig_open_virtual(r);
}

static void far_say(const char *bytes, size_t size)
{
    DWORD count;
    CHECK(WriteFile(driver.far_end, bytes, (DWORD)size, &count, NULL) && count == size);
}

static DWORD far_has(void)
{
    DWORD count = 0;
    PeekNamedPipe(driver.far_end, NULL, 0, NULL, &count, NULL);
    return count;
}

static const char *far_hear(void)
{
    static char text[100000];
    DWORD       count = 0;
    if (far_has()) ReadFile(driver.far_end, text, sizeof text - 1, &count, NULL);
    text[count] = 0;
    return text;
}

static void tell(DWORD events, DWORD errors)
{
    REQUIRE(driver.waiting);
    driver.errors |= errors;
    *driver.found = events;
    driver.waiting->Internal = 0;
    SetEvent(driver.waiting->hEvent);
}

static int params_are(recorder *rec, int speed, int parity, int data_bits, int stop_bits)
{
    chr_serial_params now;
    CHECK_INT(chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_GET_PARAMS, &now), 0);
    return CHECK_INT(now.speed, speed) & CHECK_INT(now.parity, parity) & CHECK_INT(now.data_bits, data_bits) & CHECK_INT(now.stop_bits, stop_bits);
}

static int set_params(recorder *rec, int speed, int parity, int data_bits, int stop_bits)
{
    chr_serial_params params;
    params.speed = speed;
    params.parity = parity;
    params.data_bits = data_bits;
    params.stop_bits = stop_bits;
    return chr_fe_ioctl(&rec->fe, CHR_IOCTL_SERIAL_SET_PARAMS, &params);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

TEST(serial_opens_raw_at_115200_8n1)
{
    recorder rec;
    rig      r;
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    CHECK_STR(rec.events, "O");
    CHECK_INT(driver.state.BaudRate, 115200);
    CHECK_INT(driver.state.ByteSize, 8);
    CHECK_INT(driver.state.Parity, NOPARITY);
    CHECK_INT(driver.state.StopBits, ONESTOPBIT);
    CHECK(driver.state.fBinary && !driver.state.fErrorChar && !driver.state.fNull && !driver.state.fAbortOnError && !driver.state.fOutxDsrFlow);
    CHECK(!driver.state.fOutX && !driver.state.fInX && !driver.state.fOutxCtsFlow);
    CHECK_INT(driver.state.fDtrControl, DTR_CONTROL_ENABLE);
    CHECK_INT(driver.state.fRtsControl, RTS_CONTROL_ENABLE);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_names)
{
    static const char *const names[] = { "COM77", "com77", "\\\\.\\COM77", "mon:COM77" };
    char                     text[400];
    chr_error                err;
    rig                      r;
    size_t                   i;
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        begin(&r);
        if (!CHECK(chr_new_any(r.ctx, "s", names[i], &err) != NULL)) NOTE("%s: %s", names[i], err.text);
        CHECK_INT(driver.opens, 1);
        rig_close(&r);
    }
    begin(&r);
    CHECK(!chr_new_any(r.ctx, "s", "COM77x", &err));
    CHECK_HAS(err.text, "'COM77x' is not the name of a backend");
    CHECK(!chr_new_any(r.ctx, "s", "/dev/ttyS9", &err));
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    driver.is_unplugged = 1;
    CHECK_INT(refuse(&r, "serial,id=s,path=COM77", &err), CHR_ERR_NOT_FOUND);
    CHECK_STR(err.text, "serial: cannot open COM77: there is no such port");
    driver.is_unplugged = 0;
    driver.is_in_use = 1;
    CHECK_INT(refuse(&r, "serial,id=s,path=COM77", &err), CHR_ERR_BUSY);
    CHECK_STR(err.text, "serial: cannot open COM77: it is in use, or access is denied");
    write_file(scratch("f"), "");
    snprintf(text, sizeof text, "serial,id=s,path=%s", scratch("f"));
    CHECK(!chr_new(r.ctx, text, &err));
    CHECK_INT(err.code, CHR_ERR_INVALID);
    CHECK_HAS(err.text, "is not a terminal or another character device");
    scratch_clean();
    rig_close(&r);
}

TEST(serial_every_byte_both_ways)
{
    recorder      rec;
    unsigned char bytes[256 * 16];
    rig           r;
    size_t        i, sent = 0;
    DWORD         count, got = 0;
    unsigned char back[sizeof bytes];
    for (i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(i * 7 + i / 256);
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    far_say((const char *)bytes, sizeof bytes);
    PUMP(&r, rec.length == sizeof bytes);
    CHECK_MEM(rec.input, rec.length, bytes, sizeof bytes);
    while (got < sizeof bytes) {
        int n = sent < sizeof bytes ? chr_fe_write(&rec.fe, bytes + sent, sizeof bytes - sent) : 0;
        sent += n > 0 ? (size_t)n : 0;
        chr_loop_step(r.ctx, 1);
        if (far_has() && ReadFile(driver.far_end, back + got, (DWORD)sizeof back - got, &count, NULL)) got += count;
    }
    CHECK_MEM(back, got, bytes, sizeof bytes);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_without_room)
{
    recorder rec;
    rig      r;
    int      i, ran = 0;
    begin(&r);
    attach_with_room(&rec, make(&r, "serial,id=s,path=COM77"), 2);
    far_say("abcdef", 6);
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

static void make_room(void *opaque, int events)
{
    recorder *rec = (recorder *)opaque;
    (void)events;
    rec->room = 2;
}

/* Room appears in the turn of the loop in which bytes are delivered, and these fill it: this is not end of file. */
TEST(serial_room_in_between)
{
    HANDLE    event = CreateEventA(NULL, TRUE, FALSE, NULL);
    chr_watch watch;
    recorder  rec;
    rig       r;
    begin(&r);
    memset(&watch, 0, sizeof watch);
    CHECK_INT(chr_watch_start(r.ctx, &watch, (int)(intptr_t)event, CHR_IN, make_room, &rec), 0);
    attach_with_room(&rec, make(&r, "serial,id=s,path=COM77"), 0);
    settle(&r);
    far_say("ab", 2);
    SetEvent(event);
    Sleep(200);
    CHECK(chr_loop_step(r.ctx, 0) >= 0);
    chr_watch_stop(&watch);
    PUMP(&r, rec.length == 2);
    settle(&r);
    CHECK_STR(rec.events, "O");
    far_say("cd", 2);
    give_room(&rec, 100);
    PUMP(&r, rec.length == 4);
    CHECK_INPUT(&rec, "abcd");
    detach(&rec);
    rig_close(&r);
    CloseHandle(event);
}

TEST(serial_formats)
{
    static const struct { int speed, parity, data, stop, system_parity, system_stop; } table[] = {
        { 9600, 'E', 7, 1, EVENPARITY, ONESTOPBIT },   { 50, 'O', 8, 2, ODDPARITY, TWOSTOPBITS },
        { 4000000, 'M', 6, 1, MARKPARITY, ONESTOPBIT }, { 123456, 'S', 8, 2, SPACEPARITY, TWOSTOPBITS },
        { 300, 'N', 5, CHR_STOP_BITS_1_5, NOPARITY, ONE5STOPBITS },
    };
    recorder rec;
    rig      r;
    size_t   i;
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    for (i = 0; i < sizeof table / sizeof table[0]; i++) {
        CHECK_INT(set_params(&rec, table[i].speed, table[i].parity, table[i].data, table[i].stop), 0);
        CHECK_INT(driver.state.BaudRate, table[i].speed);
        CHECK_INT(driver.state.Parity, table[i].system_parity);
        CHECK_INT(driver.state.fParity, table[i].parity != 'N');
        CHECK_INT(driver.state.ByteSize, table[i].data);
        CHECK_INT(driver.state.StopBits, table[i].system_stop);
        params_are(&rec, table[i].speed, table[i].parity, table[i].data, table[i].stop);
    }
    CHECK_INT(set_params(&rec, 9600, 'X', 8, 1), CHR_ERR_INVALID);
    driver.state.BaudRate = 4800; /* others may set it, too */
    params_are(&rec, 4800, 'N', 5, CHR_STOP_BITS_1_5);
    detach(&rec);
    rig_close(&r);
}

/* A driver accepts all settings or none: unsupported ones are replaced by the nearest, and that is reported. */
TEST(serial_formats_that_a_driver_refuses)
{
    recorder rec;
    rig      r;
    begin(&r);
    driver.refuses_odd_speeds = driver.is_8250 = 1;
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    CHECK_INT(set_params(&rec, 9600, 'E', 5, 2), CHR_ERR_INVALID);
    params_are(&rec, 9600, 'E', 5, CHR_STOP_BITS_1_5);
    CHECK_INT(set_params(&rec, 9600, 'E', 8, CHR_STOP_BITS_1_5), CHR_ERR_INVALID);
    params_are(&rec, 9600, 'E', 8, 2);
    CHECK_INT(set_params(&rec, 125000, 'N', 8, 1), 0); /* within 10 % */
    params_are(&rec, 128000, 'N', 8, 1);
    CHECK_INT(set_params(&rec, 31250, 'O', 7, 1), CHR_ERR_INVALID); /* the rest counts */
    params_are(&rec, 128000, 'O', 7, 1);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_flow_control)
{
    static const int flows[] = { CHR_FLOW_XONXOFF, CHR_FLOW_RTSCTS, CHR_FLOW_SPLIT(CHR_FLOW_RTSCTS, CHR_FLOW_NONE),
                                 CHR_FLOW_SPLIT(CHR_FLOW_NONE, CHR_FLOW_RTSCTS), CHR_FLOW_SPLIT(CHR_FLOW_XONXOFF, CHR_FLOW_RTSCTS), CHR_FLOW_NONE };
    recorder         rec;
    rig              r;
    size_t           i;
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    for (i = 0; i < sizeof flows / sizeof flows[0]; i++) {
        int flow = flows[i], now = -1, out = flow & 15, in = flow >> 4 ? (flow >> 4) - 1 : out;
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_FLOW, &flow), 0);
        CHECK_INT(driver.state.fOutX, out == CHR_FLOW_XONXOFF);
        CHECK_INT(driver.state.fInX, in == CHR_FLOW_XONXOFF);
        CHECK_INT(driver.state.fOutxCtsFlow, out == CHR_FLOW_RTSCTS);
        CHECK_INT(driver.state.fRtsControl, in == CHR_FLOW_RTSCTS ? RTS_CONTROL_HANDSHAKE : RTS_CONTROL_ENABLE);
        CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_FLOW, &now), 0);
        CHECK_INT(now, flow);
    }
    CHECK_INT(driver.state.XonChar, 17);
    CHECK_INT(driver.state.XoffChar, 19);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_modem_lines)
{
    recorder rec;
    rig      r;
    int      lines = CHR_TIOCM_DTR;
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    driver.status = MS_CTS_ON | MS_RING_ON;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    CHECK_INT(driver.state.fDtrControl, DTR_CONTROL_ENABLE);
    CHECK_INT(driver.state.fRtsControl, RTS_CONTROL_DISABLE);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), 0);
    CHECK_INT(lines, CHR_TIOCM_DTR | CHR_TIOCM_CTS | CHR_TIOCM_RI);
    CHECK_INT(set_params(&rec, 9600, 'N', 8, 1), 0); /* leaves them alone */
    CHECK_INT(driver.state.fRtsControl, RTS_CONTROL_DISABLE);
    driver.status = MS_DSR_ON | MS_RLSD_ON;
    tell(EV_DSR | EV_RLSD, 0);
    PUMP(&r, rec.last_event == CHR_EVENT_SERIAL);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), 0);
    CHECK_INT(lines, CHR_TIOCM_DTR | CHR_TIOCM_DSR | CHR_TIOCM_CAR);
    driver.has_modem = 0;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_break_and_errors)
{
    recorder rec;
    rig      r;
    int      on = 1, off = 0, errors = 0;
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(driver.in_break, 1);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &off), 0);
    CHECK_INT(driver.in_break, 0);
    tell(EV_BREAK, CE_BREAK);
    PUMP(&r, rec.last_event == CHR_EVENT_BREAK);
    tell(EV_ERR, CE_FRAME | CE_OVERRUN);
    PUMP(&r, rec.last_event == CHR_EVENT_LINE_ERROR);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors), 0);
    CHECK_INT(errors, CHR_LINE_FRAMING | CHR_LINE_OVERRUN);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors), 0);
    CHECK_INT(errors, 0);
    driver.errors = CE_RXPARITY; /* met by the read of the next bytes */
    far_say("ab", 2);
    PUMP(&r, rec.length == 2);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_ERRORS, &errors), 0);
    CHECK_INT(errors, CHR_LINE_PARITY);
    far_say("\377\0\0\377\377", 5); /* no marks here: bytes as they came */
    PUMP(&r, rec.length == 7);
    CHECK_MEM(rec.input + 2, rec.length - 2, "\377\0\0\377\377", 5);
    detach(&rec);
    rig_close(&r);
}

/* A driver without modem events, without any events, or with empty results again and again. */
TEST(serial_drivers_without_events)
{
    recorder rec;
    rig      r;
    int      i, kind;
    for (kind = 0; kind < 3; kind++) {
        begin(&r);
        driver.has_modem = 0;
        driver.has_events = kind != 1;
        driver.is_void = kind == 2;
        attach(&rec, make(&r, "serial,id=s,path=COM77"));
        for (i = 0; i < 5; i++) chr_loop_step(r.ctx, 10);
        CHECK_INT(driver.waits, kind != 1);
        if (kind == 0) {
            CHECK_INT(driver.mask, EV_BREAK | EV_ERR);
            tell(EV_BREAK, CE_BREAK);
            PUMP(&r, rec.last_event == CHR_EVENT_BREAK);
        }
        settle(&r);
        CHECK_INT(chr_loop_step(r.ctx, 0), 0);
        far_say("x", 1);
        PUMP(&r, rec.length == 1);
        detach(&rec);
        rig_close(&r);
        unplug();
    }
}

TEST(serial_purge)
{
    recorder rec;
    rig      r;
    int      what = CHR_PURGE_RECEIVE | CHR_PURGE_TRANSMIT;
    begin(&r);
    attach_with_room(&rec, make(&r, "serial,id=s,path=COM77"), 1);
    far_say("abc", 3);
    PUMP(&r, rec.length == 1);
    settle(&r);
    far_say("ahead", 5); /* the first of it is read before anybody asks for it */
    Sleep(200);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), 0);
    CHECK_INT(driver.purged, PURGE_RXCLEAR | PURGE_TXCLEAR);
    give_room(&rec, 100);
    far_say("d", 1);
    PUMP(&r, rec.length == 2);
    CHECK_INPUT(&rec, "ad");
    what = 0;
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_PURGE, &what), CHR_ERR_INVALID);
    detach(&rec);
    rig_close(&r);
}

TEST(serial_unplugged_and_back)
{
    recorder rec;
    rig      r;
    int      lines = CHR_TIOCM_RTS, on = 1;
    begin(&r);
    attach(&rec, make(&r, "serial,id=s,path=COM77,reconnect-ms=100"));
    far_say("last words", 10);
    unplug();
    PUMP(&r, !rec.open);
    CHECK_INPUT(&rec, "last words");
    CHECK_STR(rec.events, "OC");
    CHECK_INT(set_params(&rec, 9600, 'E', 7, 2), 0); /* taken for when it is back */
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_TIOCM, &lines), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_SET_BREAK, &on), 0);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED);
    pass_time(&r, 150);
    CHECK_INT(r.logs, 1); /* once, not at each attempt */
    CHECK_HAS(r.log, "there is no such port");
    pass_time(&r, 150);
    CHECK_INT(r.logs, 1);
    plug();
    pass_time(&r, 150);
    PUMP(&r, rec.open);
    CHECK_INT(driver.state.BaudRate, 9600);
    CHECK_INT(driver.state.Parity, EVENPARITY);
    CHECK_INT(driver.state.fDtrControl, DTR_CONTROL_DISABLE);
    CHECK_INT(driver.in_break, 1);
    CHECK_INT(chr_fe_write_all(&rec.fe, "back", 4, 5000), 4);
    CHECK_STR(far_hear(), "back");
    detach(&rec);
    rig_close(&r);
}

/* What drivers answer when their device is pulled out. */
TEST(serial_unplug_met_by_a_write)
{
    static const DWORD errors[] = { ERROR_ACCESS_DENIED, ERROR_BAD_COMMAND, ERROR_GEN_FAILURE, ERROR_NOT_READY, ERROR_DEVICE_NOT_CONNECTED };
    recorder           rec;
    rig                r;
    size_t             i;
    for (i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        begin(&r);
        attach(&rec, make(&r, "serial,id=s,path=COM77"));
        driver.write_error = errors[i];
        if (!CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_DISCONNECTED)) NOTE("error %lu", (unsigned long)errors[i]);
        unplug();
        PUMP(&r, !rec.open);
        detach(&rec);
        rig_close(&r);
    }
}

TEST(serial_not_plugged_in_yet)
{
    recorder rec;
    rig      r;
    begin(&r);
    unplug();
    attach(&rec, make(&r, "serial,id=s,path=COM77,reconnect-ms=100"));
    CHECK_STR(rec.events, "");
    plug();
    pass_time(&r, 150);
    PUMP(&r, rec.open);
    far_say("x", 1);
    PUMP(&r, rec.length == 1);
    detach(&rec);
    rig_close(&r);
}

/* A driver that hangs costs memory, and a second at the end. */
TEST(serial_driver_that_is_stuck)
{
    recorder rec;
    rig      r;
    begin(&r);
    driver.is_stuck = 1;
    attach(&rec, make(&r, "serial,id=s,path=COM77"));
    detach(&rec);
    rig_close(&r);
    CHECK_INT(driver.cancelled, 1);
}

typedef struct remover {
    chr_frontend fe;
    int          when, events;
} remover;

static void remove_at(void *opaque, int event)
{
    remover     *it = (remover *)opaque;
    chr_context *ctx = it->fe.ctx;
    it->events++;
    if (event != it->when) return;
    chr_fe_deinit(&it->fe);
    CHECK_INT(chr_remove(ctx, "s", NULL), 0);
}

/* The handler of each event may remove the chardev; the remaining events are not delivered then. */
TEST(serial_removed_inside_its_handlers)
{
    static const int          events[] = { CHR_EVENT_BREAK, CHR_EVENT_LINE_ERROR, CHR_EVENT_SERIAL, CHR_EVENT_CLOSED };
    static const chr_handlers handlers = { NULL, NULL, remove_at, NULL };
    remover                   it;
    rig                       r;
    size_t                    i;
    for (i = 0; i < sizeof events / sizeof events[0]; i++) {
        begin(&r);
        memset(&it, 0, sizeof it);
        it.when = events[i];
        CHECK_INT(chr_fe_init(&it.fe, make(&r, "serial,id=s,path=COM77"), NULL), 0);
        chr_fe_set_handlers(&it.fe, &handlers, &it);
        CHECK_INT(it.events, 1);
        if (events[i] == CHR_EVENT_CLOSED) unplug();
        else tell(EV_BREAK | EV_ERR | EV_CTS, CE_FRAME);
        PUMP(&r, !chr_find(r.ctx, "s"));
        settle(&r);
        rig_close(&r);
    }
}

/* A device that is no line. */
TEST(serial_nul)
{
    recorder rec;
    rig      r;
    int      lines, i, steps = 0;
    rig_open(&r);
    attach(&rec, make(&r, "serial,id=s,path=NUL"));
    CHECK_INT(chr_fe_write(&rec.fe, "gone", 4), 4);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &lines), CHR_ERR_NOT_SUPPORTED);
    PUMP(&r, !rec.open);
    CHECK_STR(rec.events, "OC"); /* the end of its input */
    CHECK_INT(chr_fe_write_all(&rec.fe, "more", 4, 5000), 4);
    for (i = 0; i < 5; i++) steps += chr_loop_step(r.ctx, 5) > 0;
    CHECK_INT(steps, 0);
    detach(&rec);
    rig_close(&r);
}

/* Handles are all given back. */
TEST(serial_leaves_nothing)
{
    recorder rec;
    DWORD    handles = 0, left = 0;
    rig      r;
    int      i;
    for (i = 0; i < 30; i++) {
        if (i == 5) GetProcessHandleCount(GetCurrentProcess(), &handles);
        begin(&r);
        attach(&rec, make(&r, "serial,id=s,path=COM77"));
        CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
        detach(&rec);
        rig_close(&r);
        unplug();
    }
    GetProcessHandleCount(GetCurrentProcess(), &left);
    CHECK(left <= handles + 4);
}

#endif
