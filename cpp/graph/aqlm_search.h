// Codes of AQLM for groups of weights: the search of `octavo quantize`.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"

namespace octavo {

// codes (n, n_codebooks): for each of n groups of kAqlmSearchGroup weights, a vector of each codebook, so that their
// sum is near the group: the nearest vector of one codebook; of more, what a search finds that keeps eight sums after
// each. vectors: (n_codebooks, size, kAqlmSearchGroup), n_codebooks at most kAqlmSearchBooks. The same on any crew.
void search_aqlm_codes(int32_t* codes, const float* groups, int64_t n, const float* vectors, int n_codebooks, int size,
                       const Crew& crew);

}  // namespace octavo
