// Screening: where only the largest logit is wanted, a cheaper product bounds them all, and those that may be the
// largest are computed exactly. The token is the same, as are its bits.
#pragma once

#include <cstdint>

#include "graph/weights.h"

namespace octavo {

// The format that dense rows are multiplied in first. Quantised rows are multiplied as they are, by activations that
// are not refined.
inline constexpr Format kScreenFormat = Format::kQ8_0;

// At least the Euclidean norm of x; n is a multiple of 8.
float norm_bound(const float* x, int64_t n);

// Whether a linear with this weight can be screened.
bool can_screen(const Weight& weight);

// Whether it is by a copy in kScreenFormat.
bool screens_by_copy(const Weight& weight);

// Bytes of scratch for measure_strips.
int64_t measuring_scratch(const Weight& weight);

// Fills in strips [begin, end) of a screen from the rows (n, k) that its weight was made of. planes: of the whole
// copy, or null where there is none.
void measure_strips(const Weight& weight, const SourceMatrix& source, uint8_t* planes, float* norms, float* errors,
                    uint8_t* scratch, int64_t begin, int64_t end);

}  // namespace octavo
