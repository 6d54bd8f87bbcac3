/*
 * What an emulator needs for its console: end of file, output of single bytes, and one call for the user's -serial
 * option.
 */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

static char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text(const char *format, ...)
{
    static char result[600];
    va_list     args;
    va_start(args, format);
    vsnprintf(result, sizeof result, format, args);
    va_end(args);
    return result;
}

/* ---- end of file ------------------------------------------------------------------------------------------------- */

/* On these options with the peer's end that `fds` has; 'E' where the end of its output is the end of all input. */
static void end_of(const char *options, int *fd, int want)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, options));
    CHECK_INT(chr_fe_eof(&rec.fe), 0); /* before the loop has run, too */
    settle(&r);
    CHECK_INT(chr_fe_eof(&rec.fe), 0);
    say(*fd, "last words");
    close(*fd);
    PUMP(&r, strchr(rec.events, 'C'));
    CHECK_INPUT(&rec, "last words");
    if (!CHECK_INT(chr_fe_eof(&rec.fe), want)) NOTE("for \"%s\"", options);
    detach(&rec);
    r.fds -= 2; /* they were open before */
    rig_close(&r);
}

TEST(eof_when_a_pipe_ends)
{
    int fds[2];
    REQUIRE(pipe(fds) == 0);
    end_of(text("fd,id=f,in=%d", fds[0]), &fds[1], 1);
}

TEST(eof_through_a_mux)
{
    int fds[2];
    REQUIRE(pipe(fds) == 0);
    end_of(text("fd,id=f,mux=on,in=%d", fds[0]), &fds[1], 1);
}

TEST(eof_when_a_connected_socket_ends)
{
    int fds[2];
    socket_pair(fds);
    end_of(text("socket,id=s,fd=%d", fds[0]), &fds[1], 1);
}

/* Output goes on; input does not. */
TEST(eof_at_a_half_close)
{
    int      fds[2];
    recorder rec;
    rig      r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, text("socket,id=s,half-close=on,fd=%d", fds[0])));
    settle(&r);
    CHECK_INT(chr_fe_eof(&rec.fe), 0);
    shutdown(fds[1], SHUT_WR);
    PUMP(&r, strchr(rec.events, 'E'));
    CHECK_INT(chr_fe_eof(&rec.fe), 1);
    CHECK_INT(chr_fe_write(&rec.fe, "more", 4), 4);
    CHECK_STR(hear(fds[1]), "more");
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* The next peer may come. */
TEST(no_eof_between_the_peers_of_a_server)
{
    recorder rec;
    rig      r;
    int      fd, peer;
    rig_open(&r);
    attach(&rec, make(&r, text("socket,id=s,path=%s,server=on,wait=off,half-close=on", scratch("s"))));
    CHECK_INT(chr_fe_eof(&rec.fe), 0);
    for (peer = 0; peer < 2; peer++) {
        memset(rec.events, 0, sizeof rec.events);
        fd = unix_connect(scratch("s"));
        PUMP(&r, rec.open);
        shutdown(fd, SHUT_WR);
        PUMP(&r, strchr(rec.events, 'E'));
        CHECK_INT(chr_fe_eof(&rec.fe), 0);
        close(fd);
        CHECK_INT(chr_fe_disconnect(&rec.fe), 0);
        PUMP(&r, strchr(rec.events, 'C'));
        CHECK_INT(chr_fe_eof(&rec.fe), 0);
    }
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(no_eof_on_null_and_ringbuf)
{
    static const char *const options[] = { "null,id=n", "ringbuf,id=n" };
    recorder                 rec;
    size_t                   i;
    rig                      r;
    rig_open(&r);
    for (i = 0; i < sizeof options / sizeof options[0]; i++) {
        attach(&rec, make(&r, options[i]));
        settle(&r);
        CHECK_INT(chr_fe_eof(&rec.fe), 0);
        detach(&rec);
        CHECK_INT(chr_remove(r.ctx, "n", NULL), 0);
    }
    rig_close(&r);
}

/* An input file has ended; in a hot swap another chardev takes its place, which has not. */
TEST(eof_is_over_with_another_backend)
{
    recorder rec;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, "file,id=f,path=/dev/null,input-path=/dev/null"));
    PUMP(&r, strchr(rec.events, 'C'));
    CHECK_INT(chr_fe_eof(&rec.fe), 1);
    CHECK_INT(chr_change(r.ctx, "f", "null", NULL), 0);
    CHECK_INT(chr_fe_eof(&rec.fe), 0);
    detach(&rec);
    rig_close(&r);
}

