#include "kernels/kernels.h"

namespace octavo {

extern const KernelTable kTableScalar, kTableAvx2, kTableAvx512, kTableAvx512Vnni, kTableAvx512Bf16;

const KernelTable* kernel_table(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return &kTableScalar;
    case Isa::kAvx2: return &kTableAvx2;
    case Isa::kAvx512: return &kTableAvx512;
    case Isa::kAvx512Vnni: return &kTableAvx512Vnni;
    case Isa::kAvx512Bf16: return &kTableAvx512Bf16;
  }
  return nullptr;
}

const KernelTable& kernels() {
  static const KernelTable& chosen = *kernel_table(selected_isa());
  return chosen;
}

}  // namespace octavo
