/* Network "$title" from $channels-channel images to $classes classes.

   Compile $file.c with a C99 compiler and link libm; for speed use -O3 and the vector
   instructions of your processor, such as -march=x86-64-v3. All functions may be called
   from several threads at once. They return NAME_OK or another code below.

   pixels: 8-bit values in rows from top to bottom, the channels of a pixel side by side
   (RGB or gray), of any size, after the EXIF orientation. */
#ifndef ${upper}_H
#define ${upper}_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ${upper}_CLASSES $classes
#define ${upper}_CHANNELS $channels
#define ${upper}_HEIGHT $height /* of the resized image */
#define ${upper}_WIDTH $width
#define ${upper}_MULTI_LABEL $multi_label /* 1: several classes may be true */
#define ${upper}_WEIGHTS_BYTES $weights_bytes
#define ${upper}_THRESHOLD $threshold /* below it the answer is unknown */

enum {
    ${upper}_OK = 0,
    ${upper}_NO_MEMORY = 1,
    ${upper}_BAD_ARGUMENT = 2 /* NULL, a side below 1, or more than 2^31 values */$bad_weights
};

/* Names of the classes in UTF-8, in the order of the probabilities. */
extern const char *const ${name}_class_names[${upper}_CLASSES];
$class_thresholds
/* Calibrated probabilities of the classes. */
int ${name}_predict(${weights}const uint8_t *pixels, int height, int width,
    float *probabilities);

/* Outputs of the network before they become probabilities. */
int ${name}_logits(${weights}const uint8_t *pixels, int height, int width, float *logits);

/* The image at the size of the network: HEIGHT * WIDTH * CHANNELS values. */
int ${name}_resize(const uint8_t *pixels, int height, int width, uint8_t *resized);

/* From normalized values in the order channels, rows, columns. One of the results may
   be NULL. */
int ${name}_predict_tensor(${weights}const float *tensor, float *logits,
    float *probabilities);
$check_weights
#ifdef __cplusplus
}
#endif

#endif
