// Linears over F32, F16 and BF16 planes: one chain of multiply-adds over ascending k for every output.

namespace octavo {
namespace {

template <int kTokens, int kStrips>
struct FloatTile {
  Vf acc[kTokens][kStrips * kVecs];

  void clear() {
    for (auto& row : acc)
      for (Vf& v : row) v = zero();
  }
  void add_column(int vec, Vf weights, const float* const* x, int k) {
    for (int t = 0; t < kTokens; ++t) acc[t][vec] = fma(weights, set1(x[t][k]), acc[t][vec]);
  }
  void store_to(float* out, int64_t stride) const {
    for (int t = 0; t < kTokens; ++t)
      for (int v = 0; v < kStrips * kVecs; ++v) store(out + t * stride + v * kLanes, acc[t][v]);
  }
};

struct F32Planes {
  static int64_t strip_bytes(int k) { return (int64_t{k} * 16 * 4 + 63) / 64 * 64; }
  template <class Tile>
  static void accumulate(Tile& tile, const uint8_t* const* strips, int n_strips, const float* const* x, int n) {
    for (int k = 0; k < n; ++k)
      for (int s = 0; s < n_strips; ++s)
        for (int v = 0; v < kVecs; ++v)
          tile.add_column(s * kVecs + v, load(reinterpret_cast<const float*>(strips[s]) + k * 16 + v * kLanes), x, k);
  }
};

struct F16Planes {
  static int64_t strip_bytes(int k) { return (int64_t{k} * 16 * 2 + 63) / 64 * 64; }
  template <class Tile>
  static void accumulate(Tile& tile, const uint8_t* const* strips, int n_strips, const float* const* x, int n) {
    for (int k = 0; k < n; ++k)
      for (int s = 0; s < n_strips; ++s)
        for (int v = 0; v < kVecs; ++v)
          tile.add_column(s * kVecs + v, load_f16(reinterpret_cast<const uint16_t*>(strips[s]) + k * 16 + v * kLanes),
                          x, k);
  }
};

struct Bf16Planes {
  static int64_t strip_bytes(int k) { return int64_t{(k + 1) / 2} * 64; }
  template <class Tile>
  static void accumulate(Tile& tile, const uint8_t* const* strips, int n_strips, const float* const* x, int n) {
    for (int k = 0; k < n; k += 2)
      for (int s = 0; s < n_strips; ++s)
        for (int v = 0; v < kVecs; ++v) {
          Vf even, odd;
          load_bf16_pairs(reinterpret_cast<const uint16_t*>(strips[s]) + k * 16 + v * kLanes * 2, even, odd);
          tile.add_column(s * kVecs + v, even, x, k);
          if (k + 1 < n) tile.add_column(s * kVecs + v, odd, x, k + 1);
        }
  }
};

template <class Planes, int kTokens, int kStrips>
void float_tile(const LinearTask& task, int token, int strip) {
  const float* x[kTokens];
  for (int t = 0; t < kTokens; ++t) x[t] = reinterpret_cast<const float*>(task.act + (token + t) * task.act_stride);
  const uint8_t* strips[kStrips];
  for (int s = 0; s < kStrips; ++s) strips[s] = task.weights + (strip + s) * Planes::strip_bytes(task.k);
  FloatTile<kTokens, kStrips> tile;
  tile.clear();
  Planes::accumulate(tile, strips, kStrips, x, task.k);
  tile.store_to(task.out + token * task.out_stride + strip * 16, task.out_stride);
}

// Tiles that fill the register file: kBig tokens by one step of strips, then ever fewer tokens.
constexpr int kFloatTokens = 6;
constexpr int kFloatStrips = kLanes == 16 ? 4 : 1;
constexpr int kFewTokens = 2;
constexpr int kFewStrips = kLanes == 16 ? 4 : 2;

template <class Planes, int kTokens, int kStrips>
int float_tokens(const LinearTask& task, int token, int strip) {
  for (; token + kTokens <= task.n_tokens; token += kTokens) float_tile<Planes, kTokens, kStrips>(task, token, strip);
  return token;
}

template <class Planes, int kStrips>
void float_strips(const LinearTask& task, int first_token, int strip) {
  int token = float_tokens<Planes, kFloatTokens, kStrips>(task, first_token, strip);
  token = float_tokens<Planes, 3, kStrips>(task, token, strip);
  token = float_tokens<Planes, 2, kStrips>(task, token, strip);
  float_tokens<Planes, 1, kStrips>(task, token, strip);
}

// One or two tokens: several strips at once, so that enough independent chains hide the latency.
template <class Planes, int kTokens>
void float_few(const LinearTask& task) {
  int strip = 0;
  for (; strip + kFewStrips <= task.n_strips; strip += kFewStrips) float_tile<Planes, kTokens, kFewStrips>(task, 0, strip);
  for (; strip < task.n_strips; ++strip) float_tile<Planes, kTokens, 1>(task, 0, strip);
}

template <class Planes>
void linear_float(const LinearTask& task) {
  if (task.n_tokens == 1) return float_few<Planes, 1>(task);
  if (task.n_tokens == kFewTokens) return float_few<Planes, kFewTokens>(task);
  int strip = 0;
  for (; strip + kFloatStrips <= task.n_strips; strip += kFloatStrips) float_strips<Planes, kFloatStrips>(task, 0, strip);
  for (; strip < task.n_strips; ++strip) float_strips<Planes, 1>(task, 0, strip);
}

}  // namespace
}  // namespace octavo
