/*
 * libuv PATH: the same echo server on libuv: it tries to write at once, and queues only what is left. Serves one peer.
 */
#include "bench.h"

#include <uv.h>

static uv_pipe_t listener, peer;
static uv_write_t request;
static char buffer[BENCH_CHUNK];

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf);

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)handle;
    (void)suggested;
    *buf = uv_buf_init(buffer, sizeof buffer);
}

static void on_written(uv_write_t *done, int status)
{
    if (status == 0) uv_read_start(done->handle, on_room, on_read);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buf)
{
    uv_buf_t out;
    int taken;
    if (count < 0) {
        uv_stop(stream->loop);
        return;
    }
    if (count == 0) return;
    out = uv_buf_init(buf->base, (unsigned)count);
    taken = uv_try_write(stream, &out, 1);
    if (taken == count) return;
    if (taken < 0 && taken != UV_EAGAIN) {
        uv_stop(stream->loop);
        return;
    }
    if (taken < 0) taken = 0;
    out = uv_buf_init(buf->base + taken, (unsigned)(count - taken));
    uv_read_stop(stream);
    uv_write(&request, stream, &out, 1, on_written);
}

static void on_connection(uv_stream_t *stream, int status)
{
    if (status < 0) return;
    uv_pipe_init(stream->loop, &peer, 0);
    if (uv_accept(stream, (uv_stream_t *)&peer) == 0) uv_read_start((uv_stream_t *)&peer, on_room, on_read);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "libuv.sock";
    unlink(path);
    uv_pipe_init(uv_default_loop(), &listener, 0);
    if (uv_pipe_bind(&listener, path) < 0 || uv_listen((uv_stream_t *)&listener, 1, on_connection) < 0) bench_die(path);
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    unlink(path);
    return 0;
}
