// Paged attention against double precision over the stored keys and values, and bitwise: a query's result is the same
// whatever other queries come with it, and slots after its own token may hold anything.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "base/check.h"
#include "base/dtype.h"
#include "kernel_tables.h"

using namespace octavo;

namespace {

constexpr float kCanary = 4321.0f;

struct Case {
  KvType type;
  int n_group, head_dim, length, n_queries;  // the queries are the last tokens of the sequence
  int window = 0;
  float soft_cap = 0;
  float sharpness = 1.5f;  // spread of the scores
  bool causal = true;      // else the queries see the whole sequence, or half a window to either side
  bool biased = false;

  int oldest(int position) const {
    if (window == 0) return 0;
    return std::max(0, causal ? position - window + 1 : position - window / 2);
  }
  int newest(int position) const {
    if (causal) return position;
    return window == 0 ? length - 1 : std::min(length - 1, position + window / 2);
  }
  int bias_length() const { return length + 3; }  // it is for sequences of up to so many tokens
  int first() const { return length - n_queries; }
  int row() const { return n_group * head_dim; }  // floats of one query
  float scale() const { return sharpness / std::sqrt(static_cast<float>(head_dim)); }
  std::string name() const {
    return concat(type == KvType::kF32 ? "f32" : "bf16", " group=", n_group, " head_dim=", head_dim, " length=", length,
                  " queries=", n_queries, " window=", window, " cap=", soft_cap, causal ? "" : " bidirectional",
                  biased ? " biased" : "");
  }
};

// One head's cache: NaN wherever no token has been written.
class Cache {
 public:
  explicit Cache(const Case& c)
      : case_(c),
        tile_bytes_(KvLayout{1, c.head_dim, c.type}.tile_bytes()),
        n_tiles_((c.length + kKvTile - 1) / kKvTile) {
    memory_.assign(static_cast<size_t>(2 * tile_bytes_ * n_tiles_), 0xff);
    for (int i = n_tiles_; i-- > 0;) tiles_.push_back(memory_.data() + 2 * tile_bytes_ * i);  // not in order
    std::reverse(tiles_.begin() + n_tiles_ / 2, tiles_.end());
  }
  Cache(const Cache&) = delete;

  uint8_t* tile(int position) const { return tiles_[static_cast<size_t>(position / kKvTile)]; }
  // The tiles that positions [oldest, newest] lie in and one to fetch after them; the others are null.
  std::vector<const uint8_t*> tiles(int oldest, int newest) const {
    std::vector<const uint8_t*> visible(tiles_.size() + 1);
    for (int i = oldest / kKvTile; i <= newest / kKvTile; ++i) visible[static_cast<size_t>(i)] = tile(i * kKvTile);
    visible[static_cast<size_t>(newest / kKvTile + 1)] = tile(oldest);
    return visible;
  }
  int64_t tile_bytes() const { return tile_bytes_; }

  // Writes tokens up to `end`.
  void grow(const KernelTable& kernels, const std::vector<float>& k, const std::vector<float>& v, int end) {
    while (written_ < end) {
      const int64_t offset = int64_t{written_} * case_.head_dim;
      const int slot = written_ % kKvTile, n = std::min(kKvTile - slot, end - written_);
      kernels.kv_write[static_cast<size_t>(case_.type)]({tile(written_), k.data() + offset, v.data() + offset,
                                                         case_.head_dim, case_.head_dim, slot, n, case_.head_dim});
      written_ += n;
    }
  }

 private:
  Case case_;
  int64_t tile_bytes_;
  int n_tiles_, written_ = 0;
  std::vector<uint8_t> memory_;
  std::vector<uint8_t*> tiles_;
};

float stored(KvType type, float x) { return type == KvType::kF32 ? x : bf16_to_float(float_to_bf16(x)); }

// Whether queries and softmax weights are rounded to bf16 as well.
bool dots_bf16(const KernelTable& kernels, KvType type) {
  return kernels.isa == Isa::kAvx512Bf16 && type == KvType::kBF16;
}

struct Inputs {
  std::vector<float> q, k, v;  // (n_queries, n_group, head_dim), (length, head_dim) twice
  std::vector<float> bias;     // (n_group, relative_bias_width)

