// The weights of one model: linears repacked to planes or left in the file, embeddings left there, vectors as floats.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/thread_pool.h"
#include "quant/aqlm.h"
#include "quant/format.h"

namespace octavo {

using WeightId = int32_t;

// A row-major matrix (n, k) as a file holds it.
struct SourceMatrix {
  std::string name;
  Format format;
  int64_t n;
  int64_t k;
  const uint8_t* rows;
  size_t bytes;
};

struct Weight;

// What bounds a head's products by those of a cheaper product (graph/screen.h).
struct Screen {
  const Weight* weight;  // that is multiplied first: a copy, or the head itself without refinement
  const float* norms;    // (16 * strips of rows): of its rows; infinite past the last
  const float* errors;   // norms of what the copy is off by; null: there is none
};

struct Weight {
  enum class Kind : uint8_t { kLinear, kEmbedding, kVector };

  std::string name;
  Kind kind;
  Format format;
  int64_t n = 0;  // output rows; 1 for a vector
  int64_t k = 0;
  bool planes = false;  // linear: data is planes (quant/planes.h), else native rows
  // Linear with planes: data is rows of this format instead, and a chunk's planes are made when it is multiplied.
  std::optional<Format> in_file{};
  // Linear: a chunk's planes are made of codes when it is multiplied; data is the one codebook in bfloat16, or null
  // where there are several or the target is F32.
  const AqlmMatrix* aqlm = nullptr;
  bool by_strips = false;  // its codes lie as pack_aqlm_strips puts them, else as in the file
  // Or no planes are made at all: codes lie as KernelTable::aqlm_table reads them, and data is its codebooks.
  bool by_table = false;
  std::optional<Screen> screen{};  // of a head
  const uint8_t* data = nullptr;   // in the store's memory, or the caller's where it stays in the file

  // Whether the scales of rows are for the outputs; F32 planes hold them.
  bool scales_outputs() const { return aqlm != nullptr && format != Format::kF32; }
  const float* floats() const { return reinterpret_cast<const float*>(data); }
};

// Makes strips [begin, end) of a weight's planes from its rows (n, k), which `source` is the format of.
// scratch: packing_scratch bytes.
void pack_strips(uint8_t* planes, uint8_t* scratch, const Weight& weight, const uint8_t* rows, Format source,
                 int64_t begin, int64_t end);
int64_t packing_scratch(const Weight& weight, Format source);

// The same of codes, for planes in F32 or BF16. scratch: decoding_scratch bytes.
void decode_strips(uint8_t* planes, uint8_t* scratch, const Weight& weight, const AqlmMatrix& matrix, int64_t begin,
                   int64_t end);
int64_t decoding_scratch(const Weight& weight);

class WeightStore {
 public:
  // crew: who repacks, and so first touches, the parts of weights that it will multiply.
  explicit WeightStore(const Crew& crew) : crew_(crew) {}

  // Stored as `target`: repacked as it is when the source has that format, else converted row by row.
  // Whole source pages are released afterwards when `mapped` says they belong to a file.
  WeightId add_linear(const SourceMatrix& source, Format target, bool mapped);
  // The same linear, made to be screened where its format allows: what it makes are logits.
  WeightId add_head(const SourceMatrix& source, Format target, bool mapped);
  // The same linear, with its rows left where they are and converted at every use: it must outlive the store.
  WeightId leave_linear(const SourceMatrix& source, Format target);
  // Dequantised where the target is F32; else kept as codes, and multiplied by tables or in BF16, as the shape decides.
  WeightId add_aqlm(const AqlmMatrix& matrix, Format target, bool mapped);
  // The same linear, with codes that need no other order left where they are: they must outlive the store.
  WeightId leave_aqlm(const AqlmMatrix& matrix, Format target);
  // Rows are read from the source at every lookup: it must outlive the store.
  WeightId add_embedding(const SourceMatrix& source);
  // Dequantised to floats.
  WeightId add_vector(const SourceMatrix& source);

  const Weight& at(WeightId id) const { return weights_.at(static_cast<size_t>(id)); }
  size_t memory_bytes() const { return memory_.used(); }

 private:
  // Gives all strips [begin, end) of a weight to threads of the crew that it will be multiplied by.
  template <class F>
  void for_strips(const Weight& weight, size_t scratch_bytes, F f) const;
  Screen make_screen(const Weight& weight, const SourceMatrix& source);
  // A matrix that the weight owns, with its scales times a factor.
  AqlmMatrix& keep_scales(Weight& weight, const AqlmMatrix& matrix, float factor);
  AqlmMatrix& keep_codebooks(Weight& weight, const AqlmMatrix& matrix);
  void keep_codes(Weight& weight, const AqlmMatrix& matrix);
  void keep_for_tables(Weight& weight, const AqlmMatrix& matrix);
  WeightId store(Weight weight);

  Crew crew_;
  SlabArena memory_;
  std::deque<Weight> weights_;
  std::deque<AqlmMatrix> aqlm_;
};

}  // namespace octavo
