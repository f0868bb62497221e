#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "text/merges.h"

using namespace octavo;

namespace {

std::vector<Merge> merges_of(const std::vector<std::string>& tokens, const std::vector<float>& scores) {
  const std::vector<std::string_view> texts(tokens.begin(), tokens.end());
  return merges_from_scores(texts, scores);
}

// Every pair of tokens whose texts make a token, in the order the header promises.
std::vector<Merge> all_pairs(const std::vector<std::string>& tokens, const std::vector<float>& scores) {
  std::map<std::string, int32_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) ids[tokens[id]] = static_cast<int32_t>(id);
  std::vector<std::tuple<float, int32_t, Merge>> found;
  for (const auto& [left, left_id] : ids)
    for (const auto& [right, right_id] : ids)
      if (const auto whole = ids.find(left + right); whole != ids.end())
        found.emplace_back(-scores[whole->second], whole->second, Merge{left_id, right_id});
  std::ranges::sort(found);
  std::vector<Merge> merges;
  for (const auto& row : found) merges.push_back(std::get<Merge>(row));
  return merges;
}

}  // namespace

TEST_CASE("merges from scores are all pairs of tokens that make a token, best first") {
  const std::vector<std::string> letters = {"a", "b", "\xE2\x96\x81", "\xC3\xA9", "\xF0\x9F\x98\x80"};
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::string> tokens = letters;
    while (tokens.size() < 60) {
      const std::string token = tokens[random() % tokens.size()] + tokens[random() % tokens.size()];
      if (std::ranges::find(tokens, token) == tokens.end()) tokens.push_back(token);
    }
    std::ranges::shuffle(tokens, random);
    std::vector<float> scores;
    for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(random() % 20));
    const auto expected = all_pairs(tokens, scores);
    CHECK(expected.size() >= tokens.size() - letters.size());
    CHECK(merges_of(tokens, scores) == expected);
  }
}

TEST_CASE("merges cut between characters only") {
  CHECK(merges_of({"\xC3", "\xA9", "\xC3\xA9"}, {0, 0, 0}).empty());
  CHECK(merges_of({"", "a"}, {0, 0}).empty());
}

TEST_CASE("a score that is no number is the lowest") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Merge> merges = merges_of({"a", "aa", "b", "bb"}, {nan, nan, -1, -2});
  CHECK(merges == std::vector<Merge>{{2, 2}, {0, 0}});
}

TEST_CASE("a huge token is cut in linear time") {
  const std::string half(1 << 21, 'a');
  CHECK(merges_of({half, half + half}, {0, 0}) == std::vector<Merge>{{0, 0}});
}

TEST_CASE("every token needs a score") { CHECK_THROWS_AS(merges_of({"a", "b"}, {0}), Error); }
