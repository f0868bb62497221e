// The magnitudes of codebook formats with AVX-512 VBMI, 64 entries at a time: their packed digits are looked up in
// tables in registers (vpermi2b), laid out (vpermi2b), cut into bytes (vpmultishiftqb) and made levels (vpermb).

#pragma once

#include "kernels/body/entries_common.inl"

namespace octavo {
namespace {

// The indices of 64 entries: their low bytes, and a mask for each bit above.
struct Indices {
  Vi low;
  uint64_t ninth = 0, tenth = 0;
};

struct alignas(64) Bytes64 {
  uint8_t bytes[64];
};
inline Vi load_bytes(const Bytes64& b) { return load_bytes(b.bytes); }

// place(i) for each byte.
template <class Place>
constexpr Bytes64 bytes_from(Place place) {
  Bytes64 b{};
  for (int i = 0; i < 64; ++i) b.bytes[i] = static_cast<uint8_t>(place(i));
  return b;
}

// Bytes of two rows: those with an index in each eight bytes, and the lower ones of words.
constexpr Bytes64 kIndexBytes = bytes_from([](int i) { return i / 4 * 8 + i % 4; });
constexpr Bytes64 kLowBytes = bytes_from([](int i) { return i * 2; });

inline Indices indices(const BlockIQ2_XXS* rows) {
  return {_mm512_permutex2var_epi8(load_bytes(rows[0].qs), load_bytes(kIndexBytes), load_bytes(rows[1].qs))};
}
inline Indices indices(const BlockIQ2_XS* rows) {
  const Vi first = load_bytes(rows[0].qs), second = load_bytes(rows[1].qs);
  const auto ninth = [](Vi words) { return uint64_t{_mm512_test_epi16_mask(words, _mm512_set1_epi16(0x100))}; };
  return {_mm512_permutex2var_epi8(first, load_bytes(kLowBytes), second), ninth(first) | ninth(second) << 32};
}
inline Indices indices(const BlockIQ2_S* rows) {
  const auto low = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[i].qs)); };
  const auto high = [&](int i, uint64_t bits) { return _pext_u64(load_as<uint64_t>(rows[i].qh), bits); };
  constexpr uint64_t kEven = 0x5555555555555555;
  return {_mm512_inserti64x4(_mm512_castsi256_si512(low(0)), low(1), 1), high(0, kEven) | high(1, kEven) << 32,
          high(0, ~kEven) | high(1, ~kEven) << 32};
}
inline Indices indices(const BlockIQ3_XXS* rows) { return {load_bytes(rows->qs)}; }
inline Indices indices(const BlockIQ3_S* rows) { return {load_bytes(rows->qs), load_as<uint64_t>(rows->qh)}; }

// table[i] of kSize bytes.
template <int kSize>
inline Vi look_up(const uint8_t* table, const Indices& i, __mmask64 eighth) {
  if constexpr (kSize == 1024) {
    return _mm512_mask_blend_epi8(i.tenth, look_up<512>(table, i, eighth), look_up<512>(table + 512, i, eighth));
  } else if constexpr (kSize == 512) {
    return _mm512_mask_blend_epi8(i.ninth, look_up<256>(table, i, eighth), look_up<256>(table + 256, i, eighth));
  } else {
    const auto half = [&](int at) {
      return _mm512_permutex2var_epi8(load_bytes(table + at), i.low, load_bytes(table + at + 64));
    };
    return _mm512_mask_blend_epi8(eighth, half(0), half(128));
  }
}

// Where digits of `kBits` lie in a quadword of one entry of eight, or of two entries of four.
template <int kBits>
constexpr Bytes64 kShifts = bytes_from([](int i) { return kBits == 2 ? i % 8 * 2 : i % 8 / 4 * 32 + i % 4 * 3; });
// What the quadwords are made of: the words of eight entries, or the lower and the upper (64 on) bytes of sixteen.
constexpr Bytes64 kPairs = bytes_from([](int i) { return i / 8 * 2 + i % 2; });
constexpr Bytes64 kPlaces = bytes_from([](int i) { return i / 4 + i % 2 * 64; });

// By bytes with a digit in their lowest bits.
template <int kLevelCount>
constexpr Bytes64 levels_of(const uint8_t (&levels)[kLevelCount]) {
  return bytes_from([&](int i) { return levels[i % kLevelCount]; });
}
constexpr uint8_t kThree[] = {8, 25, 43, 0}, kEight[] = {4, 12, 20, 28, 36, 44, 52, 62},
                  kOdd[] = {1, 3, 5, 7, 9, 11, 13, 15};
template <class Block>
constexpr Bytes64 kLevels = levels_of(kThree);
template <>
constexpr Bytes64 kLevels<BlockIQ3_XXS> = levels_of(kEight);
template <>
constexpr Bytes64 kLevels<BlockIQ3_S> = levels_of(kOdd);

// The digits of 64 entries: their lower and their upper bytes.
template <class Block>
inline void look_up_digits(Vi& low, Vi& high, const Block* rows, const typename Block::Codebook& codebook) {
  constexpr int kSize = Block::Codebook::kSize;
  const Indices at = indices(rows);
  const __mmask64 eighth = _mm512_movepi8_mask(at.low);
  const uint8_t* digits = codebook.digits[0];
  // Left alone, GCC would keep tables that fill all registers in registers.
  if constexpr (kSize > 512) __asm__("" : "+r"(digits));
  low = look_up<kSize>(digits, at, eighth);
  high = look_up<kSize>(digits + kSize, at, eighth);
}

