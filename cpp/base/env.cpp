#include "base/env.h"

#include <cstdlib>

namespace octavo {

std::optional<std::string> env(const char* name) {
  const char* value = std::getenv((std::string("OCTAVO_") + name).c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

}  // namespace octavo
