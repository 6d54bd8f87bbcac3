/* Named descriptors: what fd= means for a local user and for a monitor's peer, and the ownership of each descriptor. */
#include "chardev.h"
#include "rig.h"

static chr_dev *remote(rig *r, const char *options, chr_error *err)
{
    memset(err, 0, sizeof *err);
    return chr_new_from(r->ctx, CHR_REMOTE, options, err);
}

static int is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

TEST(a_name_is_consumed_by_the_chardev_that_takes_it)
{
    int       fds[2];
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(chr_fd_put(r.ctx, "sock", fds[0], &err), 0);
    attach(&rec, remote(&r, "socket,id=s,fd=sock", &err));
    settle(&r);
    CHECK_INT(chr_fe_write(&rec.fe, "hi", 2), 2);
    CHECK_STR(hear(fds[1]), "hi");
    CHECK_INT(chr_fd_close(r.ctx, "sock", &err), CHR_ERR_NOT_FOUND);
    CHECK(is_open(fds[0]));
    CHECK(remote(&r, "socket,id=t,fd=sock", &err) == NULL);
    CHECK_INT(err.code, CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "sock");
    detach(&rec);
    close(fds[1]);
    rig_close(&r);
}

TEST(a_listening_one_by_name)
{
    int       listener, far;
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    listener = unix_listen(scratch("l"));
    CHECK_INT(chr_fd_put(r.ctx, "l", listener, &err), 0);
    attach(&rec, remote(&r, "socket,id=s,fd=l,server=on,wait=off", &err));
    far = unix_connect(scratch("l"));
    PUMP(&r, rec.open);
    close(far);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* No remote user can name the process's own descriptors. */
TEST(a_remote_user_may_not_say_a_number)
{
    static const char *const table[] = { "0", "1", "2", "3", "0x3", "03", "-1" };
    int                      fds[2];
    size_t                   i;
    char                     options[100];
    chr_error                err;
    rig                      r;
    rig_open(&r);
    socket_pair(fds);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        snprintf(options, sizeof options, "socket,id=s,fd=%s", table[i]);
        if (!CHECK(remote(&r, options, &err) == NULL) || !CHECK_HAS(err.text, table[i])) NOTE("for %s", options);
    }
    snprintf(options, sizeof options, "socket,id=s,fd=%d", fds[0]);
    CHECK(remote(&r, options, &err) == NULL);
    CHECK_HAS(err.text, "fd");
    CHECK(is_open(fds[0]));
    make(&r, options); /* a local user may */
    close(fds[1]);
    rig_close(&r);
}

TEST(a_local_user_may_not_say_a_name)
{
    int       fds[2];
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(chr_fd_put(r.ctx, "sock", fds[0], &err), 0);
    CHECK(refuse(&r, "socket,id=s,fd=sock", &err) < 0);
    CHECK_HAS(err.text, "sock");
    CHECK_INT(chr_fd_close(r.ctx, "sock", &err), 0);
    close(fds[1]);
    rig_close(&r);
}

TEST(names_that_are_none)
{
    static const char *const table[] = { "", "0", "3", "9lives" };
    int                      fds[2];
    size_t                   i;
    chr_error                err;
    rig                      r;
    rig_open(&r);
    socket_pair(fds);
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        CHECK_INT(chr_fd_put(r.ctx, table[i], fds[0], &err), CHR_ERR_INVALID);
        CHECK_HAS(err.text, table[i]);
        CHECK(is_open(fds[0])); /* still the caller's */
    }
    CHECK_INT(chr_fd_put(r.ctx, "good", 950, &err), CHR_ERR_INVALID);
    CHECK_INT(chr_fd_put(r.ctx, "good", -1, &err), CHR_ERR_INVALID);
    close(fds[0]), close(fds[1]);
    rig_close(&r);
}

