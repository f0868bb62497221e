// A graph made ready to run: fused ops in order, every buffer placed in one arena by liveness, every kernel
// resolved to a function pointer. A step walks the list: no allocation, no string, no dtype switch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/thread_pool.h"
#include "graph/graph.h"
#include "kernels/kernels.h"

namespace octavo {

// One value in one activation format: rows in the arena.
struct Rows {
  int64_t offset = -1;  // bytes from the arena's start; -1: not stored in this format
  int64_t stride = 0;   // bytes from one row to the next
};
using ValueRows = std::array<Rows, kActFormatCount>;  // by ActFormat

namespace cpu {
struct MoeCall;
}

struct Step;
struct OpCall;
using OpFn = void (*)(const Step&, const OpCall&, const Worker&);

// What is wanted of a row's logits; with kLargest they are not made, only which is the largest is found.
enum class Logits : uint8_t { kAll, kLargest };

// A weight of a linear with the kernel that multiplies it.
struct LinearPart {
  const Weight* weight;
  const float* bias;    // (n), or null
  LinearKernel kernel;  // of the weight's planes, or of the F32 panel when `native`; not run where it is by_table
  bool native;          // dequantise rows to an F32 panel first
  int64_t strip_bytes;
  Rows out;              // where this part's rows go (kF32)
  bool refined = false;  // multiplies what quantisation left over too
  Rows sums{};           // (2, n padded to whole strips): the halves of what few tokens look up in tables
};

// kActivate: f(product); kGate: f(first product) * second product; kScreen: the bounds of graph/screen.h.
enum class Epilogue : uint8_t { kStore, kAddResidual, kActivate, kGate, kScreen };

struct OpCall {
  OpFn fn = nullptr;
  int index = 0;                 // in the plan
  std::optional<Logits> only{};  // runs where these are wanted
  int width = 0;                 // of the first input (or of the output where there is none)
  ValueRows in{};
  ValueRows out{};
  ValueRows second{};                           // residual, or second operand; keys for attention
  ValueRows third{};                            // values for attention
  std::shared_ptr<const OpCall> norm_before{};  // a norm that makes the linear's input, as part of the call
  std::vector<LinearPart> parts;
  const Screen* screen = nullptr;  // with kScreen
  Epilogue epilogue = Epilogue::kStore;
  Activation activation{};
  NormOp::Kind norm{};
  bool emits = false;      // attention writes quantised rows itself
  bool last = false;       // of attention: only queries of output tokens are of use
  bool broadcast = false;  // the second operand of a product has one column
  const Weight* weight = nullptr;
  const float* bias = nullptr;  // of a norm or of attention, or null
  int bias_length = 0;          // tokens that attention's is for
  EmbedSource source{};
  int offset = 0;    // of an embedding's index
  int group = 0;     // of a norm
  float factor = 0;  // eps of a norm, factor of a scale or an embedding, cap of a soft cap
  // Quantised rows are followed, half a stride on, by a row of what quantisation left over.
  bool refined = false;
  AttentionOp attention{};
  int64_t weight_bytes_after = 0;  // of attention: of linears from here to the next
  std::shared_ptr<const cpu::MoeCall> moe;
  int rope_slot = -1;  // which of the step's cos/sin tables
};

// Where a layer's keys and values lie inside a KV block.
struct KvSlot {
  int64_t offset;  // bytes from the block's start
  KvLayout layout;
};

struct Plan {
  std::vector<OpCall> calls;
  int first_output_call = 0;  // calls from here on run over the rows of the batch's output tokens alone
  std::vector<Rope> ropes;
  std::vector<KvSlot> kv;      // by layer
  int64_t kv_block_bytes = 0;  // all layers of one block of kKvTile tokens
  int64_t arena_bytes = 0;
  int64_t scratch_bytes = 0;  // per thread
  int max_rows = 0;
  int screens_from = 0;  // rows, with Logits::kLargest; 0: it has no calls for that
  Rows output;           // kF32 rows of the graph's output
  int output_width = 0;
  int embedding_width = 0;  // of a token's row, which a prompt may give instead
};

// kv types: what attention stores. max_rows: the most rows a step may bring. max_context: tokens of the
// longest sequence.
Plan make_plan(const Graph& graph, const KernelTable& kernels, KvType kv, int max_rows, int max_context);

}  // namespace octavo
