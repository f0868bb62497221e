// What the linears share.

#pragma once

#include "kernels/kernels.h"
#include "kernels/simd.h"

namespace octavo {
namespace {

// What the chains of outputs row..row+kLanes start from.
inline Vf initial(const LinearTask& task, int row) { return task.bias == nullptr ? zero() : load(task.bias + row); }

}  // namespace
}  // namespace octavo
