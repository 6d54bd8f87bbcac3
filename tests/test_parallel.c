/*
 * parallel: the port is a FUSE file whose ioctls, reads and writes another process answers, so that all system calls
 * are real. It records them in shared memory. Mounting needs root and /dev/fuse; the mount is in this test's own name
 * space.
 */
#include "chardev.h"
#include "rig.h"

#include <linux/fuse.h>
#include <linux/parport.h>
#include <linux/ppdev.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

/* ---- the port, and the process that plays it --------------------------------------------------------------------- */

struct port {
    unsigned char data, status, control;
    int           claim_error, mode_error, register_error, accepts; /* an errno; how many bytes a write takes, -1 = all */
    int           mode;
    char          notes[1000];                      /* "claim mode=40 write=40:6162 ..." */
    char          sends[100];                       /* what reads give */
};

static struct port *port;

static void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *format, ...)
{
    va_list args;
    size_t  used = strlen(port->notes);
    va_start(args, format);
    vsnprintf(port->notes + used, sizeof port->notes - used, format, args);
    va_end(args);
}

static void answer(int fuse, uint64_t unique, int error, const void *payload, size_t size)
{
    char                   message[sizeof(struct fuse_out_header) + 4096];
    struct fuse_out_header header;
    ssize_t                n;
    header.len = (uint32_t)(sizeof header + size);
    header.error = -error;
    header.unique = unique;
    memcpy(message, &header, sizeof header);
    if (size) memcpy(message + sizeof header, payload, size);
    n = write(fuse, message, header.len);
    (void)n; /* an interrupted request is nobody's any more */
}

/* One ioctl: fills out[], returns an errno. */
static int play_ioctl(unsigned cmd, const unsigned char *in, unsigned char *out)
{
    int value = 0;
    if (_IOC_SIZE(cmd) == sizeof value && in) memcpy(&value, in, sizeof value);
    if (port->register_error && cmd != PPCLAIM && cmd != PPRELEASE && cmd != PPSETMODE) return port->register_error;
    switch (cmd) {
    case PPCLAIM: note("claim "); return port->claim_error;
    case PPRELEASE: note("release "); return 0;
    case PPRDATA: out[0] = port->data; return 0;
    case PPRSTATUS: out[0] = port->status; return 0;
    case PPRCONTROL: out[0] = port->control; return 0;
    case PPWDATA: port->data = in[0]; note("data=%02x ", in[0]); return 0;
    case PPWCONTROL: port->control = in[0] & 0x0f; note("control=%02x ", in[0]); return 0;
    case PPDATADIR: note("direction=%d ", value); return 0;
    case PPSETMODE:
        note("mode=%x ", value);
        if (!port->mode_error) port->mode = value;
        return port->mode_error;
    default: note("ioctl=%x ", cmd); return ENOTTY;
    }
}

static void serve_ioctl(int fuse, uint64_t unique, const unsigned char *body)
{
    struct fuse_ioctl_in  in;
    struct fuse_ioctl_out out;
    unsigned char         message[sizeof out + 16];
    int                   error;
    memcpy(&in, body, sizeof in);
    memset(&out, 0, sizeof out);
    memset(message, 0, sizeof message);
    error = play_ioctl(in.cmd, in.in_size ? body + sizeof in : NULL, message + sizeof out);
    memcpy(message, &out, sizeof out);
    answer(fuse, unique, error, message, error ? 0 : sizeof out + in.out_size);
}

static void serve_write(int fuse, uint64_t unique, const unsigned char *body)
{
    struct fuse_write_in  in;
    struct fuse_write_out out;
    uint32_t              i;
    memcpy(&in, body, sizeof in);
    memset(&out, 0, sizeof out);
    out.size = port->accepts >= 0 && (uint32_t)port->accepts < in.size ? (uint32_t)port->accepts : in.size;
    note("write=%x:", port->mode);
    for (i = 0; i < out.size; i++) note("%02x", body[sizeof in + i]);
    note(" ");
    answer(fuse, unique, 0, &out, sizeof out);
}

static void serve_read(int fuse, uint64_t unique, const unsigned char *body)
{
    struct fuse_read_in in;
    size_t              n = strlen(port->sends);
    memcpy(&in, body, sizeof in);
    note("read=%x:%u ", port->mode, in.size);
    answer(fuse, unique, 0, port->sends, n < in.size ? n : in.size);
}

