/*
 * The mux against a model: input with escape characters, frontends that are attached, detached and full, output that is
 * accepted in parts. No byte is lost, duplicated or delivered to another frontend.
 */
#include "fuzz.h"

enum { MUX_SLOTS = 6, MUX_LONG = 1 << 16 };

/* One frontend and its state in the model. */
typedef struct mux_end {
    chr_frontend fe;
    int          attached, since, room, breaks, breaks_wanted;
    uint8_t     *want;
    size_t       got_len, want_len;
} mux_end;

static mux_end  mux_ends[MUX_SLOTS];
static uint8_t  mux_wants[MUX_SLOTS][MUX_LONG];
static int      mux_count, mux_focus, mux_in_escape, mux_exits, mux_snapshots, mux_help;
static uint8_t  mux_out[2 * MUX_LONG], mux_taken[MUX_LONG];
static size_t   mux_out_len, mux_taken_len, mux_budget;

/* ---- the base: takes as much as the budget says ------------------------------------------------------------------ */

static int base_open(chr_dev *dev, chr_error *err)
{
    (void)dev;
    (void)err;
    return 0;
}

static int base_write(chr_dev *dev, const void *buf, size_t len)
{
    (void)dev;
    if (mux_budget == 0) return CHR_ERR_WOULD_BLOCK;
    if (len > mux_budget) len = mux_budget;
    mux_budget -= len;
    if (mux_help) return (int)len; /* no model of its lines: nothing is compared then */
    FUZZ_CHECK(mux_out_len + len <= sizeof mux_out);
    memcpy(mux_out + mux_out_len, buf, len);
    mux_out_len += len;
    return (int)len;
}

static void base_update(chr_dev *dev)
{
    (void)dev;
}

CHR_TABLE(chr_io, base_io,
    CHR_SET(write,  base_write)
    CHR_SET(update, base_update));

CHR_TABLE(chr_backend, base_backend,
    CHR_SET(name,         "base")
    CHR_SET(help,         "the model is the far side")
    CHR_SET(options_size, sizeof(chr_common_options))
    CHR_SET(state_size,   sizeof(chr_dev))
    CHR_SET(open,         base_open)
    CHR_SET(io,           &base_io));

/* ---- the frontends ----------------------------------------------------------------------------------------------- */

static int end_can_read(void *opaque)
{
    return ((mux_end *)opaque)->room;
}

static void end_read(void *opaque, const void *buf, size_t len)
{
    mux_end *end = (mux_end *)opaque;
    FUZZ_CHECK(end->attached && len > 0 && len <= (size_t)end->room);
    FUZZ_CHECK(end->got_len + len <= end->want_len);
    FUZZ_CHECK(memcmp(end->want + end->got_len, buf, len) == 0);
    end->room -= (int)len;
    end->got_len += len;
}

static void end_event(void *opaque, int event)
{
    ((mux_end *)opaque)->breaks += event == CHR_EVENT_BREAK;
}

static const chr_handlers end_handlers = { end_can_read, end_read, end_event, NULL };

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* Round and round in the order in which they were attached. */
static void model_next_focus(void)
{
    int i, later = -1, first = -1;
    for (i = 0; i < MUX_SLOTS; i++) {
        if (!mux_ends[i].attached) continue;
        if (first < 0 || mux_ends[i].since < mux_ends[first].since) first = i;
        if (mux_ends[i].since > mux_ends[mux_focus].since && (later < 0 || mux_ends[i].since < mux_ends[later].since)) later = i;
    }
    if (first >= 0) mux_focus = later >= 0 ? later : first;
}

static void model_escape(uint8_t byte)
{
    mux_end *end = &mux_ends[mux_focus];
    switch (byte) {
    case 1: end->want[end->want_len++] = 1; break;
    case 'c': model_next_focus(); break;
    case 'b': end->breaks_wanted++; break;
    case 'x': mux_exits++, mux_help = 1; break;
    case 's': mux_snapshots++; break;
    case 'h':
    case '?': mux_help = 1; break; /* it writes lines of its own; so does x */
    default: break;
    }
}

static void model_input(uint8_t byte)
{
    mux_end *end = &mux_ends[mux_focus];
    if (mux_in_escape) {
        mux_in_escape = 0;
        model_escape(byte);
    } else if (byte == 1) {
        mux_in_escape = 1;
    } else {
        end->want[end->want_len++] = byte;
    }
}

/* ---- what can be done -------------------------------------------------------------------------------------------- */

static chr_context *mux_ctx;
static chr_dev     *mux_base, *mux_dev;

static void run_steps(void)
{
    int i;
    for (i = 0; i < 100 && chr_loop_step(mux_ctx, 0) > 0; i++) {}
    FUZZ_CHECK(i < 100);
}

static struct { chr_idle idle; const uint8_t *bytes; size_t len, done; } mux_feed;

static void feed_now(void *opaque)
{
    size_t len = mux_feed.len, i;
    int    room = chr_be_can_write(mux_base);
    (void)opaque;
    FUZZ_CHECK(room >= 0);
    if (len > (size_t)room) len = (size_t)room;
    for (i = 0; i < len; i++) model_input(mux_feed.bytes[i]);
    if (len) chr_be_write(mux_base, mux_feed.bytes, len);
    mux_feed.done = len;
}

/* As the far side: gives up to `len` bytes, as many as the mux takes. */
static void feed(fuzz_bytes *in, size_t len)
{
    if (len > in->size) len = in->size;
    if (!mux_ends[mux_focus].attached || mux_ends[mux_focus].want_len + len > MUX_LONG / 2) return;
    mux_feed.bytes = in->data;
    mux_feed.len = len;
    chr_idle_start(mux_ctx, &mux_feed.idle, feed_now, NULL);
    run_steps();
    in->data += mux_feed.done;
    in->size -= mux_feed.done;
}

