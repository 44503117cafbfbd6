/* Direct convolution of an image in NHWC order.

   A table has, for each tap of the kernel and each output position, the address of the
   input pixel; outside the image it is a row of zeros. A tile computes up to 6
   positions x 2 vectors of channels in registers. POSITIONS output positions
   are computed at once. A linear layer and a 1x1 convolution
   have one tap. */
struct conv {
    const float *x, *weights; /* weights: [group][block][tap][depth][BLOCK] */
    struct output out;
    int height, width, x_stride; /* of the input; floats from pixel to pixel */
    int out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];
    int depth, outputs, groups; /* input values per tap, output channels, per group */
};

struct taps {
    const float *const *table;
    int count, depth;
    ptrdiff_t offset; /* first channel */
};

#define ROWS_1(DO) DO(0)
#define ROWS_2(DO) ROWS_1(DO) DO(1)
#define ROWS_3(DO) ROWS_2(DO) DO(2)
#define ROWS_4(DO) ROWS_3(DO) DO(3)
#define ROWS_5(DO) ROWS_4(DO) DO(4)
#define ROWS_6(DO) ROWS_5(DO) DO(5)
#define START(r) vec low##r = splat(0), high##r = splat(0);
#define POINT(r) const float *x##r = row[r] + taps->offset;
#define MULTIPLY(r)                           \
    value = splat(x##r[i]);                   \
    low##r = multiply_add(value, w0, low##r); \
    high##r = multiply_add(value, w1, high##r);
#define FINISH(r)               \
    finish(out, r, 0, low##r);  \
    finish(out, r, LANES, high##r);
#define DEFINE_TILE(rows)                                                            \
    static void tile_##rows(const struct taps *taps, const float *weights,          \
                            const struct output *out) {                             \
        ROWS_##rows(START)                                                          \
        for (int tap = 0; tap < taps->count; tap++) {                               \
            const float *const *row = taps->table + (ptrdiff_t)tap * POSITIONS;     \
            ROWS_##rows(POINT)                                                      \
            for (int i = 0; i < taps->depth; i++, weights += BLOCK) {               \
                vec w0 = load(weights), w1 = load(weights + LANES), value;          \
                ROWS_##rows(MULTIPLY)                                               \
            }                                                                       \
        }                                                                           \
        ROWS_##rows(FINISH)                                                         \
    }
DEFINE_TILE(1)
DEFINE_TILE(2)
DEFINE_TILE(3)
DEFINE_TILE(4)
DEFINE_TILE(5)
DEFINE_TILE(6)

/* Multiply the pixels of `count` positions by one block of weights. */
static void multiply_block(struct taps taps, int count, const float *weights,
                           struct output out) {
    for (int half = 0; half < BLOCK && half < out.count; half += TILE) {
        struct taps rows = taps;
        for (int start = 0; start < count; start += 6, rows.table += 6) {
            struct output part = shifted(out, start, half);
            switch (count - start) {
            case 1: tile_1(&rows, weights + half, &part); break;
            case 2: tile_2(&rows, weights + half, &part); break;
            case 3: tile_3(&rows, weights + half, &part); break;
            case 4: tile_4(&rows, weights + half, &part); break;
            case 5: tile_5(&rows, weights + half, &part); break;
            default: tile_6(&rows, weights + half, &part);
            }
        }
    }
}

static void fill_table(const struct conv *c, const float **table, int start, int count) {
    for (int tap = 0; tap < c->kernel[0] * c->kernel[1]; tap++) {
        int shift_y = tap / c->kernel[1] * c->dilation[0] - c->padding[0];
        int shift_x = tap % c->kernel[1] * c->dilation[1] - c->padding[1];
        const float **row = table + (ptrdiff_t)tap * POSITIONS;
        int out_y = start / c->out_width, out_x = start % c->out_width;
        for (int i = 0; i < count; i++) {
            int y = out_y * c->stride[0] + shift_y, x = out_x * c->stride[1] + shift_x;
            int inside = y >= 0 && y < c->height && x >= 0 && x < c->width;
            ptrdiff_t pixel = (ptrdiff_t)y * c->width + x;
            row[i] = inside ? c->x + pixel * c->x_stride : zeros;
            if (++out_x == c->out_width) out_x = 0, out_y++;
        }
    }
}

/* Return how many positions to compute at once: equal parts, in whole tiles. */
static int part_of(int positions) {
    int parts = (positions + POSITIONS - 1) / POSITIONS;
    return ((positions + parts - 1) / parts + 5) / 6 * 6;
}

static void conv(const struct conv *c, const float **table) {
    int positions = c->out_height * c->out_width, part = part_of(positions);
    int taps = c->kernel[0] * c->kernel[1];
    for (int start = 0; start < positions; start += part) {
        int count = positions - start < part ? positions - start : part;
        const float *weights = c->weights;
        fill_table(c, table, start, count);
        for (int group = 0; group < c->groups; group++) {
            struct taps rows = {(const float *const *)table, taps, c->depth, 0};
            struct output out = shifted(c->out, start, group * c->outputs);
            if (c->groups > 1) rows.offset = (ptrdiff_t)group * c->depth;
            out.count = c->outputs;
            for (int block = 0; block < c->outputs; block += BLOCK) {
                multiply_block(rows, count, weights, shifted(out, 0, block));
                weights += (ptrdiff_t)taps * c->depth * BLOCK;
            }
        }
    }
}