static void serve_attributes(int fuse, uint64_t unique)
{
    struct fuse_attr_out out;
    memset(&out, 0, sizeof out);
    out.attr.ino = FUSE_ROOT_ID;
    out.attr.mode = S_IFREG | 0666;
    out.attr.nlink = 1;
    answer(fuse, unique, 0, &out, sizeof out);
}

static void serve_open(int fuse, uint64_t unique)
{
    struct fuse_open_out out;
    memset(&out, 0, sizeof out);
    out.open_flags = FOPEN_DIRECT_IO | FOPEN_NONSEEKABLE;
    answer(fuse, unique, 0, &out, sizeof out);
}

static void serve_init(int fuse, uint64_t unique)
{
    struct fuse_init_out out;
    memset(&out, 0, sizeof out);
    out.major = FUSE_KERNEL_VERSION;
    out.minor = 31;
    out.max_write = 4096;
    answer(fuse, unique, 0, &out, sizeof out);
}

static void serve(int fuse)
{
    static unsigned char  message[1 << 17];
    struct fuse_in_header header;
    while (read(fuse, message, sizeof message) >= (ssize_t)sizeof header) {
        const unsigned char *body = message + sizeof header;
        memcpy(&header, message, sizeof header);
        switch (header.opcode) {
        case FUSE_INIT: serve_init(fuse, header.unique); break;
        case FUSE_GETATTR: case FUSE_SETATTR: serve_attributes(fuse, header.unique); break;
        case FUSE_OPEN: serve_open(fuse, header.unique); break;
        case FUSE_IOCTL: serve_ioctl(fuse, header.unique, body); break;
        case FUSE_READ: serve_read(fuse, header.unique, body); break;
        case FUSE_WRITE: serve_write(fuse, header.unique, body); break;
        case FUSE_RELEASE: case FUSE_FLUSH: answer(fuse, header.unique, 0, NULL, 0); break;
        case FUSE_FORGET: case FUSE_BATCH_FORGET: case FUSE_INTERRUPT: break;
        default: answer(fuse, header.unique, ENOSYS, NULL, 0);
        }
    }
    _exit(0);
}

/* Where /dev is bare root makes the device. */
static int open_fuse(void)
{
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0 && mknod(scratch("fuse"), S_IFCHR | 0600, makedev(10, 229)) == 0) fuse = open(scratch("fuse"), O_RDWR | O_CLOEXEC);
    return fuse;
}

/* Mounts a port over a file of ours; returns its path. The test is skipped where that can't be. */
static const char *plug_in(void)
{
    static char path[300];
    char        options[100];
    int         fuse = open_fuse();
    if (fuse < 0) SKIP("there is no FUSE to play a parallel port with");
    port = (struct port *)mmap(NULL, sizeof *port, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(port != MAP_FAILED);
    port->mode = IEEE1284_MODE_COMPAT;
    port->accepts = -1;
    snprintf(path, sizeof path, "%s", scratch("parport0"));
    write_file(path, "");
    if (unshare(CLONE_NEWNS) < 0) SKIP("mounting a file needs root");
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL); /* fails in a chroot: then the mount is seen outside until it goes */
    snprintf(options, sizeof options, "fd=%d,rootmode=100000,user_id=0,group_id=0", fuse);
    if (mount("parport", path, "fuse", MS_NOSUID, options) < 0) SKIP("this kernel doesn't mount FUSE files");
    if (fork() == 0) serve(fuse);
    close(fuse);
    return path;
}

static void unplug(const char *path)
{
    umount2(path, MNT_DETACH);
    scratch_clean();
}

/* The chardev on the port, with a recorder. */
static const char *open_port(rig *r, recorder *rec)
{
    char        options[400];
    const char *path = plug_in();
    rig_open(r);
    snprintf(options, sizeof options, "parallel,id=p,path=%s", path);
    attach(rec, make(r, options));
    settle(r);
    return path;
}

static void end_port(rig *r, recorder *rec, const char *path)
{
    detach(rec);
    rig_close(r);
    unplug(path);
}

static int pp(recorder *rec, int command, int value)
{
    unsigned char byte = (unsigned char)value;
    int           code = chr_fe_ioctl(&rec->fe, command, &byte);
    return code < 0 ? code : byte;
}