static void writable_now(void *opaque)
{
    (void)opaque;
    if (chr_be_wants_writable(mux_base)) chr_be_writable(mux_base);
}

static void opened_now(void *opaque)
{
    (void)opaque;
    chr_be_event(mux_base, CHR_EVENT_OPENED);
}

static void more_budget(size_t budget)
{
    mux_budget = budget;
    chr_idle_start(mux_ctx, &mux_feed.idle, writable_now, NULL);
    run_steps();
}

static void output(int slot, fuzz_bytes *in, size_t len)
{
    uint8_t bytes[64];
    size_t  i;
    int     n;
    if (!mux_ends[slot].attached || len == 0 || mux_taken_len + len > MUX_LONG / 8) return;
    for (i = 0; i < len; i++) {
        bytes[i] = fuzz_byte(in);
        if (bytes[i] == '[') bytes[i] = '('; /* brackets are for time stamps */
    }
    n = chr_fe_write(&mux_ends[slot].fe, bytes, len);
    FUZZ_CHECK(n == CHR_ERR_WOULD_BLOCK || (n > 0 && (size_t)n <= len));
    if (n <= 0) return;
    memcpy(mux_taken + mux_taken_len, bytes, (size_t)n);
    mux_taken_len += (size_t)n;
}

static int lowest_free(void)
{
    int i;
    for (i = 0; i < MUX_SLOTS && mux_ends[i].attached; i++) {}
    return i;
}

static void attach_one(void)
{
    int slot = lowest_free();
    if (slot == MUX_SLOTS) return;
    memset(&mux_ends[slot], 0, sizeof mux_ends[slot]);
    FUZZ_CHECK(chr_fe_init(&mux_ends[slot].fe, mux_dev, NULL) == 0);
    mux_ends[slot].want = mux_wants[slot];
    mux_ends[slot].attached = 1;
    mux_ends[slot].since = ++mux_count;
    mux_focus = slot;
    chr_fe_set_handlers(&mux_ends[slot].fe, &end_handlers, &mux_ends[slot]);
    chr_fe_take_focus(&mux_ends[slot].fe);
    run_steps();
}

static void detach_one(int slot)
{
    if (!mux_ends[slot].attached) return;
    mux_ends[slot].attached = 0;
    chr_fe_deinit(&mux_ends[slot].fe);
    model_next_focus();
    if (mux_ends[mux_focus].attached) chr_fe_take_focus(&mux_ends[mux_focus].fe);
    run_steps();
}

static void give(int slot, int room)
{
    if (!mux_ends[slot].attached) return;
    mux_ends[slot].room = room;
    chr_fe_accept_input(&mux_ends[slot].fe);
    run_steps();
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void check_ends(void)
{
    int i;
    for (i = 0; i < MUX_SLOTS; i++) {
        give(i, MUX_LONG);
        if (!mux_ends[i].attached) continue;
        FUZZ_CHECK(mux_ends[i].got_len == mux_ends[i].want_len);
        FUZZ_CHECK(mux_ends[i].breaks == mux_ends[i].breaks_wanted);
    }
    FUZZ_CHECK(fuzz_exits == mux_exits);
    FUZZ_CHECK(fuzz_snapshots == mux_snapshots);
}

/* The output without its "[hh:mm:ss.mmm] ". */
static void check_output(void)
{
    size_t in = 0, at = 0;
    if (mux_help) return;
    while (in < mux_out_len) {
        if (mux_out[in] == '[') {
            if (mux_out_len - in < 15) break; /* the rest of a stamp has not gone out yet */
            FUZZ_CHECK(mux_out[in + 13] == ']' && mux_out[in + 14] == ' ');
            in += 15;
            continue;
        }
        FUZZ_CHECK(at < mux_taken_len && mux_out[in] == mux_taken[at]);
        in++;
        at++;
    }
    FUZZ_CHECK(at == mux_taken_len);
}

static void mux_one(fuzz_bytes *in)
{
    uint8_t op = fuzz_byte(in);
    int     slot = (op >> 4) % MUX_SLOTS;
    switch (op & 7) {
    case 0: attach_one(); break;
    case 1: detach_one(slot); break;
    case 2: give(slot, fuzz_byte(in)); break;
    case 3: more_budget(fuzz_byte(in)); break;
    case 4: output(slot, in, fuzz_byte(in) % 64); break;
    case 5:
        if (!mux_ends[slot].attached) break;
        mux_focus = slot;
        chr_fe_take_focus(&mux_ends[slot].fe);
        break;
    default: feed(in, fuzz_byte(in)); break;
    }
}

int FUZZ_TARGET(const uint8_t *data, size_t size)
{
    fuzz_bytes in;
    in.data = data;
    in.size = size;
    memset(mux_ends, 0, sizeof mux_ends);
    memset(&mux_feed, 0, sizeof mux_feed);
    mux_count = mux_focus = mux_in_escape = mux_exits = mux_snapshots = mux_help = 0;
    mux_out_len = mux_taken_len = mux_budget = 0;
    mux_ctx = fuzz_context(data, size);
    FUZZ_CHECK(chr_backend_register(mux_ctx, &base_backend, NULL) == 0);
    mux_dev = chr_new(mux_ctx, "base,id=m,mux=on", NULL);
    mux_base = chr_find(mux_ctx, "m-base");
    FUZZ_CHECK(mux_dev && mux_base);
    chr_idle_start(mux_ctx, &mux_feed.idle, opened_now, NULL);
    run_steps();
    attach_one();
    while (in.size) mux_one(&in);
    more_budget(MUX_LONG);
    check_ends();
    check_output();
    fuzz_end(mux_ctx);
    return 0;
}
