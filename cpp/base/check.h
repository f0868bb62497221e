// Errors of the core. The library throws; it never aborts, exits or prints.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace octavo {

// A mistake of the caller or of an input file; the message is one sentence.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Raised in the driving thread when the interrupt callback asked to stop.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  throw Error(concat(parts...));
}

}  // namespace octavo

// Checks at load, plan-build and API boundaries; kernels neither check nor throw.
#define OCTAVO_CHECK(condition, ...)               \
  do {                                             \
    if (!(condition)) ::octavo::fail(__VA_ARGS__); \
  } while (false)
