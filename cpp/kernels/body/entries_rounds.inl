// Few tokens by codebook formats with AVX-512 VBMI: a round takes 64 entries from tables in registers to dots. Shuffles
// bound it, so that nothing is put into the order of the rows: unpacking the entries' digits leaves four entries to a
// quadword, multishifts take one (of eight weights) or two (of four) from each, and what meets them, activations, signs
// and scales, lies in the same order. An entry's place is its lane of 128 bits, the half of the lane, the quadword that
// the half became, and its place there, j.

#pragma once

#include "kernels/body/entries_permuted.inl"

namespace octavo {
namespace {

// The eight sign bits of so many quadwords, by the vectors of a round.
template <int kVectors>
class SignMasks {
 public:
  // natural: a byte for each quadword in the order of the rows.
  explicit SignMasks(Vi natural) {
    constexpr int kStep = kVectors == 8 ? 4 : 2;  // quadwords of a row in a quadword of digits
    constexpr Bytes64 kOrder = bytes_from([](int i) {
      const int v = i / 8, lane = i % 8 / 2, quad = i % 2;
      return ((lane * 2 + v / kStep) * 2 + quad) * kStep + v % kStep;
    });
    storei(masks_, _mm512_permutexvar_epi8(load_bytes(kOrder), natural));
    __asm__("" : "+m"(masks_));  // from here into mask registers: by way of general ones it is much farther
  }
  SignBits of(int v) const { return masks_[v]; }

 private:
  alignas(64) uint64_t masks_[8];
};

inline Vi two_of_32(const void* first, const void* second) {
  const auto load = [](const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); };
  return _mm512_inserti64x4(_mm512_castsi256_si512(load(first)), load(second), 1);
}

// What a round's rows hold besides entries: `signs`, a byte for each eight weights in their order, and the scales of a
// pair of vectors.
template <class Block>
struct RoundScales;

template <>
struct RoundScales<BlockIQ2_XXS> : SignWords {
  explicit RoundScales(const BlockIQ2_XXS* rows) : SignWords(sign_words(rows)) {}
  Vi of(int pair) const {
    return pair < 2 ? _mm512_unpacklo_epi32(scales, scales) : _mm512_unpackhi_epi32(scales, scales);
  }
};

template <>
struct RoundScales<BlockIQ3_XXS> : SignWords {
  explicit RoundScales(const BlockIQ3_XXS* row) : SignWords(sign_words(row)) {}
  Vi of(int pair) const {
    const Vi lanes = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
    return _mm512_permutexvar_epi32(addi(lanes, set1i(pair)), scales);
  }
};

// Two rows with a factor for each sixteen weights.
template <class Block>
class FactorScales {
 public:
  explicit FactorScales(const Block* rows)
      : words_(_mm512_cvtepi8_epi16(_mm256_inserti128_si256(_mm256_castsi128_si256(Entries<Block>::factors(rows[0])),
                                                            Entries<Block>::factors(rows[1]), 1))) {}
  Vi of(int pair) const {
    constexpr int64_t kFourTimes = 0x0100010001000100;
    const auto word = [](int i) { return kFourTimes + i * 2 * 0x0101010101010101; };
    const int first = pair / 2 * 4 + pair % 2;
    const __m128i quads = _mm_set_epi64x(word(first + 2), word(first));
    return _mm512_shuffle_epi8(words_, _mm512_broadcast_i32x4(quads));
  }

 private:
  Vi words_;
};

template <>
struct RoundScales<BlockIQ2_XS> : FactorScales<BlockIQ2_XS> {
  explicit RoundScales(const BlockIQ2_XS* rows) : FactorScales(rows), signs(sign_bytes(rows)) {}
  const Vi signs;
};

template <>
struct RoundScales<BlockIQ2_S> : FactorScales<BlockIQ2_S> {
  explicit RoundScales(const BlockIQ2_S* rows) : FactorScales(rows), signs(two_of_32(rows[0].signs, rows[1].signs)) {}
  const Vi signs;
};

template <>
struct RoundScales<BlockIQ3_S> {
  explicit RoundScales(const BlockIQ3_S* row)
      : signs(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row->signs)))),
        words_(_mm512_castsi256_si512(_mm256_cvtepi8_epi16(Entries<BlockIQ3_S>::factors(*row)))) {}
  Vi of(int pair) const {
    const Vi lanes = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    return _mm512_permutexvar_epi16(mul_ints(addi(lanes, set1i(2 * pair)), set1i(0x10001)), words_);
  }
  const Vi signs;

 private:
  Vi words_;
};

// The digits of a round's entries.
template <class Block>
class Round {
  using Book = typename Block::Codebook;
  static constexpr bool kEights = sizeof(typename Book::Word) == 8;

