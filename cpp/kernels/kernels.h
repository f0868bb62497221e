// The kernels of one ISA as a table of function pointers. Kernels take raw pointers and sizes, allocate
// nothing and never fail. A number depends on its own row only: no result changes with n_tokens, with how
// work is cut into chunks, or with the number of threads.
#pragma once

#include <array>
#include <cstdint>

#include "base/cpu.h"
#include "quant/activation.h"
#include "quant/aqlm_slabs.h"
#include "quant/format.h"

namespace octavo {

// What will be read after some linears. They fetch it along the way, so many lines for every kWeightLines lines of
// weights that they read ahead: memory is idle while many tokens are multiplied.
struct Upcoming {
  static constexpr int kWeightLines = 256;
  const uint8_t* const* next = nullptr;  // pieces that are not fetched yet, up to end
  const uint8_t* const* end = nullptr;
  int lines = 0;    // cache lines of a piece
  int fetched = 0;  // of the next piece
  int rate = 0;
  int due = 0;  // lines, times kWeightLines
};

// out[t][16*s + lane] for n_tokens rows and n_strips strips of 16 weight rows.
struct LinearTask {
  float* out;              // (n_tokens, 16 * n_strips)
  int64_t out_stride;      // floats from one token to the next
  const uint8_t* act;      // rows in the kernel's ActFormat
  int64_t act_stride;      // bytes from one token to the next
  const uint8_t* weights;  // strips in the layout of quant/planes.h, or a panel made by expand
  int n_tokens;
  int n_strips;
  int k;
  const float* bias = nullptr;        // (16 * n_strips): what each sum starts from; null: 0
  const FormatRow* format = nullptr;  // of the weights
  Upcoming* upcoming = nullptr;       // or null: nothing
};

struct LinearKernel {
  ActFormat act = ActFormat::kF32;
  void (*run)(const LinearTask&) = nullptr;  // null: dequantise to an F32 panel, then its kernel
  // Where unpacking pays from so many tokens on: the strips of a task to a panel, 64-byte aligned, of so many bytes for
  // each strip and 256 weights of its rows, and the kernel that multiplies by it. Null where it does not.
  int unpack_from = 0;
  int unpacked_bytes = 0;
  void (*unpack)(uint8_t* panel, const LinearTask&) = nullptr;
  void (*run_unpacked)(const LinearTask&) = nullptr;
};

// A linear of AQLM codes of 8 bits, as LinearTask but for the scales of rows, which are left out. A plan runs it over
// either half of the slabs (quant/aqlm_slabs.h).
inline constexpr int kAqlmMaxRows = 48 * 256;  // in one task
struct AqlmTask {
  float* out;            // (n_tokens, 16 * n_strips)
  int64_t out_stride;    // floats from one token to the next
  const uint8_t* act;    // rows of floats
  int64_t act_stride;    // bytes from one token to the next
  const uint8_t* codes;  // of the first row's block (quant/aqlm_slabs.h)
  int64_t slab_bytes;    // from one slab to the next
  const int16_t* books;  // the codebooks as integers (quant/aqlm_slabs.h)
  int n_codebooks;
  int group;
  int n_tokens;
  int n_strips;
  int k;
};

// Rows of AQLM codes, one after the other or by strips (quant/aqlm.h).
struct AqlmVectors {
  const uint8_t* codes;     // a group's are n_codebooks of one byte up to 8 bits, else of two
  const uint16_t* vectors;  // (1 << bits, group) bfloat16, of one codebook
  const float* summed;      // (n_codebooks, 1 << bits, group), of several
  int64_t strip_bytes;      // from 16 rows to the next
  int64_t row_step;         // bytes from a row to the next
  int64_t group_step;       // bytes from a group to the next
  int n_rows;
  int n_codebooks;
  int bits;
  int group;
  int k;
};
inline constexpr int kAqlmDotTokens = 4;  // the most that aqlm_dot takes

// Groups of weights that become sums of vectors, one of each codebook, as octavo quantize looks for them.
inline constexpr int kAqlmSearchGroup = 8;   // weights
inline constexpr int kAqlmSearchBooks = 16;  // at most
struct AqlmSearch {
  int32_t* codes;             // (n, n_codebooks)
  const float* groups;        // (n, 8)
  const float* books;         // (n_codebooks, 8, size): the first weights of all vectors, the second ones, ...
  const float* half_squares;  // (n_codebooks, size): half of the sums of their squares
  int64_t n;
  int n_codebooks;
  int size;  // a multiple of 16
};

// How keys and values are stored: kBF16 rounds to bfloat16; kF32 is exact.
enum class KvType : uint8_t { kF32, kBF16 };

inline constexpr int kKvTile = 32;    // tokens that attention reads together, at absolute positions
inline constexpr int kKvChunk = 256;  // tokens after which the running softmax restarts and is merged

// Where one layer's cache block lies. Per (block, kv head):
//   K  [head_dim/2][kKvTile][2] bf16, or [head_dim][kKvTile] float
//   V  [kKvTile/2][head_dim][2] bf16, or [kKvTile][head_dim] float
struct KvLayout {
  int n_kv_heads;
  int head_dim;
  KvType type;
  constexpr int64_t tile_bytes() const { return int64_t{kKvTile} * head_dim * (type == KvType::kF32 ? 4 : 2); }
  constexpr int64_t block_bytes() const { return 2 * tile_bytes() * n_kv_heads; }
  bool operator==(const KvLayout&) const = default;
};

// An additive bias of attention by the distance key - query, for sequences of up to `length` tokens: entry
// key - query + length - 1 of a head's row, which ends with a tile's width of padding.
constexpr int64_t relative_bias_width(int64_t length) { return 2 * length - 1 + kKvTile; }
constexpr int64_t relative_bias_length(int64_t width) { return (width - kKvTile + 1) / 2; }

// New keys and values of one kv head for slots [slot, slot + n_tokens) of one tile.
struct KvWrite {
  uint8_t* tile;
  const float* k;    // (n_tokens, head_dim) with strides below, rotated
  const float* v;    // the same
  int64_t k_stride;  // floats from one token to the next
  int64_t v_stride;
  int slot;
  int n_tokens;
  int head_dim;
};

// The first key that a query at a position sees through a window: 0: all; causal: the last `window` keys; else
// window / 2 to either side.
constexpr int first_visible_key(int position, int window, bool causal) {
  if (window == 0) return 0;
  const int oldest = causal ? position - window + 1 : position - window / 2;
  return oldest > 0 ? oldest : 0;
}

// One sequence's queries of one kv head over its cached keys.
struct AttentionTask {
  float* out;            // (n_queries, n_group, head_dim) with strides below
  const float* q;        // (n_queries, n_group, head_dim), rotated
  int64_t token_stride;  // floats from one token of q to the next
  int64_t out_stride;    // floats from one token of out to the next
  // Per tile of kKvTile tokens: its K; V follows at +tile_bytes. One more, which is fetched while the last is read.
  const uint8_t* const* tiles;
  int n_queries;
  int n_group;  // query heads that share this kv head
  int head_dim;
  int first_position;  // absolute position of query 0
  int window;          // as first_visible_key takes it
  float scale;
  float soft_cap;               // 0: none
  float* scratch;               // attention_scratch floats
  bool causal = true;           // a query sees keys up to its own; else all n_keys
  int n_keys = 0;               // that exist, where not causal
  const float* bias = nullptr;  // (n_group, relative_bias_width(bias_length)), or null
  int bias_length = 0;
};

// kGelu is exact (erf); kGeluTanh its approximation by tanh; kQuickGelu x * sigmoid(1.702 x); kRelu2 relu squared.
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kQuickGelu, kRelu, kRelu2, kTanh, kSigmoid };
inline constexpr int kActivationCount = 8;

