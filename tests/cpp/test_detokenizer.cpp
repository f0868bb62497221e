#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "engine/detokenizer.h"

using namespace octavo;

namespace {

const std::string kBad(kReplacement);

TokenTable make_table(const std::vector<std::string>& tokens) {
  TokenTable table;
  for (const std::string& token : tokens)
    table.add(token, token.starts_with("<|") ? uint8_t{kTokenSpecial} : uint8_t{0});
  return table;
}

// 0..255: the raw bytes as byte tokens, then text pieces.
TokenTable make_byte_table(const std::vector<std::string>& pieces) {
  TokenTable table;
  for (int byte = 0; byte < 256; ++byte) table.add(std::string(1, static_cast<char>(byte)), kTokenByte);
  for (const std::string& piece : pieces) table.add(piece, 0);
  return table;
}

std::string decode(const TokenTable& table, const std::vector<Token>& ids, const SamplingConfig& config = {},
                   bool continues_text = false) {
  Detokenizer detokenizer(table, config, continues_text);
  for (const Token id : ids) detokenizer.push(id);
  detokenizer.flush();
  return detokenizer.text();
}

// UTF-8 with replacement by a plain look-ahead over the whole text: at each place the longest valid beginning of a
// character is taken, by trying all code points' prefixes.
bool begins_character(std::string_view prefix) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(prefix[i]); };
  const unsigned char lead = byte(0);
  const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                        : lead >= 0xE0 && lead <= 0xEF ? 3
                        : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                       : 0;
  if (prefix.size() > length) return false;
  uint32_t low = lead & (0x7Fu >> length), high = low;
  for (size_t i = 1; i < length; ++i) {
    if (i < prefix.size() && (byte(i) & 0xC0u) != 0x80) return false;
    low = low << 6 | (i < prefix.size() ? byte(i) & 0x3Fu : 0);
    high = high << 6 | (i < prefix.size() ? byte(i) & 0x3Fu : 0x3Fu);
  }
  const uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  const auto meets = [&](uint32_t a, uint32_t b) { return low <= b && high >= a; };
  return meets(std::max(least, 0x80u), 0xD7FF) || meets(std::max(least, 0xE000u), 0x10FFFF);
}

std::string reference_utf8(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const auto lead = static_cast<unsigned char>(bytes[0]);
    size_t n = 1;
    if (lead < 0x80) {
      out += bytes[0];
    } else {
      n = 0;
      while (n < bytes.size() && begins_character(bytes.substr(0, n + 1))) ++n;
      const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      out += n == length ? bytes.substr(0, n) : kReplacement;
      n = std::max<size_t>(n, 1);
    }
    bytes.remove_prefix(n);
  }
  return out;
}

}  // namespace

TEST_CASE("utf8: ill-formed bytes are replaced by maximal subparts") {
  const auto decode_bytes = [](std::string_view bytes) {
    std::string out;
    Utf8Stream stream;
    stream.push(out, bytes);
    stream.flush(out);
    return out;
  };
  CHECK(decode_bytes("a\x80z") == "a" + kBad + "z");
  CHECK(decode_bytes("\xE4\xBD\xA0") == "\xE4\xBD\xA0");
  CHECK(decode_bytes("\xE4\xBDz") == kBad + "z");
  CHECK(decode_bytes("\xC0\xAF") == kBad + kBad);
  CHECK(decode_bytes("\xE0\x80\xAF") == kBad + kBad + kBad);
  CHECK(decode_bytes("\xED\xA0\x80") == kBad + kBad + kBad);
  CHECK(decode_bytes("\xF0\x9F\x98") == kBad);
  CHECK(decode_bytes("\xF0\x9F\xF0\x9F\x98\x80") == kBad + "\xF0\x9F\x98\x80");
  CHECK(decode_bytes("\xF4\x90\x80\x80") == kBad + kBad + kBad + kBad);
  CHECK(utf8_complete("a\xE4\xBD\xA0") == 4);
  CHECK(utf8_complete("a\xE4\xBD") == 1);
  CHECK(utf8_complete("\xE4\x41") == std::string_view::npos);
  CHECK(utf8_complete("\xEF\xBF\xBD\xEF") == 3);

  std::mt19937 random(1);
  const std::string alphabet = "a\x80\xA0\xBF\x90\x8F\x9F\xC0\xC2\xDF\xE0\xE4\xED\xEF\xBD\xF0\xF1\xF4\xF5\xFF";
  for (int round = 0; round < 20000; ++round) {
    std::string bytes, out;
    for (auto n = random() % 8; n > 0; --n) bytes += alphabet[random() % alphabet.size()];
    const std::string expected = reference_utf8(bytes);
    REQUIRE(decode_bytes(bytes) == expected);
    Utf8Stream stream;
    for (const char c : bytes) stream.push(out, {&c, 1});
    stream.flush(out);
    REQUIRE(out == expected);
    const size_t complete = utf8_complete(bytes);
    CHECK((complete == bytes.size()) == (expected == bytes));
  }
}