  explicit Inputs(const Case& c)
      : q(normal_floats(static_cast<size_t>(c.n_queries) * c.row(), 1)),
        k(normal_floats(static_cast<size_t>(c.length) * c.head_dim, 2)),
        v(normal_floats(static_cast<size_t>(c.length) * c.head_dim, 3)),
        bias(c.biased ? normal_floats(static_cast<size_t>(c.n_group * relative_bias_width(c.bias_length())), 4)
                      : std::vector<float>{}) {}

  double bias_at(const Case& c, int head, int distance) const {
    if (bias.empty()) return 0;
    return double{
        bias[static_cast<size_t>(head * relative_bias_width(c.bias_length()) + distance + c.bias_length() - 1)]};
  }
};

double score(const Case& c, const float* q, const float* k, bool round_query) {
  double dot = 0;
  for (int d = 0; d < c.head_dim; ++d)
    dot += double{round_query ? stored(c.type, q[d]) : q[d]} * double{stored(c.type, k[d])};
  dot *= double{c.scale()};
  return c.soft_cap > 0 ? double{c.soft_cap} * std::tanh(dot / double{c.soft_cap}) : dot;
}

// softmax(scores) V of one row, in double precision.
void reference_row(double* out, const Case& c, const Inputs& in, bool round_queries, int query, int head) {
  const int position = c.first() + query;
  const int oldest = c.oldest(position), newest = c.newest(position);
  std::vector<double> weight;
  for (int key = oldest; key <= newest; ++key)
    weight.push_back(score(c, &in.q[static_cast<size_t>(query * c.row() + head * c.head_dim)],
                           &in.k[static_cast<size_t>(key) * c.head_dim], round_queries) +
                     in.bias_at(c, head, key - position));
  const double top = *std::max_element(weight.begin(), weight.end());
  double sum = 0;
  for (double& w : weight) sum += w = std::exp(w - top);
  std::fill(out, out + c.head_dim, 0.0);
  for (int key = oldest; key <= newest; ++key)
    for (int d = 0; d < c.head_dim; ++d)
      out[d] += weight[static_cast<size_t>(key - oldest)] / sum *
                double{stored(c.type, in.v[static_cast<size_t>(key) * c.head_dim + d])};
}

std::vector<double> reference(const Case& c, const Inputs& in, bool round_queries) {
  std::vector<double> out(in.q.size());
  for (int query = 0; query < c.n_queries; ++query)
    for (int head = 0; head < c.n_group; ++head)
      reference_row(out.data() + query * c.row() + head * c.head_dim, c, in, round_queries, query, head);
  return out;
}

// Queries [begin, end) in one task, to their place in `out` (n_queries, n_group, head_dim). Strides are wider than
// rows; scratch ends where writing faults.
void attend(std::vector<float>& out, const KernelTable& kernels, const Case& c, const Inputs& in, const Cache& cache,
            const PageEnd<float>& scratch, int begin, int end) {
  const int q_stride = c.row() + 7, out_stride = c.row() + 3, n = end - begin;
  std::vector<float> q(static_cast<size_t>(n) * q_stride, NAN), strided(static_cast<size_t>(n) * out_stride, kCanary);
  for (int i = 0; i < n; ++i) std::copy_n(in.q.data() + (begin + i) * c.row(), c.row(), q.data() + i * q_stride);
  const int position = c.first() + begin;
  const auto tiles = cache.tiles(c.oldest(position), c.newest(c.first() + end - 1));
  kernels.attention[static_cast<size_t>(c.type)]({strided.data(), q.data(), q_stride, out_stride, tiles.data(), n,
                                                  c.n_group, c.head_dim, position, c.window, c.scale(), c.soft_cap,
                                                  scratch.data(), c.causal, c.length,
                                                  c.biased ? in.bias.data() : nullptr, c.bias_length()});
  int touched = 0;
  for (int i = 0; i < n; ++i) {
    const float* row = strided.data() + i * out_stride;
    std::copy_n(row, c.row(), out.data() + (begin + i) * c.row());
    for (int j = c.row(); j < out_stride; ++j) touched += row[j] != kCanary;
  }
  CHECK(touched == 0);
}

// The queries as steps of `chunk` tokens: each sees a cache that ends with its own last token.
std::vector<float> attend_in_chunks(const KernelTable& kernels, const Case& c, const Inputs& in,
                                    const PageEnd<float>& scratch, int chunk) {
  Cache cache(c);
  std::vector<float> out(in.q.size());
  for (int begin = 0; begin < c.n_queries; begin += chunk) {
    const int end = std::min(begin + chunk, c.n_queries);
    cache.grow(kernels, in.k, in.v, c.causal ? c.first() + end : c.length);
    attend(out, kernels, c, in, cache, scratch, begin, end);
  }
  return out;
}

// The largest distance from the reference, in parts of the largest value.
double worst_error(const std::vector<float>& out, const std::vector<double>& expected, const Inputs& in) {
  double largest = 0, worst = 0;
  for (float v : in.v) largest = std::max(largest, std::fabs(double{v}));
  for (size_t i = 0; i < out.size(); ++i) {
    const double error = std::fabs(double{out[i]} - expected[i]);
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst / largest;
}

// Dots of up to 256 floats leave scores that are good to a few 1e-6, a soft cap of 30 to 1e-5 at most.
constexpr double kTolerance = 1e-5;
// Weights rounded to bf16 are off by 2^-9 of themselves, and so are their sums by no more than that of the largest
// value.
constexpr double kBf16Tolerance = 0x1p-9 + kTolerance;

void check_case(const Case& c) {
  const Inputs in(c);
  const std::array<std::vector<double>, 2> expected{reference(c, in, false), reference(c, in, true)};
  const PageEnd<float> scratch(static_cast<size_t>(attention_scratch(c.head_dim)));
  for (const auto& [name, kernels] : tested_tables()) {
    INFO(name, " ", c.name());
    const auto together = attend_in_chunks(kernels, c, in, scratch, c.n_queries);
    const bool rounds = dots_bf16(kernels, c.type);
    CHECK(worst_error(together, expected[rounds], in) < (rounds ? kBf16Tolerance : kTolerance));
    for (int chunk : {1, 2, 7, 16}) {
      if (chunk >= c.n_queries) continue;
      CAPTURE(chunk);
      const auto apart = attend_in_chunks(kernels, c, in, scratch, chunk);
      CHECK(same_bits(apart.data(), together.data(), apart.size()));
    }
  }
}

}  // namespace

TEST_CASE("kernels: kv_write keeps the layout of kernels.h") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (int head_dim : {16, 40, 80})
      for (const auto& [name, kernels] : tested_tables()) {
        const Case c{type, 1, head_dim, kKvTile, 1};
        const Inputs in(c);
        Cache cache(c);
        cache.grow(kernels, in.k, in.v, kKvTile);
        const uint8_t *keys = cache.tile(0), *values = keys + cache.tile_bytes();
        const auto at = [&](const uint8_t* tile, int index) {
          return type == KvType::kF32 ? reinterpret_cast<const float*>(tile)[index]
                                      : bf16_to_float(reinterpret_cast<const uint16_t*>(tile)[index]);
        };
        int wrong = 0;
        for (int slot = 0; slot < kKvTile; ++slot)
          for (int d = 0; d < head_dim; ++d) {
            const bool pairs = type == KvType::kBF16;
            const int key = pairs ? (d / 2 * kKvTile + slot) * 2 + d % 2 : d * kKvTile + slot;
            const int value = pairs ? (slot / 2 * head_dim + d) * 2 + slot % 2 : slot * head_dim + d;
            const auto i = static_cast<size_t>(slot * head_dim + d);
            wrong += at(keys, key) != stored(type, in.k[i]) || at(values, value) != stored(type, in.v[i]);
          }
        INFO(name, " ", c.name());
        CHECK(wrong == 0);
      }
}