TEST(eof_without_chardev)
{
    chr_frontend fe;
    rig          r;
    rig_open(&r);
    memset(&fe, 0, sizeof fe);
    CHECK_INT(chr_fe_eof(&fe), 1);
    CHECK_INT(chr_fe_init(&fe, NULL, NULL), 0);
    CHECK_INT(chr_fe_eof(&fe), 1);
    chr_fe_deinit(&fe);
    rig_close(&r);
}

/* It has not come to its end before the last byte has been pulled. */
TEST(eof_is_behind_what_was_read_ahead)
{
    chr_frontend fe;
    char         byte;
    int          fds[2], i;
    rig          r;
    rig_open(&r);
    socket_pair(fds);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, text("socket,id=s,fd=%d", fds[0])), NULL) == 0 && chr_fe_set_buffers(&fe, 100, 100) == 0);
    say(fds[1], "abc");
    close(fds[1]);
    settle(&r);
    for (i = 0; i < 3; i++) {
        CHECK_INT(chr_fe_eof(&fe), 0);
        CHECK_INT(chr_fe_read(&fe, &byte, 1), 1);
    }
    CHECK_INT(chr_fe_read(&fe, &byte, 1), CHR_ERR_DISCONNECTED);
    settle(&r);
    CHECK_INT(chr_fe_eof(&fe), 1);
    chr_fe_deinit(&fe);
    rig_close(&r);
}

/* ---- a byte out -------------------------------------------------------------------------------------------------- */

/* putchar() as an emulator writes it: gathered as long as it fits, in order when it doesn't. */
TEST(write_all_is_gathered)
{
    static const char much[] = "a text that is longer than the buffer";
    chr_frontend      fe;
    chr_info          info;
    chr_dev          *dev;
    int               fds[2];
    rig               r;
    rig_open(&r);
    socket_pair(fds);
    memset(&fe, 0, sizeof fe);
    dev = make(&r, text("socket,id=s,fd=%d", fds[0]));
    REQUIRE(chr_fe_init(&fe, dev, NULL) == 0 && chr_fe_set_buffers(&fe, 16, 16) == 0);
    settle(&r);
    CHECK_INT(chr_fe_write_all(&fe, "one ", 4, -1), 4);
    CHECK_INT(chr_fe_write_all(&fe, "two ", 4, -1), 4);
    CHECK_INT(chr_fe_writable(&fe), 8);
    CHECK_STR(hear(fds[1]), ""); /* nothing has left */
    settle(&r);
    CHECK_STR(hear(fds[1]), "one two ");
    CHECK_INT(chr_fe_write_all(&fe, "three ", 6, -1), 6);
    CHECK_INT(chr_fe_write_all(&fe, much, sizeof much - 1, -1), sizeof much - 1);
    CHECK_STR(hear(fds[1]), text("three %s", much)); /* without a step */
    chr_query(dev, &info);
    CHECK_INT(info.bytes_out, 14 + sizeof much - 1);
    close(fds[1]);
    chr_fe_deinit(&fe);
    rig_close(&r);
}

/* Output written before the first peer is lost. Output written now is not, even if it finds the buffer full. */
TEST(what_was_lost_before_is_not_an_error_of_write_all)
{
    chr_frontend fe;
    int          fd;
    rig          r;
    rig_open(&r);
    memset(&fe, 0, sizeof fe);
    REQUIRE(chr_fe_init(&fe, make(&r, text("socket,id=s,path=%s,server=on,wait=off", scratch("s"))), NULL) == 0);
    REQUIRE(chr_fe_set_buffers(&fe, 16, 16) == 0);
    CHECK_INT(chr_fe_write(&fe, "lost", 4), 4);
    settle(&r);
    fd = unix_connect(scratch("s"));
    PUMP(&r, chr_fe_backend_open(&fe));
    CHECK_INT(chr_fe_write_all(&fe, "0123456789", 10, -1), 10);
    CHECK_INT(chr_fe_write_all(&fe, "abcdefghij", 10, -1), 10);
    CHECK_INT(chr_fe_flush(&fe, 1000), CHR_ERR_DISCONNECTED); /* that tells it, once */
    CHECK_INT(chr_fe_flush(&fe, 1000), 0);
    CHECK_STR(hear(fd), "0123456789abcdefghij");
    close(fd);
    chr_fe_deinit(&fe);
    rig_close(&r);
    scratch_clean();
}

TEST(no_context_is_an_error_of_the_chardev)
{
    chr_error err;
    CHECK(chr_new_any(NULL, "serial0", "stdio", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NO_MEMORY);
    CHECK_HAS(err.text, "no context");
    CHECK(chr_new_any(NULL, "serial0", "chardev:x", NULL) == NULL);
}