// Values [first, first + n) of rows of `width` in an activation format (see quant/activation.h), to be written; all
// three are multiples of the format's group.
struct QuantizeTask {
  uint8_t* rows;
  int64_t row_stride;  // bytes
  const float* x;      // (n_rows, n) with the stride below
  int64_t x_stride;    // floats
  int n_rows;
  int first;
  int n;
  int width;
};

// Products x of rows of activations, each off by at most factors[0] * errors + factors[1] * norms.
struct ScreenTask {
  float* upper;          // (n_tokens, n_strips): the most that one of a strip's may be; inf where a bound is no number
  float* lower;          // likewise: what one of them is no less than; -inf where no bound is a number
  const float* factors;  // (n_tokens, 2)
  int64_t row_stride;    // floats from one token to the next, of these three
  const float* x;        // (n_tokens, 16 * n_strips) with the stride below
  int64_t x_stride;      // floats
  const float* norms;    // (16 * n_strips)
  const float* errors;   // (16 * n_strips), or null: 0
  int n_tokens;
  int n_strips;
};

struct KernelTable {
  Isa isa;
  std::array<LinearKernel, kFormatCount> linear;

  void (*aqlm_table)(const AqlmTask&);
  // BF16 planes of codes; lanes past the last row repeat it.
  void (*aqlm_decode)(uint8_t* planes, const AqlmVectors&, int n_strips);
  // The BF16 kernel's products with such planes, without making them.
  void (*aqlm_dot)(const LinearTask&, const AqlmVectors&);
  // The nearest sum of vectors to each group (body/aqlm_search.inl).
  void (*aqlm_search)(const AqlmSearch&);

  // out = x / sqrt(mean(x^2) + eps) * weight; out may be x.
  void (*rms_norm)(float* out, const float* x, const float* weight, int n, float eps);
  // out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias; bias may be null, out may be x.
  void (*layer_norm)(float* out, const float* x, const float* weight, const float* bias, int n, float eps);
  std::array<void (*)(const QuantizeTask&), kActFormatCount> quantize_act;
  void (*add)(float* out, const float* a, const float* b, int n);
  void (*mul)(float* out, const float* a, const float* b, int n);
  void (*scale)(float* out, const float* x, float factor, int n);
  void (*soft_cap)(float* out, const float* x, float cap, int n);  // cap * tanh(x / cap)
  // By Activation: out = f(x), and out = f(gate) * up; out may be x or gate.
  std::array<void (*)(float* out, const float* x, int n), kActivationCount> activate;
  std::array<void (*)(float* out, const float* gate, const float* up, int n), kActivationCount> activate_mul;
  // Rotates pairs (x[i], x[i + half]) by (cos[i], sin[i]), i < half.
  void (*rope)(float* x, const float* cos, const float* sin, int half);

  std::array<void (*)(const KvWrite&), 2> kv_write;         // by KvType
  std::array<void (*)(const AttentionTask&), 2> attention;  // by KvType

  // First index of the largest value; NaN never wins (index 0 and -inf when all are NaN).
  int (*argmax)(const float* x, int n);
  void (*screen)(const ScreenTask&);
  // out[i] = exp((x[i] - max) * scale) and the sum of all; out may be null or x.
  float (*exp_sum)(float* out, const float* x, int n, float max, float scale);
};

// Floats of scratch that one attention task needs.
constexpr int64_t attention_scratch(int head_dim) { return int64_t{8 * 3} * head_dim; }

// The table of an ISA; null when this build has none.
const KernelTable* kernel_table(Isa isa);

// The best table not above selected_isa(), chosen once.
const KernelTable& kernels();

}  // namespace octavo
