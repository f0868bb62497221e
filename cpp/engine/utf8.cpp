#include "engine/utf8.h"

namespace octavo {

void Utf8Stream::push(std::string& out, std::string_view bytes) {
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (n_missing_ > 0 && (byte < low_ || byte > high_)) flush(out);
    if (n_missing_ == 0) {
      start(out, byte);
      continue;
    }
    pending_ += c;
    low_ = 0x80;
    high_ = 0xBF;
    if (--n_missing_ == 0) {
      out += pending_;
      pending_.clear();
    }
  }
}

void Utf8Stream::flush(std::string& out) {
  if (n_missing_ > 0) out += kReplacement;
  pending_.clear();
  n_missing_ = 0;
}

// The first byte of a character says how many follow, and narrows the second so that overlong forms, surrogates and
// values past U+10FFFF are refused at the earliest byte.
void Utf8Stream::start(std::string& out, uint8_t byte) {
  if (byte < 0x80) {
    out += static_cast<char>(byte);
    return;
  }
  if (byte < 0xC2 || byte > 0xF4) {
    out += kReplacement;
    return;
  }
  n_missing_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
  low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
  high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
  pending_ = static_cast<char>(byte);
}

size_t utf8_complete(std::string_view bytes) {
  Utf8Stream stream;
  std::string out;
  stream.push(out, bytes);
  return bytes.starts_with(out) ? out.size() : std::string_view::npos;
}

}  // namespace octavo
