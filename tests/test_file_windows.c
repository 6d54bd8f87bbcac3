/*
 * Files on Windows: names in UTF-8, long names and device names; files that are read, renamed and removed while they
 * are written.
 */
#define RIG_WITH_HANDLES /* what it waits for are no sockets */
#include "chardev.h"
#include "rig.h"

#ifndef _WIN32

TEST(windows_names_are_plain_names_here)
{
    char     options[300];
    recorder rec;
    rig      r;
    rig_open(&r);
    snprintf(options, sizeof options, "file,id=f,path=%s", scratch("C:\\out"));
    attach(&rec, make(&r, options));
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CHECK_STR(read_file(scratch("C:\\out")), "x");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

#else

static const char *options_for(const char *path, const char *more)
{
    static char options[1000];
    snprintf(options, sizeof options, "file,id=f,path=%s%s", path, more);
    return options;
}

/* The file under its name in UTF-16, or NULL. */
static const char *read_wide(const WCHAR *path)
{
    static char text[200];
    DWORD       count = 0;
    HANDLE      handle = CreateFileW(path, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    if (handle == INVALID_HANDLE_VALUE) return NULL;
    if (!ReadFile(handle, text, sizeof text - 1, &count, NULL)) count = 0;
    text[count] = 0;
    CloseHandle(handle);
    return text;
}

/* A reader as editors and `tail` open files: it lets others write, rename and remove. */
static HANDLE reader_of(const char *path)
{
    HANDLE handle = CreateFileA(path, GENERIC_READ, 7, NULL, OPEN_EXISTING, 0, NULL);
    REQUIRE(handle != INVALID_HANDLE_VALUE);
    return handle;
}

static const char *read_on(HANDLE handle)
{
    static char text[100];
    DWORD       count = 0;
    if (!ReadFile(handle, text, sizeof text - 1, &count, NULL)) return "(error)";
    text[count] = 0;
    return text;
}

TEST(names_are_utf8)
{
    static const char  name[] = "gr\xc3\xbc\xc3\x9f-\xe6\x97\xa5\xe6\x9c\xac-\xf0\x9f\x98\x80";
    static const WCHAR wide_name[] = { 'g', 'r', 0xfc, 0xdf, '-', 0x65e5, 0x672c, '-', 0xd83d, 0xde00, 0 };
    WCHAR              wide[400];
    recorder           rec;
    chr_error          err;
    rig                r;
    int                count;
    rig_open(&r);
    attach(&rec, make(&r, options_for(scratch(name), "")));
    CHECK_INT(chr_fe_write(&rec.fe, "hello", 5), 5);
    count = MultiByteToWideChar(CP_ACP, 0, scratch(""), -1, wide, 300);
    REQUIRE(count > 0);
    memcpy(wide + count - 1, wide_name, sizeof wide_name);
    CHECK_STR(read_wide(wide), "hello");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", NULL), 0);
    CHECK(DeleteFileW(wide));
    CHECK(refuse(&r, options_for("no-\xff-utf8", ""), &err) < 0);
    CHECK_HAS(err.text, "cannot open no-");
    rig_close(&r);
    scratch_clean();
}

TEST(long_names)
{
    WCHAR    wide[7][700];
    char     path[900];
    recorder rec;
    rig      r;
    int      i, at;
    rig_open(&r);
    snprintf(path, sizeof path, "%s", scratch("deep"));
    for (i = 0; i < 7; i++) {
        WCHAR full[700];
        MultiByteToWideChar(CP_ACP, 0, path, -1, full, 650);
        lstrcpyW(wide[i], L"\\\\?\\");
        REQUIRE(GetFullPathNameW(full, 650, wide[i] + 4, NULL) > 0);
        if (i < 6) REQUIRE(CreateDirectoryW(wide[i], NULL));
        at = (int)strlen(path);
        snprintf(path + at, sizeof path - (size_t)at, "%s", i < 5 ? "/0123456789012345678901234567890123456789012345678" : "/out");
        if (i == 6) path[at] = 0;
    }
    CHECK(strlen(path) > 260);
    attach(&rec, make(&r, options_for(path, "")));
    CHECK_INT(chr_fe_write(&rec.fe, "deep", 4), 4);
    CHECK_STR(read_wide(wide[6]), "deep");
    detach(&rec);
    CHECK_INT(chr_remove(r.ctx, "f", NULL), 0);
    CHECK(DeleteFileW(wide[6]));
    for (i = 5; i >= 0; i--) CHECK(RemoveDirectoryW(wide[i]));
    rig_close(&r);
    scratch_clean();
}

/* The end is where it is by then, whoever has written meanwhile. */
TEST(appended_behind_what_others_write)
{
    recorder rec;
    FILE    *other;
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, options_for(scratch("out"), "")));
    CHECK_INT(chr_fe_write(&rec.fe, "one ", 4), 4);
    other = fopen(scratch("out"), "ab");
    REQUIRE(other != NULL);
    fputs("two ", other);
    fclose(other);
    CHECK_INT(chr_fe_write(&rec.fe, "three", 5), 5);
    CHECK_STR(read_file(scratch("out")), "one two three");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(others_read_rename_and_remove_it)
{
    recorder rec;
    HANDLE   reader;
    char     from[200], to[200];
    rig      r;
    rig_open(&r);
    attach(&rec, make(&r, options_for(scratch("out"), "")));
    CHECK_INT(chr_fe_write(&rec.fe, "one", 3), 3);
    reader = reader_of(scratch("out"));
    CHECK_STR(read_on(reader), "one");
    CHECK_INT(chr_fe_write(&rec.fe, "two", 3), 3);
    CHECK_STR(read_on(reader), "two");
    snprintf(from, sizeof from, "%s", scratch("out"));
    snprintf(to, sizeof to, "%s", scratch("moved"));
    CHECK(MoveFileA(from, to));
    CHECK_INT(chr_fe_write(&rec.fe, "three", 5), 5);
    CHECK_STR(read_file(scratch("moved")), "onetwothree");
    CHECK(DeleteFileA(to));
    CHECK_INT(chr_fe_write(&rec.fe, "x", 1), 1);
    CloseHandle(reader);
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

static int files_in(const char *directory)
{
    DIR           *dir = opendir(directory);
    struct dirent *entry;
    int            count = 0;
    REQUIRE(dir != NULL);
    while ((entry = readdir(dir)) != NULL) count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

/* Log files rotate although another process reads each of them, the deleted one included. */
TEST(logs_rotate_under_readers)
{
    char     options[300];
    recorder rec;
    HANDLE   readers[3];
    rig      r;
    int      i;
    rig_open(&r);
    write_file(scratch("log.1"), "old1");
    write_file(scratch("log.2"), "old2");
    snprintf(options, sizeof options, "null,id=f,logfile=%s,logsize=4,logfiles=3", scratch("log"));
    attach(&rec, make(&r, options));
    chr_fe_write(&rec.fe, "aaa\n", 4);
    readers[0] = reader_of(scratch("log"));
    readers[1] = reader_of(scratch("log.1"));
    readers[2] = reader_of(scratch("log.2"));
    chr_fe_write(&rec.fe, "bbb\n", 4);
    CHECK_STR(r.log, "");
    CHECK_STR(read_file(scratch("log")), "bbb\n");
    CHECK_STR(read_file(scratch("log.1")), "aaa\n");
    CHECK_STR(read_file(scratch("log.2")), "old1");
    CHECK_STR(read_on(readers[0]), "aaa\n");
    CHECK_STR(read_on(readers[2]), "old2"); /* its last reader has it still */
    for (i = 0; i < 3; i++) CloseHandle(readers[i]);
    CHECK_INT(files_in(scratch("")), 3); /* and nobody behind that one */
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

/* The log's path is the same after the working directory has changed. */
TEST(log_stays_where_it_was)
{
    char     options[300], here[300];
    recorder rec;
    rig      r;
    rig_open(&r);
    REQUIRE(GetCurrentDirectoryA(sizeof here, here) > 0);
    REQUIRE(SetCurrentDirectoryA(scratch("")));
    snprintf(options, sizeof options, "null,id=f,logfile=log,logsize=4,logfiles=2");
    attach(&rec, make(&r, options));
    REQUIRE(SetCurrentDirectoryA(here));
    chr_fe_write(&rec.fe, "aaa\nbbb\n", 8);
    CHECK_STR(read_file(scratch("log")), "bbb\n");
    CHECK_STR(read_file(scratch("log.1")), "aaa\n");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

TEST(what_can_not_be_opened)
{
    chr_error err;
    HANDLE    handle;
    rig       r;
    char      path[300];
    rig_open(&r);
    CHECK(refuse(&r, options_for(scratch(""), ""), &err) < 0);
    CHECK_HAS(err.text, "it is a directory");
    CHECK_INT(refuse(&r, options_for("Q:/nowhere/at/all", ""), &err), CHR_ERR_NOT_FOUND);
    CHECK_HAS(err.text, "Q:/nowhere/at/all");
    snprintf(path, sizeof path, "%s", scratch("read-only"));
    write_file(path, "kept");
    REQUIRE(SetFileAttributesA(path, FILE_ATTRIBUTE_READONLY));
    handle = CreateFileA(path, GENERIC_WRITE, 7, NULL, OPEN_EXISTING, 0, NULL);
    if (handle == INVALID_HANDLE_VALUE) { /* under Wine root may write it */
        CHECK_INT(refuse(&r, options_for(path, ",append=on"), &err), CHR_ERR_PERMISSION);
        CHECK_INT(refuse(&r, options_for(path, ""), &err), CHR_ERR_PERMISSION);
        CHECK_STR(read_file(path), "kept");
    } else {
        CloseHandle(handle);
    }
    REQUIRE(SetFileAttributesA(path, FILE_ATTRIBUTE_NORMAL));
    rig_close(&r);
    scratch_clean();
}

TEST(another_program_that_shares_nothing)
{
    chr_error err;
    HANDLE    handle;
    rig       r;
    rig_open(&r);
    handle = CreateFileA(scratch("out"), GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    REQUIRE(handle != INVALID_HANDLE_VALUE);
    CHECK_INT(refuse(&r, options_for(scratch("out"), ""), &err), CHR_ERR_BUSY);
    CloseHandle(handle);
    rig_close(&r);
    scratch_clean();
}

/* The null device takes all and is at its end at once; it has no size to be kept. */
TEST(null_device)
{
    recorder  rec;
    chr_error err;
    rig       r;
    rig_open(&r);
    attach(&rec, make(&r, options_for("NUL", ",input-path=NUL")));
    CHECK_INT(chr_fe_write(&rec.fe, "gone", 4), 4);
    PUMP(&r, !rec.open);
    CHECK_INT(rec.length, 0);
    CHECK_INT(refuse(&r, "null,id=g,logfile=NUL,logsize=10", &err), CHR_ERR_INVALID);
    CHECK_HAS(err.text, "not a regular file");
    detach(&rec);
    rig_close(&r);
}

/* A pipe's name is a file's name too: its client's end, written like a file. */
TEST(pipe_as_a_file)
{
    char     name[100], text[20];
    DWORD    count = 0;
    HANDLE   server;
    recorder rec;
    rig      r;
    rig_open(&r);
    snprintf(name, sizeof name, "\\\\.\\pipe\\chardev-file-%lu", GetCurrentProcessId());
    server = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX, 0, 1, 4096, 4096, 0, NULL);
    REQUIRE(server != INVALID_HANDLE_VALUE);
    attach(&rec, make(&r, options_for(name, "")));
    CHECK_INT(chr_fe_write_all(&rec.fe, "hello", 5, 5000), 5);
    CHECK(ReadFile(server, text, sizeof text, &count, NULL));
    CHECK_MEM(text, count, "hello", 5);
    detach(&rec);
    chr_context_free(r.ctx);
    CloseHandle(server);
}

TEST(recording_and_replay)
{
    recorder rec;
    rig      r;
    char     tape[200];
    snprintf(tape, sizeof tape, "%s", scratch("tape"));
    rig_open_virtual(&r);
    REQUIRE(chr_record_start(r.ctx, tape, NULL) == 0);
    attach(&rec, make(&r, "null,id=n"));
    chr_fe_write(&rec.fe, "x\x1a\r\ny", 5); /* no text mode: neither ends nor changes */
    detach(&rec);
    CHECK_INT(chr_record_stop(r.ctx), 0);
    rig_close(&r);
    rig_open_virtual(&r);
    CHECK_INT(chr_replay_open(r.ctx, tape, NULL), 0);
    attach(&rec, make(&r, "null,id=n"));
    chr_fe_write(&rec.fe, "x\x1a\r\ny", 5);
    CHECK_STR(r.log, "");
    detach(&rec);
    rig_close(&r);
    scratch_clean();
}

#endif
