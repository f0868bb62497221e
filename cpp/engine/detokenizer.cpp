#include "engine/detokenizer.h"

#include <algorithm>

namespace octavo {

void TokenTable::add(std::string_view token, uint8_t token_flags) {
  bytes += token;
  offsets.push_back(bytes.size());
  flags.push_back(token_flags);
}

std::string_view TokenTable::bytes_of(Token id) const {
  if (id < 0 || id >= n_tokens()) return {};
  const size_t i = static_cast<size_t>(id);
  return std::string_view(bytes).substr(offsets[i], offsets[i + 1] - offsets[i]);
}

bool TokenTable::has(Token id, TokenFlag flag) const {
  return id >= 0 && id < n_tokens() && (flags[static_cast<size_t>(id)] & flag) != 0;
}

std::string token_text(const TokenTable& table, Token id) {
  std::string text;
  Utf8Stream utf8;
  utf8.push(text, table.bytes_of(id));
  utf8.flush(text);
  return text;
}

Detokenizer::Detokenizer(const TokenTable& table, const SamplingConfig& config, bool continues_text)
    : table_(table), config_(config), strip_space_(table.strip_leading_space && !continues_text) {}

bool Detokenizer::push(Token token) {
  if (done_) return stop_index_ >= 0;
  const size_t n_before = text_.size();
  if (!config_.skip_special_tokens || !table_.has(token, kTokenSpecial)) append_bytes(token);
  // Text of the first min_tokens tokens may begin a stop string but not complete one.
  return ++n_pushed_ > config_.min_tokens && find_stop(std::min(n_before, text_.size()));
}

void Detokenizer::flush() {
  if (done_) return;
  end_byte_run();
  utf8_.flush(text_);
  strip_leading_space();
  done_ = true;
}

size_t Detokenizer::n_ready() const {
  if (done_) return text_.size();
  const auto settled = std::string_view(text_).substr(0, byte_run_.empty() ? text_.size() : n_settled_);
  if (config_.include_stop_str_in_output) return settled.size();
  size_t n_held = 0;
  for (const std::string_view stop : config_.stop) {
    // The longest end of the text that is a beginning of the stop string.
    for (size_t n = std::min(stop.size() - 1, settled.size()); n > n_held; --n) {
      if (settled.ends_with(stop.substr(0, n))) n_held = n;
    }
  }
  return settled.size() - n_held;
}

void Detokenizer::append_bytes(Token token) {
  if (table_.whole_byte_runs && table_.has(token, kTokenByte)) return extend_byte_run(table_.bytes_of(token));
  end_byte_run();
  utf8_.push(text_, table_.bytes_of(token));
  strip_leading_space();
}

// Shows the run as it stands, since a stop string may end in it; a later byte can still turn all of it into U+FFFD.
void Detokenizer::extend_byte_run(std::string_view bytes) {
  if (byte_run_.empty()) n_settled_ = text_.size();
  byte_run_ += bytes;
  const size_t n_complete = utf8_complete(byte_run_);
  text_.resize(n_settled_);
  if (n_complete != std::string::npos) text_.append(byte_run_, 0, n_complete);
  if (strip_space_ && text_.starts_with(' ')) text_.erase(0, 1);
}

void Detokenizer::end_byte_run() {
  if (byte_run_.empty()) return;
  text_.resize(n_settled_);
  if (utf8_complete(byte_run_) == byte_run_.size()) {
    text_ += byte_run_;
  } else {
    for (size_t i = 0; i < byte_run_.size(); ++i) text_ += kReplacement;
  }
  byte_run_.clear();
  strip_leading_space();
}

void Detokenizer::strip_leading_space() {
  if (!strip_space_ || text_.empty()) return;
  if (text_[0] == ' ') text_.erase(0, 1);
  strip_space_ = false;
}

// Looks for stop strings that end in what follows the first n_before bytes: the one that ends first wins, then the
// first of the list. Cuts the text.
bool Detokenizer::find_stop(size_t n_before) {
  size_t best_end = std::string::npos;
  for (size_t i = 0; i < config_.stop.size(); ++i) {
    const std::string& stop = config_.stop[i];
    const size_t from = n_before + 1 > stop.size() ? n_before + 1 - stop.size() : 0;
    const size_t start = text_.find(stop, from);
    if (start == std::string::npos || start + stop.size() >= best_end) continue;
    best_end = start + stop.size();
    stop_index_ = static_cast<int>(i);
  }
  if (stop_index_ < 0) return false;
  const size_t n_stop = config_.stop[static_cast<size_t>(stop_index_)].size();
  text_.resize(config_.include_stop_str_in_output ? best_end : best_end - n_stop);
  done_ = true;
  return true;
}

}  // namespace octavo