TEST(a_second_one_replaces_and_closes_the_first)
{
    int       a[2], b[2];
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(a);
    socket_pair(b);
    CHECK_INT(chr_fd_put(r.ctx, "x", a[0], &err), 0);
    CHECK_INT(chr_fd_put(r.ctx, "x", b[0], &err), 0);
    CHECK(!is_open(a[0]));
    CHECK_STR(hear(a[1]), "(eof)");
    CHECK(is_open(b[0]));
    CHECK_INT(chr_fd_close(r.ctx, "x", &err), 0);
    CHECK(!is_open(b[0]));
    CHECK_INT(chr_fd_close(r.ctx, "x", &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "x");
    close(a[1]), close(b[1]);
    rig_close(&r);
}

TEST(the_same_descriptor_put_again)
{
    int       fds[2];
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(chr_fd_put(r.ctx, "x", fds[0], &err), 0);
    CHECK_INT(chr_fd_put(r.ctx, "x", fds[0], &err), 0);
    CHECK(is_open(fds[0])); /* it is not closed for its own sake */
    close(fds[1]);
    rig_close(&r);
}

/* A chardev that can't be made leaves the named one where it was. */
TEST(a_failure_leaves_the_name)
{
    int       fds[2], file;
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    file = open("/dev/null", O_RDWR);
    CHECK_INT(chr_fd_put(r.ctx, "sock", fds[0], &err), 0);
    CHECK_INT(chr_fd_put(r.ctx, "file", file, &err), 0);
    CHECK(remote(&r, "socket,id=s,fd=file", &err) == NULL);
    CHECK_HAS(err.text, "file");
    CHECK(is_open(file));
    CHECK(remote(&r, "socket,id=s,fd=sock,server=on,wait=off", &err) == NULL);
    CHECK(remote(&r, "socket,id=s,fd=sock,reconnect=1", &err) == NULL);
    CHECK(remote(&r, "socket,id=s,fd=sock,colour=red", &err) == NULL);
    CHECK(remote(&r, "socket,id=9,fd=sock", &err) == NULL);
    CHECK(remote(&r, "socket,id=s,fd=sock,logfile=/nonexistent/x", &err) == NULL);
    CHECK(is_open(fds[0]));
    CHECK(remote(&r, "socket,id=s,fd=sock", &err) != NULL);
    close(fds[1]);
    rig_close(&r);
}

TEST(what_nobody_took_is_closed_with_the_context)
{
    int       fds[2], i;
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    for (i = 0; i < 30; i++) {
        char name[20];
        snprintf(name, sizeof name, "name%d", i);
        CHECK_INT(chr_fd_put(r.ctx, name, dup(fds[0]), &err), 0);
    }
    close(fds[0]);
    CHECK_INT(chr_fd_close(r.ctx, "name7", &err), 0);
    chr_context_free(r.ctx);
    CHECK_STR(hear(fds[1]), "(eof)");
    close(fds[1]);
    CHECK_INT(r.live, 0);
    CHECK_INT(count_fds(), r.fds);
}

TEST(names_belong_to_their_context)
{
    int       fds[2];
    chr_error err;
    rig       r, other;
    rig_open(&r);
    rig_open(&other);
    socket_pair(fds);
    CHECK_INT(chr_fd_put(r.ctx, "x", fds[0], &err), 0);
    CHECK(remote(&other, "socket,id=s,fd=x", &err) == NULL);
    CHECK_INT(chr_fd_close(other.ctx, "x", &err), CHR_ERR_NOT_FOUND);
    chr_context_free(other.ctx);
    CHECK(is_open(fds[0]));
    close(fds[1]);
    rig_close(&r);
}

TEST(kept_descriptors_are_cloexec)
{
    int       fds[2];
    chr_error err;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    CHECK_INT(chr_fd_put(r.ctx, "x", fds[0], &err), 0);
    CHECK(flag_set(fds[0], F_GETFD, FD_CLOEXEC));
    close(fds[1]);
    rig_close(&r);
}

TEST(change_takes_a_name_too)
{
    int       fds[2];
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, "null,id=c"));
    CHECK_INT(chr_fd_put(r.ctx, "x", fds[0], &err), 0);
    CHECK(chr_change(r.ctx, "c", "socket,fd=x", &err) < 0);
    CHECK_INT(chr_change_from(r.ctx, CHR_REMOTE, "c", "socket,fd=x", &err), 0);
    PUMP(&r, rec.open);
    say(fds[1], "x");
    PUMP(&r, rec.length == 1);
    close(fds[1]);
    detach(&rec);
    rig_close(&r);
}