 public:
  static constexpr int kRows = kEights ? 2 : 1;     // a half of every vector each, or all of it
  static constexpr int kVectors = kEights ? 8 : 4;  // two after each other have the same scales

  Round(const Block* rows, const Book& codebook) {
    Vi low, high;
    look_up_digits(low, high, rows, codebook);
    words_[0] = _mm512_unpacklo_epi8(low, high);
    words_[1] = _mm512_unpackhi_epi8(low, high);
  }

  Vi vector(int v) const {
    constexpr int kQuarter = kVectors / 2;
    const Vi shifts = _mm512_add_epi8(load_bytes(kEights ? kShifts<2> : kShiftsOfTwo),
                                      _mm512_set1_epi8(static_cast<char>(v % kQuarter * (64 / kQuarter))));
    return _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(shifts, words_[v / kQuarter]),
                                   load_bytes(kLevels<Block>));
  }

  // A super block of activations, as the vectors meet them.
  static void order(Vi (&vectors)[kVectors], const uint8_t* act) {
    Vi a[4];
    OCTAVO_UNROLL
    for (int i = 0; i < 4; ++i) a[i] = load_bytes(act + i * 64);
    OCTAVO_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const auto pick = [&](Vi first, Vi second, int64_t at, int64_t step) {
        const Vi places = _mm512_setr_epi64(at, at + step, at + 8, at + 8 + step, at, at + step, at + 8, at + 8 + step);
        return _mm512_permutex2var_epi64(first, places, second);
      };
      if constexpr (kEights)
        vectors[v] = pick(a[v / 4], a[2 + v / 4], v % 4, 4);
      else
        vectors[v] = _mm512_inserti64x4(pick(a[0], a[1], v / 2 * 4 + v % 2, 2),
                                        _mm512_castsi512_si256(pick(a[2], a[3], v / 2 * 4 + v % 2, 2)), 1);
    }
  }

 private:
  // Where the digits of two entries of four lie that follow each other.
  static constexpr Bytes64 kShiftsOfTwo = bytes_from([](int i) { return i % 8 / 4 * 16 + i % 4 * 3; });

  Vi words_[2];
};

// The sums of 16 rows from the vectors of their rounds.
template <class Block>
inline Vi sums_of_rounds(const Vi* sums) {
  return Round<Block>::kRows == 2 ? sums_of_row_pairs(sums) : sums_of_rows(sums);
}

// A super block of 16 rows times kTokens tokens, added to their outputs. Words hold two pairs of products, whose
// magnitudes are 62 at most: 4 * 62 * 127 < 2^15.
template <class Block, int kTokens>
void add_entries(const LinearTask& task, float* out, const Block* blocks, int64_t index, int token) {
  constexpr int kRows = Round<Block>::kRows, kVectors = Round<Block>::kVectors;
  const Q8x256Layout layout(task.k);
  const auto& codebook = *static_cast<const typename Block::Codebook*>(task.format->codebook);
  const uint8_t* act[kTokens];
  Vi activations[kTokens][kVectors], sums[kTokens][16 / kRows];
  OCTAVO_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    act[t] = task.act + (token + t) * task.act_stride;
    Round<Block>::order(activations[t], act[t] + index * 256);
  }
  const Units<Block> units(blocks);
  // Made before they are multiplied: a core does not look far enough ahead to do both at once.
  Round<Block> next(blocks, codebook);
  for (int round = 0; round < 16 / kRows; ++round) {
    const Round<Block> digits = next;
    next = Round<Block>(blocks + (round + 1) * kRows % 16, codebook);
    const RoundScales<Block> scales(blocks + round * kRows);
    const SignMasks<kVectors> negative(scales.signs);
    Vi sum[kTokens];
    OCTAVO_UNROLL
    for (Vi& s : sum) s = set1i(0);
    OCTAVO_UNROLL
    for (int pair = 0; pair < kVectors / 2; ++pair) {
      const Vi scale = scales.of(pair);
      const Vi first = digits.vector(2 * pair), second = digits.vector(2 * pair + 1);
      OCTAVO_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const auto dot = [&](Vi weights, int v) {
          return dot_byte_pairs(weights, negated_where(negative.of(v), activations[t][v]));
        };
        sum[t] = dot_pairs(sum[t], _mm512_add_epi16(dot(first, 2 * pair), dot(second, 2 * pair + 1)), scale);
      }
    }
    OCTAVO_UNROLL
    for (int t = 0; t < kTokens; ++t) sums[t][round] = sum[t];
  }
  add_to_outputs<kTokens>(task, out, index, token, units, [&](int t, int) { return sums_of_rounds<Block>(sums[t]); });
}

}  // namespace
}  // namespace octavo