// Those of kRows rows.
template <class Block>
class Magnitudes {
  using Book = typename Block::Codebook;
  static constexpr int kBits = sizeof(typename Book::Word) == 8 ? 2 : 3;
  static constexpr int kEntriesOfRow = 256 / sizeof(typename Book::Word), kEntriesOfVector = kEntriesOfRow / 4;

 public:
  static constexpr int kRows = 64 / kEntriesOfRow;
  Magnitudes(const Block* rows, const Book& codebook) {
    Vi low, high;
    look_up_digits(low, high, rows, codebook);
    words_[0] = kBits == 2 ? _mm512_unpacklo_epi8(low, high) : low;
    words_[1] = kBits == 2 ? _mm512_unpackhi_epi8(low, high) : high;
  }

  // Vector p of row i.
  Vi vector(int i, int p) const {
    const Vi digits = _mm512_multishift_epi64_epi8(load_bytes(kShifts<kBits>), words(i, p));
    return _mm512_permutexvar_epi8(digits, load_bytes(kLevels<Block>));
  }

 private:
  // Its entries, one to a quadword or two.
  Vi words(int i, int p) const {
    if constexpr (kBits == 2) {
      const Vi lane = _mm512_set1_epi8(static_cast<char>((i * 4 + p) / 2 * 16));
      return _mm512_permutexvar_epi8(_mm512_add_epi8(load_bytes(kPairs), lane), words_[p % 2]);
    } else {
      const auto first = static_cast<char>(p * kEntriesOfVector);
      const Vi places = _mm512_add_epi8(load_bytes(kPlaces), _mm512_set1_epi8(first));
      return _mm512_permutex2var_epi8(words_[0], places, words_[1]);
    }
  }

  Vi words_[2];  // of entries of eight: those of every other eight; of entries of four: their lower, their upper bytes
};

// Seven sign bits with the eighth that makes their number even.
struct EvenSigns {
  alignas(64) uint8_t of[128];
};
constexpr EvenSigns even_signs() {
  EvenSigns signs{};
  for (int i = 0; i < 128; ++i) signs.of[i] = static_cast<uint8_t>(i | __builtin_parity(static_cast<unsigned>(i)) << 7);
  return signs;
}
constexpr EvenSigns kEvenSigns = even_signs();

// Of bytes that hold seven in their lower bits.
inline Vi with_eighth(Vi sevens) {
  return _mm512_permutex2var_epi8(load_bytes(kEvenSigns.of), sevens, load_bytes(kEvenSigns.of + 64));
}

// What words hold that have four times seven sign bits, and a scale in the upper four: each is of 32 weights.
struct SignWords {
  explicit SignWords(Vi words)
      : signs(with_eighth(_mm512_multishift_epi64_epi8(load_bytes(kSevens), words))),
        scales(mul_ints(or_bits(shift_left<1>(shift_right<28>(words)), set1i(1)), set1i(0x10001))) {}
  static constexpr Bytes64 kSevens = bytes_from([](int i) { return i % 8 / 4 * 32 + i % 4 * 7; });
  Vi signs;   // a byte for each eight weights
  Vi scales;  // in both halves of a lane
};

inline SignWords sign_words(const BlockIQ2_XXS* rows) {
  const Vi odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return SignWords(_mm512_permutex2var_epi32(loadi(rows[0].qs), odd, loadi(rows[1].qs)));
}
inline SignWords sign_words(const BlockIQ3_XXS* row) {
  return SignWords(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row->scale_signs))));
}
inline Vi sign_bytes(const BlockIQ2_XS* rows) {
  return with_eighth(_mm512_permutex2var_epi8(_mm512_srli_epi16(loadi(rows[0].qs), 9), load_bytes(kLowBytes),
                                              _mm512_srli_epi16(loadi(rows[1].qs), 9)));
}

template <class Block>
class WordSigns {
 public:
  explicit WordSigns(const Block* rows) : words_(sign_words(rows)) { storei(masks_, words_.signs); }
  SignBits negative(int i, int p) const { return masks_[i * 4 + p]; }
  Vi scales(int i, int p) const {
    const Vi half = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return _mm512_permutexvar_epi32(addi(half, set1i(i * 8 + p * 2)), words_.scales);
  }

 private:
  SignWords words_;
  alignas(64) uint64_t masks_[8];
};

template <class Block>
struct Signs : RowSigns<Block, Magnitudes<Block>::kRows> {
  using RowSigns<Block, Magnitudes<Block>::kRows>::RowSigns;
};
template <>
struct Signs<BlockIQ2_XXS> : WordSigns<BlockIQ2_XXS> {
  using WordSigns::WordSigns;
};
template <>
struct Signs<BlockIQ3_XXS> : WordSigns<BlockIQ3_XXS> {
  using WordSigns::WordSigns;
};
template <>
struct Signs<BlockIQ2_XS> : RowSigns<BlockIQ2_XS, 2> {
  explicit Signs(const BlockIQ2_XS* rows) : RowSigns(rows) { storei(masks_, sign_bytes(rows)); }
  SignBits negative(int i, int p) const { return masks_[i * 4 + p]; }

 private:
  alignas(64) uint64_t masks_[8];
};

}  // namespace
}  // namespace octavo
