// The codebooks of IQ1 to IQ3: groups of eight (IQ3: four) magnitudes that a weight group may have. An entry's values
// are digits that count up a format's levels, packed from the lowest bits on: two bits each, three in IQ3.
#pragma once

#include <cstdint>

namespace octavo {

extern const uint16_t kGridIQ2_XXS[256], kGridIQ2_XS[512], kGridIQ2_S[1024];  // levels 8, 25, 43
extern const uint16_t kGridIQ3_XXS[256];                                      // 4, 12, 20, 28, 36, 44, 52, 62
extern const uint16_t kGridIQ3_S[512];                                        // 1, 3, 5, ... 15
extern const uint16_t kGridIQ1[2048];                                         // -1, 0, 1

}  // namespace octavo