TEST_CASE("detokenizer: characters split over tokens come out whole") {
  const TokenTable table = make_table({"\xF0\x9F", "\x98\x80", "hi", "\xE4"});
  const SamplingConfig config;
  Detokenizer detokenizer(table, config, false);
  detokenizer.push(2);
  detokenizer.push(0);
  CHECK(detokenizer.text() == "hi");
  detokenizer.push(1);
  CHECK(detokenizer.text() == "hi\xF0\x9F\x98\x80");
  detokenizer.push(3);
  CHECK(detokenizer.n_ready() == 6);
  detokenizer.flush();
  CHECK(detokenizer.text() == "hi\xF0\x9F\x98\x80" + kBad);
  CHECK(token_text(table, 3) == kBad);
  CHECK(token_text(table, 2) == "hi");
}

TEST_CASE("detokenizer: special tokens, unknown ids") {
  const TokenTable table = make_table({"<|end|>", "a", "b"});
  SamplingConfig config;
  CHECK(decode(table, {1, 0, 2, 99, -1}, config) == "ab");
  config.skip_special_tokens = false;
  CHECK(decode(table, {1, 0, 2}, config) == "a<|end|>b");
}

TEST_CASE("detokenizer: sentencepiece drops one space at the start of a text, not of a continuation") {
  TokenTable table = make_table({" Hello", " ", "<|s|>", " you"});
  table.strip_leading_space = true;
  CHECK(decode(table, {0, 3}) == "Hello you");
  CHECK(decode(table, {2, 0, 3}) == "Hello you");
  CHECK(decode(table, {1, 0}) == " Hello");
  CHECK(decode(table, {0, 3}, {}, true) == " Hello you");
  SamplingConfig config;
  config.skip_special_tokens = false;
  CHECK(decode(table, {2, 0}, config) == "<|s|> Hello");
}

TEST_CASE("detokenizer: runs of byte tokens are valid as a whole or not at all") {
  TokenTable table = make_byte_table({"x", " y"});
  CHECK(decode(table, {0xE4, 0xBD, 0xA0, 0xFF, 256}) == "\xE4\xBD\xA0" + kBad + "x");
  table.whole_byte_runs = true;
  table.strip_leading_space = true;
  CHECK(decode(table, {0xE4, 0xBD, 0xA0, 256}) == "\xE4\xBD\xA0x");
  CHECK(decode(table, {0xE4, 0xBD, 0xA0, 0xFF, 256}) == kBad + kBad + kBad + kBad + "x");
  CHECK(decode(table, {0xE4, 0xBD, 256}) == kBad + kBad + "x");
  CHECK(decode(table, {' ', 0xE4, 0xBD, 0xA0}) == "\xE4\xBD\xA0");
  CHECK(decode(table, {' ', 257}) == " y");
  CHECK(decode(table, {257, 257}) == "y y");

  // Not shown before the run has ended, but a stop string in it is seen at once.
  SamplingConfig config;
  config.stop = {"\n\n"};
  Detokenizer detokenizer(table, config, false);
  detokenizer.push(256);
  CHECK(!detokenizer.push('\n'));
  CHECK(detokenizer.n_ready() == 1);
  CHECK(detokenizer.push('\n'));
  CHECK(detokenizer.text() == "x");
}

