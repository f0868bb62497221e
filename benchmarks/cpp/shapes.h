// The shapes of the models that benchmarks are named after.
#pragma once

#include <array>
#include <string_view>

namespace octavo::bench {

struct ModelShape {
  std::string_view name;
  int n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab;
  float rope_theta;

  int q_size() const { return n_heads * head_dim; }
  int kv_size() const { return n_kv_heads * head_dim; }
};

// Both have tied embeddings and no biases.
inline constexpr std::array kShapes = {
    ModelShape{"smollm2-135m", 30, 576, 9, 3, 64, 1536, 49152, 1e5f},
    ModelShape{"llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, 5e5f},
};

// Whose AQLM checkpoints are the best known.
inline constexpr ModelShape kLlama2{"llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000, 1e4f};

}  // namespace octavo::bench
