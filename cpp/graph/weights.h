// The weights of one model: linears repacked to planes, embeddings left in the file, vectors as floats.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "base/memory.h"
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

struct Weight {
  enum class Kind : uint8_t { kLinear, kEmbedding, kVector };

  std::string name;
  Kind kind;
  Format format;
  int64_t n = 0;  // output rows; 1 for a vector
  int64_t k = 0;
  bool planes = false;            // linear: data is planes (quant/planes.h), else native rows
  const uint8_t* data = nullptr;  // in the store's memory, or the caller's for an embedding

  const float* floats() const { return reinterpret_cast<const float*>(data); }
};

class WeightStore {
 public:
  explicit WeightStore(int n_threads) : n_threads_(n_threads) {}

  // Stored as `target`: repacked as it is when the source has that format, else converted row by row.
  // Whole source pages are released afterwards when `mapped` says they belong to a file.
  WeightId add_linear(const SourceMatrix& source, Format target, bool mapped);
  // Rows are read from the source at every lookup: it must outlive the store.
  WeightId add_embedding(const SourceMatrix& source);
  // Dequantised to floats.
  WeightId add_vector(const SourceMatrix& source);

  const Weight& at(WeightId id) const { return weights_.at(static_cast<size_t>(id)); }
  size_t memory_bytes() const { return memory_.used(); }

 private:
  WeightId store(Weight weight);

  int n_threads_;
  SlabArena memory_;
  std::deque<Weight> weights_;
};

}  // namespace octavo
