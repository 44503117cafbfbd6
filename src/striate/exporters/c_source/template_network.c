/* Probabilities of the logits. */
static void to_probabilities(const float *logits, float *probabilities) {
$probabilities
}

static int run_network(const float *w, const uint8_t *resized, const float *tensor,
                       float *logits, float *probabilities) {
    float *memory = malloc((MEMORY_FLOATS + 16) * sizeof *memory
                           + TABLE_POINTERS * sizeof(float *));
    if (!memory) return RETURN_NO_MEMORY;
    float *m = memory + (64 - (uintptr_t)memory % 64) % 64 / sizeof *memory;
    if (resized)
        normalize(resized, m + INPUT_OFFSET);
    else
        for (int i = 0; i < INPUT_HEIGHT * INPUT_WIDTH; i++)
            for (int c = 0; c < INPUT_CHANNELS; c++)
                m[INPUT_OFFSET + i * INPUT_CHANNELS + c]
                    = tensor[c * INPUT_HEIGHT * INPUT_WIDTH + i];
    network(w, m, (const float **)(void *)(m + MEMORY_FLOATS));
    if (logits) memcpy(logits, m + OUTPUT_OFFSET, CLASSES * sizeof *logits);
    if (probabilities) to_probabilities(m + OUTPUT_OFFSET, probabilities);
    free(memory);
    return RETURN_OK;
}

static int accepts(const void *pixels, int height, int width, const void *result) {
    if (!pixels || !result || height < 1 || width < 1) return 0;
    return width <= INT32_MAX / INPUT_CHANNELS / height;
}

static int run_image(const float *w, const uint8_t *pixels, int height, int width,
                     float *logits, float *probabilities) {
    uint8_t *resized = malloc(INPUT_HEIGHT * INPUT_WIDTH * INPUT_CHANNELS);
    if (!resized) return RETURN_NO_MEMORY;
    int code = resize_image(pixels, height, width, resized);
    if (code == RETURN_OK) code = run_network(w, resized, NULL, logits, probabilities);
    free(resized);
    return code;
}

int ${name}_predict(${weights}const uint8_t *pixels, int height, int width,
                    float *probabilities) {
    if (!accepts(pixels, height, width, probabilities)) return RETURN_BAD_ARGUMENT;
    return run_image($w, pixels, height, width, NULL, probabilities);
}

int ${name}_logits(${weights}const uint8_t *pixels, int height, int width, float *logits) {
    if (!accepts(pixels, height, width, logits)) return RETURN_BAD_ARGUMENT;
    return run_image($w, pixels, height, width, logits, NULL);
}

int ${name}_resize(const uint8_t *pixels, int height, int width, uint8_t *resized) {
    if (!accepts(pixels, height, width, resized)) return RETURN_BAD_ARGUMENT;
    return resize_image(pixels, height, width, resized);
}

int ${name}_predict_tensor(${weights}const float *tensor, float *logits,
                           float *probabilities) {
    if (!tensor) return RETURN_BAD_ARGUMENT;
    return run_network($w, NULL, tensor, logits, probabilities);
}
