// The first layer of `person` by SDOT, to compare with pattern-sorted accumulation (docs/adr/0002): 3 x 288 x 384 u7 values in planes,
// 3x3, stride 2, 16 channels out, requantized to u7 planes.
//
//   aarch64-linux-gnu-gcc -O3 -march=armv8.2-a+dotprod -static -o sdot_stem deploy/peers/sdot_stem.c
//   deploy/cycles/estimate.py a76 ./sdot_stem RUNS
#include <arm_neon.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { W = 384, H = 288, OW = W / 2, OH = H / 2, OUT = 16, TAPS = 9, PAD = 16, STRIDE = OW + 2 * PAD };

static uint8_t image[3][H][W];
// Even and odd columns of each row, red, green, blue and zero side by side; a row of zeros above, zeros at the left.
static uint8_t even[H + 1][STRIDE][4], odd[H + 1][STRIDE][4];
static uint8_t out[OUT][OH][OW];
static int8_t weights[TAPS][OUT][4];
static int16_t bias[OUT], multiplier[OUT];

static void interleave(void) {
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x += 32) {
            uint8x16x2_t r = vld2q_u8(&image[0][y][x]), g = vld2q_u8(&image[1][y][x]), b = vld2q_u8(&image[2][y][x]);
            uint8x16x4_t e = {{r.val[0], g.val[0], b.val[0], vdupq_n_u8(0)}};
            uint8x16x4_t o = {{r.val[1], g.val[1], b.val[1], vdupq_n_u8(0)}};
            vst4q_u8(even[y + 1][PAD + x / 2], e);
            vst4q_u8(odd[y + 1][PAD + x / 2], o);
        }
}

#define DOT(n)                                                                          \
    lo[n] = vdotq_laneq_s32(lo[n], v0, n < 4 ? w0 : w1, n & 3);                          \
    hi[n] = vdotq_laneq_s32(hi[n], v1, n < 4 ? w0 : w1, n & 3);

static void convolve(void) {
    for (int y = 0; y < OH; y++)
        for (int first = 0; first < OUT; first += 8)
            for (int x = 0; x < OW; x += 8) {
                int32x4_t lo[8], hi[8];
                for (int n = 0; n < 8; n++) lo[n] = hi[n] = vdupq_n_s32(0);
#pragma GCC unroll 3
                for (int ky = 0; ky < 3; ky++)
#pragma GCC unroll 3
                    for (int kx = 0; kx < 3; kx++) {
                        const uint8_t *from = kx == 1 ? even[2 * y + ky][PAD + x] : odd[2 * y + ky][PAD + x - (kx == 0)];
                        int8x16_t v0 = vreinterpretq_s8_u8(vld1q_u8(from)), v1 = vreinterpretq_s8_u8(vld1q_u8(from + 16));
                        int8x16_t w0 = vld1q_s8(weights[ky * 3 + kx][first]), w1 = vld1q_s8(weights[ky * 3 + kx][first + 4]);
                        DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7)
                    }
#pragma GCC unroll 8
                for (int n = 0; n < 8; n++) {
                    int16x8_t sum = vqmovn_high_s32(vqmovn_s32(lo[n]), hi[n]);
                    sum = vqaddq_s16(sum, vdupq_n_s16(bias[first + n]));
                    sum = vqrdmulhq_s16(sum, vdupq_n_s16(multiplier[first + n]));
                    vst1_u8(&out[first + n][y][x], vmin_u8(vqmovun_s16(sum), vdup_n_u8(127)));
                }
            }
}

static int expected(int n, int y, int x) {
    int sum = 0;
    for (int ky = 0; ky < 3; ky++)
        for (int kx = 0; kx < 3; kx++)
            for (int c = 0; c < 3; c++) {
                int iy = 2 * y + ky - 1, ix = 2 * x + kx - 1;
                if (iy >= 0 && ix >= 0 && iy < H && ix < W) sum += image[c][iy][ix] * weights[ky * 3 + kx][n][c];
            }
    int scaled = (2 * (sum + bias[n]) * multiplier[n] + 32768) >> 16;
    return scaled < 0 ? 0 : scaled > 127 ? 127 : scaled;
}

int main(int argc, char **argv) {
    int runs = argc > 1 ? atoi(argv[1]) : 1;
    srand(1);
    for (int i = 0; i < 3 * H * W; i++) ((uint8_t *)image)[i] = rand() & 127;
    for (int t = 0; t < TAPS; t++)
        for (int n = 0; n < OUT; n++)
            for (int c = 0; c < 3; c++) weights[t][n][c] = rand() % 3 - 1;
    for (int n = 0; n < OUT; n++) bias[n] = rand() % 200 - 100, multiplier[n] = 2000 + rand() % 4000;
    for (int i = 0; i < runs; i++) {
        interleave();
        convolve();
        // Every run writes the same: none is to be left out.
        __asm__ volatile("" ::: "memory");
    }
    for (int n = 0; n < OUT; n++)
        for (int y = 0; y < OH; y++)
            for (int x = 0; x < OW; x++)
                if (out[n][y][x] != expected(n, y, x)) {
                    printf("channel %d, row %d, column %d: %d, not %d\n", n, y, x, out[n][y][x], expected(n, y, x));
                    return 1;
                }
    puts("right");
    return 0;
}