static int epp(recorder *rec, int command, void *buf, int count)
{
    chr_parallel_epp transfer;
    transfer.buf = buf;
    transfer.count = count;
    return chr_fe_ioctl(&rec->fe, command, &transfer);
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

TEST(parallel_claims_and_releases)
{
    chr_info    info;
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    CHECK_STR(rec.events, "O");
    CHECK_STR(port->notes, "claim ");
    chr_query(rec.fe.dev, &info);
    CHECK_STR(info.backend, "parallel");
    CHECK_STR(info.filename, "parallel");
    end_port(&r, &rec, path);
    CHECK_STR(port->notes, "claim release ");
}

TEST(parallel_registers)
{
    int         in = 1, out = 0, value;
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    for (value = 0; value < 256; value += 51) {
        CHECK_INT(pp(&rec, CHR_IOCTL_PP_WRITE_DATA, value), value);
        CHECK_INT(port->data, value);
        CHECK_INT(pp(&rec, CHR_IOCTL_PP_READ_DATA, 0x77), value);
        port->status = (unsigned char)~value;
        CHECK_INT(pp(&rec, CHR_IOCTL_PP_READ_STATUS, 0x77), (unsigned char)~value);
    }
    memset(port->notes, 0, sizeof port->notes);
    CHECK_INT(pp(&rec, CHR_IOCTL_PP_WRITE_CONTROL, 0x0d), 0x0d);
    CHECK_INT(pp(&rec, CHR_IOCTL_PP_READ_CONTROL, 0), 0xcd);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_PP_DATA_DIR, &in), 0);
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_PP_DATA_DIR, &out), 0);
    CHECK_STR(port->notes, "control=0d direction=1 direction=0 ");
    CHECK_INT(chr_fe_ioctl(&rec.fe, CHR_IOCTL_SERIAL_GET_TIOCM, &in), CHR_ERR_NOT_SUPPORTED);
    end_port(&r, &rec, path);
}

/* Each error of the port is returned, and no value is invented. */
TEST(parallel_registers_that_fail)
{
    static const int commands[] = { CHR_IOCTL_PP_READ_DATA, CHR_IOCTL_PP_WRITE_DATA, CHR_IOCTL_PP_READ_CONTROL,
                                    CHR_IOCTL_PP_WRITE_CONTROL, CHR_IOCTL_PP_READ_STATUS, CHR_IOCTL_PP_DATA_DIR };
    size_t      i;
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    port->register_error = EIO;
    for (i = 0; i < sizeof commands / sizeof *commands; i++) {
        int value = 0x05;
        if (!CHECK_INT(chr_fe_ioctl(&rec.fe, commands[i], &value), CHR_ERR_IO)) NOTE("command %d", commands[i]);
        CHECK_INT(value, 0x05);
    }
    port->register_error = 0;
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_READ, NULL, 0), 0); /* no cycles at all */
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE, NULL, 0), 0);
    port->mode_error = EIO;
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_IO); /* no way back to where it prints */
    port->mode_error = 0;
    end_port(&r, &rec, path);
}

/* The mode changes only when it must, and goes back at the end. */
TEST(parallel_epp)
{
    char        got[4] = "";
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    strcpy(port->sends, "xyz");
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE_ADDRESS, (char[]){ 0x10 }, 1), 0);
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE, (char[]){ 'a', 'b', 'c' }, 3), 0);
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE, (char[]){ 'd' }, 1), 0);
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_READ, got, 3), 0);
    CHECK_STR(got, "xyz");
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_READ_ADDRESS, got, 1), 0);
    end_port(&r, &rec, path);
    CHECK_STR(port->notes, "claim mode=2040 write=2040:10 mode=40 write=40:616263 write=40:64 read=40:3 mode=2040 read=2040:1 "
                           "mode=100 release ");
}

TEST(parallel_epp_that_fails)
{
    char        got[4] = "";
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    strcpy(port->sends, "x");
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_READ, got, 3), CHR_ERR_IO); /* a cycle was not answered */
    port->accepts = 1;
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE, (char[]){ 'a', 'b' }, 2), CHR_ERR_IO);
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE, got, -1), CHR_ERR_INVALID);
    port->mode_error = EINVAL; /* a port without EPP addresses */
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_READ_ADDRESS, got, 1), CHR_ERR_INVALID);
    port->mode_error = 0;
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_READ, got, 1), 0); /* the mode is still the one before */
    end_port(&r, &rec, path);
    CHECK_STR(port->notes, "claim mode=40 read=40:3 write=40:61 mode=2040 read=40:1 mode=100 release ");
}