/* A refused swap gives the name back: the descriptor is not lost. */
TEST(a_refused_change_keeps_or_closes_the_descriptor)
{
    int       fds[2];
    chr_error err;
    recorder  rec;
    rig       r;
    rig_open(&r);
    socket_pair(fds);
    attach(&rec, make(&r, "null,id=c"));
    rec.change_answer = -1;
    CHECK_INT(chr_fd_put(r.ctx, "x", fds[0], &err), 0);
    CHECK(chr_change_from(r.ctx, CHR_REMOTE, "c", "socket,fd=x", &err) < 0);
    CHECK(rec.fe.dev && strcmp(rec.fe.dev->kind->name, "null") == 0);
    detach(&rec);
    close(fds[1]);
    rig_close(&r); /* nothing has leaked either way */
}

TEST(an_uri_of_a_remote_or_local_user_has_no_fd)
{
    chr_error err;
    rig       r;
    rig_open(&r);
    CHECK(chr_new_uri(r.ctx, "u", "tcp:localhost:1,fd=0", &err) == NULL);
    CHECK_HAS(err.text, "fd");
    rig_close(&r);
}

/* The error text contains the invalid name. */
TEST(words_for_names_that_are_none)
{
    static const char *const good[] = { ":", "/", "a", "-1", " ", "\x7f", "a0" }, *const bad[] = { "", "0", "9", "5x", "00" };
    size_t    i;
    int       fd;
    char      text[100];
    chr_error err;
    rig       r;
    rig_open(&r);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_INT(chr_fd_put(r.ctx, bad[i], 1, &err), CHR_ERR_INVALID);
        snprintf(text, sizeof text, "descriptor name '%s': may not be empty or begin with a digit", bad[i]);
        CHECK_STR(err.text, text);
        CHECK_INT(chr_fd_close(r.ctx, bad[i], &err), CHR_ERR_NOT_FOUND);
        snprintf(text, sizeof text, "no descriptor has the name '%s'", bad[i]);
        CHECK_STR(err.text, text);
    }
    for (i = 0; i < sizeof good / sizeof *good; i++) {
        fd = open("/dev/null", O_RDONLY);
        CHECK_INT(chr_fd_put(r.ctx, good[i], fd, &err), 0);
        CHECK_INT(chr_fd_close(r.ctx, good[i], &err), 0);
        CHECK(!is_open(fd));
    }
    rig_close(&r);
}

/* Many of them, past the size from which a table is kept: all are closed with the context, in whatever order they
 * came and went. */
TEST(many_names)
{
    enum { MANY = 150 };
    int       fds[MANY], i, turn;
    char      name[20];
    chr_error err;
    rig       r;
    for (turn = 0; turn < 3; turn++) {
        rig_open(&r);
        for (i = 0; i < MANY; i++) {
            snprintf(name, sizeof name, "n%d", i);
            fds[i] = open("/dev/null", O_RDONLY);
            REQUIRE(fds[i] >= 0);
            CHECK_INT(chr_fd_put(r.ctx, name, fds[i], &err), 0);
        }
        CHECK_INT(chr_fd_put(r.ctx, "other", fds[77], &err), CHR_ERR_EXISTS);
        CHECK_STR(strstr(err.text, "has the name"), "has the name 'n77' already");
        for (i = 0; i < MANY && turn > 0; i++) { /* all go, or each third is left */
            snprintf(name, sizeof name, "n%d", turn == 1 ? i : (i * 7) % MANY);
            if (turn == 2 && i % 3 == 0) continue;
            CHECK_INT(chr_fd_close(r.ctx, name, &err), 0);
            CHECK_INT(chr_fd_close(r.ctx, name, &err), CHR_ERR_NOT_FOUND);
        }
        if (turn == 1) /* from none on again */
            for (i = 0; i < MANY; i++) {
                snprintf(name, sizeof name, "again%d", i);
                fds[i] = open("/dev/null", O_RDONLY);
                CHECK_INT(chr_fd_put(r.ctx, name, fds[i], &err), 0);
            }
        rig_close(&r); /* none is left open */
    }
}