TEST_CASE("kernels: attention over every group and head size") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (int n_group : {1, 3, 4, 8})
      for (int head_dim : {16, 40, 64, 80, 128, 256}) {
        check_case({type, n_group, head_dim, 1, 1});
        check_case({type, n_group, head_dim, 37, 5});
        check_case({type, n_group, head_dim, 40, 9, 5});
        check_case({type, n_group, head_dim, 261, 6, 0, 30.0f});
      }
}

TEST_CASE("kernels: attention over every length") {
  for (KvType type : {KvType::kF32, KvType::kBF16}) {
    for (int length = 1; length <= 70; ++length) check_case({type, 2, 24, length, std::min(length, 3)});
    for (int length : {95, 96, 97, 255, 256, 257, 287, 288, 289, 511, 512, 513, 545, 599, 600})
      for (int window : {0, 5, 300}) check_case({type, 3, 40, length, 3, window});
  }
}

TEST_CASE("kernels: attention with scores far apart") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (int length : {64, 200, 290, 560})
      for (float sharpness : {4.0f, 8.0f}) check_case({type, 4, 64, length, 12, 0, 0.0f, sharpness});
}

TEST_CASE("kernels: attention of one to forty queries") {
  for (KvType type : {KvType::kF32, KvType::kBF16}) {
    for (int n_queries = 1; n_queries <= 40; ++n_queries)
      check_case({type, 3, 16, 270 + n_queries / 2, n_queries, 0, 20.0f});
    for (int window : {0, 5, 300}) {
      check_case({type, 3, 64, 40, 40, window});
      check_case({type, 4, 64, 530, 40, window, 30.0f});
      check_case({type, 1, 64, 600, 40, window});
    }
  }
}

