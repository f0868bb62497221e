#include "graph/linear_calls.h"

#include <algorithm>
#include <utility>

#include "graph/cpu_aqlm.h"
#include "graph/cpu_ops.h"
#include "quant/planes.h"

namespace octavo {
namespace {

// native: whether its rows are dequantised for the kernel.
LinearKernel kernel_of(const Weight& weight, const KernelTable& kernels, bool& native) {
  native = false;
  if (weight.by_table) return {ActFormat::kF32, nullptr};
  const LinearKernel& own = kernels.linear[static_cast<size_t>(weight.format)];
  native = !weight.planes || own.run == nullptr;
  return native ? kernels.linear[static_cast<size_t>(Format::kF32)] : own;
}

}  // namespace

ActFormat act_of(const Weight& weight, const KernelTable& kernels) {
  bool native = false;
  return kernel_of(weight, kernels, native).act;
}

LinearPart make_part(const Weight& weight, const float* bias, const Rows& out, const KernelTable& kernels) {
  LinearPart part{.weight = &weight, .bias = bias, .kernel = {}, .native = false, .strip_bytes = 0, .out = out};
  part.kernel = kernel_of(weight, kernels, part.native);
  if (!part.native) part.strip_bytes = plane_layout(weight.format, weight.k).bytes;
  return part;
}

void place_sums(std::vector<LinearPart>& parts, int max_rows, ArenaPlanner& arena) {
  if (!cpu::all_by_table(parts)) return;
  for (LinearPart& part : parts) {
    part.sums.stride = 2 * 4 * n_strips(part.weight->n) * kStrip;
    part.sums.offset = arena.take(part.sums.stride * std::min(max_rows, cpu::kTokensToHalve));
  }
  for (const LinearPart& part : parts) arena.release(part.sums.offset);
}

std::array<OpCall, 3> screen_calls(const OpCall& all, const Screen& screen, const KernelTable& kernels) {
  const LinearPart& exact = all.parts[0];
  const LinearPart screened = make_part(*screen.weight, nullptr, exact.out, kernels);
  const auto call = [&](OpFn fn, std::vector<LinearPart> parts) {
    OpCall made = all;
    made.fn = fn;
    made.only = Logits::kLargest;
    made.epilogue = Epilogue::kScreen;
    made.screen = &screen;
    made.parts = std::move(parts);
    return made;
  };
  return {call(cpu::measure, {screened, exact}), call(cpu::linear, {screened}), call(cpu::settle, {screened, exact})};
}

void sum_weight_bytes(std::vector<OpCall>& calls) {
  OpCall* attention = nullptr;
  for (OpCall& call : calls) {
    if (call.fn == cpu::attention) attention = &call;
    if (attention == nullptr) continue;
    for (const LinearPart& part : call.parts)
      attention->weight_bytes_after += n_strips(part.weight->n) * part.strip_bytes;
  }
}

}  // namespace octavo
