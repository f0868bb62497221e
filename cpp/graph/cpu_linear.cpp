// Linears: chunks of output rows go to whichever thread asks; a chunk runs over all tokens in tiles, so that
// its weights (or its dequantised panel) stay in cache and the epilogue finds its inputs there.
#include <algorithm>
#include <cstring>
#include <limits>
#include <span>

#include "graph/cpu_aqlm.h"
#include "graph/cpu_linear.h"
#include "quant/aqlm_slabs.h"

namespace octavo::cpu {
namespace {

constexpr int kOwnRows = 2;     // up to so many, every thread norms its input itself
constexpr int kManyTokens = 8;  // from here chunks are kWideChunk strips
constexpr int kWideChunk = 4, kNarrowChunk = 2;
constexpr int kFewChunks = 16;      // of so many a thread, one more or less is no matter
constexpr int kTokensToShare = 16;  // from so many for each thread, tables are made for all rows

bool emits(const ValueRows& rows, ActFormat format) { return rows[static_cast<size_t>(format)].offset >= 0; }

// What a part's chunks are multiplied from: its planes as they lie, codes that tables are looked up by, or a panel made
// of rows that have no kernel, of a weight left in the file, of codes, or of planes and blocks that are unpacked.
enum class Source : uint8_t { kStored, kTables, kNative, kInFile, kCodes, kUnpacked };

// With so many tokens.
Source source_of(const LinearPart& part, int n_tokens) {
  if (part.weight->by_table) return Source::kTables;
  if (part.native) return Source::kNative;
  if (part.weight->in_file) return Source::kInFile;
  if (part.weight->aqlm != nullptr) return Source::kCodes;
  const bool unpacks = part.kernel.unpack != nullptr && n_tokens >= part.kernel.unpack_from;
  return unpacks ? Source::kUnpacked : Source::kStored;
}

bool makes_panels(const LinearPart& part, int n_tokens) {
  const Source source = source_of(part, n_tokens);
  return source != Source::kStored && source != Source::kTables;
}

bool activates(const OpCall& call) { return call.epilogue == Epilogue::kActivate || call.epilogue == Epilogue::kGate; }

int64_t panel_bytes(const OpCall& call) {
  int64_t bytes = 0;
  for (const LinearPart& part : call.parts) bytes = std::max(bytes, cpu::panel_bytes(part));
  return bytes;
}

// Strips [first, first + count) of a native weight as an F32 panel.
const uint8_t* make_panel(uint8_t* panel, const Weight& weight, int first, int count) {
  const FormatRow& format = format_row(weight.format);
  const size_t bytes = row_bytes(weight.format, weight.k);
  const int64_t strip_bytes = plane_layout(Format::kF32, weight.k).bytes;
  uint8_t* rows = panel + count * strip_bytes;  // a strip's, as floats
  for (int s = 0; s < count; ++s) {
    const int64_t row = int64_t{first + s} * kStrip, n = std::min<int64_t>(kStrip, weight.n - row);
    for (int64_t r = 0; r < n; ++r)
      format.dequantize(reinterpret_cast<float*>(rows) + r * weight.k,
                        weight.data + static_cast<size_t>(row + r) * bytes, weight.k);
    repack(panel + s * strip_bytes, rows, Format::kF32, n, weight.k, 0, 1);
  }
  return panel;
}

// Strips [first, first + count) of a weight that is left in the file.
const uint8_t* pack_panel(uint8_t* panel, const LinearPart& part, int first, int count) {
  const Weight& weight = *part.weight;
  pack_strips(panel, panel + count * part.strip_bytes, weight, weight.data, *weight.in_file, first, first + count);
  return panel;
}

// A chunk of a weight in a packed format, as a panel that all tiles of tokens share.
const uint8_t* unpack_chunk(uint8_t* panel, const Chunk& chunk) {
  const LinearPart& part = *chunk.part;
  LinearTask task{};
  task.weights = part.weight->data + chunk.first_strip * part.strip_bytes;
  task.n_strips = chunk.strips;
  task.k = static_cast<int>(part.weight->k);
  task.format = &format_row(part.weight->format);
  part.kernel.unpack(panel, task);
  return panel;
}

const float* bias_of(const Chunk& chunk) {
  return chunk.part->bias == nullptr ? nullptr : chunk.part->bias + chunk.first();
}

void add_bias(float* out, int64_t out_stride, const Step& step, const Chunk& chunk, int n) {
  const float* bias = bias_of(chunk);
  if (bias == nullptr) return;
  for (int t = 0; t < n; ++t) step.kernels->add(out + t * out_stride, out + t * out_stride, bias, chunk.valid());
}

void scale_rows(float* out, int64_t out_stride, const Step& step, const Chunk& chunk, int n) {
  const float* scales = chunk.part->weight->aqlm->scales + chunk.first();
  for (int t = 0; t < n; ++t) step.kernels->mul(out + t * out_stride, out + t * out_stride, scales, chunk.valid());
}

void run_kernel(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int n,
                const float* bias) {
  const Weight& weight = *chunk.part->weight;
  const LinearTask task{out,           out_stride,
                        act.first,     act.stride,
                        chunk.weights, n,
                        chunk.strips,  static_cast<int>(weight.k),
                        bias,          &format_row(weight.format),
                        chunk.upcoming};
  if (weight.by_table)
    look_up(out, out_stride, act, step, chunk, n);
  else if (chunk.weights == nullptr)
    multiply_codes(task, step, chunk);
  else if (chunk.unpacked)
    chunk.part->kernel.run_unpacked(task);
  else
    chunk.part->kernel.run(task);
}

int64_t own_rows_bytes(const OpCall& norm) {
  int64_t bytes = norm_scratch(norm.width);
  for (const Rows& rows : norm.out)
    if (rows.offset >= 0) bytes += kOwnRows * rows.stride;
  return bytes;
}

// Few rows are normed by every thread for itself, which is sooner done than waiting for another.
ActTargets own_rows(const Step& step, const OpCall& norm, uint8_t* scratch) {
  ActTargets in{};
  uint8_t* at = scratch + norm_scratch(norm.width);
  for (size_t f = 0; f < kActFormatCount; ++f) {
    if (norm.out[f].offset < 0) continue;
    in[f] = {at, norm.out[f].stride};
    at += kOwnRows * norm.out[f].stride;
  }
  for (int row = 0; row < step.n_rows; ++row) {
    ActTargets to = in;
    for (ActTarget& target : to)
      if (target.first != nullptr) target.first += row * target.stride;
    norm_row(step, norm, row, to, reinterpret_cast<float*>(scratch));
  }
  return in;
}

// The rows that a linear reads, after the norm that makes them if that is part of the call.
ActTargets input_rows(const Step& step, const OpCall& call, const Worker& worker, uint8_t* scratch) {
  if (call.norm_before != nullptr) {
    const OpCall& norm = *call.norm_before;
    if (step.n_rows <= kOwnRows) return own_rows(step, norm, scratch);
    for_rows(step.first_counters(call), worker, step.n_rows, [&](int row) {
      norm_row(step, norm, row, targets_of(step, norm.out, row), reinterpret_cast<float*>(scratch));
    });
    worker.barrier();
  }
  return targets_of(step, call.in, 0);
}

// Fetches the chunk's columns of n rows that are about to be written: the rows lie far apart, which the hardware does
// not foresee.
void fetch_for_writing(const Step& step, const Rows& rows, ActFormat format, int token, int n, const Chunk& chunk) {
  const int value_bytes = format == ActFormat::kF32 ? 4 : format == ActFormat::kBF16 ? 2 : 1;
  for (int t = token; t < token + n; ++t)
    for (int at = 0; at < chunk.width() * value_bytes; at += static_cast<int>(kCacheLine))
      __builtin_prefetch(step.row<uint8_t>(rows, t) + chunk.first() * value_bytes + at, 1);
}

void store_chunk(const Step& step, const ActTargets& in, const Chunk& chunk, float* tile) {
  const Rows& rows = chunk.part->out;
  for (int token = chunk.tokens.begin; token < chunk.tokens.end; token += chunk.token_tile()) {
    float* out = step.row<float>(rows, token) + chunk.first_strip * kStrip;
    const int n = std::min(chunk.token_tile(), chunk.tokens.end - token);
    fetch_for_writing(step, rows, ActFormat::kF32, token, n, chunk);
    multiply_part(out, rows.stride / 4, in, token, step, chunk, n, tile);
  }
}

void residual_chunk(const Step& step, const OpCall& call, const ActTargets& in, const Chunk& chunk, float* tile) {
  const int first = chunk.first_strip * kStrip, width = chunk.strips * kStrip;
  const int valid = std::min(width, static_cast<int>(chunk.part->weight->n) - first);
  for (int token = chunk.tokens.begin; token < chunk.tokens.end; token += chunk.token_tile()) {
    const int n = std::min(chunk.token_tile(), chunk.tokens.end - token);
    fetch_for_writing(step, chunk.part->out, ActFormat::kF32, token, n, chunk);
    multiply(tile, width, rows_from(step, in, chunk, token), step, chunk, n);
    for (int t = 0; t < n; ++t)
      step.kernels->add(step.row<float>(chunk.part->out, token + t) + first,
                        step.floats(call.second, token + t) + first, tile + t * width, valid);
  }
}

// f(gate) * up, or f(gate) where there is no `up`, in every format that the consumers want.
void activated_chunk(const Step& step, const OpCall& call, const ActTargets& in, const Chunk& gate, const Chunk* up,
                     float* tiles) {
  const auto f = static_cast<size_t>(call.activation);
  const int width = gate.width();
  float *gates = tiles, *ups = tiles + kTileFloats;
  for (int token = gate.tokens.begin; token < gate.tokens.end; token += gate.token_tile()) {
    const int n = std::min(gate.token_tile(), gate.tokens.end - token);
    for (size_t format = 0; format < kActFormatCount; ++format)
      if (emits(call.out, ActFormat(format)))
        fetch_for_writing(step, call.out[format], ActFormat(format), token, n, gate);
    multiply(gates, width, rows_from(step, in, gate, token), step, gate, n);
    if (up != nullptr) multiply(ups, width, rows_from(step, in, *up, token), step, *up, n);
    if (up != nullptr)
      step.kernels->activate_mul[f](gates, gates, ups, n * width);
    else
      step.kernels->activate[f](gates, gates, n * width);
    emit_rows(step, call.out, token, n, gates, gate);
  }
}

// How a call is cut into chunks: rows for so many threads, and tokens.
struct Cut {
  int strips;
  int n_threads;
  int token_parts;
  bool halves = false;  // threads look up halves of the slabs before; chunks only add them

