/* Pooling of an image in NHWC order. */
struct pool {
    const float *x;
    float *y;
    int height, width, channels, x_stride, out_height, out_width;
    int kernel[2], stride[2], padding[2], dilation[2];
    int bottom, right; /* padding at the end */
    int count_padding;
};
