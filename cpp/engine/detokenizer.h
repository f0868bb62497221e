// Text from token ids, piece by piece: whole characters only, cut at stop strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/block_hash.h"
#include "engine/sampling_config.h"
#include "engine/utf8.h"

namespace octavo {

enum TokenFlag : uint8_t {
  kTokenSpecial = 1,  // left out under skip_special_tokens
  kTokenByte = 2,     // stands for one raw byte in a vocabulary of text pieces
};

// What a tokenizer's decode() does, as data: the bytes of each token and a few rules.
struct TokenTable {
  std::string bytes;               // of all tokens, end to end
  std::vector<size_t> offsets{0};  // (n_tokens + 1)
  std::vector<uint8_t> flags;      // (n_tokens), of TokenFlag

  // The text's first character is dropped when it is a space (sentencepiece vocabularies).
  bool strip_leading_space = false;
  // A run of kTokenByte tokens that is not valid UTF-8 as a whole becomes one U+FFFD per byte. Otherwise bytes of
  // all tokens form one stream, and ill-formed parts of it are replaced.
  bool whole_byte_runs = false;

  int n_tokens() const { return static_cast<int>(flags.size()); }
  void add(std::string_view token, uint8_t token_flags);
  // Empty for ids without a token: models pad their vocabulary.
  std::string_view bytes_of(Token id) const;
  bool has(Token id, TokenFlag flag) const;
};

// One token's text on its own.
std::string token_text(const TokenTable& table, Token id);

// One sequence's text. The table and the config outlive it.
class Detokenizer {
 public:
  // continues_text: the output goes on from a prompt, so that its leading space is part of the text.
  Detokenizer(const TokenTable& table, const SamplingConfig& config, bool continues_text);

  // Takes the next output token. Returns true when it completes a stop string; the text ends there.
  bool push(Token token);
  // No more tokens: what is unfinished is replaced and nothing is held back any more.
  void flush();

  // The part behind n_ready() may still change until flush().
  const std::string& text() const { return text_; }
  // Bytes of text() that can be shown: later tokens will not take them back.
  size_t n_ready() const;
  // Index into config.stop of the string that ended the text, or -1.
  int stop_index() const { return stop_index_; }

 private:
  void append_bytes(Token token);
  void extend_byte_run(std::string_view bytes);
  void end_byte_run();
  void strip_leading_space();
  bool find_stop(size_t n_before);

  const TokenTable& table_;
  const SamplingConfig& config_;
  std::string text_;
  size_t n_settled_ = 0;  // bytes of text_ before the open run of kTokenByte tokens
  Utf8Stream utf8_;
  std::string byte_run_;  // of kTokenByte tokens, under whole_byte_runs
  bool strip_space_;
  bool done_ = false;
  int n_pushed_ = 0;
  int stop_index_ = -1;
};

}  // namespace octavo