TEST_CASE("detokenizer: stop strings cut the text") {
  const TokenTable table = make_table({"ab", "cd", "e", "xxabcdyy"});
  SamplingConfig config;
  config.stop = {"cde", "bc"};
  CHECK(decode(table, {0, 1, 2}, config) == "a");
  config.include_stop_str_in_output = true;
  CHECK(decode(table, {0, 1, 2}, config) == "abc");
  config.include_stop_str_in_output = false;
  config.stop = {"cdyy", "d", "bcd"};  // "d" and "bcd" end first, "d" is earlier in the list
  Detokenizer detokenizer(table, config, false);
  CHECK(detokenizer.push(3));
  CHECK(detokenizer.text() == "xxabc");
  CHECK(detokenizer.stop_index() == 1);
  detokenizer.push(0);
  detokenizer.flush();
  CHECK(detokenizer.text() == "xxabc");
}

TEST_CASE("detokenizer: a stop string completed by the first min_tokens tokens does not count") {
  const TokenTable table = make_table({"ab", "b", "a"});
  SamplingConfig config;
  config.stop = {"ab"};
  config.min_tokens = 2;
  CHECK(decode(table, {0, 0, 0}, config) == "abab");
  CHECK(decode(table, {0, 2, 1, 1}, config) == "ab");
}

TEST_CASE("detokenizer: random streams: deltas join to the text, nothing shown is taken back") {
  std::mt19937 random(2);
  TokenTable plain = make_byte_table({"ab", "ba", "\xE4\xBD", "\xA0", "aab", " a"});
  for (int round = 0; round < 5000; ++round) {
    TokenTable table = plain;
    table.whole_byte_runs = round % 2 == 0;
    table.strip_leading_space = round % 3 == 0;
    SamplingConfig config;
    const std::string letters = "ab \xE4";
    for (auto n = random() % 4; n > 0; --n) {
      std::string stop;
      for (auto m = 1 + random() % 4; m > 0; --m) stop += letters[random() % 3];
      config.stop.push_back(random() % 4 == 0 ? "\xE4\xBD\xA0" : stop);
    }
    config.include_stop_str_in_output = random() % 2 == 0;
    config.min_tokens = random() % 3 == 0 ? 4 : 0;
    std::vector<Token> ids;
    for (auto n = random() % 20; n > 0; --n) {
      const Token byte = static_cast<unsigned char>(letters[random() % letters.size()]);
      ids.push_back(random() % 2 ? byte : static_cast<Token>(256 + random() % 6));
    }

    Detokenizer detokenizer(table, config, false);
    std::string shown;
    std::vector<Token> taken;
    bool stopped = false;
    for (const Token id : ids) {
      taken.push_back(id);
      stopped = detokenizer.push(id);
      const size_t n_ready = detokenizer.n_ready();
      REQUIRE(n_ready >= shown.size());
      REQUIRE(detokenizer.text().compare(0, shown.size(), shown) == 0);
      shown = detokenizer.text().substr(0, n_ready);
      REQUIRE(utf8_complete(shown) == shown.size());
      if (stopped) break;
    }
    detokenizer.flush();
    REQUIRE(detokenizer.text().compare(0, shown.size(), shown) == 0);

    // Against the decoded whole: the first end of a stop string after what min_tokens protects.
    SamplingConfig no_stop;
    const std::string whole = decode(table, taken, no_stop);
    if (!stopped) {
      CHECK(detokenizer.text() == whole);
    } else {
      const std::string& stop = config.stop[static_cast<size_t>(detokenizer.stop_index())];
      const std::string with_stop = detokenizer.text() + (config.include_stop_str_in_output ? "" : stop);
      CHECK(with_stop.ends_with(stop));
      CHECK(whole.starts_with(with_stop));
      if (config.min_tokens == 0) {
        for (const std::string& other : config.stop) {
          const size_t start = whole.find(other);
          CHECK((start == std::string::npos || start + other.size() >= with_stop.size()));
        }
      }
      CHECK(std::ssize(taken) > config.min_tokens);
    }
  }
}
