// The only place that reads environment variables (docs/environment.md lists them all).
#pragma once

#include <optional>
#include <string>

namespace octavo {

// The value of OCTAVO_<name>, or nothing when unset or empty.
std::optional<std::string> env(const char* name);

}  // namespace octavo
