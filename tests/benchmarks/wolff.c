/* Wolff clusters and Metropolis sweeps for the square-lattice phi^4 model, by hand: the yardstick of kernels.py.
   Prints |m| and (1/V) sum phi^2 after every update, and the seconds of the updates on standard error.
   Usage: wolff L updates warmup clusters sweeps seed;  S = -sum w phi phi + sum a phi^2 + b phi^4. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t s[4];
static inline uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
static inline uint64_t next(void) { /* xoshiro256+ (Blackman and Vigna) */
  uint64_t r = s[0] + s[3], t = s[1] << 17;
  s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = rotl(s[3], 45);
  return r;
}
static inline float uni(void) { return (next() >> 40) * 0x1p-24f; }

static const float w = 1.0f, a = 1.52425f, b = 0.175f;
static int L, V;
static float *phi;
static int *stack;
static inline int right(int i) { return (i + 1) % L ? i + 1 : i + 1 - L; }
static inline int left(int i) { return i % L ? i - 1 : i - 1 + L; }
static inline int down(int i) { return i + L < V ? i + L : i + L - V; }
static inline int up(int i) { return i >= L ? i - L : i - L + V; }

static int wolff(void) { /* turns a site at once, so its own sign tells whether it has been taken */
  int top = 0, size = 0, i = next() % V;
  stack[top++] = i;
  float before = phi[i];
  phi[i] = -before;
  while (top) {
    i = stack[--top];
    size++;
    float p = -phi[i];
    int around[4] = {right(i), left(i), down(i), up(i)};
    for (int k = 0; k < 4; k++) {
      int j = around[k];
      float x = w * p * phi[j];
      if (x > 0 && uni() < 1 - expf(-2 * x)) { phi[j] = -phi[j]; stack[top++] = j; }
    }
  }
  return size;
}

static void sweep(float width) {
  for (int i = 0; i < V; i++) {
    float h = w * (phi[right(i)] + phi[left(i)] + phi[down(i)] + phi[up(i)]), x = phi[i];
    float y = x + width * (uni() - 0.5f), x2 = x * x, y2 = y * y;
    float d = (a + b * y2) * y2 - (a + b * x2) * x2 - h * (y - x);
    if (d <= 0 || uni() < expf(-d)) phi[i] = y;
  }
}

int main(int n, char **v) {
  if (n != 7) return 2;
  L = atoi(v[1]); V = L * L;
  int updates = atoi(v[2]), warmup = atoi(v[3]), clusters = atoi(v[4]), sweeps = atoi(v[5]);
  uint64_t z = 0x9e3779b97f4a7c15ull * (atoi(v[6]) + 1);
  for (int k = 0; k < 4; k++) { z ^= z >> 30; z *= 0xbf58476d1ce4e5b9ull; z ^= z >> 27; s[k] = z + k; }
  phi = malloc(V * sizeof *phi); stack = malloc(V * sizeof *stack);
  for (int i = 0; i < V; i++) phi[i] = uni();
  struct timespec start, stop;
  for (int t = -warmup; t < updates; t++) {
    if (t == 0) clock_gettime(CLOCK_MONOTONIC, &start);
    for (int k = 0; k < clusters; k++) wolff();
    for (int k = 0; k < sweeps; k++) sweep(2.0f);
    if (t < 0) continue;
    double m = 0, q = 0;
    for (int i = 0; i < V; i++) { m += phi[i]; q += phi[i] * phi[i]; }
    printf("%.7g %.7g\n", fabs(m / V), q / V);
  }
  clock_gettime(CLOCK_MONOTONIC, &stop);
  fprintf(stderr, "%.6f\n", (stop.tv_sec - start.tv_sec) + 1e-9 * (stop.tv_nsec - start.tv_nsec));
  return 0;
}