  int strips_of(const Step& step, const LinearPart& part) const {
    return halves ? strips : chunk_strips(step, part, strips, n_threads);
  }
};

// Of the rows, for each part of the tokens.
int count_chunks(const Step& step, const OpCall& call, const Cut& cut) {
  if (call.epilogue == Epilogue::kGate) return chunks_of(call.parts[0], cut.strips);
  int n = 0;
  for (const LinearPart& part : call.parts) n += chunks_of(part, cut.strips_of(step, part));
  return n;
}

// Whether a thread waits for another's last chunk for long.
bool is_uneven(int n_chunks, int n_threads) { return n_chunks % n_threads != 0 && n_chunks < kFewChunks * n_threads; }

// Threads share many tokens rather than the rows: what a thread writes is what it reads next, and tables are made once.
// Of few tokens they share what rows are summed over, for the tables' sake too.
// Weights that are unpacked first are shared by rows all the same, and so are those of several ranks and those that are
// screened, which write next to nothing.
Cut cut_of(const Step& step, const OpCall& call, const Worker& worker) {
  const int n_tokens = step.n_rows, n_threads = worker.n_threads;
  Cut cut{chunk_strips(activates(call) ? &call.out : nullptr, n_tokens), n_threads, 1};
  const bool tables = all_by_table(call.parts);
  const bool any_panel = std::any_of(call.parts.begin(), call.parts.end(),
                                     [&](const LinearPart& part) { return makes_panels(part, n_tokens); });
  const bool by_rows = any_panel || worker.n_ranks > 1 || call.epilogue == Epilogue::kScreen;
  if (tables && n_tokens >= kTokensToShare * n_threads)
    cut = {cut.strips, 1, std::min(4 * n_threads, n_tokens / kTokensToShare)};
  else if (call.parts[0].sums.offset >= 0 && n_tokens <= kTokensToHalve && worker.n_ranks == 1)
    return {kMaxChunkStrips, n_threads, 1, true};
  else if (!by_rows && are_many(n_tokens, n_threads))
    cut.token_parts = n_threads;
  else if (!activates(call) && is_uneven(count_chunks(step, call, cut), n_threads))
    cut.strips = kNarrowChunk;
  if (call.epilogue == Epilogue::kGate) cut.strips = common_strips(step, call.parts, cut.strips, cut.n_threads);
  return cut;
}

// Chunk c of all parts, one after the other; of ranks one after the other, each with its share of every part.
Chunk find_chunk(const Step& step, const OpCall& call, int c, const Cut& cut, const Worker& worker,
                 const TokenRange& tokens, uint8_t* panel) {
  for (int rank = 0;; ++rank)
    for (const LinearPart& part : call.parts) {
      const int own = cut.strips_of(step, part);
      const RankShare share(chunks_of(part, own), worker, rank);
      if (c < share.n) return open_chunk(step, part, (share.first + c) * own, own, tokens, panel);
      c -= share.n;
    }
}

}  // namespace

int chunk_strips(const ValueRows* activated, int n_tokens) {
  if (activated != nullptr && emits(*activated, ActFormat::kQ8x256)) return kMaxChunkStrips;
  return n_tokens >= kManyTokens ? kWideChunk : kNarrowChunk;
}

int chunk_strips(const Step& step, const LinearPart& part, int strips, int n_threads) {
  const Weight& weight = *part.weight;
  if (weight.by_table) return share_of(weight, kAqlmRows / kStrip, n_threads);
  const bool decodes = source_of(part, step.n_rows) == Source::kCodes && weight.format == Format::kBF16;
  const bool dots = decodes && dots_codes(step.n_rows);
  return dots ? share_of(weight, strips, n_threads) : strips;
}

int common_strips(const Step& step, std::span<const LinearPart> parts, int strips, int n_threads) {
  const auto own = [&](const LinearPart& part) { return chunk_strips(step, part, strips, n_threads); };
  const int first = own(parts[0]);
  const bool alike =
      std::all_of(parts.begin(), parts.end(), [&](const LinearPart& part) { return own(part) == first; });
  return alike ? first : kMaxChunkStrips;
}

int chunks_of(const LinearPart& part, int strips) {
  return static_cast<int>((n_strips(part.weight->n) + strips - 1) / strips);
}

int64_t panel_bytes(const LinearPart& part) {
  const Weight& weight = *part.weight;
  int64_t bytes = 0;
  switch (source_of(part, std::numeric_limits<int>::max())) {
    case Source::kStored: break;
    case Source::kTables: bytes = kTileFloats * 4; break;
    case Source::kNative: bytes = (kMaxChunkStrips + 1) * kStrip * weight.k * 4; break;
    case Source::kInFile: bytes = kMaxChunkStrips * part.strip_bytes + packing_scratch(weight, *weight.in_file); break;
    case Source::kCodes: bytes = kMaxChunkStrips * part.strip_bytes + decoding_scratch(weight); break;
    case Source::kUnpacked: bytes = kMaxChunkStrips * weight.k / 256 * part.kernel.unpacked_bytes; break;
  }
  return static_cast<int64_t>(round_up(static_cast<size_t>(bytes), kCacheLine));
}

Chunk open_chunk(const Step& step, const LinearPart& part, int first, int strips, const TokenRange& tokens,
                 uint8_t* panel) {
  const int total = static_cast<int>(n_strips(part.weight->n));
  Chunk chunk{&part, first, std::min(strips, total - first), tokens, nullptr};
  const Source source = source_of(part, tokens.end - tokens.begin);
  chunk.unpacked = source == Source::kUnpacked;
  switch (source) {
    case Source::kStored: chunk.weights = part.weight->data + first * part.strip_bytes; break;
    case Source::kTables:
      chunk.weights = part.weight->aqlm->codes + int64_t{first} * kStrip * kAqlmTerms;
      chunk.second = reinterpret_cast<float*>(panel);
      break;
    case Source::kNative: chunk.weights = make_panel(panel, *part.weight, first, chunk.strips); break;
    case Source::kInFile: chunk.weights = pack_panel(panel, part, first, chunk.strips); break;
    case Source::kCodes: chunk.weights = decode_chunk(panel, *step.kernels, chunk); break;
    case Source::kUnpacked: chunk.weights = unpack_chunk(panel, chunk); break;
  }
  return chunk;
}

ActRows rows_from(const Step& step, const ActTargets& in, const Chunk& chunk, int token) {
  const Rows& sums = chunk.part->sums;
  if (chunk.adds_halves()) return {step.row<uint8_t>(sums, token), sums.stride};
  const ActTarget& act = in[static_cast<size_t>(chunk.part->kernel.act)];
  return {act.first + token * act.stride, act.stride};
}

void multiply(float* out, int64_t out_stride, const ActRows& act, const Step& step, const Chunk& chunk, int n) {
  if (!chunk.part->weight->scales_outputs()) return run_kernel(out, out_stride, act, step, chunk, n, bias_of(chunk));
  run_kernel(out, out_stride, act, step, chunk, n, nullptr);
  scale_rows(out, out_stride, step, chunk, n);
  add_bias(out, out_stride, step, chunk, n);
}

// A refined token has two rows, side by side: its quants and those of what they left over.
void multiply_part(float* out, int64_t out_stride, const ActTargets& in, int token, const Step& step,
                   const Chunk& chunk, int n, float* tile) {
  const ActRows act = rows_from(step, in, chunk, token);
  if (!chunk.part->refined) return multiply(out, out_stride, act, step, chunk, n);
  const int width = chunk.width();
  run_kernel(tile, width, {act.first, act.stride / 2}, step, chunk, 2 * n, nullptr);
  for (int t = 0; t < n; ++t)
    step.kernels->add(out + t * out_stride, tile + 2 * t * width, tile + (2 * t + 1) * width, width);
  add_bias(out, out_stride, step, chunk, n);
}

void emit_segment(const Step& step, const ValueRows& out, const Segment& segment) {
  for (size_t f = 0; f < kActFormatCount; ++f)
    if (out[f].offset >= 0)
      step.kernels->quantize_act[f]({step.row<uint8_t>(out[f], segment.row), out[f].stride, segment.x, segment.x_stride,
                                     segment.n_rows, segment.first, segment.n, segment.width});
}

void emit_rows(const Step& step, const ValueRows& out, int row, int n_rows, const float* x, const Chunk& chunk) {
  const auto width = static_cast<int>(chunk.part->weight->n);
  emit_segment(step, out, {row, n_rows, x, chunk.width(), chunk.first(), chunk.valid(), width});
}

int64_t linear_scratch(const OpCall& call) {
  const int64_t own = call.norm_before == nullptr ? 0 : own_rows_bytes(*call.norm_before);
  return 2 * panel_bytes(call) + 2 * kTileFloats * 4 + own;
}

void linear(const Step& step, const OpCall& call, const Worker& worker) {
  const bool gated = call.epilogue == Epilogue::kGate;
  const Cut cut = cut_of(step, call, worker);
  uint8_t* scratch = step.thread_scratch(worker);
  uint8_t* panel = cut.halves ? nullptr : scratch;
  uint8_t* second_panel = cut.halves ? nullptr : scratch + panel_bytes(call);
  auto* tiles = reinterpret_cast<float*>(scratch + 2 * panel_bytes(call));
  uint8_t* own = scratch + 2 * panel_bytes(call) + 2 * kTileFloats * 4;
  const ActTargets in = input_rows(step, call, worker, own);
  if (cut.halves) look_up_halves(step, call, in, worker);
  const int n_chunks = count_chunks(step, call, cut);
  Upcoming* upcoming = are_many(step.n_rows, worker.n_threads) ? step.upcoming_of(worker) : nullptr;
  ChunkFeed feed(step.counters_of(call), worker, n_chunks * cut.token_parts);
  for (int next; (next = feed.take()) >= 0;) {
    const int c = next % n_chunks;
    const TokenRange tokens = TokenRange::part(step.n_rows, next / n_chunks, cut.token_parts);
    // A gate and its `up` are one part: the same chunk of both.
    Chunk chunk = gated ? open_chunk(step, call.parts[0], c * cut.strips, cut.strips, tokens, panel)
                        : find_chunk(step, call, c, cut, worker, tokens, panel);
    chunk.upcoming = upcoming;
    if (gated) {
      Chunk up = open_chunk(step, call.parts[1], c * cut.strips, cut.strips, tokens, second_panel);
      up.upcoming = upcoming;
      activated_chunk(step, call, in, chunk, &up, tiles);
    } else if (call.epilogue == Epilogue::kActivate) {
      activated_chunk(step, call, in, chunk, nullptr, tiles);
    } else if (call.epilogue == Epilogue::kAddResidual) {
      residual_chunk(step, call, in, chunk, tiles);
    } else if (call.epilogue == Epilogue::kScreen) {
      screen_chunk(step, call, in, chunk, tiles);
    } else {
      store_chunk(step, in, chunk, tiles);
    }
  }
}

}  // namespace octavo::cpu