TEST(parallel_prints_in_compatibility_mode)
{
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    CHECK_INT(chr_fe_write(&rec.fe, "ab", 2), 2);
    CHECK_INT(epp(&rec, CHR_IOCTL_PP_EPP_WRITE, (char[]){ 'c' }, 1), 0);
    CHECK_INT(chr_fe_write_all(&rec.fe, "de", 2, 1000), 2);
    port->accepts = 1;
    CHECK_INT(chr_fe_write(&rec.fe, "fg", 2), 1);
    CHECK_INT(chr_fe_read_all(&rec.fe, (char[]){ 0 }, 1, 10), CHR_ERR_NOT_SUPPORTED);
    end_port(&r, &rec, path);
    CHECK_STR(port->notes, "claim write=100:6162 mode=40 write=40:63 mode=100 write=100:6465 write=100:66 release ");
}

/* A busy printer: would-block, then output is retried by a timer. */
TEST(parallel_busy_printer)
{
    int         i, steps = 0;
    recorder    rec;
    rig         r;
    const char *path = open_port(&r, &rec);
    port->accepts = 0;
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    PUMP(&r, rec.writable == 1);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), CHR_ERR_WOULD_BLOCK);
    for (i = 0; i < 5; i++) steps += chr_loop_step(r.ctx, 10) > 0;
    CHECK_INT(steps, 0); /* nobody waits: nothing runs */
    port->accepts = -1;
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    PUMP(&r, rec.writable == 2);
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    chr_fe_add_watch(&rec.fe, recorder_writable, &rec);
    chr_loop_step(r.ctx, 0);
    CHECK(chr_loop_timeout(r.ctx) > 0);
    CHECK_INT(chr_remove(r.ctx, "p", NULL), CHR_ERR_BUSY);
    chr_fe_deinit(&rec.fe); /* somebody waits still */
    CHECK_INT(chr_remove(r.ctx, "p", NULL), 0);
    settle(&r);
    CHECK_INT(chr_loop_timeout(r.ctx), -1);
    end_port(&r, &rec, path);
}

/* The port that is played here is one for QEMU too, which claims and releases it as we do. */
TEST(parallel_port_as_qemu_takes_it)
{
    char        command[800];
    const char *path;
    if (system("command -v qemu-system-x86_64 >/dev/null") != 0) SKIP("qemu-system-x86_64 is not installed");
    path = plug_in();
    snprintf(command, sizeof command,
             "echo '{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-chardev\"}{\"execute\":\"quit\"}' | qemu-system-x86_64 -M none "
             "-display none -nodefaults -chardev parallel,id=port,path=%s -chardev stdio,id=q -mon chardev=q,mode=control >%s",
             path, scratch("said"));
    CHECK_INT(system(command), 0);
    CHECK_HAS(read_file(scratch("said")), "\"label\": \"port\"");
    CHECK_STR(port->notes, "claim release ");
    unplug(path);
}

TEST(parallel_claim_fails)
{
    char        options[400];
    chr_error   err;
    rig         r;
    const char *path = plug_in();
    rig_open(&r);
    port->claim_error = EBUSY;
    snprintf(options, sizeof options, "parallel,id=p,path=%s", path);
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not a parallel port");
    CHECK_HAS(err.text, path);
    CHECK_STR(port->notes, "claim claim "); /* what was not claimed is not released */
    port->claim_error = 0;
    make(&r, options);
    rig_close(&r);
    unplug(path);
}

TEST(parallel_paths_that_are_none)
{
    char        options[400];
    const char *slave;
    int         master = posix_openpt(O_RDWR | O_NOCTTY);
    chr_error   err;
    rig         r;
    REQUIRE(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0 && (slave = ptsname(master)) != NULL);
    rig_open(&r);
    CHECK_INT(refuse(&r, "parallel,id=p,path=/dev/null", &err), CHR_ERR_INVALID);
    CHECK_STR(err.text, "parallel: path=/dev/null: is not a parallel port");
    snprintf(options, sizeof options, "parport,id=p,path=%s", slave);
    CHECK_INT(refuse(&r, options, &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "is not a parallel port");
    CHECK_INT(refuse(&r, "parallel,id=p,path=/dev/parport77", &err), CHR_ERR_NOT_FOUND);
    CHECK_INT(refuse(&r, "parallel,id=p", &err), CHR_ERR_INVALID);
    CHECK(chr_new_uri(r.ctx, "p", "/dev/parport77", &err) == NULL);
    CHECK_HAS(err.text, "parallel: ");
    CHECK(chr_new_uri(r.ctx, "p", "/dev/ppi77", &err) == NULL);
    CHECK_HAS(err.text, "parallel: ");
    close(master);
    r.fds--;
    rig_close(&r);
}