TEST_CASE("kernels: attention to both sides, with and without a window and a bias") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (bool biased : {false, true})
      for (int window : {0, 8, 128})
        for (int length : {1, 2, 31, 32, 33, 64, 65, 130, 257, 300}) {
          Case c{type, 2, 32, length, length, window};
          c.causal = false;
          c.biased = biased;
          check_case(c);
        }
}

TEST_CASE("kernels: causal attention with a bias") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (int length : {1, 33, 70, 290}) {
      Case c{type, 3, 40, length, std::min(length, 40)};
      c.biased = true;
      check_case(c);
    }
}

// Each query may be followed by tokens of its own step whose keys and values are no numbers.
TEST_CASE("kernels: attention is not reached by later tokens that are not finite") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (float poison : {INFINITY, -INFINITY, NAN})
      for (int n_group : {1, 3, 8})
        for (int bad : {1, 6, 33, 40}) {
          const Case c{type, n_group, 40, 301, 41};
          const Inputs good(c);
          Inputs in(c);
          const auto first_bad = static_cast<size_t>((c.first() + bad) * c.head_dim);
          std::fill(in.k.begin() + static_cast<std::ptrdiff_t>(first_bad), in.k.end(), poison);
          std::fill(in.v.begin() + static_cast<std::ptrdiff_t>(first_bad), in.v.end(), poison);
          const PageEnd<float> scratch(static_cast<size_t>(attention_scratch(c.head_dim)));
          for (const auto& [name, kernels] : tested_tables()) {
            INFO(name, " ", c.name(), " bad=", bad, " poison=", poison);
            const auto expected = attend_in_chunks(kernels, c, good, scratch, c.n_queries);
            const auto out = attend_in_chunks(kernels, c, in, scratch, c.n_queries);
            CHECK(same_bits(out.data(), expected.data(), static_cast<size_t>(bad * c.row())));
          }
        }
}

// A later tile or chunk may outweigh everything before it, or count for nothing.
TEST_CASE("kernels: attention whose softmax is nearly one-hot") {
  for (KvType type : {KvType::kF32, KvType::kBF16})
    for (int peak : {0, 31, 32, 255, 256, 300, 519}) {
      const Case c{type, 3, 32, 520, 1};
      Inputs in(c);
      for (int d = 0; d < c.head_dim; ++d) {
        const auto i = static_cast<size_t>(peak * c.head_dim + d);
        in.k[i] = in.q[static_cast<size_t>(d)] * 40.0f;  // head 0 sees a score of several hundred there
      }
      const PageEnd<float> scratch(static_cast<size_t>(attention_scratch(c.head_dim)));
      for (const auto& [name, kernels] : tested_tables()) {
        INFO(name, " ", c.name(), " peak=", peak);
        const auto out = attend_in_chunks(kernels, c, in, scratch, 1);
        for (int d = 0; d < c.head_dim; ++d)
          CHECK(out[static_cast<size_t>(d)] == stored(type, in.v[static_cast<size_t>(peak * c.head_dim + d)]));
      }
    }
}
