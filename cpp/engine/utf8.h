// UTF-8 from bytes that arrive in pieces, with the replacement rule of Unicode's "maximal subpart" practice (the one
// of Python's bytes.decode("utf-8", "replace")).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace octavo {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

class Utf8Stream {
 public:
  // Appends the characters that bytes complete; an unfinished one is kept for the next call.
  void push(std::string& out, std::string_view bytes);
  // The bytes are over: an unfinished character becomes U+FFFD.
  void flush(std::string& out);

 private:
  void start(std::string& out, uint8_t byte);

  std::string pending_;  // at most three bytes of an unfinished character
  int n_missing_ = 0;    // bytes it still needs
  uint8_t low_ = 0x80;   // range of the next one
  uint8_t high_ = 0xBF;
};

// Bytes of the complete characters that well-formed UTF-8 begins with; npos when the bytes are ill-formed.
size_t utf8_complete(std::string_view bytes);

}  // namespace octavo
